//! Networks: graph, clear evaluation, passes, range analysis, and compilation to a program for the servers.
//!
//! ```
//! use trefoil_mpc::program::Reveal;
//! use trefoil_nn::{build, compile, range};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let graph = build::bench_net("D", 1)?;
//! let compiled = compile::compile(&graph, &compile::CompileOptions::default())?;
//! let report = range::check(&compiled, Reveal::Label, &(0.0..=1.0), None)?;
//! assert!(report.notes.is_empty());
//! let program = compiled.ending_in(Reveal::Label)?; // public: what the servers agree on
//! # assert!(program.steps.len() > 5);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod build;
mod clear;
pub mod compile;
pub mod fit;
pub mod graph;
mod kernels;
pub mod layers;
pub mod lower;
pub mod pass;
pub mod range;
mod real;
pub mod rng;
pub mod tape;
pub mod train;

pub use real::Real;
