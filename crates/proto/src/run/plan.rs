//! The order of a run's parts: where it stands, what is due, and after what its states are put on disk.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use trefoil_mpc::program::Program;

use super::{Disclosure, Order, RowRange, RunSpec, When};

/// What a part of a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// A batch of rows becomes features. Where a run has these they come before anything else, and again whenever a
    /// server lost its memory: wherever the run then stands.
    Extract,
    /// A step of training.
    Train,
    /// A batch of validation rows.
    Check,
    /// A value revealed at the end of an epoch.
    Reveal,
    /// A value revealed when training is over.
    Close,
    /// The model is to be served.
    Publish,
    /// Nothing is left.
    Done,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Phase; 7] =
        [Phase::Extract, Phase::Train, Phase::Check, Phase::Reveal, Phase::Close, Phase::Publish, Phase::Done];
}

/// A place in a run. Later places are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Epochs that are over.
    pub epoch: u32,
    /// What is due.
    pub phase: Phase,
    /// Which of its kind in this epoch.
    pub index: u32,
}

impl Position {
    /// Where every run begins.
    pub const START: Position = Position { epoch: 0, phase: Phase::Train, index: 0 };
}

impl RunSpec {
    /// Steps of each epoch.
    pub fn steps(&self) -> u32 {
        self.training.rows().checked_div(self.batch).unwrap_or(0)
    }

    /// Steps of the whole run if nobody stops it.
    pub fn all_steps(&self) -> u64 {
        u64::from(self.epochs) * u64::from(self.steps())
    }

    /// How many places `phase` has in an epoch, or in the run.
    pub fn places(&self, phase: Phase) -> u32 {
        let at = |when| self.reveals.iter().filter(|d| d.when == when).count() as u32;
        match phase {
            Phase::Extract => self.extraction.as_ref().map_or(0, |e| self.used().rows().div_ceil(e.batch.max(1))),
            Phase::Train => self.steps(),
            Phase::Check => self.check.as_ref().map_or(0, |c| c.rows.rows().checked_div(c.batch).unwrap_or(0)),
            Phase::Reveal => at(When::EachEpoch),
            Phase::Close => at(When::AtEnd),
            Phase::Publish => self.publish.as_ref().map_or(0, |p| 1 + u32::from(p.finish.is_some())),
            Phase::Done => 0,
        }
    }

    /// The place at or after `at` where there is something to do. A run that is stopped ends with its epoch.
    pub fn due(&self, mut at: Position, stopped: bool) -> Position {
        loop {
            let fresh = at.phase == Phase::Train && at.index == 0;
            if fresh && (at.epoch >= self.epochs || stopped && at.epoch > 0) {
                at.phase = Phase::Close;
            } else if at.phase == Phase::Done || at.index < self.places(at.phase) {
                return at;
            } else {
                let (epoch, phase) = match at.phase {
                    Phase::Extract => (at.epoch, Phase::Train),
                    Phase::Train => (at.epoch, Phase::Check),
                    Phase::Check => (at.epoch, Phase::Reveal),
                    Phase::Reveal => (at.epoch.saturating_add(1), Phase::Train),
                    Phase::Close => (at.epoch, Phase::Publish),
                    Phase::Publish | Phase::Done => (at.epoch, Phase::Done),
                };
                at = Position { epoch, phase, index: 0 };
            }
        }
    }

    /// The place after `count` more of the kind at `at`; `due` says what that means.
    pub fn after(&self, at: Position, count: u32) -> Position {
        self.due(Position { index: at.index.saturating_add(count), ..at }, false)
    }

    /// The last of the lots that `count` neighbouring places from `at` on take, of which `lot` is the first. None if
    /// there are not so many places.
    pub fn last_lot(&self, at: Position, count: u32, lot: u64) -> Option<u64> {
        let end = at.index.checked_add(count)?;
        let last = Position { index: end.checked_sub(1)?, ..at };
        if count == 0 || end > self.places(at.phase) || self.program(last).is_none() {
            return None;
        }
        lot.checked_add(u64::from(count) - 1)
    }

    /// The words of the rows that are shuffled before the data set is opened, and how many of them a row has.
    pub fn shuffled(&self) -> Option<(Range<usize>, usize)> {
        let first = self.extraction.as_ref().map_or(&self.step, |e| &e.program);
        let width: usize = first.input_shape.iter().product();
        let at = |row: u32| row as usize * width;
        self.shuffle.then(|| (at(self.training.first)..at(self.training.end), width))
    }

    /// How many values the run reveals in all.
    pub fn shown(&self) -> u64 {
        u64::from(self.places(Phase::Reveal)) * u64::from(self.epochs) + u64::from(self.places(Phase::Close))
    }

    /// Steps done before `at`.
    pub fn steps_before(&self, at: Position) -> u64 {
        let steps = u64::from(self.steps());
        let within = match at.phase {
            Phase::Train => u64::from(at.index),
            Phase::Check | Phase::Reveal => steps,
            Phase::Extract | Phase::Close | Phase::Publish | Phase::Done => 0,
        };
        u64::from(at.epoch) * steps + within
    }

    /// Whether the states are put on disk after the `count` places from `at` on: at every interval, and before anything
    /// is revealed. Where rows are shuffled, no interval ends within an epoch: a server that comes back may open the rows
    /// in a new order, and each is to be used once.
    pub fn saves(&self, at: Position, count: u32) -> bool {
        let next = self.after(at, count);
        let interval = u64::from(self.checkpoint.max(1));
        (Phase::Train..=Phase::Check).contains(&at.phase)
            && (next.epoch > at.epoch
                || next.phase > Phase::Check
                || !self.shuffle && self.steps_before(at) / interval < self.steps_before(next) / interval)
    }

    /// The value revealed at a place: its number in the list, and what it is.
    pub fn disclosure(&self, at: Position) -> Option<(u32, &Disclosure)> {
        let when = match at.phase {
            Phase::Reveal => When::EachEpoch,
            Phase::Close => When::AtEnd,
            _ => return None,
        };
        let mut of_kind = self.reveals.iter().enumerate().filter(|(_, d)| d.when == when);
        of_kind.nth(at.index as usize).map(|(i, d)| (i as u32, d))
    }

    /// The program that is run at a place, with its rows in each batch.
    pub fn program(&self, at: Position) -> Option<(&Program, u32)> {
        match at.phase {
            Phase::Extract => self.extraction.as_ref().map(|e| (&e.program, self.extracted_rows(at.index).rows())),
            Phase::Train => Some((&self.step, self.batch)),
            Phase::Check => self.check.as_ref().map(|c| (&c.program, c.batch)),
            Phase::Reveal | Phase::Close => self.disclosure(at).map(|(_, d)| (&d.program, 1)),
            Phase::Publish => {
                let finish = self.publish.as_ref().and_then(|p| p.finish.as_ref());
                finish.filter(|_| at.index == 0).map(|f| (f, 1))
            }
            Phase::Done => None,
        }
    }

    /// Where the trained weights are opened as a model's.
    pub fn opening(&self, epoch: u32) -> Position {
        Position { epoch, phase: Phase::Publish, index: self.places(Phase::Publish).saturating_sub(1) }
    }

    /// The public numbers of a step of training; none of anything else.
    pub fn rates_at(&self, at: Position) -> &[i64] {
        if at.phase != Phase::Train {
            return &[];
        }
        let n = self.rates.len() as u64;
        let i = match n {
            0 | 1 => 0,
            _ if n == u64::from(self.epochs) => u64::from(at.epoch),
            _ => self.steps_before(at),
        };
        self.rates.get(i as usize).map_or(&[], Vec::as_slice)
    }

    /// The rows of a step whose order the specification fixes; of a batch of validation rows, or of rows to be extracted.
    pub fn listed_rows(&self, at: Position) -> Option<Vec<usize>> {
        match (at.phase, &self.order, &self.check) {
            (Phase::Extract, ..) => {
                let RowRange { first, end } = self.extracted_rows(at.index);
                Some((first as usize..end as usize).collect())
            }
            (Phase::Train, Order::Fixed(rows), _) => {
                let batch = self.batch as usize;
                let step = self.steps_before(at) as usize;
                let batches = rows.len().checked_div(batch).filter(|b| *b > 0)?;
                let from = step % batches * batch;
                Some(rows.get(from..from + batch)?.iter().map(|r| *r as usize).collect())
            }
            (Phase::Check, _, Some(check)) => {
                let from = check.rows.first as usize + at.index as usize * check.batch as usize;
                Some((from..from + check.batch as usize).collect())
            }
            _ => None,
        }
    }
}
