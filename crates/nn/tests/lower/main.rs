//! Lowered tapes beside the float interpreter.
#![allow(clippy::unwrap_used)]

mod common;
mod costs;
mod dump;
mod optimisers;
