//! A data set at the servers: masked once, whatever the number of steps that read its rows.
//!
//! Owners send additive shares. They are opened to masked wires under masks of the data set's own epoch and lot, once;
//! every step of training then reads deltas and masks. What is kept is kept as values, not as seeds: no mask is ever
//! drawn a second time.

use trefoil_link::Link;
use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;

use super::dealing::At;
use super::local::add;
use super::online::{Online, Role};
use crate::error::MpcError;

/// Words opened in one exchange: 8 MiB.
pub(crate) const PIECE: usize = 1 << 20;

/// A data set at one evaluator.
pub struct HeldRows {
    /// The opened wires' deltas.
    pub delta: Words,
    /// This evaluator's part of their masks.
    pub lambda: Words,
}

/// At an evaluator: opens its additive share of a data set to masked wires. `carol` is the source of this data set's
/// epoch and lot at this evaluator. One round for each piece of 2^20 values.
pub fn open_rows(role: Role, share: Words, carol: &Source, peer: &mut dyn Link) -> Result<HeldRows, MpcError> {
    let mut net = Online::new(role, peer);
    let lambda = row_mask(carol, share.len())?;
    let mut delta = share;
    for (piece, (share, lambda)) in delta.chunks_mut(PIECE).zip(lambda.chunks(PIECE)).enumerate() {
        net.begin_step(piece);
        let opened = net.open(Words::from(&share[..]), lambda)?;
        share.copy_from_slice(&opened);
    }
    Ok(HeldRows { delta, lambda })
}

/// At the producer: the masks of a data set of `n` values, from the sources of its epoch and lot. Nothing is sent.
pub fn draw_row_masks(n: usize, alice: &Source, bob: &Source) -> Result<Words, MpcError> {
    let mut mask = row_mask(alice, n)?;
    add(&mut mask, &row_mask(bob, n)?);
    Ok(mask)
}

fn row_mask(source: &Source, n: usize) -> Result<Words, MpcError> {
    let mut words = Words::zeros(n);
    At::step(0)?.stream(source, Purpose::RowLambda)?.fill(&mut words);
    Ok(words)
}

/// Rows number `indices` of `size` values each: what a step of training is given of deltas or masks.
pub fn pick_rows(values: &[u64], size: usize, indices: &[usize]) -> Result<Words, MpcError> {
    let rows = values.len().checked_div(size).unwrap_or(0);
    let mut out = Words::with_capacity(indices.len().min(rows.max(1)).saturating_mul(size));
    for &i in indices {
        if i >= rows {
            let expected = format!("less than {rows}");
            return Err(MpcError::Input { what: "a row's number".into(), expected, got: i.to_string() });
        }
        out.extend(&values[i * size..(i + 1) * size]);
    }
    Ok(out)
}
