//! Training runs: what three servers are to compute on a data set, as plain data that everyone concerned can read.
//!
//! A run is a list of programs and when each is run. It names every value that anybody will be shown, to whom and why;
//! nothing can be added after the owners agreed to its hash. The servers know nothing of layers or losses.

mod check;
mod difference;
mod extraction;
mod flow;
mod metrics;
mod plan;
mod status;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use trefoil_mpc::program::{Program, Shown};

use crate::control::{Manifest, encode};
pub use check::RunError;
pub use extraction::Extraction;
pub use plan::{Phase, Position};
pub use status::{Extracted, Measured, Resumed, Revealed, RunInfo, Saved, Stage, Traffic, Training};

/// The most epochs of a run.
pub const MAX_EPOCHS: u32 = 100_000;
/// The most values that a run may reveal at each of its occasions.
pub const MAX_DISCLOSURES: usize = 256;
/// The most values that a run may reveal in all.
pub const MAX_SHOWN: u64 = 10_000;
/// Longest statement of a purpose, in bytes.
pub const MAX_PURPOSE: usize = 256;
/// Longest encoded specification: it must fit into one control message.
pub const MAX_SPEC: usize = crate::control::MAX_CONTROL - (1 << 16);

/// Rows `first .. end` of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRange {
    /// The first row.
    pub first: u32,
    /// The row after the last.
    pub end: u32,
}

impl RowRange {
    /// How many rows.
    pub fn rows(&self) -> u32 {
        self.end.saturating_sub(self.first)
    }
}

/// In which order the training rows are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// These rows of the data set, batch after batch: for one epoch (then every epoch is the same) or for all of them.
    Fixed(Vec<u32>),
    /// Drawn anew for each epoch by the servers, from a seed that all three contribute to and that no client knows.
    Drawn,
}

/// What is computed over the validation rows at the end of every epoch. It changes nothing but the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The program, run on one batch after the other. It stores into metrics alone.
    pub program: Program,
    /// The rows; those that fill no batch are left out.
    pub rows: RowRange,
    /// Rows of each batch.
    pub batch: u32,
}

/// When a value is revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// At the end of every epoch.
    EachEpoch,
    /// When training is over.
    AtEnd,
}

/// A value that somebody is to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disclosure {
    /// Computes it from the states, never from rows, and ends by revealing it.
    pub program: Program,
    /// The client who is to see it, and nobody else.
    pub recipient: String,
    /// What it is and why, in words.
    pub purpose: String,
    /// When.
    pub when: When,
}

/// A trained model that stays shared and is served at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    /// The model's public description, as if its owner had shared it.
    pub manifest: Manifest,
    /// For each weight of its program, the state that holds it. A weight with more fraction bits is shifted up.
    pub weights: Vec<u32>,
    /// Run once before, from states to states: computes those weights that are no state of training as it is.
    pub finish: Option<Program>,
}

/// Everything about a run. Its hash is what the owners agree to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The run's name.
    pub name: String,
    /// The model's owner, who gives the states' first values.
    pub owner: String,
    /// Who may watch the run and stop it early. May be the owner.
    pub coordinator: String,
    /// Number of the data set's declaration.
    pub set: u64,
    /// Hash of that declaration.
    pub declaration: [u8; 32],
    /// What the servers make of every row once, before the first step; none: steps and checks read the rows themselves.
    pub extraction: Option<Extraction>,
    /// One step of training: reads a batch of rows, stores states, reveals nothing.
    pub step: Program,
    /// The public numbers of each step: one list for all steps, for each epoch, or for each step. None without numbers.
    pub rates: Vec<Vec<i64>>,
    /// The rows to train on; in each epoch, those that fill no batch are left out.
    pub training: RowRange,
    /// How often all rows are used.
    pub epochs: u32,
    /// Rows of each step.
    pub batch: u32,
    /// In which order.
    pub order: Order,
    /// Whether the training rows are put into an order that no server knows before they are opened: then none can tell
    /// whose a row is. Rows are numbered in that order. A run whose servers lost what they had in memory goes on in
    /// another such order, and therefore at the start of an epoch.
    pub shuffle: bool,
    /// States that are zero at the beginning of every epoch: sums of metrics.
    pub metrics: Vec<u32>,
    /// What is computed over other rows at the end of every epoch.
    pub check: Option<Check>,
    /// Everything that anybody will be shown.
    pub reveals: Vec<Disclosure>,
    /// Whether and how the trained model is served.
    pub publish: Option<Publication>,
    /// Steps between two checkpoints. There is another at the end of every epoch, and where rows are shuffled no other.
    pub checkpoint: u32,
}

impl RunSpec {
    /// What the owners agree to and the servers compare.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("trefoil 2026 training run", &encode(self))
    }

    /// The servers that learn likelihoods of its rows.
    pub fn shows_likelihoods_to(&self) -> BTreeSet<Shown> {
        let programs = std::iter::once(&self.step).chain(self.check.as_ref().map(|c| &c.program));
        programs.flat_map(Program::shown).collect()
    }
}

#[cfg(test)]
mod malicious;
#[cfg(test)]
mod tests;
