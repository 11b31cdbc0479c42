//! The binary as its users call it.

#![allow(clippy::unwrap_used)]

mod common;
mod features;
mod plain;
mod reveals;
mod served;
mod sets;
mod shown;
mod stage;
mod tapped;
mod training;
