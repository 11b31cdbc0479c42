//! A data set's rows put into an order that none of the three servers knows, before they are opened.
//!
//! The additive shares x_A, x_B of n rows are permuted three times: by pi_B, which bob and carol draw; by pi_A, which
//! alice and carol draw; by pi_AB, which alice and bob draw. The first two passes are share translations (Chase, Ghosh,
//! Poburinnaya 2020) whose correlations carol deals; the third is local. With a, b from alice's seed with carol, and
//! c, d from bob's and alice's:
//!
//! ```text
//! pi_B   A -> B:  m = x_A - a          C -> B:  D = pi_B(a) - b
//!        A:  b                         B:  pi_B(x_B + m) + D            sum: pi_B(x_A + x_B)
//! pi_A   B -> A:  m' = x'_B - c        C -> B:  e = pi_A(c) - d
//!        A:  pi_A(x'_A + m') + d       B:  e                            sum: pi_A(x'_A + x'_B)
//! pi_AB  both permute their shares.
//! ```
//!
//! Nothing that carol deals passes through a server that could read an order from it: d takes the place of a correction
//! sent to alice, so all she needs comes from her seed.
//!
//! **Who knows the order.** The rows end up in the order pi_AB pi_A pi_B. Alice lacks pi_B, bob lacks pi_A, carol lacks
//! pi_AB, and each of the three is uniform and independent of the two others: to each server alone the composed order is
//! uniform. (Any two servers together know it: the trust model of the whole protocol.)
//!
//! **What each sees.** Alice: m', masked by c, which she does not know. Bob: m, masked by a; D, masked by b; e, masked
//! by d; none of which he knows and each of which is used once. Carol receives nothing. So what an evaluator receives is
//! uniform whatever the rows and the permutations are; the shares that come out are fresh.
//!
//! **Cost** for w words in all: 8 w bytes from alice to bob, then 8 w from bob to alice (two messages one after the
//! other, each in pieces), 16 w from carol to bob; 12 bytes a frame besides. The shares are permuted where they lie, by
//! swaps of rows. Carol keeps the permutation alone: she reads a in its order by seeking in the stream.

use trefoil_link::{Link, Phase, Tag};
use trefoil_prg::{Purpose, Source, Stream};
use trefoil_ring::Words;
use zeroize::Zeroizing;

use super::dealing::At;
use super::local::add;
use crate::error::MpcError;

/// Words sent at once, if a row has no more: 8 MiB.
const PIECE: usize = 1 << 20;

/// The three permutations, in their order; the number of each is the wire of its draws and the tag of its frames.
const BOBS: usize = 0;
const ALICES: usize = 1;
const BOTH: usize = 2;

/// Rows to be shuffled: a part of a data set, whole rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    rows: usize,
    width: usize,
}

impl Shape {
    fn new(words: usize, width: usize) -> Result<Self, MpcError> {
        let rows = words.checked_div(width).filter(|r| r * width == words && u32::try_from(*r).is_ok());
        let rows = rows.ok_or_else(|| MpcError::Input {
            what: "rows to be shuffled".into(),
            expected: format!("whole rows of {width} words, at most 2^32 - 1"),
            got: format!("{words} words"),
        })?;
        Ok(Self { rows, width })
    }

    /// Words of one frame: whole rows.
    fn piece(self) -> usize {
        (PIECE / self.width).max(1) * self.width
    }
}

/// At alice: shuffles rows of `width` words of which `share` is her additive share. `carol` and `bob` are the sources
/// that she shares with them in the data set's lot.
pub fn shuffle_at_alice(
    share: &mut [u64],
    width: usize,
    carol: &Source,
    bob: &Source,
    peer: &mut dyn Link,
) -> Result<(), MpcError> {
    let shape = Shape::new(share.len(), width)?;
    let mut room = Words::zeros(share.len().min(shape.piece()));
    let (mut mask, mut fresh) = (draw(carol, BOBS, Purpose::RowMask)?, draw(carol, BOBS, Purpose::RowShare)?);
    hand_over(share, shape, &mut mask, BOBS, &mut room, peer, |piece| {
        fresh.fill(piece);
        Ok(())
    })?;
    peer.meter().enter(Phase::Online, ALICES);
    each(share, shape, &mut room, |piece, theirs| {
        peer.recv(ALICES as Tag, bytemuck::cast_slice_mut(theirs))?;
        add(piece, theirs);
        Ok(())
    })?;
    permute(share, shape, draw(carol, ALICES, Purpose::RowOrder)?);
    let mut fresh = draw(carol, ALICES, Purpose::RowShare)?;
    each(share, shape, &mut room, |piece, own| {
        fresh.fill(own);
        add(piece, own);
        Ok(())
    })?;
    permute(share, shape, draw(bob, BOTH, Purpose::RowOrder)?);
    Ok(())
}

/// At bob: the same for his share. `dealt` is the link on which carol deals.
pub fn shuffle_at_bob(
    share: &mut [u64],
    width: usize,
    carol: &Source,
    alice: &Source,
    peer: &mut dyn Link,
    dealt: &mut dyn Link,
) -> Result<(), MpcError> {
    let shape = Shape::new(share.len(), width)?;
    let mut room = Words::zeros(share.len().min(shape.piece()));
    peer.meter().enter(Phase::Online, BOBS);
    each(share, shape, &mut room, |piece, theirs| {
        peer.recv(BOBS as Tag, bytemuck::cast_slice_mut(theirs))?;
        add(piece, theirs);
        Ok(())
    })?;
    permute(share, shape, draw(carol, BOBS, Purpose::RowOrder)?);
    dealt.meter().enter(Phase::Offline, BOBS);
    each(share, shape, &mut room, |piece, correction| {
        dealt.recv(BOBS as Tag, bytemuck::cast_slice_mut(correction))?;
        add(piece, correction);
        Ok(())
    })?;
    let mut mask = draw(carol, ALICES, Purpose::RowMask)?;
    dealt.meter().enter(Phase::Offline, ALICES);
    hand_over(share, shape, &mut mask, ALICES, &mut room, peer, |piece| {
        Ok(dealt.recv(ALICES as Tag, bytemuck::cast_slice_mut(piece))?)
    })?;
    permute(share, shape, draw(alice, BOTH, Purpose::RowOrder)?);
    Ok(())
}

/// At the producer: deals bob the corrections of both passes. `words` are those of all rows to be shuffled; `alice` and
/// `bob` are the sources of the data set's lot.
pub fn deal_shuffle(
    words: usize,
    width: usize,
    alice: &Source,
    bob: &Source,
    link: &mut dyn Link,
) -> Result<(), MpcError> {
    let shape = Shape::new(words, width)?;
    for (pass, orders, masks) in [(BOBS, bob, alice), (ALICES, alice, bob)] {
        let order = order(shape.rows, draw(orders, pass, Purpose::RowOrder)?);
        let (mut mask, mut fresh) = (draw(masks, pass, Purpose::RowMask)?, draw(alice, pass, Purpose::RowShare)?);
        let mut corrections = Words::zeros(words.min(shape.piece()));
        let mut room = Words::zeros(corrections.len());
        link.meter().enter(Phase::Offline, pass);
        for rows in order.chunks(shape.piece() / width) {
            let n = rows.len() * width;
            for (row, out) in rows.iter().zip(corrections.chunks_mut(width)) {
                mask.seek(u64::from(*row) * width as u64);
                mask.fill(out);
            }
            fresh.fill(&mut room[..n]);
            subtract(&mut corrections[..n], &room);
            link.send(pass as Tag, &[bytemuck::cast_slice(&corrections[..n])])?;
        }
    }
    Ok(())
}

/// Sends the share masked, piece after piece; `next` writes what this evaluator holds instead.
fn hand_over(
    share: &mut [u64],
    shape: Shape,
    mask: &mut Stream,
    pass: usize,
    room: &mut Words,
    peer: &mut dyn Link,
    mut next: impl FnMut(&mut [u64]) -> Result<(), MpcError>,
) -> Result<(), MpcError> {
    peer.meter().enter(Phase::Online, pass);
    each(share, shape, room, |piece, own| {
        mask.fill(own);
        subtract(piece, own);
        peer.send(pass as Tag, &[bytemuck::cast_slice(piece)])?;
        next(piece)
    })
}

/// Does something with each piece of the share and as much room.
fn each(
    share: &mut [u64],
    shape: Shape,
    room: &mut Words,
    mut work: impl FnMut(&mut [u64], &mut [u64]) -> Result<(), MpcError>,
) -> Result<(), MpcError> {
    share.chunks_mut(shape.piece()).try_for_each(|piece| work(piece, &mut room[..piece.len()]))
}

fn draw(source: &Source, pass: usize, purpose: Purpose) -> Result<Stream, MpcError> {
    At::step(pass)?.stream(source, purpose)
}

fn subtract(from: &mut [u64], what: &[u64]) {
    from.iter_mut().zip(what).for_each(|(x, w)| *x = x.wrapping_sub(*w));
}

/// The swaps of a permutation, exactly uniform (Durstenfeld 1964): row i with one that is not above it, from the last
/// row down.
fn swaps(rows: usize, mut stream: Stream) -> impl Iterator<Item = (usize, usize)> {
    (1..rows).rev().map(move |i| (i, below(&mut stream, i as u64 + 1) as usize))
}

/// A uniform number below `n`, by rejection (Lemire 2019).
fn below(stream: &mut Stream, n: u64) -> u64 {
    let unfair = n.wrapping_neg() % n;
    loop {
        let mut word = Zeroizing::new([0]);
        stream.fill(&mut *word);
        let product = u128::from(word[0]) * u128::from(n);
        if product as u64 >= unfair {
            return (product >> 64) as u64;
        }
    }
}

/// Permutes the rows where they lie.
fn permute(share: &mut [u64], shape: Shape, stream: Stream) {
    for (i, j) in swaps(shape.rows, stream).filter(|(i, j)| i != j) {
        let (low, high) = share.split_at_mut(i * shape.width);
        low[j * shape.width..][..shape.width].swap_with_slice(&mut high[..shape.width]);
    }
}

/// Which row comes where: that of number `order[i]` becomes number i.
pub(crate) fn order(rows: usize, stream: Stream) -> Zeroizing<Vec<u32>> {
    let mut order = Zeroizing::new((0..rows as u32).collect::<Vec<u32>>());
    swaps(rows, stream).for_each(|(i, j)| order.swap(i, j));
    order
}
