//! Seeds, seekable streams and addressed draws: where every mask comes from.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod party;

pub use party::Party;
