//! Kernels over plain slices: products, convolutions, packed bits. Sizes are the caller's duty and are asserted.

pub mod bits;
mod conv;
mod matmul;

pub use conv::conv2d;
pub use matmul::matmul;
