//! Training: gradients against PyTorch and against differences, optimisers, convergence, refusals.
#![allow(clippy::unwrap_used)]

mod differences;
mod golden;
mod learns;
mod networks;
mod pools;
mod refuses;
