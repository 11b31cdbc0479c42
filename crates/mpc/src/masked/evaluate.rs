//! The online phase of a whole program at one evaluator.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trefoil_link::Link;
use trefoil_ring::Words;
use zeroize::Zeroizing;

use super::argmax::{and_opened, argmax, pairs, shifted_layout};
use super::bilinear::apply;
use super::bit::number;
use super::compare::compare;
use super::helper::{About, HEAD, ask_helper};
use super::layout::Layout;
use super::likelihood::{TABLE, likelihoods};
use super::local::{self, Context, Operands};
use super::material::{Material, StepMaterial};
use super::online::{Online, Opening, shorter};
use super::output::{seal_bits, seal_values, value_bytes};
use super::permuted::ask_carol;
use super::piecewise::{Pieces, piecewise};
use super::pool::{max_pool, rounds};
use super::prepare::{last_uses, linear_step, reveal_words};
use super::product::{ProductStep, product};
use super::relu::{relu, select};
use super::truncate::truncate;
use super::weights::EvaluatorWeights;
use crate::compare::Compare;
use crate::error::MpcError;
use crate::program::{Checked, Form, Op, Prediction, Program, Shown, Step, ValueInfo};

/// What an evaluator has after a run.
pub struct Outcome {
    /// The message for the recipient of the program's reveal; empty if the program reveals nothing.
    pub payload: Zeroizing<Vec<u8>>,
    /// The last value where the program reveals nothing: this evaluator's additive share.
    pub share: Words,
    /// Wall time of each step at this evaluator, waiting for the peer included.
    pub times: Vec<Duration>,
    /// What preparing took, waiting for the producer included, where it was done in step with the evaluation.
    pub offline: Duration,
}

/// Evaluates `program` on this evaluator's additive share of the input, consuming the lot's material.
pub fn evaluate(
    program: &Prediction,
    input: Words,
    weights: &EvaluatorWeights,
    material: Material,
    peer: &mut dyn Link,
) -> Result<Outcome, MpcError> {
    let checked = program.checked(material.batch)?;
    Ok(evaluate_given(checked, program.hash(), input, &[], weights, material, peer, [None, None])?.0)
}

/// Evaluates any program of this hash on its first value and on shares of its states, with links to carol and to the
/// helper where it shows them likelihoods. Gives the states that it stores as well.
#[allow(clippy::too_many_arguments, reason = "a program, its hash, two values, what is prepared, and three links")]
pub(crate) fn evaluate_given(
    Checked { program, values: infos }: Checked<'_>,
    hash: [u8; 32],
    first: Words,
    states: &[Words],
    weights: &EvaluatorWeights,
    material: Material,
    peer: &mut dyn Link,
    [mut carol, mut helper]: [Option<&mut dyn Link>; 2],
) -> Result<(Outcome, Vec<Option<Words>>), MpcError> {
    let Material { role, batch, rates, steps: mut material, lot, program: prepared, .. } = material;
    weights.check(program)?;
    if prepared != hash || material.len() != infos.len() {
        return Err(MpcError::Material(format!("lot {lot} was prepared for another program")));
    }
    check_first(&first, infos, batch)?;
    let context = Context { program, infos, batch, rates: &rates };
    let mut run = Run::new(Online::new(role, peer), shorter(&mut helper), context, weights, first, states);
    for (i, m) in material.drain(..).enumerate() {
        run.feed(i, m, shorter(&mut carol))?;
    }
    run.finish()
}

/// Checks the length of the first value.
pub(crate) fn check_first(first: &[u64], infos: &[ValueInfo], batch: usize) -> Result<(), MpcError> {
    let due = infos[0].count(batch);
    if first.len() == due {
        return Ok(());
    }
    let (what, expected) = ("the input".into(), format!("{due} elements"));
    Err(MpcError::Input { what, expected, got: first.len().to_string() })
}

/// How many openings the steps begin with: they cannot depend on each other and take one round.
fn openings(steps: &[Step]) -> usize {
    steps.iter().take_while(|s| matches!(s.op, Op::Open { .. })).count()
}

/// An evaluation under way: it is fed the material of one step after the other.
pub(crate) struct Run<'a> {
    net: Online<'a>,
    helper: Option<&'a mut dyn Link>,
    context: Context<'a>,
    weights: &'a EvaluatorWeights,
    /// The first value, until its step.
    first: Words,
    states: &'a [Words],
    stored: Vec<Option<Words>>,
    /// Additive: this party's share. Masked: delta. Bits: this party's XOR share. Choice: the public bits.
    values: Vec<Words>,
    last: Vec<usize>,
    payload: Zeroizing<Vec<u8>>,
    /// Material of neighbouring openings, until the last of them is there.
    together: Vec<StepMaterial>,
    /// The openings that were sent last, until the peer's shares are received.
    sent: Option<(Opening, Vec<Words>)>,
    times: Vec<Duration>,
}

impl Operands for Run<'_> {
    fn read(&self, x: usize) -> &[u64] {
        &self.values[x]
    }

    fn take(&mut self, x: usize, step: usize) -> Words {
        if self.last[x] == step { std::mem::take(&mut self.values[x]) } else { self.values[x].clone() }
    }
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        net: Online<'a>,
        helper: Option<&'a mut dyn Link>,
        context: Context<'a>,
        weights: &'a EvaluatorWeights,
        first: Words,
        states: &'a [Words],
    ) -> Self {
        let steps = context.program.steps.len();
        Self {
            net,
            helper,
            context,
            weights,
            first,
            states,
            stored: vec![None; context.program.states.len()],
            values: Vec::with_capacity(steps),
            last: last_uses(context.program),
            payload: Zeroizing::default(),
            together: Vec::new(),
            sent: None,
            times: Vec::with_capacity(steps),
        }
    }

    /// Evaluates step `i`, the next one; an opening waits for its neighbours. What was opened last is received only
    /// now: the material of this step was prepared while it was on its way. `carol` is where a step may show her
    /// likelihoods.
    pub(crate) fn feed(
        &mut self,
        i: usize,
        material: StepMaterial,
        carol: Option<&mut dyn Link>,
    ) -> Result<(), MpcError> {
        self.receive()?;
        let began = Instant::now();
        match openings(&self.context.program.steps[i..]) {
            0 => {
                self.net.begin_step(i);
                let value = self.step(i, material, carol)?;
                self.values.push(value);
                self.forget(i);
            }
            more => {
                self.together.push(material);
                if more > 1 {
                    return Ok(());
                }
                let first = self.values.len();
                self.net.begin_step(first);
                let material = std::mem::take(&mut self.together);
                self.open(first, material)?;
            }
        }
        self.times.push(began.elapsed());
        Ok(())
    }

    /// Ends the openings that were sent last.
    fn receive(&mut self) -> Result<(), MpcError> {
        let Some((opening, mut shares)) = self.sent.take() else { return Ok(()) };
        let began = Instant::now();
        let first = self.values.len();
        self.net.complete(&mut shares, opening)?;
        self.values.extend(shares);
        self.times[first] += began.elapsed();
        self.times.resize(self.values.len(), Duration::ZERO);
        Ok(())
    }

    /// What came of it, and the states that were stored.
    pub(crate) fn finish(mut self) -> Result<(Outcome, Vec<Option<Words>>), MpcError> {
        self.receive()?;
        let share = self.values.pop().unwrap_or_default();
        Ok((Outcome { payload: self.payload, share, times: self.times, offline: Duration::ZERO }, self.stored))
    }

    /// Drops what step `i` was the last to read.
    fn forget(&mut self, i: usize) {
        for x in self.context.program.steps[i].op.operands() {
            if self.last[x] == i {
                self.values[x] = Words::default();
            }
        }
    }

    /// Sends the operands of step `first` and of the openings that follow it: one round for all.
    fn open(&mut self, first: usize, material: Vec<StepMaterial>) -> Result<(), MpcError> {
        let (mut shares, mut masks) = (vec![], vec![]);
        for (i, m) in (first..).zip(material) {
            let (Op::Open { x }, StepMaterial::Open(lambda)) = (&self.context.program.steps[i].op, m) else {
                return Err(unfit(i, &self.context.program.steps[i].op));
            };
            shares.push(self.take(*x, i));
            masks.push(lambda);
        }
        let masks: Vec<&[u64]> = masks.iter().map(|m| &m[..]).collect();
        self.sent = Some((self.net.begin(&mut shares, &masks)?, shares));
        Ok(())
    }

    fn step(&mut self, i: usize, material: StepMaterial, carol: Option<&mut dyn Link>) -> Result<Words, MpcError> {
        let Context { program, infos, .. } = self.context;
        let op = &program.steps[i].op;
        let role = self.net.role;
        let (n, rows) = (self.context.count(i), self.context.rows(i));
        match (op, material) {
            (Op::Input | Op::Rows, _) => Ok(std::mem::take(&mut self.first)),
            (Op::Weight { index }, _) => Ok(Words::from(self.weights.delta(*index))),
            (Op::State { slot }, _) => Ok(self.states[*slot].clone()),
            (Op::Store { slot, x }, _) => {
                let value = self.take(*x, i);
                self.stored[*slot] = Some(value.clone());
                Ok(value)
            }
            (Op::Pattern { .. }, StepMaterial::Pattern(bits)) => Ok(Arc::unwrap_or_clone(bits)),
            (Op::Linear { x, .. }, StepMaterial::Linear(mut h)) => {
                let delta = self.take(*x, i);
                if let Some(step) = linear_step(op, infos, i) {
                    apply(&step, rows, &delta, self.weights.share(step.weights), &mut h);
                }
                Ok(h)
            }
            (Op::Product { x, y, map }, StepMaterial::Product(m)) => {
                let step = ProductStep::new(map, infos, (*x, *y, i));
                Ok(product(role, self.context.rows(*x), &step, self.read(*x), self.read(*y), *m))
            }
            (Op::Truncate { x, shift }, StepMaterial::Truncate(m)) => {
                let delta = self.take(*x, i);
                Ok(truncate(role, *shift, &delta, m))
            }
            (Op::Relu { x, shift, window, compare }, StepMaterial::Relu(m)) => {
                relu(&mut self.net, *shift, &Layout::of(*window, *compare), &self.values[*x], *m)
            }
            (Op::MaxPool { x, pool, window, compare }, StepMaterial::Max(m)) => {
                max_pool(&mut self.net, rows, n, pool, &Layout::of(*window, *compare), &self.values[*x], *m)
            }
            (Op::Argmax { x, window, compare }, StepMaterial::Argmax(m)) => {
                let classes = infos[*x].elements();
                argmax(&mut self.net, rows, classes, (*window, *compare), &self.values[*x], *m)
            }
            (Op::Sign { x, window, compare: way }, StepMaterial::Sign(m)) => {
                let delta = &self.values[*x];
                compare(&mut self.net, n, &Layout::of(*window, *way), &m, |start, out| {
                    out.copy_from_slice(&delta[start..start + out.len()]);
                })
            }
            (Op::Select { bit, x, shift }, StepMaterial::Select(m)) => {
                Ok(select(role, *shift, self.read(*x), self.read(*bit), *m))
            }
            (Op::Bit { bit }, StepMaterial::Bit(beta)) => Ok(number(role, self.read(*bit), beta)),
            (Op::Piecewise { x, knots, pieces, window, compare, .. }, StepMaterial::Piecewise(m)) => {
                let keys = op.selects_by_keys();
                let (pieces, layout) = (Pieces::new(knots, pieces, keys), Layout::of(*window, *compare));
                piecewise(&mut self.net, &pieces, &layout, &self.values[*x], &m)
            }
            (Op::Likelihoods { x, shift, .. }, StepMaterial::Likelihoods(m)) => {
                let bits = (*shift, infos[*x].scale - shift, infos[i].scale);
                let logits = self.take(*x, i);
                likelihoods(&mut self.net, rows, bits, logits, *m)
            }
            (Op::Likelihoods { x, shift, shown: Shown::Helper }, StepMaterial::Permuted(m)) => {
                let (classes, bits) = (infos[*x].elements(), (*shift, infos[*x].scale - shift, infos[i].scale));
                let about = About { lot: m.lot, step: i, rows, classes, bits };
                let helper = shorter(&mut self.helper).ok_or_else(|| no_link("the helper"))?;
                ask_helper(role, helper, about, &self.values[*x], &m)
            }
            (Op::Likelihoods { x, shift, .. }, StepMaterial::Permuted(m)) => {
                let carol = carol.ok_or_else(|| no_link("carol"))?;
                ask_carol(role, i, carol, (rows, *shift), self.read(*x), *m)
            }
            (Op::Reveal { x, shift }, StepMaterial::Reveal(r)) => {
                let share = self.take(*x, i);
                self.payload = Zeroizing::new(match infos[*x].form {
                    Form::Bits => seal_bits(share, &r),
                    _ => seal_values(role, share, &r, *shift),
                });
                Ok(Words::default())
            }
            (_, StepMaterial::Local) => {
                let constants = if infos[i].form == Form::Additive { role.ones() } else { u64::MAX };
                let context = self.context;
                local::apply(&context, i, constants, self).ok_or_else(|| unfit(i, op))
            }
            _ => Err(unfit(i, op)),
        }
    }
}

fn no_link(to: &str) -> MpcError {
    MpcError::Material(format!("likelihoods need a link to {to}"))
}

fn unfit(step: usize, op: &Op) -> MpcError {
    MpcError::Material(format!("step {step} ({}) has material of another kind", op.name()))
}

/// The exchanges of step `index` of a checked program: payload bytes that each evaluator sends, round by round; and the
/// bytes it sends to the program's recipient. Where alice is shown likelihoods bob alone sends; where carol or the helper
/// is, both send to that server, which answers bob alone. The first of neighbouring openings bears them all.
pub(crate) fn online_payloads(
    program: &Program,
    infos: &[ValueInfo],
    index: usize,
    batch: usize,
) -> (Vec<usize>, usize) {
    let n = infos[index].count(batch);
    let steps = &program.steps;
    let compared = |layout: &Layout, n: usize| -> Vec<usize> {
        layout.opened_by_round().iter().map(|planes| 8 * planes * n.div_ceil(64)).collect()
    };
    match &steps[index].op {
        Op::Open { .. } if index > 0 && openings(&steps[index - 1..=index]) == 2 => (vec![], 0),
        Op::Open { .. } => {
            let together = index..index + openings(&steps[index..]);
            (vec![together.map(|i| 8 * infos[i].count(batch)).sum()], 0)
        }
        Op::Sign { window, compare, .. } => (compared(&Layout::new(*window, *compare), n), 0),
        Op::Piecewise { knots, pieces, window, compare, .. } => {
            let pieces = Pieces::new(knots, pieces, steps[index].op.selects_by_keys());
            let words = pieces.opened_by_round(n, &Layout::new(*window, *compare));
            (words.into_iter().map(|w| 8 * w).collect(), 0)
        }
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
            let (classes, rows) = (infos[*x].elements(), infos[*x].rows(batch));
            let mut sent = compared(&shifted_layout(*window, *compare), pairs(classes) * rows);
            sent.extend(and_opened(classes).iter().map(|planes| 8 * planes * rows.div_ceil(64)));
            (sent, 0)
        }
        Op::Likelihoods { x, shift, shown } => {
            let n = infos[*x].count(batch);
            let (told, answered) = (value_bytes(n, *shift), 8 * TABLE * n);
            let sent = match shown {
                Shown::Alice => vec![told],
                Shown::Carol => vec![told, answered],
                Shown::Helper => vec![HEAD + told, answered],
            };
            (sent, 0)
        }
        Op::Reveal { x, shift } => {
            let words = reveal_words(&infos[*x], batch);
            (vec![], if infos[*x].form == Form::Bits { 8 * words } else { value_bytes(words, *shift) })
        }
        _ => (vec![], 0),
    }
}
