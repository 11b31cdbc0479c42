//! Networks: graph, clear evaluation, passes, range analysis, and compilation to a program for the servers.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod build;
mod clear;
pub mod compile;
pub mod graph;
mod kernels;
pub mod pass;
pub mod range;
mod real;
mod rng;
pub mod train;

pub use real::Real;
