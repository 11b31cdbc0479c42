//! Keras models: what they become, what is refused, and what damaged files do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod archives;
mod files;
mod forward;
mod golden;
mod hostile;
mod layers;
mod refused;
mod saved;
mod training;
mod written;
