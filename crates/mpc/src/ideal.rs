//! The ideal functionality: a program on ring values in the clear, with exact truncation and comparison.
//!
//! It is the oracle of every test and what the owner's side measures wires with. The protocol's result differs from it
//! by at most one unit for each truncation.

use trefoil_ring::Words;
use trefoil_ring::geometry::Pool2d;
use trefoil_ring::kernels::matmul;

use crate::error::MpcError;
use crate::masked::local;
use crate::masked::{apply, check, linear_step, matmul_sizes};
use crate::program::{Op, Program};

/// Every value of `program` for `batch` samples, given the encoded input and weights (in the program's order).
/// A label is the index itself, one word per sample.
pub fn evaluate(program: &Program, batch: usize, input: &[u64], weights: &[&[u64]]) -> Result<Vec<Words>, MpcError> {
    let infos = check(program, batch)?;
    let due = infos[0].elements() * batch;
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
    let mut values: Vec<Words> = Vec::with_capacity(infos.len());
    for (i, step) in program.steps.iter().enumerate() {
        let mut out = Words::zeros(infos[i].elements() * batch);
        let copy = |x: usize| -> Words { values[x].to_vec().into() };
        match &step.op {
            Op::Input => out = input.to_vec().into(),
            Op::Open { x } | Op::Reshape { x, .. } => out = copy(*x),
            Op::Linear { x, weights: w, bias, .. } => {
                if let Some(b) = bias {
                    for row in out.chunks_exact_mut(weights[*b].len()) {
                        row.copy_from_slice(weights[*b]);
                    }
                }
                if let Some(linear) = linear_step(&step.op, &infos, i) {
                    apply(&linear, batch, &values[*x], weights[*w], &mut out);
                }
            }
            Op::MatMul { x, y } => {
                let (m, k, n) = matmul_sizes(&infos, *x, *y);
                let operands = values[*x].chunks_exact(m * k).zip(values[*y].chunks_exact(k * n));
                for ((x, y), out) in operands.zip(out.chunks_exact_mut(m * n)) {
                    matmul(m, k, n, x, y, out);
                }
            }
            Op::Slice { x, start, len } => out = local::slice(&values[*x], &infos[*x].shape, *start, *len),
            Op::Truncate { x, shift } => map(&values[*x], &mut out, |v| v >> shift),
            Op::Relu { x, shift, .. } => map(&values[*x], &mut out, |v| v.max(0) >> shift),
            Op::MaxPool { x, pool, .. } => max_pool(&values[*x], batch, pool, &mut out),
            Op::AveragePool { x, pool, extra } => local::average_pool(&values[*x], batch, pool, *extra, &mut out),
            Op::Scale { x, factor, .. } => map(&values[*x], &mut out, |v| v.wrapping_mul(*factor)),
            Op::Offset { x, units } => map(&values[*x], &mut out, |v| v.wrapping_add(*units)),
            Op::Add { x, y } => {
                out = copy(*x);
                local::add(&mut out, &values[*y]);
            }
            Op::Concat { xs, axis } => {
                let parts: Vec<_> = xs.iter().map(|x| (&values[*x][..], &infos[*x].shape[..])).collect();
                out = local::concat(&parts, batch, *axis);
            }
            Op::Pad { x, pads } => out = local::pad(&values[*x], batch, &infos[*x].shape, pads),
            Op::Argmax { x, .. } => {
                let n = infos[*x].elements();
                let index = |row: &[u64]| (0..n).rev().max_by_key(|&i| row[i] as i64).unwrap_or(0) as u64;
                out = values[*x].chunks_exact(n).map(index).collect::<Vec<_>>().into();
            }
            Op::Reveal { x, shift } => {
                out = copy(*x);
                out.iter_mut().for_each(|v| *v = (*v as i64 >> shift) as u64);
            }
        }
        values.push(out);
    }
    Ok(values)
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
