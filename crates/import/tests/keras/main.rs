//! Keras models in HDF5: what they become, what is refused, and what damaged files do.

mod files;
mod forward;
mod golden;
mod hostile;
mod layers;
mod refused;
mod written;
