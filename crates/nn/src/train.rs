//! Training, described once: what it is ([`TrainSpec`]), its tapes ([`Tapes`]), and running them in the clear.

pub mod clear;
mod clip;
pub mod frozen;
pub mod init;
pub mod loss;
mod optimiser;
pub mod order;
mod patience;
mod schedule;
mod spec;
mod step;

use thiserror::Error;

use crate::graph::GraphError;
use crate::tape::TapeError;
pub use loss::Loss;
pub use optimiser::Optimiser;
pub use patience::Patience;
pub use schedule::{Decay, Schedule};
pub use spec::{Clip, TrainSpec};
pub use step::{Metrics, Tapes};

/// Training that cannot start or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The graph makes no sense.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Something that cannot be trained.
    #[error(transparent)]
    Tape(#[from] TapeError),
    /// Likelihoods shown to a server by a loss that has none.
    #[error("only softmax cross-entropy has class likelihoods that a server could be shown")]
    Likelihoods,
    /// Records that do not fit the network and its loss.
    #[error("{elements} numbers are no whole records of {size}: the features, then the label")]
    Records {
        /// Numbers given.
        elements: usize,
        /// Numbers of a record.
        size: usize,
    },
    /// Features and labels that do not fit each other.
    #[error("{elements} numbers cannot be divided among {labels} labelled samples")]
    Labels {
        /// Numbers given.
        elements: usize,
        /// Labels given.
        labels: usize,
    },
    /// A label that is no output of the network.
    #[error("label {label} of sample {sample}: the network has {classes} outputs")]
    Label {
        /// Which sample.
        sample: usize,
        /// Its label.
        label: u8,
        /// Outputs of the network.
        classes: usize,
    },
    /// A record that holds no number.
    #[error("row {row}, column {column} is {value}")]
    Number {
        /// Which record.
        row: usize,
        /// Which of its numbers.
        column: usize,
        /// Its value.
        value: f32,
    },
    /// Not one full batch.
    #[error("{samples} samples to train on: a batch has {batch}")]
    TooFew {
        /// Samples, those for validation left out.
        samples: usize,
        /// Samples of a batch.
        batch: usize,
    },
    /// Waiting for a validation loss that nothing is kept for.
    #[error("patience needs rows kept for validation")]
    Patience,
    /// A setting that makes no sense.
    #[error("{what} is {value}")]
    Option {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The loss is no number any more: the steps are too wide.
    #[error("training diverged in epoch {epoch}, step {step}: lower the learning rate ({learning_rate})")]
    Diverged {
        /// Epoch, from 0.
        epoch: usize,
        /// Step within the epoch.
        step: usize,
        /// The rate used.
        learning_rate: f64,
    },
}
