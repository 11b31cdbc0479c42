//! Training runs: their description, the rows, the clear twin, what goes to the servers, and what is shown.

pub(crate) mod clear;
pub(crate) mod consent;
pub(crate) mod curve;
pub(crate) mod data;
pub(crate) mod description;
pub(crate) mod explain;
pub(crate) mod features;
mod layers;
mod method;
pub(crate) mod private;
mod ranges;
pub(crate) mod report;
mod section;
pub(crate) mod served;
