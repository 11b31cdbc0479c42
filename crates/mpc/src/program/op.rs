//! The operations of a program.

use serde::{Deserialize, Serialize};
use trefoil_ring::geometry::{Pads, Pool2d};

use super::{Bilinear, Linear, Shown, ValueId, Window};
use crate::compare::{Compare, Selecting};

/// One operation. `x` and the like name earlier steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// The client's input: additive, at the program's fraction bits. Only as step 0.
    Input,
    /// Rows of a data set, masked when training began, at the program's fraction bits. Only as step 0.
    Rows,
    /// A fixed weight, opened once under a mask of its own whatever the number of runs: masked, one row. Only in training.
    Weight {
        /// Index in [`Program::weights`](super::Program::weights).
        index: usize,
    },
    /// A tensor kept from step to step, as it was before this step: additive, one row.
    State {
        /// Index in [`Program::states`](super::Program::states).
        slot: usize,
    },
    /// The value that a tensor has after this step.
    Store {
        /// Index in [`Program::states`](super::Program::states); stored once at most.
        slot: usize,
        /// Operand: additive, one row, of the state's shape and scale.
        x: ValueId,
    },
    /// Additive to masked: one ring element each way, one round.
    Open {
        /// Operand, additive.
        x: ValueId,
    },
    /// Fixed-weight product: masked to additive, the scales add up. No online traffic.
    Linear {
        /// Operand, masked.
        x: ValueId,
        /// Index of the weights in [`Program::weights`](super::Program::weights).
        weights: usize,
        /// Index of the bias (at the result's scale), one per output channel.
        bias: Option<usize>,
        /// The map.
        map: Linear,
    },
    /// Product of two secret values: masked to additive, the scales add up. No online traffic.
    Product {
        /// Left operand, masked.
        x: ValueId,
        /// Right operand, masked.
        y: ValueId,
        /// The map.
        map: Bilinear,
    },
    /// Exact truncation by `shift` bits (never off by more than one unit): masked to additive.
    Truncate {
        /// Operand, masked.
        x: ValueId,
        /// Bits dropped, at least one.
        shift: u32,
    },
    /// max(x, 0), truncated by `shift` bits (0: not truncated): masked to additive.
    Relu {
        /// Operand, masked.
        x: ValueId,
        /// Bits dropped.
        shift: u32,
        /// Bits compared; `window.lo <= shift`.
        window: Window,
        /// How they are compared.
        compare: Compare,
    },
    /// Maximum over each window, by tournament: masked to additive, at the same scale.
    MaxPool {
        /// Operand, masked, `[h, w, channels]`.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Bits compared: of a difference, so one more than a single value needs.
        window: Window,
        /// How they are compared.
        compare: Compare,
    },
    /// [x >= 0] as a masked bit.
    Sign {
        /// Operand, masked.
        x: ValueId,
        /// Bits compared.
        window: Window,
        /// How they are compared.
        compare: Compare,
    },
    /// b (x >> shift): masked to additive.
    Select {
        /// The bits: of a [`Op::Sign`] of as many elements.
        bit: ValueId,
        /// Operand, masked.
        x: ValueId,
        /// Bits dropped, may be none.
        shift: u32,
    },
    /// A masked bit as a number: additive, without fraction bits.
    Bit {
        /// The bits.
        bit: ValueId,
    },
    /// A piecewise polynomial: `pieces[j]` where exactly `j` knots are at most x. Masked to additive.
    ///
    /// Exact in the ring: what x itself may be is limited by the comparisons' window alone.
    Piecewise {
        /// Operand, masked.
        x: ValueId,
        /// Knots in units of the operand's scale, ascending.
        knots: Vec<i64>,
        /// Coefficients of each piece, constant first, all of one length, 2 to 4: that of x^m is in units of
        /// `scale - m * (the operand's scale)` fraction bits.
        pieces: Vec<Vec<i64>>,
        /// Fraction bits of the result.
        scale: u32,
        /// Bits compared, of x less a knot.
        window: Window,
        /// How they are compared.
        compare: Compare,
        /// How the piece is selected.
        select: Selecting,
    },
    /// Sum over all dimensions but the last `keep`, and over the batch if `batch`: local, form kept.
    Sum {
        /// Operand, additive or masked.
        x: ValueId,
        /// Dimensions kept; none gives the shape `[1]`.
        keep: usize,
        /// Whether the rows of the batch are added up as well.
        batch: bool,
    },
    /// The same values for every new leading dimension of `shape`, and for every sample if `batch`: local, form kept.
    Broadcast {
        /// Operand, additive or masked: its shape is the trailing part of `shape`.
        x: ValueId,
        /// New shape.
        shape: Vec<usize>,
        /// Whether each sample gets a row of its own.
        batch: bool,
    },
    /// Element number `index` (row-major) of each window of a pool without padding: local, form kept.
    Window {
        /// Operand, additive or masked, `[h, w, channels]`.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Which element.
        index: usize,
    },
    /// The adjoint of [`Op::Window`]: each element added where it would be taken, zeros elsewhere.
    Unwindow {
        /// Operand, additive or masked, of the pool's output shape.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Which element.
        index: usize,
    },
    /// The adjoint of [`Op::AveragePool`], with the same factors: local, form kept, scale grows by `extra`.
    Spread {
        /// Operand, additive or masked, of the pool's output shape.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Fraction bits added, 0 to 20.
        extra: u32,
    },
    /// Product with public number `rate` of this step, counted as `extra` more fraction bits: local, form kept.
    Rate {
        /// Operand, additive or masked.
        x: ValueId,
        /// Which number.
        rate: usize,
        /// Fraction bits added.
        extra: u32,
    },
    /// Bits known to the three servers alone, each one with probability `keep / 2^16`, fresh for every sample.
    Pattern {
        /// Shape of one sample.
        shape: Vec<usize>,
        /// How often a bit is one, of 65,536 times.
        keep: u32,
    },
    /// x where the pattern is one, zero elsewhere: local, form kept.
    Drop {
        /// Operand, additive or masked.
        x: ValueId,
        /// The pattern, of the same shape.
        pattern: ValueId,
    },
    /// Sum over each window times `round(2^extra / covered)`: local, form kept, scale grows by `extra`.
    ///
    /// With a full window of 2^extra elements the factor is one and nothing is lost.
    AveragePool {
        /// Operand, additive or masked, `[h, w, channels]`.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Fraction bits added, 0 to 20.
        extra: u32,
    },
    /// Product with the public integer `factor`, counted as `extra` more fraction bits: local, form kept.
    Scale {
        /// Operand, additive or masked.
        x: ValueId,
        /// The factor.
        factor: i64,
        /// Fraction bits added.
        extra: u32,
    },
    /// Adds the public constant `units` (in units of the operand's scale) to every element: local, form kept.
    Offset {
        /// Operand, additive or masked.
        x: ValueId,
        /// The constant in units of the operand's scale.
        units: i64,
    },
    /// Sum of two values of one scale and form: local.
    Add {
        /// Left operand.
        x: ValueId,
        /// Right operand: its shape is that of `x` or its trailing part; one row of it may serve all samples.
        y: ValueId,
    },
    /// Concatenation along `axis` (0 is the first dimension after the batch): local.
    Concat {
        /// Operands of one scale and form.
        xs: Vec<ValueId>,
        /// Dimension along which they are joined.
        axis: usize,
    },
    /// Elements `start .. start + len` along `axis` (0 is the first dimension after the batch): local.
    Slice {
        /// Operand.
        x: ValueId,
        /// Dimension that is cut.
        axis: usize,
        /// First index.
        start: usize,
        /// How many.
        len: usize,
    },
    /// The same elements under another shape: local.
    Reshape {
        /// Operand.
        x: ValueId,
        /// New shape.
        shape: Vec<usize>,
    },
    /// Zeros around height and width of `[h, w, channels]`: local.
    Pad {
        /// Operand.
        x: ValueId,
        /// Zeros added.
        pads: Pads,
    },
    /// The adjoint of [`Op::Pad`]: height and width without their margins.
    Crop {
        /// Operand, `[h, w, channels]`.
        x: ValueId,
        /// What is cut off.
        pads: Pads,
    },
    /// Index of the largest of `n` values by all pairs, ties to the lower index: masked to XOR-shared bits.
    Argmax {
        /// Operand, masked, `[n]`.
        x: ValueId,
        /// Bits compared: of a difference.
        window: Window,
        /// How they are compared.
        compare: Compare,
    },
    /// Softmax of a row's logits, computed in the clear by one server: **it learns every row's class likelihoods**, carol
    /// and the helper without knowing which class each belongs to; the others learn nothing. Additive to additive, at the
    /// program's fraction bits. Only in training.
    ///
    /// A row of the result is `[3, n]`: p, -ln p, and one where p is largest: the first of several, where alice computes
    /// it; else any of them.
    Likelihoods {
        /// Operand: the logits, additive, `[n]` for each sample.
        x: ValueId,
        /// Bits dropped before that server is shown anything.
        shift: u32,
        /// Which server.
        shown: Shown,
    },
    /// To the client alone: an additive value re-randomised and truncated by `shift`, or a label's bits re-randomised.
    Reveal {
        /// Operand: additive, or bits (`shift` 0).
        x: ValueId,
        /// Bits dropped before sending.
        shift: u32,
    },
}

impl Op {
    /// The steps this one reads.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            Op::Input | Op::Rows | Op::Weight { .. } | Op::State { .. } | Op::Pattern { .. } => vec![],
            Op::Concat { xs, .. } => xs.clone(),
            Op::Add { x, y } | Op::Product { x, y, .. } => vec![*x, *y],
            Op::Select { bit, x, .. } => vec![*bit, *x],
            Op::Drop { x, pattern } => vec![*x, *pattern],
            Op::Bit { bit } => vec![*bit],
            Op::Open { x }
            | Op::Store { x, .. }
            | Op::Linear { x, .. }
            | Op::Truncate { x, .. }
            | Op::Relu { x, .. }
            | Op::MaxPool { x, .. }
            | Op::Sign { x, .. }
            | Op::Piecewise { x, .. }
            | Op::Sum { x, .. }
            | Op::Broadcast { x, .. }
            | Op::Window { x, .. }
            | Op::Unwindow { x, .. }
            | Op::Spread { x, .. }
            | Op::Rate { x, .. }
            | Op::AveragePool { x, .. }
            | Op::Scale { x, .. }
            | Op::Offset { x, .. }
            | Op::Reshape { x, .. }
            | Op::Slice { x, .. }
            | Op::Pad { x, .. }
            | Op::Crop { x, .. }
            | Op::Argmax { x, .. }
            | Op::Likelihoods { x, .. }
            | Op::Reveal { x, .. } => vec![*x],
        }
    }

    /// The same operation on other steps.
    pub fn renamed(&self, name: impl Fn(ValueId) -> ValueId) -> Op {
        let mut op = self.clone();
        match &mut op {
            Op::Input | Op::Rows | Op::Weight { .. } | Op::State { .. } | Op::Pattern { .. } => {}
            Op::Concat { xs, .. } => xs.iter_mut().for_each(|x| *x = name(*x)),
            Op::Add { x, y } | Op::Product { x, y, .. } | Op::Select { bit: y, x, .. } | Op::Drop { x, pattern: y } => {
                (*x, *y) = (name(*x), name(*y));
            }
            Op::Bit { bit: x }
            | Op::Open { x }
            | Op::Store { x, .. }
            | Op::Linear { x, .. }
            | Op::Truncate { x, .. }
            | Op::Relu { x, .. }
            | Op::MaxPool { x, .. }
            | Op::Sign { x, .. }
            | Op::Piecewise { x, .. }
            | Op::Sum { x, .. }
            | Op::Broadcast { x, .. }
            | Op::Window { x, .. }
            | Op::Unwindow { x, .. }
            | Op::Spread { x, .. }
            | Op::Rate { x, .. }
            | Op::AveragePool { x, .. }
            | Op::Scale { x, .. }
            | Op::Offset { x, .. }
            | Op::Reshape { x, .. }
            | Op::Slice { x, .. }
            | Op::Pad { x, .. }
            | Op::Crop { x, .. }
            | Op::Argmax { x, .. }
            | Op::Likelihoods { x, .. }
            | Op::Reveal { x, .. } => *x = name(*x),
        }
        op
    }

    /// How the operation compares, if it does.
    pub fn compare(&self) -> Option<Compare> {
        match self {
            Op::Relu { compare, .. }
            | Op::MaxPool { compare, .. }
            | Op::Sign { compare, .. }
            | Op::Piecewise { compare, .. }
            | Op::Argmax { compare, .. } => Some(*compare),
            _ => None,
        }
    }

    /// Whether the piece of a function is selected by keys of point functions.
    pub fn selects_by_keys(&self) -> bool {
        matches!(self, Op::Piecewise { select: Selecting::Keys, .. })
    }

    /// The same operation, selecting in this way if it selects pieces.
    pub fn selecting(&self, way: Selecting) -> Op {
        let mut op = self.clone();
        if let Op::Piecewise { select, .. } = &mut op {
            *select = way;
        }
        op
    }

    /// The same operation, comparing in this way if it compares.
    pub fn comparing(&self, way: Compare) -> Op {
        let mut op = self.clone();
        if let Op::Relu { compare, .. }
        | Op::MaxPool { compare, .. }
        | Op::Sign { compare, .. }
        | Op::Piecewise { compare, .. }
        | Op::Argmax { compare, .. } = &mut op
        {
            *compare = way;
        }
        op
    }

    /// The operation's name in tables and meters.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "input",
            Op::Open { .. } => "open",
            Op::Linear { map: Linear::Dense { .. }, .. } => "dense",
            Op::Linear { map: Linear::Conv(_), .. } => "conv2d",
            Op::Product { map, .. } => match map {
                Bilinear::Elementwise => "product",
                Bilinear::MatMul => "matmul",
                Bilinear::Dense => "dense",
                Bilinear::DenseInput => "dense-input",
                Bilinear::DenseWeights => "dense-weights",
                Bilinear::Conv(_) => "conv2d",
                Bilinear::ConvInput(_) => "conv2d-input",
                Bilinear::ConvWeights(_) => "conv2d-weights",
            },
            Op::Rows => "rows",
            Op::Weight { .. } => "weight",
            Op::State { .. } => "state",
            Op::Store { .. } => "store",
            Op::Sign { .. } => "sign",
            Op::Select { .. } => "select",
            Op::Bit { .. } => "bit",
            Op::Piecewise { .. } => "piecewise",
            Op::Sum { .. } => "sum",
            Op::Broadcast { .. } => "broadcast",
            Op::Window { .. } => "window",
            Op::Unwindow { .. } => "unwindow",
            Op::Spread { .. } => "spread",
            Op::Rate { .. } => "rate",
            Op::Pattern { .. } => "pattern",
            Op::Drop { .. } => "drop",
            Op::Crop { .. } => "crop",
            Op::Slice { .. } => "slice",
            Op::Truncate { .. } => "truncate",
            Op::Relu { .. } => "relu",
            Op::MaxPool { .. } => "max-pool",
            Op::AveragePool { .. } => "average-pool",
            Op::Scale { .. } => "scale",
            Op::Offset { .. } => "offset",
            Op::Add { .. } => "add",
            Op::Concat { .. } => "concat",
            Op::Reshape { .. } => "reshape",
            Op::Pad { .. } => "pad",
            Op::Argmax { .. } => "argmax",
            Op::Likelihoods { .. } => "likelihoods",
            Op::Reveal { .. } => "reveal",
        }
    }
}
