//! Networks: graph, clear evaluation, passes, range analysis, and compilation to a program for the servers.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod build;
mod clear;
pub mod compile;
pub mod graph;
mod kernels;
pub mod pass;
mod real;
mod rng;

pub use real::Real;
