//! Local operations: the same arithmetic on deltas, on masks, on additive shares and in the clear.

use trefoil_ring::Words;
use trefoil_ring::geometry::Pool2d;

use crate::program::{Op, Program, ValueId, ValueInfo};

mod shape;
mod windows;

pub(crate) use windows::window_slot;

/// Where a local operation finds its operands.
pub(crate) trait Operands {
    /// The value `x`.
    fn read(&self, x: ValueId) -> &[u64];
    /// The value `x` to be worked on in place by step `step`: moved out if no other step reads it.
    fn take(&mut self, x: ValueId, step: usize) -> Words;
}

/// A checked program, its batch and the public numbers of one run.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) program: &'a Program,
    pub(crate) infos: &'a [ValueInfo],
    pub(crate) batch: usize,
    pub(crate) rates: &'a [i64],
}

impl Context<'_> {
    /// Rows of value `x`.
    pub(crate) fn rows(&self, x: ValueId) -> usize {
        self.infos[x].rows(self.batch)
    }

    /// Elements of all rows of value `x`.
    pub(crate) fn count(&self, x: ValueId) -> usize {
        self.infos[x].count(self.batch)
    }
}

/// The value of step `i` if its operation is local. `constants`: all ones where public constants are added, else zero.
pub(crate) fn apply(c: &Context<'_>, i: usize, constants: u64, operands: &mut impl Operands) -> Option<Words> {
    let zeros = || Words::zeros(c.count(i));
    let shape = |x: &ValueId| &c.infos[*x].shape[..];
    Some(match &c.program.steps[i].op {
        Op::Scale { x, factor, .. } => scaled(operands.take(*x, i), *factor),
        Op::Rate { x, rate, .. } => scaled(operands.take(*x, i), c.rates.get(*rate).copied().unwrap_or_default()),
        Op::Offset { x, units } => {
            let mut v = operands.take(*x, i);
            v.iter_mut().for_each(|v| *v = v.wrapping_add(*units as u64 & constants));
            v
        }
        Op::Add { x, y } => {
            let mut v = if x == y { Words::from(operands.read(*x)) } else { operands.take(*x, i) };
            if let Some((pool, index)) = added_windows(c, *y) {
                windows::unwindow(operands.read(*y), c.rows(*y), pool, index, &mut v);
                return Some(v);
            }
            let (rows, size) = (c.rows(*y), c.infos[*y].elements());
            let run = v.len() / rows;
            for (v, y) in v.chunks_mut(run).zip(operands.read(*y).chunks(size)) {
                v.chunks_mut(size).for_each(|v| add(v, y));
            }
            v
        }
        Op::Drop { x, pattern } => {
            let mut v = operands.take(*x, i);
            let pattern = operands.read(*pattern);
            v.iter_mut().enumerate().for_each(|(i, v)| *v &= bit(pattern, i).wrapping_neg());
            v
        }
        Op::Reshape { x, .. } => operands.take(*x, i),
        Op::Sum { x, .. } => {
            let mut out = zeros();
            shape::sum(operands.read(*x), c.infos[i].elements(), &mut out);
            out
        }
        Op::Broadcast { x, .. } => {
            let copies = c.rows(i) / c.rows(*x);
            shape::repeat(operands.read(*x), c.rows(*x), c.infos[i].elements() / c.infos[*x].elements(), copies)
        }
        Op::Concat { xs, axis } => {
            let parts: Vec<_> = xs.iter().map(|x| (operands.read(*x), shape(x))).collect();
            shape::concat(&parts, c.rows(i), *axis)
        }
        Op::Slice { x, axis, start, len } => shape::slice(operands.read(*x), shape(x), *axis, *start, *len),
        Op::Pad { x, pads } => shape::pad(operands.read(*x), c.rows(i), shape(x), pads),
        Op::Crop { x, pads } => shape::crop(operands.read(*x), c.rows(i), shape(x), pads),
        Op::AveragePool { x, pool, extra } => {
            let mut out = zeros();
            windows::average_pool(operands.read(*x), c.rows(i), pool, *extra, &mut out);
            out
        }
        Op::Spread { x, pool, extra } => {
            let mut out = zeros();
            windows::spread(operands.read(*x), c.rows(i), pool, *extra, &mut out);
            out
        }
        Op::Window { x, pool, index } => {
            let mut out = zeros();
            window_slot(operands.read(*x), c.rows(i), pool, *index, &mut out);
            out
        }
        Op::Unwindow { x, .. } if added_windows(c, i).is_some() => operands.take(*x, i),
        Op::Unwindow { x, pool, index } => {
            let mut out = zeros();
            windows::unwindow(operands.read(*x), c.rows(i), pool, *index, &mut out);
            out
        }
        _ => return None,
    })
}

/// The windows of value `i` if one sum alone reads them, as what is added: it adds their elements where they lie, and
/// value `i` stays as small as its operand.
fn added_windows<'a>(c: &Context<'a>, i: ValueId) -> Option<(&'a Pool2d, usize)> {
    let Op::Unwindow { pool, index, .. } = &c.program.steps[i].op else { return None };
    let mut readers = c.program.steps[i..].iter().map(|s| &s.op).filter(|op| op.operands().contains(&i));
    let (Some(Op::Add { x, y }), None) = (readers.next(), readers.next()) else { return None };
    (*y == i && *x != i && c.count(*x) == c.count(i)).then_some((pool, *index))
}

fn scaled(mut x: Words, factor: i64) -> Words {
    x.iter_mut().for_each(|v| *v = v.wrapping_mul(factor as u64));
    x
}

/// Element-wise sum.
pub(crate) fn add(x: &mut [u64], y: &[u64]) {
    x.iter_mut().zip(y).for_each(|(a, b)| *a = a.wrapping_add(*b));
}

/// Bit `i` of a plane.
pub(crate) fn bit(plane: &[u64], i: usize) -> u64 {
    plane[i / 64] >> (i % 64) & 1
}

/// Column `i` of `[batch, n]`, without its low bits.
pub(crate) fn shifted_column(x: &[u64], n: usize, i: usize, lo: u32, sample: usize) -> u64 {
    x[sample * n + i] >> lo
}
