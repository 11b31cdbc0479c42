//! The offline phase of a whole program: dealing at the producer, preparation at the evaluators, counting.

use std::sync::Arc;
use std::time::Instant;

use trefoil_link::Link;
use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;

use super::argmax::deal_argmax;
use super::bilinear::{LinearStep, OfflineWeights, deal_linear};
use super::bit::deal_bit;
use super::compare::deal_compare;
use super::dealing::{AliceDealing, At, BobDealing, Counting, Dealing, Producer};
use super::helper::KEY;
use super::layout::Layout;
use super::likelihood::{TABLE, deal_offsets};
use super::local::{self, Context, Operands};
use super::material::{Material, StepMaterial};
use super::online::Role;
use super::output;
use super::pattern::pattern;
use super::permuted::{PermutedMaterial, answer, deal_permuted};
use super::piecewise::{Pieces, deal_piecewise};
use super::pool::deal_max;
use super::product::{ProductStep, deal_product};
use super::relu::{deal_relu, deal_select};
use super::truncate::deal_truncate;
use super::weights::{EvaluatorWeights, ProducerWeights};
use crate::error::MpcError;
use crate::limits;
use crate::program::{Checked, Form, Op, Prediction, Program, Shown, ValueInfo};

/// Checks a program together with a batch size.
pub(crate) fn check(program: &Program, batch: usize) -> Result<Vec<ValueInfo>, MpcError> {
    let infos = program.infer()?;
    limits::check_batch(batch, limits::largest_batch(program, &infos))?;
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

/// Masks of the masked values, while a later step still reads them.
struct Masks {
    held: Vec<Arc<Words>>,
    last: Vec<usize>,
}

impl Operands for Masks {
    fn read(&self, x: usize) -> &[u64] {
        &self.held[x]
    }

    fn take(&mut self, x: usize, step: usize) -> Words {
        if self.last[x] == step {
            Arc::unwrap_or_clone(std::mem::take(&mut self.held[x]))
        } else {
            Words::from(&self.held[x][..])
        }
    }
}

impl Masks {
    fn forget(&mut self, step: usize, op: &Op) {
        for x in op.operands() {
            if self.last[x] == step {
                self.held[x] = Arc::default();
            }
        }
    }
}

/// What a run is for: a batch, and what a step of training brings beside its sources.
#[derive(Default)]
pub(crate) struct Given<'a> {
    pub(crate) batch: usize,
    pub(crate) rates: &'a [i64],
    /// Masks of the rows: whole at the producer, own part at an evaluator.
    pub(crate) rows: Arc<Words>,
    /// Where what all three servers know is drawn.
    pub(crate) common: Option<&'a Source>,
}

/// The offline phase of one run.
pub(crate) struct Offline<'a, W> {
    pub(crate) context: Context<'a>,
    pub(crate) given: Given<'a>,
    pub(crate) weights: &'a W,
}

impl<W: OfflineWeights> Offline<'_, W> {
    /// One step's dealing: its material, and the mask of its value where that has one (or the bits all servers know).
    fn step<D: Dealing>(
        &self,
        d: &mut D,
        index: usize,
        masks: &mut Masks,
    ) -> Result<(StepMaterial, Arc<Words>), MpcError> {
        let Context { program, infos, .. } = self.context;
        let op = &program.steps[index].op;
        let at = At::step(index)?;
        let (n, rows) = (self.context.count(index), self.context.rows(index));
        let unmasked = |m: StepMaterial| Ok((m, Arc::default()));
        match op {
            Op::Rows => Ok((StepMaterial::Local, self.given.rows.clone())),
            Op::Weight { index } if D::COMPUTES => {
                Ok((StepMaterial::Local, Arc::new(self.weights.wire_mask(*index, D::PUBLIC))))
            }
            Op::Open { .. } => {
                let mut draw = d.open_mask(at, Purpose::Lambda)?;
                let lambda = Arc::new(d.mask(&mut draw, n));
                Ok((StepMaterial::Open(lambda.clone()), lambda))
            }
            Op::Pattern { keep, .. } => {
                let bits = match self.given.common {
                    Some(common) if D::COMPUTES => Arc::new(pattern(common, at, n, *keep)?),
                    _ => Arc::default(),
                };
                Ok((StepMaterial::Pattern(bits.clone()), bits))
            }
            Op::Linear { x, .. } => {
                let Some(linear) = linear_step(op, infos, index) else { return unmasked(StepMaterial::Local) };
                unmasked(StepMaterial::Linear(deal_linear(d, at, &linear, rows, masks.read(*x), self.weights)?))
            }
            Op::Product { x, y, map } => {
                let step = ProductStep::new(map, infos, (*x, *y, index));
                let (lx, ly) = (masks.held[*x].clone(), masks.held[*y].clone());
                let m = deal_product(d, at, self.context.rows(*x), &step, lx, ly)?;
                unmasked(StepMaterial::Product(Box::new(m)))
            }
            Op::Truncate { x, shift } => {
                unmasked(StepMaterial::Truncate(deal_truncate(d, at, n, *shift, masks.read(*x))?))
            }
            Op::Relu { x, shift, window, compare } => {
                let m = deal_relu(d, at, n, *shift, &Layout::of(*window, *compare), &masks.held[*x])?;
                unmasked(StepMaterial::Relu(Box::new(m)))
            }
            Op::MaxPool { x, pool, window, compare } => {
                let m = deal_max(d, at, rows, n, pool, &Layout::of(*window, *compare), masks.read(*x))?;
                unmasked(StepMaterial::Max(Box::new(m)))
            }
            Op::Argmax { x, window, compare } => {
                let m = deal_argmax(d, at, rows, infos[*x].elements(), (*window, *compare), masks.read(*x))?;
                unmasked(StepMaterial::Argmax(Box::new(m)))
            }
            Op::Sign { x, window, compare } => {
                let lambda = masks.read(*x);
                let write = |start: usize, out: &mut [u64]| out.copy_from_slice(&lambda[start..start + out.len()]);
                let mut m = deal_compare(d, at, n, &Layout::of(*window, *compare), write)?;
                let beta = if D::KEEPS { Words::default() } else { std::mem::take(&mut m.sign) };
                Ok((StepMaterial::Sign(Box::new(m)), Arc::new(beta)))
            }
            Op::Select { bit, x, shift } => {
                let m = deal_select(d, at, n, *shift, &masks.held[*x], masks.read(*bit))?;
                unmasked(StepMaterial::Select(Box::new(m)))
            }
            Op::Bit { bit } => unmasked(StepMaterial::Bit(deal_bit(d, at, n, masks.read(*bit))?)),
            Op::Piecewise { x, knots, pieces, window, compare, .. } => {
                let (pieces, layout) =
                    (Pieces::new(knots, pieces, op.selects_by_keys()), Layout::of(*window, *compare));
                let m = deal_piecewise(d, at, n, &pieces, &layout, masks.held[*x].clone())?;
                unmasked(StepMaterial::Piecewise(Box::new(m)))
            }
            Op::Likelihoods { shown: Shown::Alice, .. } => {
                unmasked(StepMaterial::Likelihoods(Box::new(deal_offsets(d, at, rows)?)))
            }
            Op::Likelihoods { x, shown: Shown::Carol, .. } => {
                unmasked(StepMaterial::Permuted(Box::new(deal_permuted(d, at, TABLE * self.context.count(*x))?)))
            }
            Op::Likelihoods { shown: Shown::Helper, .. } => {
                unmasked(StepMaterial::Permuted(Box::new(deal_permuted(d, at, KEY)?)))
            }
            _ if infos[index].form != Form::Masked || !D::COMPUTES => unmasked(StepMaterial::Local),
            Op::Offset { x, .. } | Op::Reshape { x, .. } => Ok((StepMaterial::Local, masks.held[*x].clone())),
            _ => {
                let mask = local::apply(&self.context, index, 0, masks).unwrap_or_default();
                Ok((StepMaterial::Local, Arc::new(mask)))
            }
        }
    }

    /// Walks the program; `keep` takes each step's material, with the dealing's end of the links.
    pub(crate) fn walk<D: Dealing>(
        &self,
        d: &mut D,
        mut keep: impl FnMut(&mut D, usize, StepMaterial) -> Result<(), MpcError>,
    ) -> Result<(), MpcError> {
        let program = self.context.program;
        let mut masks = Masks { held: Vec::with_capacity(program.steps.len()), last: last_uses(program) };
        for (i, s) in program.steps.iter().enumerate() {
            d.begin_step(i);
            let (material, mask) = self.step(d, i, &mut masks)?;
            d.end_step()?;
            masks.held.push(mask);
            masks.forget(i, &s.op);
            keep(d, i, material)?;
        }
        Ok(())
    }
}

/// At the producer: deals one lot of a program for `batch` samples to bob. `alice` and `bob` are the lot's sources.
pub fn deal(
    program: &Prediction,
    batch: usize,
    weights: &ProducerWeights,
    alice: &Source,
    bob: &Source,
    link: &mut dyn Link,
) -> Result<(), MpcError> {
    deal_given(program.checked(batch)?, Given { batch, ..Given::default() }, weights, [alice, bob], link)
}

/// The same for any program.
pub(crate) fn deal_given(
    Checked { program, values: infos }: Checked<'_>,
    given: Given<'_>,
    weights: &ProducerWeights,
    [alice, bob]: [&Source; 2],
    link: &mut dyn Link,
) -> Result<(), MpcError> {
    let Given { batch, rates, .. } = given;
    weights.check(program)?;
    let context = Context { program, infos, batch, rates };
    Offline { context, given, weights }.walk(&mut Producer::new(alice, bob, link), |_, _, _| Ok(()))
}

/// At the producer: the same for a program that trains, computing what it shows her besides. `links` lead to alice and
/// to bob. Where the evaluators prepare everything `first`, she deals everything before the first answer.
pub(crate) fn serve_given(
    Checked { program, values: infos }: Checked<'_>,
    given: Given<'_>,
    weights: &ProducerWeights,
    [alice, bob]: [&Source; 2],
    [to_alice, to_bob]: [&mut dyn Link; 2],
    first: bool,
) -> Result<(), MpcError> {
    let Given { batch, rates, .. } = given;
    weights.check(program)?;
    let context = Context { program, infos, batch, rates };
    let mut serve = |i: usize, m: &PermutedMaterial, to_bob: &mut dyn Link| {
        let Op::Likelihoods { x, shift, shown: Shown::Carol } = program.steps[i].op else { return Ok(()) };
        let size = (context.rows(x), infos[x].elements());
        answer(i, [&mut *to_alice, to_bob], size, (shift, infos[x].scale - shift, infos[i].scale), m)
    };
    let mut later = Vec::new();
    let mut dealing = Producer::new(alice, bob, to_bob);
    Offline { context, given, weights }.walk(&mut dealing, |d, i, m| match (m, d.shown()) {
        (StepMaterial::Permuted(m), Some(to_bob)) if !first => serve(i, &m, to_bob),
        (StepMaterial::Permuted(m), _) => {
            later.push((i, m));
            Ok(())
        }
        _ => Ok(()),
    })?;
    let Some(to_bob) = dealing.shown() else { return Ok(()) };
    later.into_iter().try_for_each(|(i, m)| serve(i, &m, to_bob))
}

/// At an evaluator: prepares one lot. `carol` and `peer` are the lot's sources with the producer and with the other
/// evaluator; bob receives what is dealt over `dealt`, alice has none. Where the program compares by keys, bob passes
/// their correction words on to alice over `link`, the evaluators' own: both must prepare at the same time.
pub fn prepare(
    program: &Prediction,
    batch: usize,
    weights: &EvaluatorWeights,
    carol: &Source,
    peer: &Source,
    link: &mut dyn Link,
    dealt: Option<&mut dyn Link>,
) -> Result<Material, MpcError> {
    let (checked, given) = (program.checked(batch)?, Given { batch, ..Given::default() });
    prepare_given(checked, program.hash(), given, weights, [carol, peer], link, dealt)
}

/// The same for any program of this hash.
pub(crate) fn prepare_given(
    Checked { program, values: infos }: Checked<'_>,
    hash: [u8; 32],
    given: Given<'_>,
    weights: &EvaluatorWeights,
    [carol, peer]: [&Source; 2],
    link: &mut dyn Link,
    dealt: Option<&mut dyn Link>,
) -> Result<Material, MpcError> {
    let began = Instant::now();
    let Given { batch, rates, .. } = given;
    weights.check(program)?;
    let role = if dealt.is_some() { Role::B } else { Role::A };
    let mut steps = Vec::with_capacity(infos.len());
    let context = Context { program, infos, batch, rates };
    let mut keep = |i: usize, m: StepMaterial| {
        steps.push(with_output(&context, i, m, peer)?);
        Ok(())
    };
    let offline = Offline { context, given, weights };
    match dealt {
        Some(dealt) => offline.walk(&mut BobDealing::new(carol, dealt, Some(link)), |_, i, m| keep(i, m))?,
        None => offline.walk(&mut AliceDealing::new(carol, Some(link), None), |_, i, m| keep(i, m))?,
    }
    let (lot, rates) = (carol.lot(), rates.to_vec());
    Ok(Material { role, program: hash, batch, lot, rates, steps, time: began.elapsed() })
}

/// A step's material with what re-randomises its output (or what one server is shown), where it has one: from the
/// evaluators' own source `peer`.
pub(crate) fn with_output(
    context: &Context<'_>,
    index: usize,
    material: StepMaterial,
    peer: &Source,
) -> Result<StepMaterial, MpcError> {
    match (&context.program.steps[index].op, material) {
        (Op::Likelihoods { x, .. }, StepMaterial::Likelihoods(m)) => {
            let m = m.drawn(peer, At::step(index)?, context.count(*x))?;
            Ok(StepMaterial::Likelihoods(Box::new(m)))
        }
        (Op::Likelihoods { x, .. }, StepMaterial::Permuted(m)) => {
            let m = m.drawn(peer, At::step(index)?, context.rows(*x), context.count(*x))?;
            Ok(StepMaterial::Permuted(Box::new(m)))
        }
        (Op::Reveal { x, .. }, _) => {
            let words = reveal_words(&context.infos[*x], context.batch);
            Ok(StepMaterial::Reveal(output::draw(peer, At::step(index)?, words)?))
        }
        (_, material) => Ok(material),
    }
}

/// Words that a revealed value takes.
pub(crate) fn reveal_words(info: &ValueInfo, batch: usize) -> usize {
    match info.form {
        Form::Bits => info.elements() * info.rows(batch).div_ceil(64),
        _ => info.count(batch),
    }
}

/// Bytes that the producer sends for each step, and that bob passes on to alice, frame headers included.
pub(crate) fn count_offline(program: &Program, batch: usize) -> Result<Vec<(u64, u64)>, MpcError> {
    let infos = check(program, batch)?;
    (0..infos.len()).map(|i| count_step(program, &infos, i, batch)).collect()
}

/// The same for one step of a checked program.
pub(crate) fn count_step(
    program: &Program,
    infos: &[ValueInfo],
    index: usize,
    batch: usize,
) -> Result<(u64, u64), MpcError> {
    let mut masks = Masks { held: vec![Arc::default(); infos.len()], last: vec![] };
    let context = Context { program, infos, batch, rates: &[] };
    let mut d = Counting::default();
    Offline { context, given: Given::default(), weights: &() }.step(&mut d, index, &mut masks)?;
    d.end_step()?;
    Ok((d.bytes, d.forwarded))
}
