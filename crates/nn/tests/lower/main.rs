//! Lowered tapes beside the float interpreter.
#![allow(clippy::unwrap_used)]

mod common;
mod costs;
mod extraction;
mod folding;
mod functions;
mod layers;
mod likelihoods;
mod networks;
mod optimisers;
