//! The local operations that are put off.

use trefoil_mpc::program::{Op, ValueId};
use trefoil_ring::geometry::{Pads, Pool2d};

/// An operation that both forms of a value allow.
#[derive(Debug, Clone)]
pub(in crate::lower) enum Local {
    Reshape(Vec<usize>),
    Pad(Pads),
    Crop(Pads),
    Slice {
        axis: usize,
        start: usize,
        len: usize,
    },
    Concat(usize),
    Average(Pool2d, u32),
    Spread(Pool2d, u32),
    Window(Pool2d, usize),
    Unwindow(Pool2d, usize),
    Sum {
        keep: usize,
        batch: bool,
    },
    Broadcast {
        shape: Vec<usize>,
        batch: bool,
    },
    Scale(i64, u32),
    Rate(usize, u32),
    /// A constant and the scale it is added at.
    Offset(f64, u32),
    Add,
    /// The bits' step.
    Drop(ValueId),
}

impl Local {
    pub(super) fn op(&self, xs: &[ValueId]) -> Op {
        let x = xs[0];
        match self {
            Local::Reshape(shape) => Op::Reshape { x, shape: shape.clone() },
            Local::Pad(pads) => Op::Pad { x, pads: *pads },
            Local::Crop(pads) => Op::Crop { x, pads: *pads },
            Local::Slice { axis, start, len } => Op::Slice { x, axis: *axis, start: *start, len: *len },
            Local::Concat(axis) => Op::Concat { xs: xs.to_vec(), axis: *axis },
            Local::Average(pool, extra) => Op::AveragePool { x, pool: *pool, extra: *extra },
            Local::Spread(pool, extra) => Op::Spread { x, pool: *pool, extra: *extra },
            Local::Window(pool, index) => Op::Window { x, pool: *pool, index: *index },
            Local::Unwindow(pool, index) => Op::Unwindow { x, pool: *pool, index: *index },
            Local::Sum { keep, batch } => Op::Sum { x, keep: *keep, batch: *batch },
            Local::Broadcast { shape, batch } => Op::Broadcast { x, shape: shape.clone(), batch: *batch },
            Local::Scale(factor, extra) => Op::Scale { x, factor: *factor, extra: *extra },
            Local::Rate(rate, extra) => Op::Rate { x, rate: *rate, extra: *extra },
            Local::Offset(c, scale) => Op::Offset { x, units: (c * f64::from(*scale).exp2()).round() as i64 },
            Local::Add => Op::Add { x, y: xs[1] },
            Local::Drop(pattern) => Op::Drop { x, pattern: *pattern },
        }
    }

    /// Fraction bits that the result has more than the operands.
    pub(super) fn extra(&self) -> u32 {
        match self {
            Local::Average(_, extra) | Local::Spread(_, extra) | Local::Scale(_, extra) | Local::Rate(_, extra) => {
                *extra
            }
            _ => 0,
        }
    }

    /// The same operation on operands of another scale.
    pub(super) fn at(&self, scale: u32) -> Local {
        match self {
            Local::Offset(c, _) => Local::Offset(*c, scale),
            other => other.clone(),
        }
    }

    /// Whether truncating the operand costs no more than truncating the result: then others may share it.
    pub(super) fn keeps_elements(&self) -> bool {
        matches!(
            self,
            Local::Reshape(_)
                | Local::Pad(_)
                | Local::Unwindow(..)
                | Local::Broadcast { .. }
                | Local::Drop(_)
                | Local::Offset(..)
        )
    }

    /// Whether the result's error is no larger than a few of the operands'.
    pub(super) fn is_movement(&self) -> bool {
        self.keeps_elements()
            || matches!(
                self,
                Local::Crop(_)
                    | Local::Slice { .. }
                    | Local::Concat(_)
                    | Local::Window(..)
                    | Local::Sum { .. }
                    | Local::Add
            )
    }
}
