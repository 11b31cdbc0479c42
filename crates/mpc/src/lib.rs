//! Secure computation: the operations a network needs, as data ([`program`]), and what interprets them.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod program;
