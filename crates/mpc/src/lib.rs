//! Secure computation: the operations a network needs, as data ([`program`]), and what interprets them.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod compare;
pub mod cost;
pub mod error;
pub mod ideal;
pub mod limits;
pub mod masked;
pub mod plan;
pub mod program;

pub use compare::{Compare, Selecting};
pub use error::MpcError;
pub use program::{Prediction, Program, Reveal};
