//! The offline phase of a whole program: dealing at the producer, preparation at the evaluators, counting.

use std::sync::Arc;
use std::time::Instant;

use trefoil_link::Link;
use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;

use super::argmax::deal_argmax;
use super::bilinear::{LinearStep, OfflineWeights, deal_linear, deal_matmul};
use super::dealing::{AliceDealing, At, BobDealing, Counting, Dealing, Producer};
use super::layout::Layout;
use super::local;
use super::material::{Material, StepMaterial};
use super::online::Role;
use super::output;
use super::pool::deal_max;
use super::relu::deal_relu;
use super::truncate::deal_truncate;
use super::weights::{EvaluatorWeights, ProducerWeights};
use crate::error::MpcError;
use crate::program::{Form, Op, Program, ValueInfo};

/// Checks a program together with a batch size.
pub(crate) fn check(program: &Program, batch: usize) -> Result<Vec<ValueInfo>, MpcError> {
    let infos = program.infer()?;
    let most = crate::limits::largest_batch(program, &infos);
    if !(1..=most).contains(&batch) {
        let expected = format!("1 to {most}");
        return Err(MpcError::Input { what: "the batch".into(), expected, got: batch.to_string() });
    }
    Ok(infos)
}

/// The last step that reads each value.
pub(crate) fn last_uses(program: &Program) -> Vec<usize> {
    let mut last: Vec<usize> = (0..program.steps.len()).collect();
    for (i, step) in program.steps.iter().enumerate() {
        for x in step.op.operands() {
            last[x] = i;
        }
    }
    last
}

/// Sizes of a linear step, for one sample.
pub(crate) fn linear_step<'a>(op: &'a Op, infos: &[ValueInfo], out: usize) -> Option<LinearStep<'a>> {
    match op {
        Op::Linear { x, weights, bias, map } => Some(LinearStep {
            map,
            weights: *weights,
            bias: *bias,
            inputs: infos[*x].elements(),
            outputs: infos[out].elements(),
        }),
        _ => None,
    }
}

/// m, k and n of a matrix product that was checked.
pub(crate) fn matmul_sizes(infos: &[ValueInfo], x: usize, y: usize) -> (usize, usize, usize) {
    (infos[x].shape[0], infos[x].shape[1], infos[y].shape[1])
}

/// Masks of the masked values, while a later step still reads them.
struct Masks {
    held: Vec<Arc<Words>>,
    last: Vec<usize>,
}

impl Masks {
    fn get(&self, x: usize) -> &[u64] {
        &self.held[x]
    }

    fn forget(&mut self, step: usize, op: &Op) {
        for x in op.operands() {
            if self.last[x] == step {
                self.held[x] = Arc::default();
            }
        }
    }
}

/// One step's dealing: its material, and the mask of its value where that is masked.
fn step<D: Dealing>(
    d: &mut D,
    index: usize,
    op: &Op,
    infos: &[ValueInfo],
    batch: usize,
    masks: &Masks,
    weights: &impl OfflineWeights,
) -> Result<(StepMaterial, Arc<Words>), MpcError> {
    let at = At::step(index)?;
    let n = infos[index].elements() * batch;
    let masked = infos[index].form == Form::Masked && D::COMPUTES;
    let own = |x: usize| Words::from(masks.get(x));
    let local = |mask: Words| Ok((StepMaterial::Local, Arc::new(mask)));
    match op {
        Op::Input | Op::Reveal { .. } => local(Words::default()),
        Op::Open { .. } => {
            let mut draw = d.open_mask(at, Purpose::Lambda)?;
            let lambda = Arc::new(d.mask(&mut draw, n));
            Ok((StepMaterial::Open(lambda.clone()), lambda))
        }
        Op::Linear { x, .. } => {
            let Some(linear) = linear_step(op, infos, index) else { return local(Words::default()) };
            let h = deal_linear(d, at, &linear, batch, masks.get(*x), weights)?;
            Ok((StepMaterial::Linear(h), Arc::default()))
        }
        Op::MatMul { x, y } => {
            let m = deal_matmul(d, at, batch, matmul_sizes(infos, *x, *y), masks.get(*x), masks.get(*y))?;
            Ok((StepMaterial::MatMul(Box::new(m)), Arc::default()))
        }
        Op::Truncate { x, shift } => {
            Ok((StepMaterial::Truncate(deal_truncate(d, at, n, *shift, masks.get(*x))?), Arc::default()))
        }
        Op::Relu { x, shift, window, compare } => {
            let m = deal_relu(d, at, n, *shift, &Layout::new(*window, *compare), masks.get(*x))?;
            Ok((StepMaterial::Relu(Box::new(m)), Arc::default()))
        }
        Op::MaxPool { x, pool, window, compare } => {
            let m = deal_max(d, at, batch, n, pool, &Layout::new(*window, *compare), masks.get(*x))?;
            Ok((StepMaterial::Max(Box::new(m)), Arc::default()))
        }
        Op::Argmax { x, window, compare } => {
            let m = deal_argmax(d, at, batch, infos[*x].elements(), (*window, *compare), masks.get(*x))?;
            Ok((StepMaterial::Argmax(Box::new(m)), Arc::default()))
        }
        _ if !masked => local(Words::default()),
        Op::Offset { x, .. } | Op::Reshape { x, .. } => Ok((StepMaterial::Local, masks.held[*x].clone())),
        Op::AveragePool { x, pool, extra } => {
            let mut out = Words::zeros(n);
            local::average_pool(masks.get(*x), batch, pool, *extra, &mut out);
            local(out)
        }
        Op::Scale { x, factor, .. } => {
            let mut out = own(*x);
            local::scale(&mut out, *factor);
            local(out)
        }
        Op::Add { x, y } => {
            let mut out = own(*x);
            local::add(&mut out, masks.get(*y));
            local(out)
        }
        Op::Concat { xs, axis } => {
            let parts: Vec<_> = xs.iter().map(|x| (masks.get(*x), &infos[*x].shape[..])).collect();
            local(local::concat(&parts, batch, *axis))
        }
        Op::Slice { x, start, len } => local(local::slice(masks.get(*x), &infos[*x].shape, *start, *len)),
        Op::Pad { x, pads } => local(local::pad(masks.get(*x), batch, &infos[*x].shape, pads)),
    }
}

/// Walks the program; `keep` takes each step's material.
fn walk<D: Dealing>(
    d: &mut D,
    program: &Program,
    infos: &[ValueInfo],
    batch: usize,
    weights: &impl OfflineWeights,
    mut keep: impl FnMut(&mut D, usize, StepMaterial) -> Result<(), MpcError>,
) -> Result<(), MpcError> {
    let mut masks = Masks { held: Vec::with_capacity(infos.len()), last: last_uses(program) };
    for (i, s) in program.steps.iter().enumerate() {
        d.begin_step(i);
        let (material, mask) = step(d, i, &s.op, infos, batch, &masks, weights)?;
        d.end_step()?;
        masks.held.push(mask);
        masks.forget(i, &s.op);
        keep(d, i, material)?;
    }
    Ok(())
}

/// At the producer: deals one lot of a program for `batch` samples to bob. `alice` and `bob` are the lot's sources.
pub fn deal(
    program: &Program,
    batch: usize,
    weights: &ProducerWeights,
    alice: &Source,
    bob: &Source,
    link: &mut dyn Link,
) -> Result<(), MpcError> {
    let infos = check(program, batch)?;
    weights.check(program)?;
    walk(&mut Producer::new(alice, bob, link), program, &infos, batch, weights, |_, _, _| Ok(()))
}

/// At an evaluator: prepares one lot. `carol` and `peer` are the lot's sources with the producer and with the other
/// evaluator; bob receives what is dealt over `dealt`, alice has none. Where the program compares by keys, bob passes
/// their correction words on to alice over `link`, the evaluators' own: both must prepare at the same time.
pub fn prepare(
    program: &Program,
    batch: usize,
    weights: &EvaluatorWeights,
    carol: &Source,
    peer: &Source,
    link: &mut dyn Link,
    dealt: Option<&mut dyn Link>,
) -> Result<Material, MpcError> {
    let began = Instant::now();
    let infos = check(program, batch)?;
    weights.check(program)?;
    let role = if dealt.is_some() { Role::B } else { Role::A };
    let mut steps = Vec::with_capacity(infos.len());
    let mut keep = |i: usize, m: StepMaterial| {
        let m = match &program.steps[i].op {
            Op::Reveal { x, .. } => {
                StepMaterial::Reveal(output::draw(peer, At::step(i)?, reveal_words(&infos[*x], batch))?)
            }
            _ => m,
        };
        steps.push(m);
        Ok(())
    };
    match dealt {
        Some(dealt) => {
            walk(&mut BobDealing::new(carol, dealt, link), program, &infos, batch, weights, |_, i, m| keep(i, m))?;
        }
        None => walk(&mut AliceDealing::new(carol, link), program, &infos, batch, weights, |_, i, m| keep(i, m))?,
    }
    Ok(Material { role, program: program.hash(), batch, lot: carol.lot(), steps, time: began.elapsed() })
}

/// Words that a revealed value takes.
pub(crate) fn reveal_words(info: &ValueInfo, batch: usize) -> usize {
    match info.form {
        Form::Bits => info.elements() * batch.div_ceil(64),
        _ => info.elements() * batch,
    }
}

/// Bytes that the producer sends for each step, and that bob passes on to alice, frame headers included.
pub(crate) fn count_offline(program: &Program, batch: usize) -> Result<Vec<(u64, u64)>, MpcError> {
    let infos = check(program, batch)?;
    (0..infos.len()).map(|i| count_step(&program.steps[i].op, &infos, i, batch)).collect()
}

/// The same for one step of a checked program.
pub(crate) fn count_step(op: &Op, infos: &[ValueInfo], index: usize, batch: usize) -> Result<(u64, u64), MpcError> {
    let masks = Masks { held: vec![Arc::default(); infos.len()], last: vec![] };
    let mut d = Counting::default();
    step(&mut d, index, op, infos, batch, &masks, &())?;
    d.end_step()?;
    Ok((d.bytes, d.forwarded))
}
