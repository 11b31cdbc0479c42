//! What training is: plain data, the same for training in the clear and on shares.

use serde::{Deserialize, Serialize};
use trefoil_mpc::program::Shown;

use super::TrainError;
use super::loss::Loss;
use super::optimiser::Optimiser;
use super::schedule::Schedule;

/// A bound on the mean gradient of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clip {
    /// Every element lies within +- this.
    Value(f64),
    /// The Euclidean norm over all parameters together is at most this.
    Norm(f64),
}

/// How a network is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// What is made small.
    pub loss: Loss,
    /// How parameters follow their gradients.
    pub optimiser: Optimiser,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// How often all samples are seen.
    pub epochs: usize,
    /// Samples of a step. Those left over at the end of an epoch are not used in it.
    pub batch: usize,
    /// Part of the samples, from the end, that is kept for validation.
    #[serde(default)]
    pub validation: f64,
    /// A bound on the gradient.
    #[serde(default)]
    pub clip: Option<Clip>,
    /// Added to the gradient of each kernel: this times the kernel (L2 regularisation).
    #[serde(default)]
    pub weight_decay: f64,
    /// Takes the weight decay from the kernel directly, times the learning rate (Loshchilov and Hutter 2019).
    #[serde(default)]
    pub decoupled_decay: bool,
    /// Names of layers whose tensors stay as they are.
    #[serde(default)]
    pub frozen: Vec<String>,
    /// The server that computes the likelihoods of the classes in the clear, and so learns them: cheaper. None: softmax is
    /// computed on shares.
    #[serde(default)]
    pub likelihoods: Option<Shown>,
    /// Seed of the order of the samples.
    #[serde(default)]
    pub seed: u64,
}

impl TrainSpec {
    /// Three epochs of SGD with momentum on softmax cross-entropy, in batches of 32.
    pub fn classifier() -> Self {
        Self {
            loss: Loss::SoftmaxCrossEntropy,
            optimiser: Optimiser::Momentum { momentum: 0.9 },
            schedule: Schedule::constant(0.02),
            epochs: 3,
            batch: 32,
            validation: 0.0,
            clip: None,
            weight_decay: 0.0,
            decoupled_decay: false,
            frozen: Vec::new(),
            likelihoods: None,
            seed: 1,
        }
    }

    /// How many of `samples` are for training; the rest is for validation.
    pub fn trained(&self, samples: usize) -> usize {
        samples - (self.validation * samples as f64).round() as usize
    }

    /// Refuses settings that make no sense.
    pub fn check(&self) -> Result<(), TrainError> {
        let positive = |what, v: f64| (!(v > 0.0 && v.is_finite())).then_some((what, v));
        let clip = match self.clip {
            None => None,
            Some(Clip::Value(v) | Clip::Norm(v)) => positive("bound of the gradient", v),
        };
        let loss = match self.loss {
            Loss::Contrastive { margin } | Loss::Triplet { margin } => positive("margin", margin),
            _ => None,
        };
        if self.likelihoods.is_some() && self.loss != Loss::SoftmaxCrossEntropy {
            return Err(TrainError::Likelihoods);
        }
        let rest = [
            (self.batch == 0).then_some(("batch", 0.0)),
            (!(0.0..1.0).contains(&self.validation)).then_some(("validation", self.validation)),
            (!(self.weight_decay >= 0.0 && self.weight_decay.is_finite()))
                .then_some(("weight decay", self.weight_decay)),
        ];
        let all = [self.optimiser.fault(), self.schedule.fault(), clip, loss].into_iter().chain(rest);
        match all.flatten().next() {
            Some((what, value)) => Err(TrainError::Option { what, value }),
            None => Ok(()),
        }
    }
}
