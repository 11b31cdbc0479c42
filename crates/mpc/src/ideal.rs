//! The ideal functionality: a program on ring values in the clear, with exact truncation and comparison.
//!
//! It is the oracle of every test and what the owner's side measures wires with. The protocol's result differs from it
//! by at most one unit for each truncation.

use trefoil_prg::Source;
use trefoil_ring::Words;
use trefoil_ring::geometry::Pool2d;

use crate::error::MpcError;
use crate::masked::local::{self, Context, Operands};
use crate::masked::training::check_states;
use crate::masked::{At, ProductStep, TABLE, apply, check, linear_step, pattern, softmax};
use crate::program::{Op, Program};

/// Every value of `program` for `batch` samples, given the encoded input and weights (in the program's order).
/// A label is the index itself, one word per sample; masked bits are words, 0 or 1.
pub fn evaluate(program: &Program, batch: usize, input: &[u64], weights: &[&[u64]]) -> Result<Vec<Words>, MpcError> {
    program.check_prediction()?;
    run(program, batch, input, weights, &Training { states: &[], rates: &[], common: None })
}

/// What a step of training computes beside its weights and rows.
struct Training<'a> {
    states: &'a [Words],
    rates: &'a [i64],
    common: Option<&'a Source>,
}

/// Every value of one step of training on `batch` rows. What the program stores is written to `states`. Patterns are
/// drawn from `common`, as bits: one plane.
pub fn step(
    program: &Program,
    batch: usize,
    rows: &[u64],
    weights: &[&[u64]],
    states: &mut [Words],
    rates: &[i64],
    common: &Source,
) -> Result<Vec<Words>, MpcError> {
    check(program, batch)?;
    check_states(program, states)?;
    let values = run(program, batch, rows, weights, &Training { states, rates, common: Some(common) })?;
    for (i, step) in program.steps.iter().enumerate() {
        if let Op::Store { slot, .. } = step.op {
            states[slot] = values[i].clone();
        }
    }
    Ok(values)
}

fn run(
    program: &Program,
    batch: usize,
    input: &[u64],
    weights: &[&[u64]],
    training: &Training<'_>,
) -> Result<Vec<Words>, MpcError> {
    let infos = check(program, batch)?;
    let due = infos[0].count(batch);
    let bad = |what: &str, expected: usize, got: usize| MpcError::Input {
        what: what.into(),
        expected: format!("{expected} elements"),
        got: got.to_string(),
    };
    if input.len() != due {
        return Err(bad("the input", due, input.len()));
    }
    if weights.len() != program.weights.len() {
        return Err(bad("the list of weights", program.weights.len(), weights.len()));
    }
    for (spec, w) in program.weights.iter().zip(weights) {
        let due = spec.shape.iter().product();
        if w.len() != due {
            return Err(bad(&spec.name, due, w.len()));
        }
    }
    if training.rates.len() != program.rates {
        return Err(bad("the list of public numbers", program.rates, training.rates.len()));
    }
    let context = Context { program, infos: &infos, batch, rates: training.rates };
    let mut values = Values(Vec::with_capacity(infos.len()));
    for (i, step) in program.steps.iter().enumerate() {
        let rows = context.rows(i);
        let mut out = Words::zeros(context.count(i));
        let copy = |x: usize| -> Words { values.0[x].clone() };
        match &step.op {
            Op::Input | Op::Rows => out = Words::from(input),
            Op::Weight { index } => out = Words::from(weights[*index]),
            Op::State { slot } => out = training.states[*slot].clone(),
            Op::Pattern { keep, .. } => {
                if let Some(common) = training.common {
                    out = pattern(common, At::step(i)?, out.len(), *keep)?;
                }
            }
            Op::Open { x } | Op::Store { x, .. } | Op::Bit { bit: x } => out = copy(*x),
            Op::Linear { x, weights: w, bias, .. } => {
                if let Some(b) = bias {
                    for row in out.chunks_exact_mut(weights[*b].len()) {
                        row.copy_from_slice(weights[*b]);
                    }
                }
                if let Some(linear) = linear_step(&step.op, &infos, i) {
                    apply(&linear, rows, &values.0[*x], weights[*w], &mut out);
                }
            }
            Op::Product { x, y, map } => {
                let product = ProductStep::new(map, &infos, (*x, *y, i));
                product.apply(context.rows(*x), &values.0[*x], &values.0[*y], &mut out);
            }
            Op::Truncate { x, shift } => map(&values.0[*x], &mut out, |v| v >> shift),
            Op::Relu { x, shift, .. } => map(&values.0[*x], &mut out, |v| v.max(0) >> shift),
            Op::Sign { x, .. } => map(&values.0[*x], &mut out, |v| i64::from(v >= 0)),
            Op::Select { bit, x, shift } => {
                map(&values.0[*x], &mut out, |v| v >> shift);
                out.iter_mut().zip(values.0[*bit].iter()).for_each(|(v, b)| *v *= b);
            }
            Op::Piecewise { x, knots, pieces, .. } => {
                let piece = |v: i64| &pieces[knots.iter().filter(|k| v.wrapping_sub(**k) >= 0).count()];
                let horner = |v: i64| piece(v).iter().rev().fold(0i64, |s, c| s.wrapping_mul(v).wrapping_add(*c));
                map(&values.0[*x], &mut out, horner);
            }
            Op::MaxPool { x, pool, .. } => max_pool(&values.0[*x], rows, pool, &mut out),
            Op::Argmax { x, .. } => {
                let n = infos[*x].elements();
                let index = |row: &[u64]| (0..n).rev().max_by_key(|&i| row[i] as i64).unwrap_or(0) as u64;
                out = values.0[*x].chunks_exact(n).map(index).collect::<Vec<_>>().into();
            }
            Op::Likelihoods { x, shift, .. } => {
                let (classes, bits) = (infos[*x].elements(), infos[*x].scale - shift);
                for (row, out) in values.0[*x].chunks_exact(classes).zip(out.chunks_exact_mut(TABLE * classes)) {
                    let row: Vec<i64> = row.iter().map(|z| *z as i64 >> shift).collect();
                    softmax(&row, *shift, bits, infos[i].scale, out);
                }
            }
            Op::Reveal { x, shift } => {
                out = copy(*x);
                out.iter_mut().for_each(|v| *v = (*v as i64 >> shift) as u64);
            }
            _ => out = local::apply(&context, i, u64::MAX, &mut values).unwrap_or_default(),
        }
        values.0.push(out);
    }
    Ok(values.0)
}

/// Values of which every one is kept.
struct Values(Vec<Words>);

impl Operands for Values {
    fn read(&self, x: usize) -> &[u64] {
        &self.0[x]
    }

    fn take(&mut self, x: usize, _: usize) -> Words {
        self.0[x].clone()
    }
}

fn map(x: &[u64], out: &mut [u64], f: impl Fn(i64) -> i64) {
    out.iter_mut().zip(x).for_each(|(o, v)| *o = f(*v as i64) as u64);
}

fn max_pool(x: &[u64], batch: usize, pool: &Pool2d, out: &mut [u64]) {
    out.fill(i64::MIN as u64);
    let mut slot = vec![0; out.len()];
    for s in 0..pool.window.0 * pool.window.1 {
        local::window_slot(x, batch, pool, s, &mut slot);
        out.iter_mut().zip(&slot).for_each(|(o, v)| *o = (*o as i64).max(*v as i64) as u64);
    }
}
