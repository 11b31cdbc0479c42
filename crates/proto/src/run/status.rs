//! What the servers say of a run to clients, and to each other.

use serde::{Deserialize, Serialize};

use super::{Position, RunSpec};
use crate::control::{RequestId, SecretSeed};

/// What the extraction of features has taken so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extracted {
    /// Rows, those that a failure undid included.
    pub rows: u64,
    /// Wall time in nanoseconds.
    pub nanos: u64,
    /// Rounds with the other evaluator.
    pub rounds: u64,
    /// Bytes with the other evaluator, both directions.
    pub online_bytes: u64,
    /// Bytes received for material, as in [`Measured`].
    pub offline_bytes: u64,
}

/// What links carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Rounds with the other evaluator.
    pub rounds: u64,
    /// Bytes with the other evaluator, both directions.
    pub online_bytes: u64,
    /// Bytes received for material, as in [`Measured`].
    pub offline_bytes: u64,
}

/// What a run has taken so far, as measured at one evaluator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// The extraction of features, which no other field counts.
    pub extracted: Extracted,
    /// Publication, which no other field counts: the program that computes the weights, if there is one, and their opening.
    pub publication: Traffic,
    /// Steps of training, those that a failure undid included.
    pub steps: u64,
    /// Their wall time in nanoseconds.
    pub nanos: u64,
    /// Of that, preparing material.
    pub offline: u64,
    /// Of that, evaluating.
    pub online: u64,
    /// Rounds with the other evaluator.
    pub rounds: u64,
    /// Bytes with the other evaluator, both directions.
    pub online_bytes: u64,
    /// Bytes received for material: bob's from the producer, alice's from bob, who passes them on.
    pub offline_bytes: u64,
    /// Peak resident memory of the process, in bytes; 0 where unknown.
    pub peak_rss: u64,
    /// How often the run was taken up again after it had begun.
    pub resumed: u32,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// For owners to agree, or for the data.
    Waiting,
    /// It trains, or will as soon as the servers are connected.
    Running,
    /// It is over.
    Done,
}

/// A value that was revealed; the specification says to whom and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revealed {
    /// Its number in the specification's list.
    pub index: u32,
    /// Epochs that were over.
    pub epoch: u32,
    /// The lot that revealed it: parts of different lots do not fit.
    pub lot: u64,
}

/// A run as an evaluator lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Number of the run: fresh for each.
    pub run: u64,
    /// Its name.
    pub name: String,
    /// Hash of its specification.
    pub hash: [u8; 32],
    /// The model's owner.
    pub owner: String,
    /// The coordinator.
    pub coordinator: String,
    /// Whether it goes on.
    pub stage: Stage,
    /// Whose agreement is missing.
    pub missing: Vec<String>,
    /// Who of them had agreed and withdrew.
    pub withdrawn: Vec<String>,
    /// Whether it was told to end with its epoch.
    pub stopped: bool,
    /// Epochs planned.
    pub epochs: u32,
    /// Steps of each epoch.
    pub steps: u32,
    /// Steps done.
    pub done: u64,
    /// Where it stands.
    pub at: Position,
    /// What keeps it from going on at the moment; how it ended.
    pub note: String,
    /// What it has taken so far.
    pub measured: Measured,
    /// What was revealed, to whomever.
    pub revealed: Vec<Revealed>,
}

/// A checkpoint: two halves belong together if both are alike, for no lot is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Where the run stood.
    pub at: Position,
    /// The last lot before it.
    pub lot: u64,
}

/// Alice's commands about runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Training {
    /// Stage a run: bob with his half of request `id`, carol with the specification.
    Stage {
        /// The owner's request.
        id: RequestId,
        /// Number of the run.
        run: u64,
        /// Hash of the specification, as bob must have received it too.
        hash: [u8; 32],
        /// To carol, who meets no owner.
        spec: Option<Box<RunSpec>>,
    },
    /// Keep the staged run.
    Keep {
        /// The run.
        run: u64,
    },
    /// Erase a run and all its states.
    Erase {
        /// The run.
        run: u64,
    },
    /// Take up a run: what is there of it?
    Resume {
        /// The run.
        run: u64,
        /// Hash of its specification.
        hash: [u8; 32],
    },
    /// Go back to a checkpoint; open the data set unless it is open.
    Begin {
        /// The run.
        run: u64,
        /// The checkpoint.
        at: Position,
        /// The last lot before it; none at the beginning.
        after: Option<u64>,
        /// The lot under which the data set is open, or is to be opened.
        rows: u64,
        /// Whether it is to be opened.
        open: bool,
        /// What alice, bob and carol contribute to the run's seed.
        seeds: Vec<SecretSeed>,
    },
    /// Neighbouring places of one kind, each with a lot of its own.
    Stretch {
        /// The run.
        run: u64,
        /// The first place.
        at: Position,
        /// How many.
        count: u32,
        /// The first lot.
        lot: u64,
    },
    /// Open the trained weights under masks of a new model.
    Publish {
        /// The run.
        run: u64,
        /// The model's epoch.
        epoch: u64,
    },
    /// The run is over: erase its states.
    Finish {
        /// The run.
        run: u64,
        /// How it ended.
        note: String,
    },
}

/// What is there of a run at bob or carol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// This party's contribution to the run's seed.
    pub seed: SecretSeed,
    /// The lot under which the data set is open.
    pub rows: Option<u64>,
    /// Checkpoints, besides the beginning.
    pub checkpoints: Vec<Saved>,
    /// What this party has revealed.
    pub revealed: Vec<Revealed>,
    /// How the run ended, if it has.
    pub done: Option<String>,
}
