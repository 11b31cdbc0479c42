//! What a program costs before it is run: rounds and bytes of every step, exactly as the links' meters count them.

use trefoil_link::frame::HEADER;

use crate::error::MpcError;
use crate::masked::rows::PIECE;
use crate::masked::weights::masked_weights;
use crate::masked::{count_offline, online_payloads};
use crate::program::{Op, Program, Shown, ValueInfo};

/// The cost of one step for one batch. Bytes are of all parties together and count frame headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepCost {
    /// Rounds between the evaluators; messages one after the other to carol or the helper and back, where
    /// one of them is shown likelihoods.
    pub rounds: u64,
    /// Bytes between the evaluators, both directions; and those of these messages.
    pub online: u64,
    /// Bytes from both evaluators to the recipient of a reveal.
    pub revealed: u64,
    /// Bytes from the producer to bob.
    pub offline: u64,
    /// Bytes that bob passes on to alice in the offline phase.
    pub forwarded: u64,
}

impl StepCost {
    /// Adds another step's cost.
    pub fn add(&mut self, other: &StepCost) {
        self.rounds += other.rounds;
        self.online += other.online;
        self.revealed += other.revealed;
        self.offline += other.offline;
        self.forwarded += other.forwarded;
    }
}

/// The cost of every step of `program` for `batch` samples. Openings side by side take one round, which is the first's.
pub fn cost(program: &Program, batch: usize) -> Result<Vec<StepCost>, MpcError> {
    let offline = count_offline(program, batch)?;
    let infos = program.infer()?;
    let step = |(i, offline): (usize, (u64, u64))| step_cost(program, &infos, i, batch, offline);
    Ok(offline.into_iter().enumerate().map(step).collect())
}

/// The cost of opening `n` values of a data set, as [`open_rows`](crate::masked::rows::open_rows()) does.
pub fn opening_rows(n: usize) -> StepCost {
    let rounds = n.div_ceil(PIECE);
    StepCost { rounds: rounds as u64, online: 2 * (8 * n + rounds * HEADER) as u64, ..StepCost::default() }
}

/// The cost of opening a program's weights, as [`open_weights`](crate::masked::weights::open_weights()) does.
pub fn opening_weights(program: &Program) -> StepCost {
    let mut sum = StepCost::default();
    for (w, _) in program.weights.iter().zip(masked_weights(program)).filter(|(_, masked)| *masked) {
        let n: usize = w.shape.iter().product();
        sum.add(&StepCost { rounds: 1, online: 2 * (8 * n + HEADER) as u64, ..StepCost::default() });
    }
    sum
}

/// The cost of one step of a checked program, given what is dealt and passed on for it.
pub(crate) fn step_cost(
    program: &Program,
    infos: &[ValueInfo],
    index: usize,
    batch: usize,
    (offline, forwarded): (u64, u64),
) -> StepCost {
    let (sent, revealed) = online_payloads(program, infos, index, batch);
    let frame = |payload: usize| 2 * (payload + HEADER) as u64;
    let exchanged = |(round, payload): (usize, &usize)| match program.steps[index].op {
        Op::Likelihoods { shown: Shown::Alice, .. } => (payload + 2 * HEADER) as u64,
        Op::Likelihoods { .. } if round > 0 => (payload + HEADER) as u64,
        _ => frame(*payload),
    };
    StepCost {
        rounds: sent.len() as u64,
        online: sent.iter().enumerate().map(exchanged).sum(),
        revealed: if revealed > 0 { frame(revealed) } else { 0 },
        offline,
        forwarded,
    }
}
