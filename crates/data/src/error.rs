//! What can be wrong with a data file: the path, and the problem found in it.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::csv::CsvError;
use crate::idx::IdxError;
use crate::npy::NpyError;
use crate::picture::PictureError;
use crate::samples::ShapeError;

/// A file or folder that could not be read as asked.
#[derive(Debug, Error)]
#[error("{}: {problem}", path.display())]
pub struct DataError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

impl DataError {
    /// Says that `path` has this problem; for `map_err`.
    pub(crate) fn at<E: Into<Problem>>(path: &Path) -> impl Fn(E) -> Self + '_ {
        |problem| Self { path: path.into(), problem: problem.into() }
    }
}

/// What is wrong with a file or folder.
#[derive(Debug, Error)]
pub enum Problem {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Bad IDX.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// Bad NumPy array or archive.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// Bad picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// Bad table.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// Values that do not have the wanted shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// None of the formats read here.
    #[error("unknown format: expected .npy, .npz, .png, .jpg, .csv or IDX (plain or gzip)")]
    UnknownFormat,
    /// A number that is no class.
    #[error("row {row} (from 0) is {value}: no label, which is a whole number from 0")]
    NotALabel {
        /// The row.
        row: usize,
        /// The value.
        value: f32,
    },
    /// A folder that holds no data set.
    #[error(
        "no {split} set here: expected MNIST's files, images.npy with labels.npy, an .npz or .csv file, or one folder of pictures per class"
    )]
    NoSet {
        /// "train" or "test".
        split: &'static str,
    },
    /// An archive without the arrays wanted.
    #[error("no array named {} (it holds {})", wanted.join(" or "), found.join(", "))]
    NoArray {
        /// Names that would have done.
        wanted: Vec<String>,
        /// Names present.
        found: Vec<String>,
    },
    /// More than is read as one set.
    #[error("more than {} values in all", crate::MAX_VALUES)]
    TooLarge,
    /// A class without pictures.
    #[error("no .png or .jpg picture in this class")]
    EmptyClass,
}
