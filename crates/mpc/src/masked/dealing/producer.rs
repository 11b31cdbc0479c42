//! Carol's side of the offline phase: she draws every mask, computes what is dealt and sends bob the corrections.

use trefoil_link::{Link, Phase, Tag};
use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::{pack, packed_bytes};

use super::{At, Dealing, Draw, FRAME, erase, fill, next};
use crate::error::MpcError;

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
