//! What no specification can hold is refused before it is made.

use trefoil_proto::run::MAX_SPEC;

use super::{Training, TrainingError};

/// Whether the order of `trained` rows in every epoch can fit.
pub(super) fn order(d: &Training, trained: usize) -> Result<(), TrainingError> {
    if d.drawn {
        return Ok(());
    }
    let instead = "let the servers draw it (order = \"servers\"), or take fewer epochs";
    let least = order_bytes(trained, d.spec.batch, d.spec.epochs);
    fits("the order of rows, written down for every epoch,", least, instead)
}

/// What it takes at least: a byte for every 7 bits of a row's number, and no epoch has smaller ones than the first rows.
pub(super) fn order_bytes(trained: usize, batch: usize, epochs: usize) -> u64 {
    let rows = (trained - trained % batch) as u64;
    let longer = [7, 14, 21, 28].iter().map(|bits| rows.saturating_sub(1 << bits)).sum::<u64>();
    (rows + longer) * epochs as u64
}

/// Whether `numbers` for each of `steps` steps can fit: a byte for how many, and one at least for each.
pub(super) fn rates(steps: u64, numbers: usize) -> Result<(), TrainingError> {
    let instead = "take fewer epochs, a larger batch, or a rate that stays the same for a whole epoch";
    fits("a learning rate for every step", steps * (1 + numbers as u64), instead)
}

fn fits(what: &'static str, least: u64, instead: &'static str) -> Result<(), TrainingError> {
    let most = MAX_SPEC as u64;
    if least > most { Err(TrainingError::TooLong { what, least, most, instead }) } else { Ok(()) }
}
