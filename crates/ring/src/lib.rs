//! Tensors over the ring Z_2^64, packed bit planes, fixed point, and the kernels that work on them.
//!
//! Nothing here knows who holds what: a [`Tensor`] is a shape and contiguous words. Every ring tensor is
//! treated as secret all the same: it is erased when dropped and `Debug` prints its shape only.
#![deny(missing_docs)]

pub mod fixed;
pub mod geometry;
pub mod kernels;
mod spare;
pub mod tensor;
pub mod words;

pub use fixed::{FixedError, FixedPoint};
pub use geometry::{Conv2d, GeometryError, Pads, Pool2d};
pub use tensor::{ShapeError, Tensor};
pub use words::Words;

#[cfg(target_endian = "big")]
compile_error!("tensors are sent from where they lie, in little-endian order: big-endian targets are not supported");
