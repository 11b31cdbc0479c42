//! The online phase of a whole program at one evaluator.

use std::time::{Duration, Instant};

use trefoil_link::Link;
use trefoil_ring::Words;

use super::argmax::{and_opened, argmax, pairs, shifted_layout};
use super::bilinear::{apply, matmul_share};
use super::layout::Layout;
use super::local;
use super::material::{Material, StepMaterial};
use super::online::Online;
use super::output::{seal_bits, seal_values, value_bytes};
use super::pool::{max_pool, rounds};
use super::prepare::{check, last_uses, linear_step, matmul_sizes, reveal_words};
use super::relu::relu;
use super::truncate::truncate;
use super::weights::EvaluatorWeights;
use crate::compare::Compare;
use crate::error::MpcError;
use crate::program::{Form, Op, Program, ValueInfo};

/// What an evaluator has after a run.
pub struct Outcome {
    /// The message for the recipient of the program's reveal; empty if the program reveals nothing.
    pub payload: Vec<u8>,
    /// The last value where the program reveals nothing: this evaluator's additive share.
    pub share: Words,
    /// Wall time of each step at this evaluator, waiting for the peer included.
    pub times: Vec<Duration>,
}

/// Evaluates `program` on this evaluator's additive share of the input, consuming the lot's material.
pub fn evaluate(
    program: &Program,
    input: Words,
    weights: &EvaluatorWeights,
    material: Material,
    peer: &mut dyn Link,
) -> Result<Outcome, MpcError> {
    let batch = material.batch;
    let infos = check(program, batch)?;
    weights.check(program)?;
    if material.program != program.hash() || material.steps.len() != infos.len() {
        return Err(MpcError::Material(format!("lot {} was prepared for another program", material.lot)));
    }
    let due = infos[0].elements() * batch;
    if input.len() != due {
        return Err(MpcError::Input {
            what: "the input".into(),
            expected: format!("{due} elements"),
            got: input.len().to_string(),
        });
    }
    let mut run = Run {
        net: Online::new(material.role, peer),
        program,
        infos: &infos,
        batch,
        weights,
        values: Vec::with_capacity(infos.len()),
        last: last_uses(program),
        payload: Vec::new(),
    };
    let mut times = Vec::with_capacity(infos.len());
    let mut input = Some(input);
    for (i, m) in material.steps.into_iter().enumerate() {
        let began = Instant::now();
        run.net.begin_step(i);
        let value = run.step(i, m, &mut input)?;
        run.values.push(value);
        run.forget(i);
        times.push(began.elapsed());
    }
    let share = run.values.pop().unwrap_or_default();
    Ok(Outcome { payload: run.payload, share, times })
}

struct Run<'a> {
    net: Online<'a>,
    program: &'a Program,
    infos: &'a [ValueInfo],
    batch: usize,
    weights: &'a EvaluatorWeights,
    /// Additive: this party's share. Masked: delta. Bits: this party's XOR share.
    values: Vec<Words>,
    last: Vec<usize>,
    payload: Vec<u8>,
}

impl Run<'_> {
    /// A value for step `i`: moved out if this is its last use.
    fn take(&mut self, x: usize, i: usize) -> Words {
        if self.last[x] == i { std::mem::take(&mut self.values[x]) } else { self.values[x].clone() }
    }

    /// Drops what step `i` was the last to read.
    fn forget(&mut self, i: usize) {
        for x in self.program.steps[i].op.operands() {
            if self.last[x] == i {
                self.values[x] = Words::default();
            }
        }
    }

    fn step(&mut self, i: usize, material: StepMaterial, input: &mut Option<Words>) -> Result<Words, MpcError> {
        let op = &self.program.steps[i].op;
        let role = self.net.role;
        let n = self.infos[i].elements() * self.batch;
        match (op, material) {
            (Op::Input, _) => Ok(input.take().unwrap_or_default()),
            (Op::Open { x }, StepMaterial::Open(lambda)) => {
                let share = self.take(*x, i);
                self.net.open(share, &lambda)
            }
            (Op::Linear { x, .. }, StepMaterial::Linear(mut h)) => {
                let delta = self.take(*x, i);
                if let Some(step) = linear_step(op, self.infos, i) {
                    apply(&step, self.batch, &delta, self.weights.share(step.weights), &mut h);
                }
                Ok(h)
            }
            (Op::MatMul { x, y }, StepMaterial::MatMul(m)) => {
                Ok(matmul_share(role, matmul_sizes(self.infos, *x, *y), &self.values[*x], &self.values[*y], *m))
            }
            (Op::Truncate { x, shift }, StepMaterial::Truncate(m)) => {
                let delta = self.take(*x, i);
                Ok(truncate(role, *shift, &delta, m))
            }
            (Op::Relu { x, shift, window, compare }, StepMaterial::Relu(m)) => {
                let delta = self.take(*x, i);
                relu(&mut self.net, *shift, &Layout::new(*window, *compare), &delta, *m)
            }
            (Op::MaxPool { x, pool, window, compare }, StepMaterial::Max(m)) => {
                let delta = self.take(*x, i);
                max_pool(&mut self.net, self.batch, n, pool, &Layout::new(*window, *compare), &delta, *m)
            }
            (Op::Argmax { x, window, compare }, StepMaterial::Argmax(m)) => {
                let delta = self.take(*x, i);
                argmax(&mut self.net, self.batch, self.infos[*x].elements(), (*window, *compare), &delta, *m)
            }
            (Op::Reveal { x, shift }, StepMaterial::Reveal(r)) => {
                let share = self.take(*x, i);
                self.payload = match self.infos[*x].form {
                    Form::Bits => seal_bits(share, &r),
                    _ => seal_values(role, share, &r, *shift),
                };
                Ok(Words::default())
            }
            (Op::AveragePool { x, pool, extra }, _) => {
                let v = self.take(*x, i);
                let mut out = Words::zeros(n);
                local::average_pool(&v, self.batch, pool, *extra, &mut out);
                Ok(out)
            }
            (Op::Scale { x, factor, .. }, _) => {
                let mut v = self.take(*x, i);
                local::scale(&mut v, *factor);
                Ok(v)
            }
            (Op::Offset { x, units }, _) => {
                let mut v = self.take(*x, i);
                let units = match self.infos[*x].form {
                    Form::Additive => role.public(*units as u64),
                    _ => *units as u64,
                };
                local::offset(&mut v, units);
                Ok(v)
            }
            (Op::Add { x, y }, _) => {
                let mut v = if x == y { self.values[*x].clone() } else { self.take(*x, i) };
                local::add(&mut v, &self.values[*y]);
                Ok(v)
            }
            (Op::Concat { xs, axis }, _) => {
                let parts: Vec<_> = xs.iter().map(|x| (&self.values[*x][..], &self.infos[*x].shape[..])).collect();
                Ok(local::concat(&parts, self.batch, *axis))
            }
            (Op::Reshape { x, .. }, _) => Ok(self.take(*x, i)),
            (Op::Slice { x, start, len }, _) => Ok(local::slice(&self.values[*x], &self.infos[*x].shape, *start, *len)),
            (Op::Pad { x, pads }, _) => Ok(local::pad(&self.values[*x], self.batch, &self.infos[*x].shape, pads)),
            (op, _) => Err(MpcError::Material(format!("step {i} ({}) has material of another kind", op.name()))),
        }
    }
}

/// The exchanges of a step: payload bytes that each evaluator sends, round by round; and the bytes it sends to the
/// program's recipient.
pub(crate) fn online_payloads(op: &Op, infos: &[ValueInfo], index: usize, batch: usize) -> (Vec<usize>, usize) {
    let n = infos[index].elements() * batch;
    let compared = |layout: &Layout, n: usize| -> Vec<usize> {
        layout.opened_by_round().iter().map(|planes| 8 * planes * n.div_ceil(64)).collect()
    };
    match op {
        Op::Open { .. } => (vec![8 * n], 0),
        Op::Relu { compare: Compare::Keys, .. } => (vec![], 0),
        Op::Relu { window, compare, .. } => (compared(&Layout::new(*window, *compare), n), 0),
        Op::MaxPool { pool, window, compare, .. } => {
            let layout = Layout::new(*window, *compare);
            let levels = rounds(pool.window.0 * pool.window.1);
            let mut sent = Vec::new();
            for (l, (pairs, _)) in levels.iter().enumerate() {
                if !layout.keys {
                    sent.extend(compared(&layout, pairs * n));
                }
                if l + 1 < levels.len() {
                    sent.push(8 * pairs * n);
                }
            }
            (sent, 0)
        }
        Op::Argmax { x, window, compare } => {
            let classes = infos[*x].elements();
            let mut sent = compared(&shifted_layout(*window, *compare), pairs(classes) * batch);
            sent.extend(and_opened(classes).iter().map(|planes| 8 * planes * batch.div_ceil(64)));
            (sent, 0)
        }
        Op::Reveal { x, shift } => {
            let words = reveal_words(&infos[*x], batch);
            (vec![], if infos[*x].form == Form::Bits { 8 * words } else { value_bytes(words, *shift) })
        }
        _ => (vec![], 0),
    }
}
