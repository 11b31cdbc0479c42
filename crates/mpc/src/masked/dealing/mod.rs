//! The offline phase's primitives and who does what in them.
//!
//! A step's dealing is written once over [`Dealing`]: *draw a mask*, *deal a ring value*, *deal bits*, *publish to both
//! evaluators*. The producer knows every mask, computes the values and sends bob one correction each; alice draws; bob
//! draws his masks, receives the corrections and passes on to alice what is published; the counter only adds up what
//! would be sent.

mod alice;
mod bob;
mod counting;
mod producer;

use trefoil_link::Link;
use trefoil_prg::{Address, Purpose, Source, Stream};
use trefoil_ring::Words;

use crate::error::MpcError;

pub(crate) use alice::AliceDealing;
pub(crate) use bob::BobDealing;
pub(crate) use counting::Counting;
pub(crate) use producer::Producer;

/// Frames from the producer are cut, between two values, once they hold this much.
const FRAME: usize = 1 << 18;

/// Where in the program a draw is made: from it and a purpose comes the draw's one address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    training_step: u32,
    wire: u32,
    unit: u32,
    level: u32,
}

impl At {
    /// Makes the draw: its stream.
    pub(crate) fn stream(self, source: &Source, purpose: Purpose) -> Result<Stream, MpcError> {
        Ok(source.draw(self.address(purpose)?))
    }

    /// The draw's public number.
    pub(crate) fn public(self, source: &Source, purpose: Purpose) -> Result<[u8; 32], MpcError> {
        Ok(source.public(&self.address(purpose)?))
    }

    fn address(self, purpose: Purpose) -> Result<Address, MpcError> {
        if self.level >= LEVELS {
            return Err(MpcError::AddressOverflow("levels of one comparison"));
        }
        let part =
            self.unit.checked_mul(LEVELS).ok_or(MpcError::AddressOverflow("comparisons of one step"))? + self.level;
        Ok(Address::new(self.training_step, self.wire, part, purpose))
    }

    /// The same step's comparison (or other repeated part) number `unit`.
    pub(crate) fn unit(self, unit: usize) -> Result<Self, MpcError> {
        let unit = u32::try_from(unit).map_err(|_| MpcError::AddressOverflow("comparisons of one step"))?;
        Ok(Self { unit, ..self })
    }

    /// The same comparison's level number `level`.
    pub(crate) fn level(self, level: usize) -> Result<Self, MpcError> {
        let level = u32::try_from(level).map_err(|_| MpcError::AddressOverflow("levels of one comparison"))?;
        Ok(Self { level, ..self })
    }

    /// The first address of step `step` of the program.
    pub(crate) fn step(step: usize) -> Result<Self, MpcError> {
        let wire = u32::try_from(step).map_err(|_| MpcError::AddressOverflow("steps of one program"))?;
        Ok(Self { training_step: 0, wire, unit: 0, level: 0 })
    }
}

/// Levels that one comparison may have.
const LEVELS: u32 = 64;

/// Streams of one draw: alice's part, and bob's where both parties draw.
pub(crate) struct Draw {
    alice: Option<Stream>,
    bob: Option<Stream>,
}

/// Who interprets the offline phase. Words appended are shares at an evaluator, whole values at the producer (masks)
/// or nothing (dealt values at the producer, everything at the counter).
pub(crate) trait Dealing {
    /// Whether this party computes with its masks (the counter does not).
    const COMPUTES: bool = true;
    /// Whether this party keeps what is dealt.
    const KEEPS: bool = true;
    /// All ones at the evaluator that adds public terms to its shares.
    const PUBLIC: u64 = 0;

    /// Begins a step: frames that follow carry its number.
    fn begin_step(&mut self, _step: usize) {}

    /// Opens the draw of a mask of which each evaluator has a part.
    fn open_mask(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError>;

    /// Opens the draw of alice's shares of dealt values.
    fn open_shares(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError>;

    /// The public number of a draw, the same at all three; nothing at the counter.
    fn public(&self, at: At, purpose: Purpose) -> Result<[u8; 32], MpcError>;

    /// The next `n` words of a ring mask.
    fn mask(&mut self, draw: &mut Draw, n: usize) -> Words;

    /// Appends the next `n` words of bit masks.
    fn mask_bits(&mut self, draw: &mut Draw, n: usize, out: &mut Words);

    /// The next `n` words of alice's and of bob's part of a mask, apart: empty where this party does not know them.
    fn parts(&mut self, draw: &mut Draw, n: usize) -> [Words; 2];

    /// Gives both evaluators the same `n` words; `value` writes them over zeros at the producer and runs nowhere else.
    fn publish(&mut self, n: usize, out: &mut Words, value: impl FnOnce(&mut [u64])) -> Result<(), MpcError>;

    /// Deals `n` ring values modulo 2^bits; `value` adds them to zeros at the producer and runs nowhere else.
    fn deal(
        &mut self,
        draw: &mut Draw,
        n: usize,
        bits: u32,
        out: &mut Words,
        value: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError>;

    /// Deals `n` words of bits; `value` sets them at the producer and runs nowhere else.
    fn deal_bits(
        &mut self,
        draw: &mut Draw,
        n: usize,
        out: &mut Words,
        value: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError>;

    /// This party's end of the link that a program takes which shows carol likelihoods: to carol, at carol to bob.
    fn shown(&mut self) -> Option<&mut dyn Link> {
        None
    }

    /// Room for `n` words of material at a party that keeps it.
    fn room(n: usize) -> Words {
        Words::with_capacity(if Self::KEEPS { n } else { 0 })
    }

    /// Ends a step: what is buffered is sent, or must have been used up.
    fn end_step(&mut self) -> Result<(), MpcError> {
        Ok(())
    }
}

/// Something was published to an evaluator without a link for it.
fn no_peer() -> MpcError {
    MpcError::Material("what is published needs the evaluators' link".into())
}

fn fill(stream: &mut Option<Stream>, words: &mut [u64]) {
    if let Some(s) = stream {
        s.fill(words);
    }
}

fn next(stream: &mut Option<Stream>, n: usize) -> Words {
    let mut words = Words::zeros(n);
    fill(stream, &mut words);
    words
}

/// Overwrites a whole buffer with zeros, at the speed of memory.
fn erase(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(buffer.capacity(), 0);
    zeroize::optimization_barrier(&buffer[..]);
    buffer.clear();
}
