//! A run watched from its start to its end, taking in what is revealed to this client.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use trefoil_mpc::program::Op;
use trefoil_nn::train::Patience;
use trefoil_nn::train::clear::Score;
use trefoil_proto::run::{Phase, RunSpec, Stage, When};

use crate::{Client, ClientError, Listing, Opened, RunStatus, RunUseError};

/// How often the servers are asked how the run stands.
const PAUSE: Duration = Duration::from_millis(200);
/// How long servers may be away before this gives up watching. The run itself goes on when they are back.
const AWAY: Duration = Duration::from_secs(600);

/// The outcome of an epoch on shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochScore {
    /// Its number, from 1.
    pub epoch: usize,
    /// Over the rows trained on, as the network was when it saw them.
    pub trained: Score,
    /// Over the rows kept for validation, at the end.
    pub validated: Option<Score>,
}

/// What is heard while a run is watched.
#[derive(Debug)]
pub enum Update<'a> {
    /// How the run stands.
    Status(&'a RunStatus),
    /// An epoch was revealed to this client.
    Epoch(&'a EpochScore),
    /// A server does not answer; the run goes on when it is back.
    Away,
}

/// What came of a run, as far as this client was shown it.
pub struct Trained {
    /// Its epochs, if their metrics were revealed.
    pub epochs: Vec<EpochScore>,
    /// The trained weights by name, if they were.
    pub weights: Vec<(String, Opened)>,
    /// How the run stood when it was last asked for.
    pub status: RunStatus,
}

impl Client {
    /// The trained weights of a run that were revealed to this client so far, by name.
    pub fn trained_weights(
        &mut self,
        spec: &RunSpec,
        status: &RunStatus,
    ) -> Result<Vec<(String, Opened)>, ClientError> {
        let mut all = status.revealed.clone();
        all.sort_unstable_by_key(|r| (r.epoch, r.index));
        let mut weights = Vec::new();
        for r in all {
            let disclosure = spec.reveals.get(r.index as usize);
            if disclosure.is_some_and(|d| d.recipient == self.name() && d.when == When::AtEnd) {
                let opened = self.revealed(spec, status, r)?;
                weights.push((name(spec, &opened), opened));
            }
        }
        Ok(weights)
    }

    /// Waits for the end of a run. It is stopped after `patience` epochs without a lower validation loss, if those are
    /// revealed to this client. `heard` may end the watching, not the run. A run whose data set is dropped has no end:
    /// that is an error.
    pub fn follow(
        &mut self,
        spec: &RunSpec,
        patience: Option<u32>,
        mut heard: impl FnMut(Update<'_>) -> ControlFlow<()>,
    ) -> Result<Trained, ClientError> {
        let (mut epochs, mut weights, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        let mut patience = patience.map(|n| Patience::new(n as usize));
        let (began, mut last) = (Instant::now(), Instant::now());
        let mut rows = Rows::default();
        let status = loop {
            let mut status = match self.run_status(&spec.name) {
                Err(e) if e.is_unavailable() && last.elapsed() < AWAY => {
                    if heard(Update::Away).is_break() {
                        return Err(e);
                    }
                    std::thread::sleep(PAUSE);
                    continue;
                }
                status => status?,
            };
            last = Instant::now();
            status.revealed.sort_unstable_by_key(|r| (r.epoch, r.index));
            let mut told = ControlFlow::Continue(());
            for r in &status.revealed {
                let disclosure = spec.reveals.get(r.index as usize).filter(|d| d.recipient == self.name());
                let Some(disclosure) = disclosure.filter(|_| !seen.contains(&(r.index, r.epoch))) else { continue };
                let opened = match self.revealed(spec, &status, *r) {
                    Err(e) if e.is_unavailable() => break,
                    opened => opened?,
                };
                seen.push((r.index, r.epoch));
                if disclosure.when == When::AtEnd {
                    weights.push((name(spec, &opened), opened));
                    continue;
                }
                let score = score(spec, r.epoch as usize + 1, &opened.values());
                if told.is_continue() {
                    told = heard(Update::Epoch(&score));
                }
                epochs.push(score);
                let waited = score.validated.zip(patience.as_mut());
                if waited.is_some_and(|(v, p)| p.is_over(score.epoch, v.loss)) {
                    self.stop(&spec.name)?;
                    patience = None;
                }
            }
            if told.is_break() || heard(Update::Status(&status)).is_break() || status.stage == Stage::Done {
                break status;
            }
            rows.look(self, spec, &status)?;
            std::thread::sleep(PAUSE.min(Duration::from_millis(20) + began.elapsed() / 20));
        };
        Ok(Trained { epochs, weights, status })
    }
}

/// Whether the rows of a run are still at the servers.
#[derive(Default)]
struct Rows {
    /// Whether this client saw the set.
    seen: bool,
    /// Why the run waited when the sets were last listed: they are listed again when that changes.
    why: Option<String>,
}

impl Rows {
    /// Refuses a run that waits for rows that are gone for good. A set that this client never saw may be somebody else's.
    fn look(&mut self, client: &mut Client, spec: &RunSpec, status: &RunStatus) -> Result<(), ClientError> {
        let why = if status.stage == Stage::Waiting { status.note.as_str() } else { "" };
        if self.why.as_deref() == Some(why) {
            return Ok(());
        }
        // A server that is away, or lists that differ while something is on its way: the next look tells.
        let Ok(Listing { agreed, torn }) = client.list_sets() else { return Ok(()) };
        if !torn.is_empty() {
            return Ok(());
        }
        let there = agreed.iter().any(|s| s.epoch == spec.set);
        if self.seen && !there {
            return Err(RunUseError::NoRows { run: spec.name.clone() }.into());
        }
        (self.seen, self.why) = (there, Some(why.to_owned()));
        Ok(())
    }
}

/// The revealed sums as means.
fn score(spec: &RunSpec, epoch: usize, sums: &[f64]) -> EpochScore {
    let trained = f64::from(spec.steps()) * f64::from(spec.batch);
    let checked = spec.check.as_ref().map(|c| f64::from(spec.places(Phase::Check)) * f64::from(c.batch));
    let counts_right = spec.metrics.iter().any(|m| right(spec, *m));
    let each = if counts_right { 2 } else { 1 };
    let mean = |at: usize, rows: f64| {
        let loss = sums.get(at)? / rows;
        let accuracy = sums.get(at + 1).filter(|_| counts_right).map(|s| s / rows);
        Some(Score { loss, accuracy })
    };
    let none = Score { loss: f64::NAN, accuracy: None };
    EpochScore {
        epoch,
        trained: mean(0, trained).unwrap_or(none),
        validated: checked.and_then(|rows| mean(each, rows)),
    }
}

fn right(spec: &RunSpec, slot: u32) -> bool {
    spec.step.states.get(slot as usize).is_some_and(|s| s.name == "metrics/right")
}

/// The name of the state that was revealed.
fn name(spec: &RunSpec, opened: &Opened) -> String {
    let slot = spec.reveals.get(opened.revealed.index as usize).and_then(|d| {
        d.program.steps.iter().find_map(|s| if let Op::State { slot } = s.op { Some(slot) } else { None })
    });
    slot.and_then(|s| spec.step.states.get(s)).map_or_else(|| opened.purpose.clone(), |s| s.name.clone())
}
