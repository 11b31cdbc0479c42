//! Training in the clear: stochastic gradient descent with momentum on softmax cross-entropy.
//!
//! For a model owner's own data and for the demo. Results depend on data, options and seed only, not on threads.

mod backward;
pub mod init;
mod network;

use rayon::prelude::*;
use thiserror::Error;

use crate::graph::{Graph, GraphError};
use crate::rng::SplitMix;
use network::Network;

/// Samples that one thread takes at a time.
const CHUNK: usize = 8;

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainOptions {
    /// How often all samples are seen.
    pub epochs: usize,
    /// Samples per step.
    pub batch: usize,
    /// Step width.
    pub learning_rate: f64,
    /// Part of the last step that is taken again, 0 to below 1.
    pub momentum: f64,
    /// Seed of the order of the samples.
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { epochs: 3, batch: 32, learning_rate: 0.02, momentum: 0.9, seed: 1 }
    }
}

/// Where training stands after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Step within the epoch, from 0.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Mean loss of the step's samples.
    pub loss: f64,
    /// Part of the step's samples that were classified right.
    pub accuracy: f64,
}

/// Training that cannot start or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The graph makes no sense.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A layer that cannot be trained in the clear.
    #[error("layer {layer} cannot be trained here: {what}")]
    Unsupported {
        /// The layer.
        layer: String,
        /// Why.
        what: &'static str,
    },
    /// Data and labels that do not fit each other or the network.
    #[error("{elements} elements and {labels} labels: a sample has {size} elements")]
    Data {
        /// Elements given.
        elements: usize,
        /// Labels given.
        labels: usize,
        /// Elements of a sample.
        size: usize,
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
    /// An option that makes no sense.
    #[error("{what} is {value}")]
    Option {
        /// Which option.
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

/// Trains a chain of dense, convolution, pooling, ReLU and reshape layers on samples lying one after the other.
///
/// Starts from the weights in `graph` and stores the trained ones there at the end; `progress` is called after
/// every step.
pub fn train(
    graph: &mut Graph,
    data: &[f32],
    labels: &[u8],
    options: &TrainOptions,
    mut progress: impl FnMut(&Progress),
) -> Result<(), TrainError> {
    check_options(options)?;
    let mut network = Network::<f32>::new(graph)?;
    let (size, classes) = (network.inputs, network.classes);
    if labels.is_empty() || labels.len().checked_mul(size) != Some(data.len()) {
        return Err(TrainError::Data { elements: data.len(), labels: labels.len(), size });
    }
    if let Some(sample) = labels.iter().position(|&l| usize::from(l) >= classes) {
        return Err(TrainError::Label { sample, label: labels[sample], classes });
    }
    let mut rng = SplitMix::new(options.seed);
    let mut order: Vec<usize> = (0..labels.len()).collect();
    let steps = labels.len().div_ceil(options.batch);
    for epoch in 0..options.epochs {
        rng.shuffle(&mut order);
        for (step, batch) in order.chunks(options.batch).enumerate() {
            let outcomes: Vec<_> = batch
                .par_chunks(CHUNK)
                .map(|ids| {
                    let x: Vec<f32> = ids.iter().flat_map(|&i| &data[i * size..][..size]).copied().collect();
                    let y: Vec<u8> = ids.iter().map(|&i| labels[i]).collect();
                    network.outcome(&x, &y)
                })
                .collect();
            let Some(outcome) = outcomes.into_iter().reduce(|a, b| a.merge(b)) else { continue };
            let n = batch.len() as f64;
            let (loss, accuracy) = (outcome.loss / n, outcome.correct as f64 / n);
            if !loss.is_finite() {
                return Err(TrainError::Diverged { epoch, step, learning_rate: options.learning_rate });
            }
            network.descend(&outcome.gradients, batch.len(), options.learning_rate, options.momentum);
            progress(&Progress { epoch, step, steps, loss, accuracy });
        }
    }
    network.store(graph);
    Ok(())
}

fn check_options(o: &TrainOptions) -> Result<(), TrainError> {
    let fail = |what, value| Err(TrainError::Option { what, value });
    match o {
        _ if o.batch == 0 => fail("batch", 0.0),
        _ if !(o.learning_rate > 0.0 && o.learning_rate.is_finite()) => fail("learning rate", o.learning_rate),
        _ if !(0.0..1.0).contains(&o.momentum) => fail("momentum", o.momentum),
        _ => Ok(()),
    }
}
