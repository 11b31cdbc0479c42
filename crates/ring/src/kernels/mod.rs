//! Kernels over plain slices: products, convolutions, packed bits. Sizes are the caller's duty and are asserted.
//!
//! The fastest instructions that the processor has are found at run time ([`Isa::best`]); the plain versions in
//! `portable` are the oracle of the tests. Large products are split over the current rayon pool. Arithmetic in
//! a ring is exact, so neither the instructions nor the number of threads can change a result. No kernel branches
//! on, or addresses memory by, an element.

pub mod bits;
mod conv;
mod depthwise;
mod gemm;
mod gradient;
mod isa;
mod portable;
mod transposed;

pub use conv::conv2d;
pub use gemm::matmul;
pub use gradient::{conv2d_input, conv2d_weights};
pub use isa::Isa;
pub use transposed::{matmul_nt, matmul_tn};
