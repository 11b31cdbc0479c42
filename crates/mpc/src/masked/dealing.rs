//! The offline phase's primitives and who does what in them.
//!
//! A step's dealing is written once over [`Dealing`]: *draw a mask*, *deal a ring value*, *deal bits*, *publish to both
//! evaluators*. The producer knows every mask, computes the values and sends bob one correction each; alice draws; bob
//! draws his masks, receives the corrections and passes on to alice what is published; the counter only adds up what
//! would be sent.

use trefoil_link::frame::HEADER;
use trefoil_link::{Link, Phase, Tag};
use trefoil_prg::{Address, Purpose, Source, Stream};
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::{pack, packed_bytes, unpack};

use super::online::forwarded;
use crate::error::MpcError;

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
        if self.level >= LEVELS {
            return Err(MpcError::AddressOverflow("levels of one comparison"));
        }
        let part =
            self.unit.checked_mul(LEVELS).ok_or(MpcError::AddressOverflow("comparisons of one step"))? + self.level;
        Ok(source.draw(Address::new(self.training_step, self.wire, part, purpose)))
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

    /// Begins a step: frames that follow carry its number.
    fn begin_step(&mut self, _step: usize) {}

    /// Opens the draw of a mask of which each evaluator has a part.
    fn open_mask(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError>;

    /// Opens the draw of alice's shares of dealt values.
    fn open_shares(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError>;

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

    /// Room for `n` words of material at a party that keeps it.
    fn room(n: usize) -> Words {
        Words::with_capacity(if Self::KEEPS { n } else { 0 })
    }

    /// Ends a step: what is buffered is sent, or must have been used up.
    fn end_step(&mut self) -> Result<(), MpcError> {
        Ok(())
    }
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

/// `bytes` more zero bytes at the buffer's end; a buffer that must grow is erased before it is given back.
fn room(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    let at = buffer.len();
    if buffer.capacity() - at < bytes {
        let mut grown = Vec::with_capacity((at + bytes).max(2 * buffer.capacity()));
        grown.extend_from_slice(buffer);
        erase(buffer);
        *buffer = grown;
    }
    buffer.resize(at + bytes, 0);
    &mut buffer[at..]
}

/// Room for values that are computed and sent, reused from one to the next.
#[derive(Default)]
struct Room(Words);

impl Room {
    fn zeros(&mut self, n: usize) -> &mut [u64] {
        if self.0.len() < n {
            self.0 = Words::zeros(n);
        }
        self.0[..n].fill(0);
        &mut self.0[..n]
    }
}

/// Carol: draws everything, computes what is dealt, sends bob the corrections.
pub(crate) struct Producer<'a> {
    alice: &'a Source,
    bob: &'a Source,
    link: &'a mut dyn Link,
    tag: Tag,
    buffer: Vec<u8>,
    values: Room,
    shares: Room,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(alice: &'a Source, bob: &'a Source, link: &'a mut dyn Link) -> Self {
        Self { alice, bob, link, tag: 0, buffer: Vec::new(), values: Room::default(), shares: Room::default() }
    }

    fn flush_if_full(&mut self) -> Result<(), MpcError> {
        if self.buffer.len() >= FRAME { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), MpcError> {
        if !self.buffer.is_empty() {
            self.link.send(self.tag, &[&self.buffer])?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Drop for Producer<'_> {
    fn drop(&mut self) {
        erase(&mut self.buffer);
    }
}

impl Dealing for Producer<'_> {
    const KEEPS: bool = false;

    fn begin_step(&mut self, step: usize) {
        self.tag = step as Tag;
        self.link.meter().enter(Phase::Offline, step);
    }

    fn open_mask(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: Some(at.stream(self.alice, purpose)?), bob: Some(at.stream(self.bob, purpose)?) })
    }

    fn open_shares(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: Some(at.stream(self.alice, purpose)?), bob: None })
    }

    fn mask(&mut self, draw: &mut Draw, n: usize) -> Words {
        let mut a = next(&mut draw.alice, n);
        let b = next(&mut draw.bob, n);
        a.iter_mut().zip(b.iter()).for_each(|(x, y)| *x = x.wrapping_add(*y));
        a
    }

    fn mask_bits(&mut self, draw: &mut Draw, n: usize, out: &mut Words) {
        let b = self.shares.zeros(n);
        fill(&mut draw.bob, b);
        let a = out.grow(n);
        fill(&mut draw.alice, a);
        a.iter_mut().zip(b).for_each(|(x, y)| *x ^= *y);
    }

    fn parts(&mut self, draw: &mut Draw, n: usize) -> [Words; 2] {
        [next(&mut draw.alice, n), next(&mut draw.bob, n)]
    }

    fn publish(&mut self, n: usize, _: &mut Words, value: impl FnOnce(&mut [u64])) -> Result<(), MpcError> {
        let v = self.values.zeros(n);
        value(v);
        room(&mut self.buffer, 8 * n).copy_from_slice(bytemuck::cast_slice(v));
        self.flush_if_full()
    }

    fn deal(
        &mut self,
        draw: &mut Draw,
        n: usize,
        bits: u32,
        _: &mut Words,
        value: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError> {
        let v = self.values.zeros(n);
        value(v);
        let a = self.shares.zeros(n);
        fill(&mut draw.alice, a);
        v.iter_mut().zip(a).for_each(|(x, y)| *x = x.wrapping_sub(*y));
        let room = room(&mut self.buffer, packed_bytes(n, bits));
        if bits == 64 {
            room.copy_from_slice(bytemuck::cast_slice(v));
        } else {
            pack(v, bits, room);
        }
        self.flush_if_full()
    }

    fn deal_bits(
        &mut self,
        draw: &mut Draw,
        n: usize,
        _: &mut Words,
        value: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError> {
        let v = self.values.zeros(n);
        value(v);
        let a = self.shares.zeros(n);
        fill(&mut draw.alice, a);
        v.iter_mut().zip(a).for_each(|(x, y)| *x ^= *y);
        room(&mut self.buffer, 8 * n).copy_from_slice(bytemuck::cast_slice(v));
        self.flush_if_full()
    }

    fn end_step(&mut self) -> Result<(), MpcError> {
        self.flush()
    }
}

/// Alice: her material comes from the seed she shares with carol; what carol publishes she has from bob.
pub(crate) struct AliceDealing<'a> {
    carol: &'a Source,
    bob: &'a mut dyn Link,
    step: usize,
}

impl<'a> AliceDealing<'a> {
    pub(crate) fn new(carol: &'a Source, bob: &'a mut dyn Link) -> Self {
        Self { carol, bob, step: 0 }
    }
}

impl Dealing for AliceDealing<'_> {
    fn begin_step(&mut self, step: usize) {
        self.step = step;
        self.bob.meter().enter(Phase::Offline, step);
    }

    fn open_mask(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: Some(at.stream(self.carol, purpose)?), bob: None })
    }

    fn open_shares(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        self.open_mask(at, purpose)
    }

    fn mask(&mut self, draw: &mut Draw, n: usize) -> Words {
        next(&mut draw.alice, n)
    }

    fn mask_bits(&mut self, draw: &mut Draw, n: usize, out: &mut Words) {
        fill(&mut draw.alice, out.grow(n));
    }

    fn parts(&mut self, draw: &mut Draw, n: usize) -> [Words; 2] {
        [next(&mut draw.alice, n), Words::default()]
    }

    fn publish(&mut self, n: usize, out: &mut Words, _: impl FnOnce(&mut [u64])) -> Result<(), MpcError> {
        Ok(self.bob.recv(forwarded(self.step), bytemuck::cast_slice_mut(out.grow(n)))?)
    }

    fn deal(
        &mut self,
        draw: &mut Draw,
        n: usize,
        _: u32,
        out: &mut Words,
        _: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError> {
        fill(&mut draw.alice, out.grow(n));
        Ok(())
    }

    fn deal_bits(
        &mut self,
        draw: &mut Draw,
        n: usize,
        out: &mut Words,
        _: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError> {
        fill(&mut draw.alice, out.grow(n));
        Ok(())
    }
}

/// Bob: his masks come from the seed he shares with carol, dealt values from carol's corrections. What carol publishes
/// he passes on to alice, unread: it is meant for both, and carol's one data link ends at bob.
pub(crate) struct BobDealing<'a> {
    carol: &'a Source,
    link: &'a mut dyn Link,
    alice: &'a mut dyn Link,
    tag: Tag,
    frame: Vec<u8>,
    used: usize,
}

impl<'a> BobDealing<'a> {
    pub(crate) fn new(carol: &'a Source, link: &'a mut dyn Link, alice: &'a mut dyn Link) -> Self {
        Self { carol, link, alice, tag: 0, frame: Vec::new(), used: 0 }
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], MpcError> {
        if self.used == self.frame.len() {
            erase(&mut self.frame);
            self.frame = self.link.recv_any(self.tag, trefoil_link::frame::MAX_PAYLOAD)?;
            self.used = 0;
        }
        let at = self.used;
        if self.frame.len() - at < bytes {
            return Err(MpcError::Dealt(format!("{} bytes left where {bytes} were due", self.frame.len() - at)));
        }
        self.used += bytes;
        Ok(&self.frame[at..at + bytes])
    }
}

impl Drop for BobDealing<'_> {
    fn drop(&mut self) {
        erase(&mut self.frame);
    }
}

impl Dealing for BobDealing<'_> {
    fn begin_step(&mut self, step: usize) {
        self.tag = step as Tag;
        self.link.meter().enter(Phase::Offline, step);
        self.alice.meter().enter(Phase::Offline, step);
    }

    fn open_mask(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: None, bob: Some(at.stream(self.carol, purpose)?) })
    }

    fn open_shares(&mut self, _: At, _: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: None, bob: None })
    }

    fn mask(&mut self, draw: &mut Draw, n: usize) -> Words {
        next(&mut draw.bob, n)
    }

    fn mask_bits(&mut self, draw: &mut Draw, n: usize, out: &mut Words) {
        fill(&mut draw.bob, out.grow(n));
    }

    fn parts(&mut self, draw: &mut Draw, n: usize) -> [Words; 2] {
        [Words::default(), next(&mut draw.bob, n)]
    }

    fn publish(&mut self, n: usize, out: &mut Words, _: impl FnOnce(&mut [u64])) -> Result<(), MpcError> {
        let words = out.grow(n);
        bytemuck::cast_slice_mut(words).copy_from_slice(self.take(8 * n)?);
        Ok(self.alice.send(forwarded(self.tag as usize), &[bytemuck::cast_slice(words)])?)
    }

    fn deal(
        &mut self,
        _: &mut Draw,
        n: usize,
        bits: u32,
        out: &mut Words,
        _: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError> {
        if n > 0 {
            unpack(self.take(packed_bytes(n, bits))?, bits, out.grow(n));
        }
        Ok(())
    }

    fn deal_bits(
        &mut self,
        _: &mut Draw,
        n: usize,
        out: &mut Words,
        _: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError> {
        if n > 0 {
            bytemuck::cast_slice_mut(out.grow(n)).copy_from_slice(self.take(8 * n)?);
        }
        Ok(())
    }

    fn end_step(&mut self) -> Result<(), MpcError> {
        match self.frame.len() - self.used {
            0 => Ok(()),
            left => Err(MpcError::Dealt(format!("{left} bytes too many at the end of step {}", self.tag))),
        }
    }
}

/// Nobody: adds up what carol would send, frame by frame.
#[derive(Default)]
pub(crate) struct Counting {
    buffered: usize,
    /// Bytes of all frames of the producer so far, headers included.
    pub(crate) bytes: u64,
    /// Bytes of all frames that bob passed on to alice.
    pub(crate) forwarded: u64,
}

impl Counting {
    fn add(&mut self, bytes: usize) {
        self.buffered += bytes;
        if self.buffered >= FRAME {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.buffered > 0 {
            self.bytes += (self.buffered + HEADER) as u64;
            self.buffered = 0;
        }
    }
}

impl Dealing for Counting {
    const COMPUTES: bool = false;
    const KEEPS: bool = false;

    fn open_mask(&mut self, _: At, _: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: None, bob: None })
    }

    fn open_shares(&mut self, _: At, _: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: None, bob: None })
    }

    fn mask(&mut self, _: &mut Draw, _: usize) -> Words {
        Words::default()
    }

    fn mask_bits(&mut self, _: &mut Draw, _: usize, _: &mut Words) {}

    fn parts(&mut self, _: &mut Draw, _: usize) -> [Words; 2] {
        [Words::default(), Words::default()]
    }

    fn publish(&mut self, n: usize, _: &mut Words, _: impl FnOnce(&mut [u64])) -> Result<(), MpcError> {
        self.forwarded += (8 * n + HEADER) as u64;
        self.add(8 * n);
        Ok(())
    }

    fn deal(
        &mut self,
        _: &mut Draw,
        n: usize,
        bits: u32,
        _: &mut Words,
        _: impl FnOnce(&mut [u64]),
    ) -> Result<(), MpcError> {
        self.add(packed_bytes(n, bits));
        Ok(())
    }

    fn deal_bits(&mut self, _: &mut Draw, n: usize, _: &mut Words, _: impl FnOnce(&mut [u64])) -> Result<(), MpcError> {
        self.add(8 * n);
        Ok(())
    }

    fn end_step(&mut self) -> Result<(), MpcError> {
        self.flush();
        Ok(())
    }
}
