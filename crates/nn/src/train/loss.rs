//! Losses, their derivatives, and when an answer counts as right.

use serde::{Deserialize, Serialize};
use trefoil_mpc::program::Shown;

use crate::tape::{Function, Map, Op, Tape, TapeError, ValueId};

/// Added to a squared distance under its root, so that its slope stays bounded.
pub const DISTANCE_EPSILON: f64 = 1e-4;

/// A logit counts as the largest when it is this close to it: a maximum is found by sums, which round.
pub const TIE: f64 = 1.0 / 4096.0;

/// What is made small. Every loss is of one sample; a step follows the mean over its batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// -sum y ln softmax(z), of logits z and a one-hot label y. Derivative: p - y.
    SoftmaxCrossEntropy,
    /// Mean over the outputs of ln(1 + e^z) - y z, of logits z and labels y of 0 or 1. Derivative: (sigmoid(z) - y) / n.
    BinaryCrossEntropy,
    /// Mean over the outputs of (z - y)^2.
    MeanSquaredError,
    /// Two towers: y d^2 + (1 - y) max(margin - d, 0)^2, where y is 1 for a similar pair and d the distance of the
    /// towers' outputs (Hadsell, Chopra, LeCun 2006). A pair closer than half the margin is taken as similar.
    Contrastive {
        /// Distance from which dissimilar pairs cost nothing.
        margin: f64,
    },
    /// Three towers: max(|a - p|^2 - |a - n|^2 + margin, 0) (Schroff, Kalenichenko, Philbin 2015). No label.
    Triplet {
        /// By how much the negative must be further away.
        margin: f64,
    },
}

/// A loss on the tape.
#[derive(Debug)]
pub(super) struct Head {
    /// The loss of each sample, `[1]`.
    pub(super) loss: ValueId,
    /// Whether each answer is right, 0 to 1, `[1]`.
    pub(super) right: Option<ValueId>,
    /// Derivatives of the loss.
    pub(super) seeds: Vec<(ValueId, ValueId)>,
}

impl Loss {
    /// How often the network is applied to a record.
    pub fn towers(&self) -> usize {
        match self {
            Loss::Contrastive { .. } => 2,
            Loss::Triplet { .. } => 3,
            _ => 1,
        }
    }

    /// Numbers behind the features in a record, for a network of so many outputs.
    pub fn labels(&self, outputs: usize) -> usize {
        match self {
            Loss::Contrastive { .. } => 1,
            Loss::Triplet { .. } => 0,
            _ => outputs,
        }
    }

    /// Whether the loss tells right answers from wrong ones.
    pub fn counts_right(&self) -> bool {
        !matches!(self, Loss::MeanSquaredError)
    }

    /// The loss of `outputs`, one vector per tower, and the label.
    pub(super) fn head(
        &self,
        tape: &mut Tape,
        outputs: &[ValueId],
        label: ValueId,
        likelihoods: Option<Shown>,
    ) -> Result<Head, TapeError> {
        match *self {
            Loss::SoftmaxCrossEntropy => match likelihoods {
                Some(shown) => shown_cross_entropy(tape, outputs[0], label, shown),
                None => softmax_cross_entropy(tape, outputs[0], label),
            },
            Loss::BinaryCrossEntropy => binary_cross_entropy(tape, outputs[0], label),
            Loss::MeanSquaredError => mean_squared_error(tape, outputs[0], label),
            Loss::Contrastive { margin } => contrastive(tape, outputs[0], outputs[1], label, margin),
            Loss::Triplet { margin } => triplet(tape, outputs, margin),
        }
    }
}

fn softmax_cross_entropy(tape: &mut Tape, z: ValueId, y: ValueId) -> Result<Head, TapeError> {
    let e = tape.exponentials(z)?;
    let p = tape.shares_of(&e)?;
    let seed = tape.sub(p, y)?;
    let chosen = tape.mul(z, y)?;
    let chosen = tape.sum(chosen, 0, false)?;
    let behind = tape.sub(chosen, e.top)?;
    let log = tape.function(e.sum, Function::Log)?;
    let loss = tape.sub(log, behind)?;
    let close = tape.offset(behind, TIE)?;
    let bit = tape.push(Op::Sign { x: close })?;
    let right = Some(tape.push(Op::Bit { bit })?);
    Ok(Head { loss, right, seeds: vec![(z, seed)] })
}

/// The same from likelihoods that one server computes: products with the label are all that is left.
fn shown_cross_entropy(tape: &mut Tape, z: ValueId, y: ValueId, shown: Shown) -> Result<Head, TapeError> {
    let n = tape.values[z].elements();
    let table = tape.push(Op::Likelihoods { x: z, shown })?;
    let row = |tape: &mut Tape, i: usize| {
        let row = tape.slice(table, 0, i, 1)?;
        tape.reshape(row, &[n])
    };
    let chosen = |tape: &mut Tape, i: usize| {
        let row = row(tape, i)?;
        let product = tape.mul(row, y)?;
        tape.sum(product, 0, false)
    };
    let p = row(tape, 0)?;
    let seed = tape.sub(p, y)?;
    let loss = chosen(tape, 1)?;
    let right = Some(chosen(tape, 2)?);
    Ok(Head { loss, right, seeds: vec![(z, seed)] })
}

fn binary_cross_entropy(tape: &mut Tape, z: ValueId, y: ValueId) -> Result<Head, TapeError> {
    let share = 1.0 / tape.values[z].elements() as f64;
    let p = tape.function(z, Function::Sigmoid)?;
    let seed = tape.sub(p, y)?;
    let seed = tape.scale(seed, share)?;
    let soft = tape.function(z, Function::Softplus)?;
    let product = tape.mul(z, y)?;
    let loss = tape.sub(soft, product)?;
    let loss = tape.sum(loss, 0, false)?;
    let loss = tape.scale(loss, share)?;
    let bit = tape.push(Op::Sign { x: z })?;
    let right = agreement(tape, bit, y)?;
    let right = tape.sum(right, 0, false)?;
    let right = Some(tape.scale(right, share)?);
    Ok(Head { loss, right, seeds: vec![(z, seed)] })
}

fn mean_squared_error(tape: &mut Tape, z: ValueId, y: ValueId) -> Result<Head, TapeError> {
    let share = 1.0 / tape.values[z].elements() as f64;
    let off = tape.sub(z, y)?;
    let seed = tape.scale(off, 2.0 * share)?;
    let squares = tape.mul(off, off)?;
    let loss = tape.sum(squares, 0, false)?;
    let loss = tape.scale(loss, share)?;
    Ok(Head { loss, right: None, seeds: vec![(z, seed)] })
}

fn contrastive(tape: &mut Tape, a: ValueId, b: ValueId, y: ValueId, margin: f64) -> Result<Head, TapeError> {
    let square = squared_distance(tape, a, b)?;
    let raised = tape.offset(square, DISTANCE_EPSILON)?;
    let inverse = tape.function(raised, Function::InverseSqrt)?;
    let distance = tape.mul(raised, inverse)?;
    let missing = tape.scale(distance, -1.0)?;
    let missing = tape.offset(missing, margin)?;
    let missing = tape.relu(missing)?;
    let other = tape.scale(y, -1.0)?;
    let other = tape.offset(other, 1.0)?;
    let weighted = tape.mul(missing, other)?;
    let near = tape.mul(square, y)?;
    let far = tape.mul(weighted, missing)?;
    let loss = tape.add(near, far)?;
    let slope = tape.mul(weighted, inverse)?;
    let seed = tape.sub(y, slope)?;
    let inside = tape.scale(square, -1.0)?;
    let inside = tape.offset(inside, margin * margin / 4.0)?;
    let bit = tape.push(Op::Sign { x: inside })?;
    let right = Some(agreement(tape, bit, y)?);
    Ok(Head { loss, right, seeds: vec![(square, seed)] })
}

fn triplet(tape: &mut Tape, outputs: &[ValueId], margin: f64) -> Result<Head, TapeError> {
    let near = squared_distance(tape, outputs[0], outputs[1])?;
    let far = squared_distance(tape, outputs[0], outputs[2])?;
    let less = tape.sub(near, far)?;
    let short = tape.offset(less, margin)?;
    let bit = tape.push(Op::Sign { x: short })?;
    let loss = tape.push(Op::Select { bit, x: short })?;
    let seed = tape.push(Op::Bit { bit })?;
    let closer = tape.scale(less, -1.0)?;
    let bit = tape.push(Op::Sign { x: closer })?;
    let right = Some(tape.push(Op::Bit { bit })?);
    Ok(Head { loss, right, seeds: vec![(less, seed)] })
}

/// The sum of (a - b)^2, `[1]`.
pub(super) fn squared_distance(tape: &mut Tape, a: ValueId, b: ValueId) -> Result<ValueId, TapeError> {
    let off = tape.sub(a, b)?;
    let squares = tape.product(off, off, Map::Elementwise)?;
    tape.sum(squares, 0, false)
}

/// 1 - b - y + 2 b y: one where a bit and a label agree.
fn agreement(tape: &mut Tape, bit: ValueId, y: ValueId) -> Result<ValueId, TapeError> {
    let b = tape.push(Op::Bit { bit })?;
    let both = tape.push(Op::Select { bit, x: y })?;
    let both = tape.scale(both, 2.0)?;
    let either = tape.add(b, y)?;
    let rest = tape.sub(both, either)?;
    tape.offset(rest, 1.0)
}
