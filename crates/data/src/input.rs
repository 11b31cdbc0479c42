//! The input of a prediction, from a file of any format read here.

use std::path::Path;

use crate::file::{open, sniff};
use crate::picture::{self, Resize};
use crate::{DataError, Problem, Samples, csv, idx, npy};

/// A format, told by a file's first bytes or else by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Npy,
    Npz,
    Picture,
    Idx,
    Csv,
}

impl Format {
    pub(crate) fn of(head: &[u8], path: &Path) -> Option<Self> {
        let csv = || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")).then_some(Format::Csv);
        match head {
            h if h.starts_with(npy::MAGIC) => Some(Format::Npy),
            [b'P', b'K', 3 | 5, _, ..] => Some(Format::Npz),
            [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => Some(Format::Picture),
            [0, 0, 8, 1..=4, ..] => Some(Format::Idx),
            h if h.starts_with(&idx::GZIP_MAGIC) => Some(Format::Idx),
            _ => csv(),
        }
    }
}

/// Reads one sample of the `wanted` shape, or a batch of them in a leading dimension, without labels.
///
/// Shapes may leave out dimensions of size one or be flat: for `[28, 28, 1]` an array of `[28, 28]`, `[784]`,
/// `[n, 28, 28]` or `[n, 784]` will do. Pictures are brought to the wanted size as `resize` says. An .npz archive
/// holds one array, or one named "x". A table has one sample per row.
pub fn load_input(path: &Path, wanted: &[usize], resize: Resize) -> Result<Samples, DataError> {
    let mut file = open(path)?;
    let head = sniff::<8>(&mut file).map_err(DataError::at(path))?;
    let format = Format::of(&head, path).ok_or(Problem::UnknownFormat).map_err(DataError::at(path))?;
    let read = || -> Result<Samples, Problem> {
        let (shape, data) = match format {
            Format::Picture => (wanted.to_vec(), picture::read(file, wanted, resize)?),
            Format::Npy => npy::read(file)?,
            Format::Npz => {
                let mut archive = npy::Npz::open(file)?;
                match &archive.names()[..] {
                    [only] => archive.values(&[only])?,
                    _ => archive.values(&["x"])?,
                }
            }
            Format::Idx => batch(idx::images(file)?),
            Format::Csv => batch(csv::read(file, &csv::Options::default())?),
        };
        Ok(Samples::from_array(&shape, data, wanted)?)
    };
    read().map_err(DataError::at(path))
}

/// Samples as an array with the number of samples in front.
fn batch(samples: Samples) -> (Vec<usize>, Vec<f32>) {
    let shape = std::iter::once(samples.len()).chain(samples.shape.iter().copied()).collect();
    (shape, samples.data)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::npy::tests::{npy, npz};
    use crate::picture::png;

    /// Writes `bytes` as a file and loads it.
    fn load(name: &str, bytes: &[u8], wanted: &[usize]) -> Result<Samples, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        load_input(&path, wanted, Resize::Exact).map_err(|e| e.to_string())
    }

    #[test]
    fn every_format_gives_the_same_samples() {
        let want = Samples { shape: vec![2, 2, 1], data: vec![1., 2., 3., 4.], labels: None };
        let array = npy("|u1", false, "(1, 2, 2, 1)", &[1, 2, 3, 4]);
        let picture =
            png(2, 2, |x, y| [[1 + x as u8 + 2 * y as u8; 3].as_slice(), &[255]].concat().try_into().unwrap());
        let other = npy("|u1", false, "(1,)", &[1]);
        for (name, bytes) in [
            ("a.npy", array.clone()),
            ("a.bin", array.clone()),
            ("flat.npy", npy("|u1", false, "(4,)", &[1, 2, 3, 4])),
            ("only.npz", npz(&[("arr_0", array.clone())])),
            ("x.npz", npz(&[("y", other), ("x", array)])),
            ("a.png", picture),
            ("a.idx", vec![0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4]),
            ("a.csv", b"1,2,3,4\n".to_vec()),
        ] {
            assert_eq!(load(name, &bytes, &[2, 2, 1]).as_ref(), Ok(&want), "{name}");
        }
        assert_eq!(load("n.csv", b"p0,p1\n1,2\n3,4\n5,6\n", &[2]).unwrap().len(), 3);
    }

    #[test]
    fn errors_name_the_file_and_both_shapes() {
        let e = load("a.npy", &npy("|u1", false, "(3, 2)", &[0; 6]), &[2, 2, 1]).unwrap_err();
        assert!(e.contains("a.npy: shape [3, 2]") && e.contains("[2, 2, 1]"), "{e}");
        let e = load("a.csv", b"1,2,3\n", &[2, 2, 1]).unwrap_err();
        assert!(e.contains("a.csv: shape [1, 3]") && e.contains("[2, 2, 1]"), "{e}");
        let e = load("a.txt", b"hello", &[2]).unwrap_err();
        assert!(e.contains("a.txt: unknown format"), "{e}");
        let two = npz(&[("a", npy("|u1", false, "(1,)", &[1])), ("b", npy("|u1", false, "(1,)", &[1]))]);
        let e = load("two.npz", &two, &[1]).unwrap_err();
        assert!(e.contains("no array named x (it holds a, b)"), "{e}");
        let e = load_input(Path::new("no/such/file.npy"), &[1], Resize::Exact).unwrap_err().to_string();
        assert!(e.starts_with("no/such/file.npy: "), "{e}");
        assert!(load_input(Path::new("."), &[1], Resize::Exact).is_err());
    }
}
