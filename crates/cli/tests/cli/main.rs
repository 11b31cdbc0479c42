//! The binary as its users call it.

#![allow(clippy::unwrap_used)]

mod common;
mod plain;
mod reveals;
mod served;
mod sets;
mod tapped;
mod training;
