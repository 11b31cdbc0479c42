//! Where MNIST comes from, and how its files are known to be the real ones.

/// Mirrors that are tried if none are named.
pub const MIRRORS: [&str; 2] =
    ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"];

/// A file to download. It is known by what it unpacks to: mirrors may compress it anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Its name on the mirrors and here.
    pub(super) name: &'static str,
    /// The most bytes accepted, compressed.
    pub(super) max_bytes: u64,
    /// Bytes it unpacks to.
    pub(super) unpacked_bytes: u64,
    /// SHA-256 of what it unpacks to, in hexadecimal.
    pub(super) sha256: &'static str,
}

/// The four files.
pub(super) const FILES: [Source; 4] = [
    Source {
        name: "train-images-idx3-ubyte.gz",
        max_bytes: 12 << 20,
        unpacked_bytes: 47_040_016,
        sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    },
    Source {
        name: "train-labels-idx1-ubyte.gz",
        max_bytes: 64 << 10,
        unpacked_bytes: 60_008,
        sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    Source {
        name: "t10k-images-idx3-ubyte.gz",
        max_bytes: 2 << 20,
        unpacked_bytes: 7_840_016,
        sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    },
    Source {
        name: "t10k-labels-idx1-ubyte.gz",
        max_bytes: 16 << 10,
        unpacked_bytes: 10_008,
        sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
];
