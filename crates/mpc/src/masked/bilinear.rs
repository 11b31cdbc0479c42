//! Products with fixed weights: z = f(x, w) + bias with masked x and w.
//!
//! With g = f(lambda_x, lambda_w) dealt, z = f(delta_x, w) - f(lambda_x, delta_w) + g. Each evaluator holds an additive
//! share w_i of the weights (A: delta_w - lambda_w,A; B: -lambda_w,B), so offline it prepares
//! h_i = g_i - f(lambda_x,i, delta_w) + bias_i, and online z_i = h_i + f(delta_x, w_i): one product, no message.
//! Beaver 1991 for matrices and convolutions (Dahl 2017), with masks kept per value (Ben-Efraim et al. 2019).
//! 64 bits dealt for each output element.

use trefoil_prg::Purpose;
use trefoil_ring::Words;
use trefoil_ring::kernels::{conv2d, matmul};

use super::dealing::{At, Dealing};
use super::product::PIECE;
use super::weights::{EvaluatorWeights, ProducerWeights};
use crate::error::MpcError;
use crate::program::Linear;

/// A linear step: the map, its tensors, and the sizes of one sample.
pub(crate) struct LinearStep<'a> {
    pub(crate) map: &'a Linear,
    pub(crate) weights: usize,
    pub(crate) bias: Option<usize>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

/// What the interpreter of the offline phase knows of the weights.
pub(crate) trait OfflineWeights {
    /// At the producer: `out += f(lambda_x, lambda_w)`.
    fn mask_product(&self, step: &LinearStep<'_>, samples: usize, lambda: &[u64], out: &mut [u64]);
    /// At an evaluator: `out += f(lambda_x,i, -delta_w) + bias_i`.
    fn local_terms(&self, step: &LinearStep<'_>, samples: usize, lambda: &[u64], out: &mut [u64]);
    /// The mask of weight `index`: whole at the producer, own part at an evaluator, whose public terms are those in
    /// `public`.
    fn wire_mask(&self, index: usize, public: u64) -> Words;
}

/// `out += f(x, w)` for `samples` samples.
pub(crate) fn apply(step: &LinearStep<'_>, samples: usize, x: &[u64], w: &[u64], out: &mut [u64]) {
    match step.map {
        Linear::Dense { inputs, outputs } => matmul(samples * step.inputs / inputs, *inputs, *outputs, x, w, out),
        Linear::Conv(g) => conv2d(samples, g, x, w, out),
    }
}

impl OfflineWeights for ProducerWeights {
    fn mask_product(&self, step: &LinearStep<'_>, samples: usize, lambda: &[u64], out: &mut [u64]) {
        apply(step, samples, lambda, self.mask(step.weights), out);
    }

    fn local_terms(&self, _: &LinearStep<'_>, _: usize, _: &[u64], _: &mut [u64]) {}

    fn wire_mask(&self, index: usize, _: u64) -> Words {
        Words::from(self.mask(index))
    }
}

impl OfflineWeights for EvaluatorWeights {
    fn mask_product(&self, _: &LinearStep<'_>, _: usize, _: &[u64], _: &mut [u64]) {}

    fn local_terms(&self, step: &LinearStep<'_>, samples: usize, lambda: &[u64], out: &mut [u64]) {
        if let Some(b) = step.bias {
            let bias = self.share(b);
            for row in out.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(o, b)| *o = o.wrapping_add(*b));
            }
        }
        apply(step, samples, lambda, self.negated_delta(step.weights), out);
    }

    fn wire_mask(&self, index: usize, public: u64) -> Words {
        let own = |(delta, share): (&u64, &u64)| (delta & public).wrapping_sub(*share);
        self.delta(index).iter().zip(self.share(index)).map(own).collect::<Vec<_>>().into()
    }
}

/// The counter knows no weights.
impl OfflineWeights for () {
    fn mask_product(&self, _: &LinearStep<'_>, _: usize, _: &[u64], _: &mut [u64]) {}
    fn local_terms(&self, _: &LinearStep<'_>, _: usize, _: &[u64], _: &mut [u64]) {}
    fn wire_mask(&self, _: usize, _: u64) -> Words {
        Words::default()
    }
}

/// Deals one linear step on wires under masks `lambda`: h_i at an evaluator.
pub(crate) fn deal_linear<D: Dealing>(
    d: &mut D,
    at: At,
    step: &LinearStep<'_>,
    batch: usize,
    lambda: &[u64],
    weights: &impl OfflineWeights,
) -> Result<Words, MpcError> {
    let mut draw = d.open_shares(at, Purpose::Product)?;
    let group = PIECE.div_ceil(step.outputs);
    // A small product comes before what is dealt: bob has work while carol computes hers.
    let mut local = Words::default();
    if D::KEEPS && batch <= group {
        weights.local_terms(step, batch, lambda, local.grow(batch * step.outputs));
    }
    let mut h = D::room(batch * step.outputs);
    for first in (0..batch).step_by(group) {
        let samples = group.min(batch - first);
        let rows = first * step.inputs..(first + samples) * step.inputs;
        d.deal(&mut draw, samples * step.outputs, 64, &mut h, |out| {
            weights.mask_product(step, samples, &lambda[rows], out);
        })?;
    }
    if !local.is_empty() {
        h.iter_mut().zip(local.iter()).for_each(|(h, l)| *h = h.wrapping_add(*l));
    } else if !h.is_empty() {
        weights.local_terms(step, batch, lambda, &mut h);
    }
    Ok(h)
}
