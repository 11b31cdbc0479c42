//! Networks: graph, clear evaluation, passes, range analysis, and compilation to a program for the servers.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod clear;
pub mod compile;
pub mod graph;
mod kernels;
pub mod pass;
mod real;

pub use real::Real;
