//! Labelled data sets: a folder or a file, its form told by what is in it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::csv::{self, Column};
use crate::file::{open, sniff};
use crate::input::Format;
use crate::npy::{self, Npz};
use crate::picture::{self, Resize};
use crate::{DataError, MAX_VALUES, Problem, Samples, mnist};

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// To train on.
    Train,
    /// To test on.
    Test,
}

impl Split {
    /// "train" or "test".
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }

    fn other(self) -> Self {
        match self {
            Split::Train => Split::Test,
            Split::Test => Split::Train,
        }
    }
}

/// The shape and size that samples are brought to.
type Wanted<'a> = Option<(&'a [usize], Resize)>;

/// Reads a labelled set, in the shape it is stored in. `path` is one of
///
/// - a folder with MNIST's four files, plain or gzip;
/// - a folder with `images.npy` and `labels.npy`;
/// - an .npz file with arrays `x_train`, `y_train`, `x_test`, `y_test`, or `x` and `y`; or a folder with one such file;
/// - a .csv file with a column named "label";
/// - a folder of pictures per class, all of the first one's size and brought to its channels. Folders named by numbers are those classes; otherwise classes
///   count from 0 in the order of their names.
///
/// A folder may hold the sets in subfolders, .npz or .csv files named "train" and "test". Where nothing tells the
/// splits apart, the one set is given for both.
pub fn load_dir(path: &Path, split: Split) -> Result<Samples, DataError> {
    load(path, split, None)
}

/// Like [`load_dir`], with samples brought to the `wanted` shape: arrays must have its layout, pictures are resized.
pub fn load_dir_as(path: &Path, split: Split, wanted: &[usize], resize: Resize) -> Result<Samples, DataError> {
    let set = load(path, split, Some((wanted, resize)))?;
    set.into_shape(wanted).map_err(DataError::at(path))
}

fn load(path: &Path, split: Split, wanted: Wanted) -> Result<Samples, DataError> {
    if path.is_file() {
        return load_file(path, split);
    }
    match (named(path, split), named(path, split.other())) {
        (Some(inner), _) if inner.is_file() => load_file(&inner, split),
        (Some(inner), _) => load_folder(&inner, split, wanted),
        (None, None) => load_folder(path, split, wanted),
        (None, Some(_)) => Err(DataError::at(path)(Problem::NoSet { split: split.name() })),
    }
}

/// The subfolder or file of a folder that has the split's name.
fn named(dir: &Path, split: Split) -> Option<PathBuf> {
    let child = |suffix: &str| dir.join(format!("{}{suffix}", split.name()));
    Some(child("")).filter(|p| p.is_dir()).or_else(|| [child(".npz"), child(".csv")].into_iter().find(|p| p.is_file()))
}

fn load_folder(dir: &Path, split: Split, wanted: Wanted) -> Result<Samples, DataError> {
    if let Some(set) = mnist::load(dir, split)? {
        return Ok(set);
    }
    let (images, labels) = (dir.join("images.npy"), dir.join("labels.npy"));
    if images.is_file() && labels.is_file() {
        let (shape, data) = npy::read(open(&images)?).map_err(DataError::at(&images))?;
        let labels = npy::read_labels(open(&labels)?).map_err(DataError::at(&labels))?;
        return Samples::from_batch(&shape, data, Some(labels)).map_err(DataError::at(&images));
    }
    let entries = entries(dir)?;
    let archives: Vec<_> = entries.iter().filter(|p| has_extension(p, &["npz"])).collect();
    if let [archive] = archives[..] {
        return load_file(archive, split);
    }
    let classes: Vec<_> = entries.into_iter().filter(|p| p.is_dir()).collect();
    if classes.is_empty() {
        return Err(DataError::at(dir)(Problem::NoSet { split: split.name() }));
    }
    load_classes(&classes, wanted)
}

fn load_file(path: &Path, split: Split) -> Result<Samples, DataError> {
    let at = DataError::at(path);
    let mut file = open(path)?;
    let head = sniff::<8>(&mut file).map_err(DataError::at(path))?;
    match Format::of(&head, path) {
        Some(Format::Npz) => {
            let (x, y) = match split {
                Split::Train => (["x_train", "x"], ["y_train", "y"]),
                Split::Test => (["x_test", "x"], ["y_test", "y"]),
            };
            let mut archive = Npz::open(file).map_err(DataError::at(path))?;
            let (shape, data) = archive.values(&x).map_err(&at)?;
            let labels = archive.labels(&y).map_err(&at)?;
            Samples::from_batch(&shape, data, Some(labels)).map_err(DataError::at(path))
        }
        Some(Format::Csv) => {
            let options = csv::Options { header: None, label: Some(Column::Name("label".into())) };
            csv::read(file, &options).map_err(DataError::at(path))
        }
        _ => Err(at(Problem::NoSet { split: split.name() })),
    }
}

/// Pictures in one folder per class.
fn load_classes(classes: &[PathBuf], wanted: Wanted) -> Result<Samples, DataError> {
    let numbers: Option<Vec<u32>> = classes.iter().map(|c| c.file_name()?.to_str()?.parse().ok()).collect();
    let numbers = numbers.unwrap_or_else(|| (0..).take(classes.len()).collect());
    let mut shape = wanted.map(|(shape, _)| shape.to_vec());
    let resize = wanted.map_or(Resize::Exact, |(_, resize)| resize);
    let (mut data, mut labels) = (Vec::new(), Vec::new());
    for (class, label) in classes.iter().zip(numbers) {
        let before = labels.len();
        for path in entries(class)?.iter().filter(|p| has_extension(p, &["png", "jpg", "jpeg"])) {
            let file = open(path)?;
            let values = match &shape {
                Some(shape) => picture::read(file, shape, resize).map_err(DataError::at(path))?,
                None => {
                    let (first, values) = picture::read_as_is(file).map_err(DataError::at(path))?;
                    shape = Some(first.to_vec());
                    values
                }
            };
            if data.len() + values.len() > MAX_VALUES {
                return Err(DataError::at(path)(Problem::TooLarge));
            }
            data.extend(values);
            labels.push(label);
        }
        if labels.len() == before {
            return Err(DataError::at(class)(Problem::EmptyClass));
        }
    }
    let first = &classes[0];
    Samples::new(shape.unwrap_or_default(), data, Some(labels)).map_err(DataError::at(first))
}

/// What is in a folder, by name; hidden entries left out.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    read().map_err(DataError::at(dir))
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|e| extensions.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npy::tests::{npy, npz};
    use crate::picture::png;

    fn dir(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        dir
    }

    fn grey(v: u8) -> Vec<u8> {
        png(2, 2, |_, _| [v, v, v, 255])
    }

    #[test]
    fn arrays_in_a_folder() {
        let d = dir(&[
            ("images.npy", npy("|u1", false, "(2, 2, 1)", &[1, 2, 3, 4])),
            ("labels.npy", npy("<i2", false, "(2,)", &[7, 0, 1, 0])),
        ]);
        let s = load_dir(d.path(), Split::Test).unwrap();
        assert_eq!((s.shape, s.data, s.labels), (vec![2, 1, 1], vec![1., 2., 3., 4.], Some(vec![7, 1])));
        fs::write(d.path().join("labels.npy"), npy("|u1", false, "(3,)", &[0; 3])).unwrap();
        let e = load_dir(d.path(), Split::Test).unwrap_err().to_string();
        assert!(e.contains("3 labels for 2 samples"), "{e}");
    }

    #[test]
    fn an_archive_keeps_its_splits_apart() {
        let one = |x: u8| npy("|u1", false, "(1, 1, 1)", &[x]);
        let label = |y: u8| npy("|u1", false, "(1,)", &[y]);
        let both = npz(&[("x_train", one(1)), ("y_train", label(2)), ("x_test", one(3)), ("y_test", label(4))]);
        let d = dir(&[("mnist.npz", both), ("plain/xy.npz", npz(&[("x", one(5)), ("y", label(6))]))]);
        let load = |path: &str, split| load_dir(&d.path().join(path), split).map(|s| (s.data[0], s.labels.unwrap()[0]));
        assert_eq!(load("mnist.npz", Split::Train).unwrap(), (1., 2));
        assert_eq!(load("mnist.npz", Split::Test).unwrap(), (3., 4));
        assert_eq!(load("", Split::Test).unwrap(), (3., 4));
        assert_eq!(load("plain", Split::Train).unwrap(), (5., 6));
        let unlabelled = dir(&[("x.npz", npz(&[("x", one(1))]))]);
        let e = load_dir(unlabelled.path(), Split::Test).unwrap_err().to_string();
        assert!(e.contains("no array named y_test or y (it holds x)"), "{e}");
    }

    #[test]
    fn tables_need_a_label_column() {
        let d = dir(&[("train.csv", b"label,a,b\n3,1,2\n".to_vec()), ("test.csv", b"1,2\n".to_vec())]);
        let s = load_dir_as(d.path(), Split::Train, &[1, 2, 1], Resize::Exact).unwrap();
        assert_eq!((s.shape, s.data, s.labels), (vec![1, 2, 1], vec![1., 2.], Some(vec![3])));
        let e = load_dir(d.path(), Split::Test).unwrap_err().to_string();
        assert!(e.contains("test.csv") && e.contains("no column \"label\""), "{e}");
    }

    #[test]
    fn pictures_in_a_folder_per_class() {
        let d = dir(&[
            ("test/9/a.png", grey(1)),
            ("test/9/notes.txt", vec![]),
            ("test/10/b.PNG", grey(2)),
            ("test/.x/c", vec![]),
        ]);
        let s = load_dir(d.path(), Split::Test).unwrap();
        assert_eq!((s.shape, s.labels), (vec![2, 2, 3], Some(vec![10, 9])));
        assert_eq!(s.data, [[2.0; 12], [1.0; 12]].concat());
        let named = dir(&[("cat/a.png", grey(1)), ("dog/a.png", png(4, 4, |_, _| [9, 9, 9, 255]))]);
        let e = load_dir(named.path(), Split::Train).unwrap_err().to_string();
        assert!(e.contains("dog") && e.contains("4x4"), "{e}");
        let s = load_dir_as(named.path(), Split::Train, &[2, 2, 3], Resize::Stretch).unwrap();
        assert_eq!((s.len(), s.labels), (2, Some(vec![0, 1])));
        fs::create_dir(named.path().join("bird")).unwrap();
        let e = load_dir(named.path(), Split::Train).unwrap_err().to_string();
        assert!(e.contains("bird: no .png"), "{e}");
    }

    #[test]
    fn one_split_is_never_taken_for_the_other() {
        let array = npz(&[("x", npy("|u1", false, "(1, 1)", &[1])), ("y", npy("|u1", false, "(1,)", &[1]))]);
        for (file, bytes) in
            [("train.npz", array), ("train/0/a.png", grey(1)), ("train.csv", b"label,a\n1,2\n".to_vec())]
        {
            let d = dir(&[(file, bytes)]);
            assert_eq!(load_dir(d.path(), Split::Train).unwrap().len(), 1, "{file}");
            let e = load_dir(d.path(), Split::Test).unwrap_err().to_string();
            assert!(e.contains("no test set here"), "{file}: {e}");
        }
    }

    #[test]
    fn other_folders_are_refused() {
        let d = dir(&[("notes.txt", vec![1])]);
        let e = load_dir(d.path(), Split::Train).unwrap_err().to_string();
        assert!(e.contains("no train set here"), "{e}");
        assert!(load_dir(&d.path().join("notes.txt"), Split::Train).unwrap_err().to_string().contains("no train set"));
        assert!(load_dir(&d.path().join("missing"), Split::Train).is_err());
    }
}
