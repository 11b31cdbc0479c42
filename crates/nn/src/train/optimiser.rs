//! Optimisers as operations of the step tape.
//!
//! A gradient is the sum over the batch of B samples, which keeps its precision in fixed point; the mean is taken
//! by the rate (SGD and its kin), or cancels (the adaptive methods, whose epsilon is scaled along).

use serde::{Deserialize, Serialize};

use crate::tape::{Function, Op, Role, Tape, TapeError, ValueId};

/// How parameters follow their gradients. g is the mean gradient of a batch, w a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimiser {
    /// w -= rate g.
    Sgd,
    /// v = momentum v + g, w -= rate v.
    Momentum {
        /// Part of the velocity kept, 0 to below 1.
        momentum: f64,
    },
    /// v = momentum v + g, w -= rate (g + momentum v) (Sutskever et al. 2013, rearranged).
    Nesterov {
        /// Part of the velocity kept, 0 to below 1.
        momentum: f64,
    },
    /// v = decay v + (1 - decay) g^2, w -= rate g / sqrt(v + epsilon^2) (Hinton 2012).
    RmsProp {
        /// Part of the mean square kept, 0 to below 1.
        decay: f64,
        /// Smallest root mean square that matters.
        epsilon: f64,
    },
    /// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, both corrected for their start at zero,
    /// w -= rate m / sqrt(v + epsilon^2) (Kingma and Ba 2015; epsilon under the root, before the correction).
    Adam {
        /// Part of the mean kept.
        beta1: f64,
        /// Part of the mean square kept.
        beta2: f64,
        /// Smallest root mean square that matters.
        epsilon: f64,
    },
    /// Adam with the largest v so far in place of v (Reddi, Kale, Kumar 2018).
    AmsGrad {
        /// Part of the mean kept.
        beta1: f64,
        /// Part of the mean square kept.
        beta2: f64,
        /// Smallest root mean square that matters.
        epsilon: f64,
    },
}

/// A parameter at its turn.
pub(super) struct Turn<'a> {
    pub(super) name: &'a str,
    /// Its gradient, summed over the batch.
    pub(super) gradient: ValueId,
    /// Samples of a batch.
    pub(super) batch: f64,
    /// The public number that the step is multiplied with.
    pub(super) rate: usize,
}

impl Optimiser {
    /// What makes no sense: the setting and its value.
    pub(super) fn fault(&self) -> Option<(&'static str, f64)> {
        let part = |what, v: f64| (!(0.0..1.0).contains(&v)).then_some((what, v));
        let positive = |v: f64| (!(v > 0.0 && v.is_finite())).then_some(("epsilon", v));
        match *self {
            Optimiser::Sgd => None,
            Optimiser::Momentum { momentum } | Optimiser::Nesterov { momentum } => part("momentum", momentum),
            Optimiser::RmsProp { decay, epsilon } => part("decay", decay).or(positive(epsilon)),
            Optimiser::Adam { beta1, beta2, epsilon } | Optimiser::AmsGrad { beta1, beta2, epsilon } => {
                part("beta1", beta1).or(part("beta2", beta2)).or(positive(epsilon))
            }
        }
    }

    /// The public number for step `step` (from 0) at learning rate `rate`.
    pub(super) fn factor(&self, rate: f64, step: u64, batch: f64) -> f64 {
        match *self {
            Optimiser::Sgd | Optimiser::Momentum { .. } | Optimiser::Nesterov { .. } => rate / batch,
            Optimiser::RmsProp { .. } => rate,
            Optimiser::Adam { beta1, beta2, .. } | Optimiser::AmsGrad { beta1, beta2, .. } => {
                let t = step as f64 + 1.0;
                rate * (1.0 - beta2.powf(t)).sqrt() / (1.0 - beta1.powf(t))
            }
        }
    }

    /// By how much the parameter falls, before the rate. Declares and stores what is remembered.
    pub(super) fn direction(&self, tape: &mut Tape, turn: &Turn) -> Result<ValueId, TapeError> {
        let g = turn.gradient;
        match *self {
            Optimiser::Sgd => Ok(g),
            Optimiser::Momentum { momentum } => velocity(tape, turn, momentum),
            Optimiser::Nesterov { momentum } => {
                let v = velocity(tape, turn, momentum)?;
                let ahead = tape.scale(v, momentum)?;
                tape.add(ahead, g)
            }
            Optimiser::RmsProp { decay, epsilon } => {
                let square = tape.mul(g, g)?;
                let v = average(tape, turn, "square", square, decay)?;
                normalised(tape, g, v, epsilon * turn.batch)
            }
            Optimiser::Adam { beta1, beta2, epsilon } => {
                let (m, v) = moments(tape, turn, beta1, beta2)?;
                normalised(tape, m, v, epsilon * turn.batch)
            }
            Optimiser::AmsGrad { beta1, beta2, epsilon } => {
                let (m, v) = moments(tape, turn, beta1, beta2)?;
                let (slot, old) = memory(tape, turn, "largest")?;
                let largest = tape.max(v, old)?;
                tape.push(Op::Store { slot, x: largest })?;
                normalised(tape, m, largest, epsilon * turn.batch)
            }
        }
    }
}

/// A state of the parameter's shape, and its value before the step.
fn memory(tape: &mut Tape, turn: &Turn, what: &str) -> Result<(usize, ValueId), TapeError> {
    let shape = tape.values[turn.gradient].shape.clone();
    let slot = tape.declare(format!("{}/{what}", turn.name), shape, Role::Memory);
    Ok((slot, tape.push(Op::State { slot })?))
}

fn velocity(tape: &mut Tape, turn: &Turn, momentum: f64) -> Result<ValueId, TapeError> {
    let (slot, old) = memory(tape, turn, "velocity")?;
    let kept = tape.scale(old, momentum)?;
    let x = tape.add(kept, turn.gradient)?;
    tape.push(Op::Store { slot, x })?;
    Ok(x)
}

/// keep old + (1 - keep) new.
fn average(tape: &mut Tape, turn: &Turn, what: &str, new: ValueId, keep: f64) -> Result<ValueId, TapeError> {
    let (slot, old) = memory(tape, turn, what)?;
    let old = tape.scale(old, keep)?;
    let new = tape.scale(new, 1.0 - keep)?;
    let x = tape.add(old, new)?;
    tape.push(Op::Store { slot, x })?;
    Ok(x)
}

fn moments(tape: &mut Tape, turn: &Turn, beta1: f64, beta2: f64) -> Result<(ValueId, ValueId), TapeError> {
    let m = average(tape, turn, "mean", turn.gradient, beta1)?;
    let square = tape.mul(turn.gradient, turn.gradient)?;
    Ok((m, average(tape, turn, "square", square, beta2)?))
}

/// x / sqrt(v + epsilon^2).
fn normalised(tape: &mut Tape, x: ValueId, v: ValueId, epsilon: f64) -> Result<ValueId, TapeError> {
    let raised = tape.offset(v, epsilon * epsilon)?;
    let inverse = tape.function(raised, Function::InverseSqrt)?;
    tape.mul(x, inverse)
}
