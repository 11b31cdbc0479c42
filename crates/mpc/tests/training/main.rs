//! Programs that train, on three parties against the ideal functionality and against the cost that was predicted.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod common;
mod kinds;
mod likelihoods;
mod local;
mod network;
mod permuted;
mod random;
mod refused;
mod shuffle;
mod views;
