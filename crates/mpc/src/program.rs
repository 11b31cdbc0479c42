//! The seam between learning and protocol: a network as a list of typed steps over shared values.
//!
//! A [`Program`] is plain data. The model owner's side compiles it from a graph, every party checks it with
//! [`Program::infer`], agrees on its [`Program::hash`], and interprets it: the producer deals it, the evaluators
//! prepare and evaluate it, `cost` counts it and `ideal` computes it in the clear. Shapes leave the batch
//! dimension out: a value has one row per sample, or one row for the whole batch (weights in training, sums).
//!
//! A program that trains runs once for each batch: it reads masked rows of a data set ([`Op::Rows`]), the tensors kept
//! from step to step ([`Op::State`], [`Op::Store`]) and public numbers of the step ([`Op::Rate`]).

mod infer;
mod op;
mod prediction;
mod shown;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use trefoil_ring::geometry::Conv2d;

use crate::compare::Compare;
pub use op::Op;
pub(crate) use prediction::Checked;
pub use prediction::Prediction;
pub use shown::Shown;

/// Version of the protocol and of this format: part of the hash that all parties compare.
pub const PROTOCOL_VERSION: u32 = 7;

/// Largest number of elements of one value for one sample that a program may hold.
pub const MAX_ELEMENTS: usize = 1 << 28;
/// Most dimensions of one value, the batch not counted.
pub const MAX_RANK: usize = 8;
/// Most public numbers that a step of training may have.
pub const MAX_RATES: usize = 64;

/// Most classes whose likelihoods one server may compute.
pub(crate) const MAX_CLASSES: usize = 1 << 12;

/// A value of the program: the output of the step with this index.
pub type ValueId = usize;

/// How a value is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Form {
    /// z = z_A + z_B modulo 2^64, one share at each evaluator.
    Additive,
    /// x = delta - lambda: delta at both evaluators, lambda = lambda_A + lambda_B known to the producer.
    Masked,
    /// XOR shares of bits, one index of a few bits per sample.
    Bits,
    /// One masked bit per element: b XOR beta at both evaluators, beta known to the producer.
    Choice,
    /// Bits that all three servers know, one per element; nobody else does.
    Public,
}

/// Whether a value has a row for each sample of the batch or one for all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rows {
    /// One row per sample.
    Each,
    /// One row for the whole batch.
    One,
}

/// The bits of a wire that a comparison reads: `lo .. lo + k`.
///
/// Right for -2^(lo+k-1) <= z < 2^(lo+k-1) - 2^lo, where only -2^lo <= z < 0 may count as non-negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Lowest bit read.
    pub lo: u32,
    /// How many bits are read, the sign's included.
    pub k: u32,
}

/// The linear map of a [`Op::Linear`] step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Linear {
    /// `[.., inputs] x [inputs, outputs]` over the last dimension.
    Dense {
        /// Size of the last dimension of the operand.
        inputs: usize,
        /// Size of the last dimension of the result.
        outputs: usize,
    },
    /// A convolution; depthwise where `groups` is the number of input channels.
    Conv(Conv2d),
}

impl Linear {
    /// Shape of the weights.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Linear::Dense { inputs, outputs } => vec![*inputs, *outputs],
            Linear::Conv(g) => g.kernel_shape(),
        }
    }

    /// Number of output channels: the size of the bias.
    pub fn outputs(&self) -> usize {
        match self {
            Linear::Dense { outputs, .. } => *outputs,
            Linear::Conv(g) => g.out_channels,
        }
    }
}

/// The bilinear map of an [`Op::Product`] step. `outputs` and the geometry are of the layer in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Bilinear {
    /// Element by element. The shape of `y` is that of `x` or its trailing part; one row of `y` may serve all samples.
    Elementwise,
    /// `[m, k] x [k, n]`, sample by sample.
    MatMul,
    /// `[.., inputs] x [inputs, outputs]`: `x` has a row per sample, `y` (the weights) one.
    Dense,
    /// Gradient of [`Bilinear::Dense`] by its input: `x` is `[.., outputs]` per sample, `y` the weights
    /// `[inputs, outputs]`.
    DenseInput,
    /// Gradient of [`Bilinear::Dense`] by its weights, summed over the batch: `x` is `[.., inputs]`, `y` `[.., outputs]`.
    DenseWeights,
    /// Convolution of `x` (per sample) with the kernel `y`.
    Conv(Conv2d),
    /// Gradient of a convolution by its input: `x` is the gradient of its output, `y` the kernel.
    ConvInput(Conv2d),
    /// Gradient of a convolution by its kernel, summed over the batch: `x` is its input, `y` the gradient of its output.
    ConvWeights(Conv2d),
}

/// One step of a program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// The layer this step belongs to, for tables and errors.
    pub layer: String,
    /// What is done.
    pub op: Op,
}

/// A secret tensor of the model, or one kept from step to step in training: what the servers know of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightSpec {
    /// Its name, for errors.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its fraction bits.
    pub scale: u32,
}

/// What a client may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reveal {
    /// Every output of the last layer, truncated to the program's fraction bits.
    Logits,
    /// The index of the largest output and nothing else; of a single output 1 where it is positive, else 0.
    Label,
}

/// A compiled network: public to the servers and to everyone entitled to query it; the weights' values are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Program {
    /// Fraction bits of the input, the weights and what enters a product.
    pub fraction_bits: u32,
    /// Shape of one input sample.
    pub input_shape: Vec<usize>,
    /// The secret tensors, in upload order.
    pub weights: Vec<WeightSpec>,
    /// The secret tensors that training keeps from step to step, as additive shares.
    pub states: Vec<WeightSpec>,
    /// How many public numbers each step of training is given.
    pub rates: usize,
    /// The steps.
    pub steps: Vec<Step>,
}

/// What is known of a value without its batch size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Shape of one row.
    pub shape: Vec<usize>,
    /// Fraction bits.
    pub scale: u32,
    /// How it is held.
    pub form: Form,
    /// How many rows it has.
    pub rows: Rows,
}

impl ValueInfo {
    /// Elements of one row.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows for a batch of `batch` samples.
    pub fn rows(&self, batch: usize) -> usize {
        match self.rows {
            Rows::Each => batch,
            Rows::One => 1,
        }
    }

    /// Elements of all rows for a batch of `batch` samples.
    pub fn count(&self, batch: usize) -> usize {
        self.elements() * self.rows(batch)
    }
}

/// A program that cannot be run, naming the step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("step {step} ({op} of layer {layer}): {reason}")]
pub struct ProgramError {
    /// Index of the step.
    pub step: usize,
    /// Its operation.
    pub op: String,
    /// Its layer.
    pub layer: String,
    /// What is wrong.
    pub reason: String,
}

impl Program {
    /// Whether it takes keys, whose correction words take the evaluators' own link: all of its material is prepared before
    /// anything is evaluated.
    pub(crate) fn is_prepared_first(&self) -> bool {
        self.steps.iter().any(|s| s.op.compare() == Some(Compare::Keys) || s.op.selects_by_keys())
    }

    /// The program that ends by revealing `what` of the last value, which must be additive.
    ///
    /// `window` is the window of one value; a label's comparisons, being of differences, read one bit more. They are
    /// done as the program's last comparison before them. A single value is compared with zero.
    pub fn ending_in(&self, what: Reveal, window: Window) -> Result<Program, ProgramError> {
        let values = self.infer()?;
        let mut p = self.clone();
        let last = values.len() - 1;
        infer::check_window(window).map_err(|reason| ProgramError {
            step: last + 1,
            op: "argmax".into(),
            layer: "output".into(),
            reason,
        })?;
        let v = &values[last];
        let mut push = |op| p.steps.push(Step { layer: "output".into(), op });
        match what {
            Reveal::Logits => push(Op::Reveal { x: last, shift: v.scale.saturating_sub(self.fraction_bits) }),
            Reveal::Label => {
                let flat = v.elements();
                push(Op::Reshape { x: last, shape: vec![flat] });
                push(Op::Open { x: last + 1 });
                let mut x = last + 2;
                if flat == 1 {
                    push(Op::Scale { x, factor: 0, extra: 0 });
                    push(Op::Concat { xs: vec![x + 1, x], axis: 0 });
                    x += 2;
                }
                let lo = v.scale.saturating_sub(self.fraction_bits).min(window.lo);
                push(Op::Argmax {
                    x,
                    window: Window { lo, k: window.k.saturating_add(window.lo - lo).saturating_add(1) },
                    compare: self.steps.iter().rev().find_map(|s| s.op.compare()).unwrap_or_default(),
                });
                push(Op::Reveal { x: x + 1, shift: 0 });
            }
        }
        p.infer()?;
        Ok(p)
    }

    /// The hash that all parties compare before anything is drawn: protocol version, steps, shapes, fixed point.
    pub fn hash(&self) -> [u8; 32] {
        let mut h = blake3::Hasher::new_derive_key("trefoil 2026 program");
        h.update(&PROTOCOL_VERSION.to_le_bytes());
        h.update(&postcard::to_stdvec(self).unwrap_or_default());
        *h.finalize().as_bytes()
    }
}

/// Bits of an index below `n`.
pub fn index_bits(n: usize) -> usize {
    n.next_power_of_two().trailing_zeros().max(1) as usize
}
