//! MNIST: its four files, read from a folder or downloaded into one.

mod download;
mod source;

use std::path::{Path, PathBuf};

pub use download::{DownloadError, Failure, Mismatch, download};
pub use source::MIRRORS;

use crate::file::open;
use crate::{DataError, Samples, Split, idx};

/// Reads a split from the folder of its files, plain or gzip; `None` if they are not there.
pub(crate) fn load(dir: &Path, split: Split) -> Result<Option<Samples>, DataError> {
    let stem = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let (Some(images), Some(labels)) = (find(dir, stem, "images", 3), find(dir, stem, "labels", 1)) else {
        return Ok(None);
    };
    let set = idx::images(open(&images)?).map_err(DataError::at(&images))?;
    let classes = idx::labels(open(&labels)?).map_err(DataError::at(&labels))?;
    Samples::new(set.shape, set.data, Some(classes)).map(Some).map_err(DataError::at(&labels))
}

fn find(dir: &Path, stem: &str, what: &str, rank: u8) -> Option<PathBuf> {
    ["-", "."]
        .iter()
        .flat_map(|dash| ["", ".gz"].map(|gz| dir.join(format!("{stem}-{what}{dash}idx{rank}-ubyte{gz}"))))
        .find(|p| p.is_file())
}

/// The real files, for tests; `None` (said aloud) where they are not at hand.
#[cfg(test)]
pub(crate) fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("TREFOIL_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let dir = root.join("data/mnist");
    if !dir.is_dir() {
        eprintln!("skipped: no MNIST in {}", dir.display());
        return None;
    }
    Some(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::load_dir;

    #[test]
    fn the_real_set_is_read() {
        let Some(dir) = shared() else { return };
        let test = load_dir(&dir, Split::Test).unwrap();
        assert_eq!((test.len(), &test.shape[..]), (10_000, &[28, 28, 1][..]));
        assert_eq!(test.labels.as_ref().unwrap()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
        let first: f32 = test.sample(0).unwrap().iter().sum();
        assert!((10_000.0..40_000.0).contains(&first), "{first}");
        assert_eq!(load_dir(&dir, Split::Train).unwrap().len(), 60_000);
    }

    #[test]
    fn both_spellings_are_found() {
        let images = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5];
        let labels = [0, 0, 8, 1, 0, 0, 0, 1, 4];
        for (i, l) in [
            ("t10k-images-idx3-ubyte", "t10k-labels.idx1-ubyte"),
            ("t10k-images.idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(i), images).unwrap();
            assert!(load(dir.path(), Split::Test).unwrap().is_none(), "images alone are no set");
            fs::write(dir.path().join(l), labels).unwrap();
            let s = load(dir.path(), Split::Test).unwrap().unwrap();
            assert_eq!((s.data, s.labels), (vec![5.0], Some(vec![4])));
            assert!(load(dir.path(), Split::Train).unwrap().is_none());
        }
    }
}
