//! Data sets and inputs in the clear, on the client's side: what is read here has not been shared yet.
//!
//! [`load_dir`] reads a labelled set, [`load_input`] the input of a prediction, [`npy::write`] stores an
//! output, [`digits::generate`] draws a data set for those who have none and [`mnist::download`] fetches one.
//! Files are hostile until read: sizes are checked before memory is taken, and every error names the file.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod csv;
pub mod digits;
mod error;
mod file;
pub mod idx;
mod input;
mod labels;
pub mod mnist;
pub mod npy;
pub mod picture;
mod samples;
mod set;

pub use error::{DataError, Problem};
pub use input::load_input;
pub use labels::load_labels;
pub use npy::write as write_npy;
pub use picture::Resize;
pub use samples::{Samples, ShapeError};
pub use set::{Split, load_dir, load_dir_as};

/// The most values read from one file or set: 1 GiB as `f32`, five times MNIST.
pub const MAX_VALUES: usize = 1 << 28;
