//! A tape interpreted in floating point: training in the clear, and the reference for training on shares.
//!
//! Functions are computed exactly. Results depend on tape, states and batch only, not on the number of threads.

mod conv;
mod moves;
mod products;

use ndarray::ShapeError;

use super::{Map, Op, Rows, Tape, TapeError, Value, ValueId};
use crate::kernels;
use crate::real::Real;
use crate::rng::SplitMix;

/// What one run works on.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, T> {
    /// The records, one after the other.
    pub rows: &'a [T],
    /// How many.
    pub samples: usize,
    /// The public numbers of this step.
    pub rates: &'a [f64],
    /// Seed of the patterns of this step.
    pub seed: u64,
}

/// Runs the tape once: `states` are what they are after the step, the outputs are returned.
///
/// After an error the states are what they were.
pub fn run<T: Real>(tape: &Tape, states: &mut [Vec<T>], batch: &Batch<T>) -> Result<Vec<Vec<T>>, TapeError> {
    run_watched(tape, states, batch, &mut |_, _| {})
}

/// [`run`], showing every value to `watch` as soon as it is computed.
pub fn run_watched<T: Real>(
    tape: &Tape,
    states: &mut [Vec<T>],
    batch: &Batch<T>,
    watch: &mut dyn FnMut(ValueId, &[T]),
) -> Result<Vec<Vec<T>>, TapeError> {
    check(tape, states, batch)?;
    let mut machine = Machine { tape, states, batch, last: last_uses(tape), values: Vec::new() };
    for id in 0..tape.values.len() {
        let y =
            machine.value(id).map_err(|e| TapeError { layer: tape.values[id].layer.clone(), reason: e.to_string() })?;
        watch(id, &y);
        machine.values.push(y);
        for x in tape.values[id].op.operands() {
            if machine.last[x] == id {
                machine.values[x] = Vec::new();
            }
        }
    }
    let mut values = machine.values;
    let outputs = tape.outputs.iter().map(|&o| values[o].clone()).collect();
    for (id, value) in tape.values.iter().enumerate() {
        if let Op::Store { slot, .. } = value.op {
            states[slot] = std::mem::take(&mut values[id]);
        }
    }
    Ok(outputs)
}

/// For every value the last one that reads it; nobody, where it is an output or stored.
fn last_uses(tape: &Tape) -> Vec<ValueId> {
    let mut last = vec![usize::MAX; tape.values.len()];
    for (id, value) in tape.values.iter().enumerate() {
        value.op.operands().into_iter().for_each(|x| last[x] = id);
    }
    tape.outputs.iter().for_each(|&o| last[o] = usize::MAX);
    last
}

fn check<T>(tape: &Tape, states: &[Vec<T>], batch: &Batch<T>) -> Result<(), TapeError> {
    let fail = |reason: String| Err(TapeError { layer: "input".into(), reason });
    let record = tape.record();
    if batch.samples == 0 || batch.samples.checked_mul(record) != Some(batch.rows.len()) {
        return fail(format!("{} records of {record} numbers are not the {} given", batch.samples, batch.rows.len()));
    }
    if batch.rates.len() != tape.rates {
        return fail(format!("{} public numbers, must be {}", batch.rates.len(), tape.rates));
    }
    if states.len() != tape.states.len() {
        return fail(format!("{} states, must be {}", states.len(), tape.states.len()));
    }
    for (s, data) in tape.states.iter().zip(states) {
        if s.shape.iter().product::<usize>() != data.len() {
            return fail(format!("state {} of shape {:?} has {} elements", s.name, s.shape, data.len()));
        }
    }
    Ok(())
}

struct Machine<'a, T> {
    tape: &'a Tape,
    states: &'a [Vec<T>],
    batch: &'a Batch<'a, T>,
    last: Vec<ValueId>,
    values: Vec<Vec<T>>,
}

impl<'a, T: Real> Machine<'a, T> {
    fn info(&self, id: ValueId) -> &'a Value {
        &self.tape.values[id]
    }

    /// The elements of `x` to write over: its own where value `id` is the last that reads them.
    fn owned(&mut self, x: ValueId, id: ValueId) -> Vec<T> {
        if self.last[x] == id { std::mem::take(&mut self.values[x]) } else { self.values[x].clone() }
    }

    fn each(&mut self, x: ValueId, id: ValueId, f: impl Fn(T) -> T) -> Vec<T> {
        let mut y = self.owned(x, id);
        y.iter_mut().for_each(|v| *v = f(*v));
        y
    }

    /// f(x, y) element by element, y repeated where it is the trailing part of x or serves all samples.
    fn both(&mut self, x: ValueId, y: ValueId, id: ValueId, f: impl Fn(T, T) -> T) -> Vec<T> {
        let mut z = if x == y { self.values[x].clone() } else { self.owned(x, id) };
        let (vx, vy) = (self.info(x), self.info(y));
        let size = vy.elements();
        let repeats = if vy.rows == Rows::One { usize::MAX } else { vx.elements() / size };
        let y = &self.values[y];
        for (i, z) in z.chunks_exact_mut(size).enumerate() {
            let y = &y[i / repeats * size..][..size];
            z.iter_mut().zip(y).for_each(|(z, &y)| *z = f(*z, y));
        }
        z
    }

    fn value(&mut self, id: ValueId) -> Result<Vec<T>, ShapeError> {
        let tape = self.tape;
        let value = &tape.values[id];
        let count = value.count(self.batch.samples);
        Ok(match &value.op {
            Op::Rows => self.batch.rows.to_vec(),
            Op::State { slot } => self.states[*slot].clone(),
            Op::Store { x, .. } | Op::Bit { bit: x } | Op::Reshape { x, .. } => self.owned(*x, id),
            Op::Product { x, y, map: Map::Elementwise } => self.both(*x, *y, id, |a, b| a * b),
            Op::Product { x, y, map } => {
                let (a, b) = (&self.values[*x], &self.values[*y]);
                products::product(map, a, &self.info(*x).shape, b, &self.info(*y).shape, count)?
            }
            Op::Add { x, y } => self.both(*x, *y, id, |a, b| a + b),
            Op::Scale { x, factor } => {
                let factor = T::of(*factor);
                self.each(*x, id, |v| v * factor)
            }
            Op::Rate { x, rate } => {
                let rate = T::of(self.batch.rates[*rate]);
                self.each(*x, id, |v| v * rate)
            }
            Op::Offset { x, by } => {
                let by = T::of(*by);
                self.each(*x, id, |v| v + by)
            }
            Op::Sign { x } => {
                let one = T::of(1.0);
                self.each(*x, id, |v| if v >= T::ZERO { one } else { T::ZERO })
            }
            Op::Select { bit: y, x } | Op::Drop { x, pattern: y } => {
                self.both(*x, *y, id, |v, bit| if bit == T::ZERO { T::ZERO } else { v })
            }
            Op::Function { x, function } => {
                let f = *function;
                self.each(*x, id, |v| T::of(f.of(v.to_f64())))
            }
            Op::Likelihoods { x, .. } => moves::likelihoods(&self.values[*x], self.info(*x).elements()),
            Op::Pattern { keep, .. } => {
                let mut rng = SplitMix::new(self.batch.seed ^ (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let one = T::of(1.0);
                (0..count).map(|_| if rng.below(1 << 16) < *keep as usize { one } else { T::ZERO }).collect()
            }
            Op::Sum { x, .. } => {
                let rows = if value.rows == Rows::One { 1 } else { self.batch.samples };
                moves::sum(&self.values[*x], value.elements(), rows)
            }
            Op::Broadcast { x, .. } => {
                let rows = if self.info(*x).rows == Rows::One { 1 } else { self.batch.samples };
                moves::repeat(&self.values[*x], self.info(*x).elements(), count / rows)
            }
            Op::Window { x, pool, index } => moves::window(pool, *index, &self.values[*x], count),
            Op::Unwindow { x, pool, index } => moves::unwindow(pool, *index, &self.values[*x], count),
            Op::AveragePool { x, pool } => {
                kernels::average_pool(pool, &self.values[*x], (value.shape[0], value.shape[1]))
            }
            Op::Spread { x, pool } => moves::spread(pool, &self.values[*x], count),
            Op::Pad { x, pads } => {
                let s = &self.info(*x).shape;
                kernels::zero_pad(&self.values[*x], (s[0], s[1], s[2]), *pads)
            }
            Op::Crop { x, pads } => {
                let (from, to) = (&self.info(*x).shape, &value.shape);
                let wide = moves::slice(&self.values[*x], from, 0, pads.top, to[0]);
                moves::slice(&wide, &[to[0], from[1], from[2]], 1, pads.left, to[1])
            }
            Op::Slice { x, axis, start, len } => {
                moves::slice(&self.values[*x], &self.info(*x).shape, *axis, *start, *len)
            }
            Op::Concat { xs, axis } => {
                let inner = |x: ValueId| self.info(x).shape[*axis..].iter().product::<usize>();
                let parts: Vec<(&[T], usize)> = xs.iter().map(|&x| (&self.values[x][..], inner(x))).collect();
                kernels::concat(&parts, count / inner(id))
            }
        })
    }
}
