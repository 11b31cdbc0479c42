//! One party as a server: evaluator or producer.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod seal;
pub mod store;
