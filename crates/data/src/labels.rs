//! One class per sample, from a file or a labelled set.

use std::path::Path;

use crate::file::{open, sniff};
use crate::input::Format;
use crate::{DataError, Problem, Split, csv, idx, load_dir, npy};

/// Reads labels: an .npy or IDX file of whole numbers, a .csv file with one column or one named "label", or those of a
/// labelled set that [`load_dir`] reads (its part to train on).
pub fn load_labels(path: &Path) -> Result<Vec<u32>, DataError> {
    if path.is_file() {
        let mut file = open(path)?;
        let head = sniff::<8>(&mut file).map_err(DataError::at(path))?;
        match Format::of(&head, path) {
            Some(Format::Npy) => return npy::read_labels(file).map_err(DataError::at(path)),
            Some(Format::Idx) => return idx::labels(file).map_err(DataError::at(path)),
            Some(Format::Csv) => {
                let table = csv::read(file, &csv::Options::default()).map_err(DataError::at(path))?;
                if table.shape == [1] {
                    let class = |(row, v): (usize, &f32)| whole(*v).ok_or(Problem::NotALabel { row, value: *v });
                    return table
                        .data
                        .iter()
                        .enumerate()
                        .map(class)
                        .collect::<Result<_, _>>()
                        .map_err(DataError::at(path));
                }
            }
            _ => {}
        }
    }
    load_dir(path, Split::Train)?.labels.ok_or(Problem::NoSet { split: "train" }).map_err(DataError::at(path))
}

/// A class: exact in `f32`.
fn whole(value: f32) -> Option<u32> {
    (value.fract() == 0.0 && (0.0..=16_777_216.0).contains(&value)).then_some(value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npy::tests::npy;

    #[test]
    fn every_format_gives_the_same_labels() {
        let dir = tempfile::tempdir().unwrap();
        let load = |name: &str, bytes: &[u8]| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            load_labels(&dir.path().join(name)).map_err(|e| e.to_string())
        };
        for (name, bytes) in [
            ("a.npy", npy("|u1", false, "(3,)", &[3, 0, 9])),
            ("a.idx", vec![0, 0, 8, 1, 0, 0, 0, 3, 3, 0, 9]),
            ("a.csv", b"3\n0\n9\n".to_vec()),
            ("b.csv", b"label\n3\n0\n9\n".to_vec()),
            ("c.csv", b"x,label\n1.5,3\n2,0\n3,9\n".to_vec()),
        ] {
            assert_eq!(load(name, &bytes), Ok(vec![3, 0, 9]), "{name}");
        }
        assert!(load("d.csv", b"1\n2.5\n").unwrap_err().contains("2.5"));
        assert!(load("e.csv", b"-1\n").unwrap_err().contains("-1"));
        assert!(load("f.txt", b"hello").is_err());
    }
}
