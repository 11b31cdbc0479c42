//! Keras models in HDF5: what they become, what is refused, and what damaged files do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod files;
mod forward;
mod golden;
mod hostile;
mod layers;
mod refused;
mod saved;
mod training;
mod written;
