//! Reverse-mode differentiation as a graph transformation: a tape extended by its own derivative.
//!
//! Every operation has one rule, written in operations of the tape, so that a gradient is interpreted and lowered
//! like everything else. Where the derivative of a whole is simpler than that of its parts (softmax, batch
//! normalisation), the whole has a rule and its parts are passed over. A loss gives its derivative itself, as
//! seeds: softmax cross-entropy that of its logits, p - y, with no division.

use super::{Function, Kind, Map, Op, Rows, Tape, TapeError, ValueId};

/// The derivative of a value computed in several operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// p = softmax(x): dx = p (dp - sum(p dp)).
    Softmax {
        /// Operand.
        x: ValueId,
    },
    /// h = (x - mean x) inverse, with inverse = 1 / sqrt(var x + e), per channel over `count` numbers:
    /// dx = inverse (dh - mean dh - h mean(dh h)) (Ioffe and Szegedy 2015).
    Normalise {
        /// Operand.
        x: ValueId,
        /// 1 / sqrt(var x + e), one per channel.
        inverse: ValueId,
        /// Numbers per channel.
        count: usize,
    },
}

/// Extends the tape by the derivatives of `wrt`, given the derivative of the loss for some values as `seeds`.
///
/// A value that the seeds do not depend on has no derivative. Those of values with one row are summed over the batch.
pub fn gradients(
    tape: &mut Tape,
    seeds: &[(ValueId, ValueId)],
    wrt: &[ValueId],
) -> Result<Vec<Option<ValueId>>, TapeError> {
    let n = tape.values.len();
    let mut backward = Backward { needed: needed(tape, wrt), found: vec![None; n] };
    for &(of, seed) in seeds {
        backward.give(tape, of, seed)?;
    }
    for id in (0..n).rev() {
        if let Some(g) = backward.found[id].filter(|_| !wrt.contains(&id)) {
            let layer = tape.values[id].layer.clone();
            tape.enter(&layer);
            match tape.rules.iter().find(|(of, _)| *of == id).map(|(_, rule)| *rule) {
                Some(rule) => backward.whole(tape, rule, id, g)?,
                None => backward.operation(tape, id, g)?,
            }
        }
    }
    Ok(wrt.iter().map(|&id| backward.found[id]).collect())
}

/// Which values depend on `wrt` in a way that can be differentiated.
fn needed(tape: &Tape, wrt: &[ValueId]) -> Vec<bool> {
    let mut needed = vec![false; tape.values.len()];
    for (id, v) in tape.values.iter().enumerate() {
        let flat = v.kind != Kind::Number || matches!(v.op, Op::Bit { .. } | Op::Likelihoods { .. });
        needed[id] = wrt.contains(&id) || !flat && v.op.operands().iter().any(|&o| needed[o]);
    }
    needed
}

struct Backward {
    needed: Vec<bool>,
    found: Vec<Option<ValueId>>,
}

impl Backward {
    /// Adds `g`, brought to its shape by summing over what was repeated, to the derivative of `of`.
    fn give(&mut self, tape: &mut Tape, of: ValueId, g: ValueId) -> Result<(), TapeError> {
        let (v, d) = (&tape.values[of], &tape.values[g]);
        let batch = v.rows == Rows::One && d.rows == Rows::Each;
        let keep = v.shape.len();
        let g = if batch || v.shape != d.shape { tape.sum(g, keep, batch)? } else { g };
        self.found[of] = Some(match self.found[of] {
            None => g,
            Some(other) => tape.add(other, g)?,
        });
        Ok(())
    }

    fn wants(&self, id: ValueId) -> bool {
        self.needed.get(id).copied().unwrap_or(false)
    }

    fn whole(&mut self, tape: &mut Tape, rule: Rule, y: ValueId, g: ValueId) -> Result<(), TapeError> {
        match rule {
            Rule::Softmax { x } => {
                let weighted = tape.mul(y, g)?;
                let sum = tape.sum_last(weighted)?;
                let minus = tape.scale(sum, -1.0)?;
                let rest = tape.along_last(g, minus, |t, x, y| t.push(Op::Add { x, y }))?;
                let dx = tape.mul(y, rest)?;
                self.give(tape, x, dx)
            }
            Rule::Normalise { x, inverse, count } => {
                let mean = tape.sum(g, 1, true)?;
                let mean = tape.scale(mean, -1.0 / count as f64)?;
                let product = tape.mul(g, y)?;
                let along = tape.sum(product, 1, true)?;
                let along = tape.scale(along, -1.0 / count as f64)?;
                let along = tape.mul(y, along)?;
                let rest = tape.add(g, mean)?;
                let rest = tape.add(rest, along)?;
                let dx = tape.mul(rest, inverse)?;
                self.give(tape, x, dx)
            }
        }
    }

    fn operation(&mut self, tape: &mut Tape, id: ValueId, g: ValueId) -> Result<(), TapeError> {
        let op = tape.values[id].op.clone();
        let rows = tape.values[id].rows;
        let shape_of = |tape: &Tape, x: ValueId| tape.values[x].shape.clone();
        let (x, dx) = match op {
            Op::Rows | Op::State { .. } | Op::Store { .. } | Op::Pattern { .. } => return Ok(()),
            Op::Sign { .. } | Op::Bit { .. } | Op::Likelihoods { .. } => return Ok(()),
            Op::Product { x, y, map } => return self.product(tape, x, y, map, g),
            Op::Concat { xs, axis } => {
                let mut start = 0;
                for x in xs {
                    let len = tape.values[x].shape[axis];
                    if self.wants(x) {
                        let part = tape.slice(g, axis, start, len)?;
                        self.give(tape, x, part)?;
                    }
                    start += len;
                }
                return Ok(());
            }
            Op::Add { x, y } => {
                for operand in [x, y] {
                    if self.wants(operand) {
                        self.give(tape, operand, g)?;
                    }
                }
                return Ok(());
            }
            Op::Scale { x, factor } => (x, tape.scale(g, factor)?),
            Op::Rate { x, rate } => (x, tape.push(Op::Rate { x: g, rate })?),
            Op::Offset { x, .. } => (x, g),
            Op::Select { bit, x } => (x, tape.push(Op::Select { bit, x: g })?),
            Op::Drop { x, pattern } => (x, tape.push(Op::Drop { x: g, pattern })?),
            Op::Function { x, function } => (x, derivative(tape, function, x, id, g)?),
            Op::Sum { x, keep, .. } => {
                let shape = shape_of(tape, x);
                let batch = rows == Rows::One && tape.values[x].rows == Rows::Each;
                let wide = if keep == 0 { [&shape[..], &[1]].concat() } else { shape.clone() };
                let dx = tape.push(Op::Broadcast { x: g, shape: wide, batch })?;
                (x, tape.reshape(dx, &shape)?)
            }
            // What is given is summed to the operand's shape and rows.
            Op::Broadcast { x, .. } => (x, g),
            Op::Window { x, pool, index } => (x, tape.push(Op::Unwindow { x: g, pool, index })?),
            Op::Unwindow { x, pool, index } => (x, tape.push(Op::Window { x: g, pool, index })?),
            Op::AveragePool { x, pool } => (x, tape.push(Op::Spread { x: g, pool })?),
            Op::Spread { x, pool } => (x, tape.push(Op::AveragePool { x: g, pool })?),
            Op::Reshape { x, .. } => {
                let shape = shape_of(tape, x);
                (x, tape.reshape(g, &shape)?)
            }
            Op::Pad { x, pads } => (x, tape.push(Op::Crop { x: g, pads })?),
            Op::Crop { x, pads } => (x, tape.push(Op::Pad { x: g, pads })?),
            Op::Slice { x, axis, start, len } => (x, unslice(tape, x, g, axis, start, len)?),
        };
        if self.wants(x) { self.give(tape, x, dx) } else { Ok(()) }
    }

    /// Both sides of a product are products of the other side with the derivative.
    fn product(&mut self, tape: &mut Tape, x: ValueId, y: ValueId, map: Map, g: ValueId) -> Result<(), TapeError> {
        let (left, right) = match map {
            Map::Elementwise => ((g, y, Map::Elementwise), (g, x, Map::Elementwise)),
            Map::Dense => ((g, y, Map::DenseInput), (x, g, Map::DenseWeights)),
            Map::DenseInput => ((g, y, Map::Dense), (g, x, Map::DenseWeights)),
            Map::DenseWeights => ((y, g, Map::DenseInput), (x, g, Map::Dense)),
            Map::Conv(c) => ((g, y, Map::ConvInput(c)), (x, g, Map::ConvWeights(c))),
            Map::ConvInput(c) => ((g, y, Map::Conv(c)), (g, x, Map::ConvWeights(c))),
            Map::ConvWeights(c) => ((y, g, Map::ConvInput(c)), (x, g, Map::Conv(c))),
        };
        for (operand, (a, b, map)) in [(x, left), (y, right)] {
            if self.wants(operand) {
                let d = if map == Map::Elementwise { tape.mul(a, b)? } else { tape.product(a, b, map)? };
                self.give(tape, operand, d)?;
            }
        }
        Ok(())
    }
}

/// g f'(x), from y = f(x) where that is simpler.
fn derivative(tape: &mut Tape, f: Function, x: ValueId, y: ValueId, g: ValueId) -> Result<ValueId, TapeError> {
    let slope = match f {
        Function::Exp => y,
        Function::Sigmoid => {
            let square = tape.mul(y, y)?;
            tape.sub(y, square)?
        }
        Function::Tanh => {
            let square = tape.mul(y, y)?;
            let minus = tape.scale(square, -1.0)?;
            tape.offset(minus, 1.0)?
        }
        Function::Reciprocal => {
            let square = tape.mul(y, y)?;
            tape.scale(square, -1.0)?
        }
        Function::InverseSqrt => {
            let square = tape.mul(y, y)?;
            let cube = tape.mul(square, y)?;
            tape.scale(cube, -0.5)?
        }
        Function::Log => tape.function(x, Function::Reciprocal)?,
        Function::Softplus => tape.function(x, Function::Sigmoid)?,
        Function::Elu => {
            // y + 1 where x < 0, exactly 1 elsewhere.
            let bit = tape.push(Op::Sign { x })?;
            let above = tape.push(Op::Select { bit, x: y })?;
            let below = tape.sub(y, above)?;
            tape.offset(below, 1.0)?
        }
        Function::Silu => {
            // s + y (1 - s), with s the sigmoid.
            let s = tape.function(x, Function::Sigmoid)?;
            let product = tape.mul(y, s)?;
            let rest = tape.sub(y, product)?;
            tape.add(s, rest)?
        }
        Function::Gelu => tape.function(x, Function::GeluSlope)?,
        Function::GeluSlope => {
            let reason = "the slope of a GELU has no derivative here".into();
            return Err(TapeError { layer: tape.values[x].layer.clone(), reason });
        }
    };
    tape.mul(g, slope)
}

/// The adjoint of a slice: zeros around it.
fn unslice(
    tape: &mut Tape,
    x: ValueId,
    g: ValueId,
    axis: usize,
    start: usize,
    len: usize,
) -> Result<ValueId, TapeError> {
    let n = tape.values[x].shape[axis];
    let mut xs = vec![g];
    for (at, from, size) in [(0, 0, start), (usize::from(start > 0) + 1, start + len, n - start - len)] {
        if size > 0 {
            let part = tape.slice(x, axis, from, size)?;
            xs.insert(at, tape.scale(part, 0.0)?);
        }
    }
    tape.push(Op::Concat { xs, axis })
}
