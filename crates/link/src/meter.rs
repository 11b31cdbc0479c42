//! What went over a link, by step and phase.

use std::collections::BTreeMap;

/// When a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Set-up and agreement: before any material is drawn.
    Control,
    /// Dealing: depends on no input.
    Offline,
    /// Evaluation.
    Online,
}

/// Bytes (frame headers included), messages and rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Frames sent.
    pub messages: u64,
    /// Rounds: exchanges in which both ends send at once.
    pub rounds: u64,
}

impl Counter {
    /// Adds another counter to this one.
    pub fn add(&mut self, other: &Counter) {
        self.sent += other.sent;
        self.received += other.received;
        self.messages += other.messages;
        self.rounds += other.rounds;
    }
}

/// Counts what a link carries under the phase and step set last.
#[derive(Debug, Clone)]
pub struct Meter {
    phase: Phase,
    step: usize,
    counters: BTreeMap<(Phase, usize), Counter>,
}

impl Default for Meter {
    fn default() -> Self {
        Self { phase: Phase::Control, step: 0, counters: BTreeMap::new() }
    }
}

impl Meter {
    /// What follows belongs to this phase and step.
    pub fn enter(&mut self, phase: Phase, step: usize) {
        self.phase = phase;
        self.step = step;
    }

    /// Counts one frame sent, header included.
    pub fn sent(&mut self, bytes: usize) {
        let c = self.current();
        c.sent += bytes as u64;
        c.messages += 1;
    }

    /// Counts one frame received, header included.
    pub fn received(&mut self, bytes: usize) {
        self.current().received += bytes as u64;
    }

    /// Counts one round.
    pub fn round(&mut self) {
        self.current().rounds += 1;
    }

    /// The counters by phase and step, and a fresh start.
    pub fn take(&mut self) -> BTreeMap<(Phase, usize), Counter> {
        std::mem::take(&mut self.counters)
    }

    /// Everything counted in one phase.
    pub fn total(&self, phase: Phase) -> Counter {
        let mut sum = Counter::default();
        for (_, c) in self.counters.iter().filter(|((p, _), _)| *p == phase) {
            sum.add(c);
        }
        sum
    }

    fn current(&mut self) -> &mut Counter {
        self.counters.entry((self.phase, self.step)).or_default()
    }
}
