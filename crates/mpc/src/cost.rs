//! What a program costs before it is run: rounds and bytes of every step, exactly as the links' meters count them.

use trefoil_link::frame::HEADER;

use crate::error::MpcError;
use crate::masked::{count_offline, online_payloads};
use crate::program::Program;

/// The cost of one step for one batch. Bytes are of all parties together and count frame headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepCost {
    /// Rounds between the evaluators.
    pub rounds: u64,
    /// Bytes between the evaluators, both directions.
    pub online: u64,
    /// Bytes from both evaluators to the recipient of a reveal.
    pub revealed: u64,
    /// Bytes from the producer to bob.
    pub offline: u64,
}

impl StepCost {
    /// Adds another step's cost.
    pub fn add(&mut self, other: &StepCost) {
        self.rounds += other.rounds;
        self.online += other.online;
        self.revealed += other.revealed;
        self.offline += other.offline;
    }
}

/// The cost of every step of `program` for `batch` samples.
pub fn cost(program: &Program, batch: usize) -> Result<Vec<StepCost>, MpcError> {
    let offline = count_offline(program, batch)?;
    let infos = program.infer()?;
    let step = |(i, offline): (usize, u64)| {
        let (sent, revealed) = online_payloads(&program.steps[i].op, &infos, i, batch);
        let frame = |payload: usize| 2 * (payload + HEADER) as u64;
        StepCost {
            rounds: sent.len() as u64,
            online: sent.iter().map(|p| frame(*p)).sum(),
            revealed: if revealed > 0 { frame(revealed) } else { 0 },
            offline,
        }
    };
    Ok(offline.into_iter().enumerate().map(step).collect())
}
