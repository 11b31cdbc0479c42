//! What the parties say to each other besides the protocol itself.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod control;
