//! A run in memory: the opened data set, the states, and how an evaluator does one part of it.

use trefoil_link::{Link, Phase as LinkPhase};
use trefoil_mpc::MpcError;
use trefoil_mpc::masked::EvaluatorWeights;
use trefoil_mpc::masked::training::{Batch, Seat, run_step};
use trefoil_mpc::program::{Program, WeightSpec};
use trefoil_prg::{Party, Seed, Source};
use trefoil_proto::control::SecretSeed;
use trefoil_proto::run::{Phase, Position, Revealed, RunSpec};
use trefoil_ring::{Tensor, Words};

use super::extract::Extracting;
use super::order::drawn;
use super::{Fault, Run, StoreError};
use crate::core::{Core, nanos, peak_rss};
use crate::probe::Point;
use crate::store::Checkpoint;

/// A run while it goes on.
pub(crate) struct Live {
    /// What the three servers made together.
    pub(crate) seed: Seed,
    /// What is left to be done before steps can read the rows.
    pub(crate) extracting: Option<Extracting>,
    /// Own shares; none at the producer.
    pub(crate) states: Vec<Words>,
    /// What is due.
    pub(crate) at: Position,
    /// The order of one epoch.
    pub(crate) order: Option<(u32, Vec<u32>)>,
}

/// The sources and links of one lot at an evaluator.
pub(crate) struct Lot<'a> {
    pub(crate) number: u64,
    pub(crate) carol: Source,
    pub(crate) other: Source,
    /// Of what all three servers may know.
    pub(crate) common: Source,
    pub(crate) peer: &'a mut dyn Link,
    /// Which evaluator this is, with its link to carol.
    pub(crate) seat: Seat<'a>,
    /// Where the run shows it likelihoods.
    pub(crate) helper: Option<&'a mut dyn Link>,
}

/// The run's seed out of what alice, bob and carol contribute to it.
pub(crate) fn joint_seed(parts: &[SecretSeed]) -> Seed {
    let mut h = blake3::Hasher::new_derive_key("trefoil 2026 seed of a run");
    parts.iter().for_each(|p| {
        h.update(&(p.expose().len() as u64).to_le_bytes()).update(p.expose());
    });
    let seed = Seed::from_bytes(*h.finalize().as_bytes());
    zeroize::Zeroize::zeroize(&mut h);
    seed
}

/// The part of this evaluator's share of a data set that is shuffled before it is opened, and a row's words.
pub(crate) fn shuffled<'a>(spec: &RunSpec, share: &'a mut Words) -> Result<Option<(&'a mut [u64], usize)>, Fault> {
    let Some((part, width)) = spec.shuffled() else { return Ok(None) };
    let part = share.get_mut(part).ok_or_else(|| Fault::Own("the share of the data set is too short".into()))?;
    Ok(Some((part, width)))
}

impl Live {
    /// The rows that a part of the run reads.
    fn rows(&mut self, run: &Run, at: Position) -> Vec<usize> {
        let spec = &run.spec;
        if let Some(listed) = spec.listed_rows(at) {
            return listed;
        }
        if at.phase != Phase::Train {
            return vec![];
        }
        if self.order.as_ref().is_none_or(|(epoch, _)| *epoch != at.epoch) {
            let rows = (spec.training.first, spec.training.end);
            self.order = Some((at.epoch, drawn(&self.seed, run.hash, at.epoch, rows)));
        }
        let from = at.index as usize * spec.batch as usize;
        let order = self.order.as_ref().map_or(&[][..], |(_, rows)| rows);
        order.iter().skip(from).take(spec.batch as usize).map(|r| *r as usize).collect()
    }

    /// Deltas and masks of a batch; a program that reveals reads none and is given zeros.
    pub(crate) fn batch(&mut self, run: &Run, at: Position, width: usize) -> Result<(Words, Words), PartError> {
        if at.phase > Phase::Check {
            return Ok((Words::zeros(width), Words::zeros(width)));
        }
        let rows = self.rows(run, at);
        run.pick(width, &rows)
    }

    /// At an evaluator: does one part of the run with a lot of its own.
    pub(crate) fn part(&mut self, core: &Core, run: &Run, at: Position, lot: Lot<'_>) -> Result<(), PartError> {
        if at.phase == Phase::Extract { self.extract(core, run, at, lot) } else { self.advance(core, run, lot) }
    }

    /// At an evaluator: does what is due, with a lot of its own. What is revealed is on disk when this returns.
    fn advance(&mut self, core: &Core, run: &Run, lot: Lot<'_>) -> Result<(), PartError> {
        let (spec, at) = (&run.spec, self.at);
        let Some((program, size)) = spec.program(at) else {
            return Err(PartError::Nothing(at));
        };
        if let Some(reason) = run.obstacle(core) {
            return Err(PartError::Halted(reason));
        }
        let began = std::time::Instant::now();
        if at.phase == Phase::Train && at.index == 0 {
            spec.metrics.iter().for_each(|m| self.states[*m as usize].fill(0));
        }
        let (rows, lambda) = self.batch(run, at, program.input_shape.iter().product())?;
        let batch = Batch { size: size as usize, lambda, rates: spec.rates_at(at), common: &lot.common };
        let weights = EvaluatorWeights::new(program, vec![])?;
        core.reached(Point::Begun);
        let Lot { number, carol, other, peer, seat, helper, .. } = lot;
        let states = &mut self.states;
        let outcome = run_step(program, batch, rows, states, &weights, &carol, &other, peer, seat, helper)?;
        let (offline, online) = (nanos(outcome.offline), nanos(outcome.times.iter().sum()));
        core.reached(Point::Stepped);
        if let Some((index, _)) = spec.disclosure(at) {
            show(core, run, Revealed { index, epoch: at.epoch, lot: number }, &outcome.payload)?;
        }
        self.at = spec.after(at, 1);
        run.reached(self.at);
        if at.phase == Phase::Train {
            run.count(|n| {
                let m = &mut n.measured;
                (m.steps, m.offline, m.online) = (m.steps + 1, m.offline + offline, m.online + online);
                m.nanos += nanos(began.elapsed());
            });
        }
        Ok(())
    }

    /// Writes a checkpoint if one is due after the `count` parts from `first` on, of which the last took lot `last`.
    pub(crate) fn save(
        &self,
        core: &Core,
        run: &Run,
        (first, count): (Position, u32),
        last: u64,
    ) -> Result<(), StoreError> {
        if !run.spec.saves(first, count) {
            return Ok(());
        }
        let states = self.states.iter().map(|s| s.bytes().to_vec()).collect();
        run.on_disk(|| core.store.save(run.number, &Checkpoint { at: self.at, lot: last, states }))?;
        run.note(core, |n| n.at = Some(self.at))?;
        core.reached(Point::Saved);
        Ok(())
    }
}

/// Shares of states as the weights of a program: `slots` names the state of each.
pub(crate) fn weights(
    spec: &RunSpec,
    states: &[Words],
    program: &Program,
    slots: &[u32],
) -> Result<Vec<Tensor>, String> {
    let one = |(w, slot): (&WeightSpec, &u32)| {
        let slot = *slot as usize;
        let (state, share) = spec.step.states.get(slot).zip(states.get(slot)).ok_or("no such state")?;
        let factor = 1_u64 << w.scale.saturating_sub(state.scale).min(63);
        let words = share.iter().map(|v| v.wrapping_mul(factor)).collect();
        Tensor::new(w.shape.clone(), words).map_err(|e| e.to_string())
    };
    program.weights.iter().zip(slots).map(one).collect()
}

/// A part of a run that failed at this evaluator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartError {
    #[error("nothing is to be run at {0:?}")]
    Nothing(Position),
    #[error("the run stops where it is: {0}")]
    Halted(String),
    #[error(transparent)]
    Mpc(#[from] MpcError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PartError {
    /// At an evaluator whose peer is `other`.
    pub(crate) fn fault(&self, other: Party) -> Fault {
        match self {
            PartError::Mpc(e) => Fault::of(e, other),
            PartError::Nothing(_) | PartError::Halted(_) | PartError::Store(_) => Fault::Own(self.to_string()),
        }
    }
}

/// Keeps this party's part of a revealed value, then says that it is there.
fn show(core: &Core, run: &Run, r: Revealed, payload: &[u8]) -> Result<(), PartError> {
    run.keep_revealed(core, r, payload)?;
    core.reached(Point::Shown);
    let d = &run.spec.reveals[r.index as usize];
    let (recipient, purpose) = (&d.recipient, &d.purpose);
    tracing::info!(run = run.spec.name, recipient, purpose, epoch = r.epoch, lot = r.lot, "revealed");
    Ok(())
}

/// Adds what the links carried in training, extraction or publication to the run's account; what carol or the helper was
/// shown is in bob's, with alice's message, which is as long as his.
pub(crate) fn account(run: &Run, part: Phase, peer: &mut dyn Link, beside: [Option<&mut dyn Link>; 2]) {
    let (mut rounds, mut online, mut offline) = (0, 0, 0);
    for ((phase, _), c) in peer.meter().take() {
        match phase {
            LinkPhase::Online => {
                rounds += c.rounds;
                online += c.sent + c.received;
            }
            LinkPhase::Offline => offline += c.received,
            LinkPhase::Control => {}
        }
    }
    for link in beside.into_iter().flatten() {
        for ((phase, _), c) in link.meter().take() {
            match phase {
                LinkPhase::Online => {
                    rounds += c.rounds;
                    online += 2 * c.sent + c.received;
                }
                LinkPhase::Offline => offline += c.received,
                LinkPhase::Control => {}
            }
        }
    }
    run.count(|n| {
        let m = &mut n.measured;
        let counted = match part {
            Phase::Train => (&mut m.rounds, &mut m.online_bytes, &mut m.offline_bytes),
            Phase::Extract => {
                let e = &mut m.extracted;
                (&mut e.rounds, &mut e.online_bytes, &mut e.offline_bytes)
            }
            Phase::Publish => {
                let p = &mut m.publication;
                (&mut p.rounds, &mut p.online_bytes, &mut p.offline_bytes)
            }
            _ => return,
        };
        *counted.0 += rounds;
        *counted.1 += online;
        *counted.2 += offline;
        m.peak_rss = peak_rss();
    });
}
