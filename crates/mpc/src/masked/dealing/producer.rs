//! Carol's side of the offline phase: she draws every mask, computes what is dealt and sends bob the corrections.

use trefoil_link::{Link, Phase, Tag};
use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::{pack, packed_bytes};

use super::super::layout::CHUNK;
use super::{At, Dealing, Draw, FRAME, erase, fill, next};
use crate::error::MpcError;

/// The frame that is being filled; its room is reused from one to the next.
#[derive(Default)]
struct Frame {
    bytes: Vec<u8>,
    used: usize,
}

impl Frame {
    /// The next `bytes` bytes, to be overwritten; a buffer that must grow is erased before it is given back.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        let at = self.used;
        if self.bytes.len() - at < bytes {
            let mut grown = vec![0; (at + bytes).max(2 * self.bytes.len())];
            grown[..at].copy_from_slice(&self.bytes[..at]);
            erase(&mut self.bytes);
            self.bytes = grown;
        }
        self.used += bytes;
        &mut self.bytes[at..at + bytes]
    }
}

/// Room for values that are computed and sent, reused from one to the next.
#[derive(Default)]
struct Room(Words);

impl Room {
    /// `n` words, to be overwritten.
    fn words(&mut self, n: usize) -> &mut [u64] {
        if self.0.len() < n {
            self.0 = Words::zeros(n);
        }
        &mut self.0[..n]
    }

    fn zeros(&mut self, n: usize) -> &mut [u64] {
        let words = self.words(n);
        words.fill(0);
        words
    }
}

/// Writes one word for each pair.
fn write(out: &mut [u8], a: &[u64], b: &[u64], combine: impl Fn(u64, u64) -> u64) {
    for (out, (a, b)) in out.chunks_exact_mut(8).zip(a.iter().zip(b)) {
        out.copy_from_slice(&combine(*a, *b).to_le_bytes());
    }
}

/// Carol: draws everything, computes what is dealt, sends bob the corrections.
pub(crate) struct Producer<'a> {
    alice: &'a Source,
    bob: &'a Source,
    link: &'a mut dyn Link,
    tag: Tag,
    frame: Frame,
    values: Room,
    shares: Room,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(alice: &'a Source, bob: &'a Source, link: &'a mut dyn Link) -> Self {
        Self { alice, bob, link, tag: 0, frame: Frame::default(), values: Room::default(), shares: Room::default() }
    }

    fn flush_if_full(&mut self) -> Result<(), MpcError> {
        if self.frame.used >= FRAME { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), MpcError> {
        if self.frame.used > 0 {
            self.link.send(self.tag, &[&self.frame.bytes[..self.frame.used]])?;
            self.frame.used = 0;
        }
        Ok(())
    }
}

impl Drop for Producer<'_> {
    fn drop(&mut self) {
        erase(&mut self.frame.bytes);
    }
}

impl Dealing for Producer<'_> {
    const KEEPS: bool = false;

    fn begin_step(&mut self, step: usize) {
        self.tag = step as Tag;
        self.link.meter().enter(Phase::Offline, step);
    }

    fn shown(&mut self) -> Option<&mut dyn Link> {
        Some(&mut *self.link)
    }

    fn open_mask(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: Some(at.stream(self.alice, purpose)?), bob: Some(at.stream(self.bob, purpose)?) })
    }

    fn open_shares(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: Some(at.stream(self.alice, purpose)?), bob: None })
    }

    fn public(&self, at: At, purpose: Purpose) -> Result<[u8; 32], MpcError> {
        at.public(self.alice, purpose)
    }

    fn mask(&mut self, draw: &mut Draw, n: usize) -> Words {
        let mut mask = Words::zeros(n);
        for part in mask.chunks_mut(CHUNK) {
            fill(&mut draw.alice, part);
            let b = self.shares.words(part.len());
            fill(&mut draw.bob, b);
            part.iter_mut().zip(b).for_each(|(x, y)| *x = x.wrapping_add(*y));
        }
        mask
    }

    fn mask_bits(&mut self, draw: &mut Draw, n: usize, out: &mut Words) {
        let b = self.shares.words(n);
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
        self.frame.room(8 * n).copy_from_slice(bytemuck::cast_slice(v));
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
        let a = self.shares.words(n);
        fill(&mut draw.alice, a);
        let room = self.frame.room(packed_bytes(n, bits));
        if bits == 64 {
            write(room, v, a, u64::wrapping_sub);
        } else {
            v.iter_mut().zip(a).for_each(|(x, y)| *x = x.wrapping_sub(*y));
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
        let a = self.shares.words(n);
        fill(&mut draw.alice, a);
        write(self.frame.room(8 * n), v, a, |x, y| x ^ y);
        self.flush_if_full()
    }

    fn end_step(&mut self) -> Result<(), MpcError> {
        self.flush()
    }
}
