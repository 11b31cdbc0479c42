//! Where the tests' files lie.

use std::io::Write;
use std::path::{Path, PathBuf};

/// A file beside these tests.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A file of the shared folder, or `None` after saying so.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TREFOIL_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    // Not through println: the test runner would hide it.
    let _ = writeln!(std::io::stderr(), "skipped: {} is not there", path.display());
    None
}
