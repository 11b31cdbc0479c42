//! Bob's side of the offline phase: draws from one seed, the producer's corrections, and what he passes on.

use trefoil_link::{Link, Phase, Tag};
use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::{packed_bytes, unpack};

use super::super::online::forwarded;
use super::{At, Dealing, Draw, erase, fill, next, no_peer};
use crate::error::MpcError;

/// Bob: his masks come from the seed he shares with carol, dealt values from carol's corrections. What carol publishes
/// he passes on to alice, unread: it is meant for both, and carol's one data link ends at bob.
pub(crate) struct BobDealing<'a> {
    carol: &'a Source,
    link: &'a mut dyn Link,
    /// None where the program publishes nothing.
    alice: Option<&'a mut dyn Link>,
    tag: Tag,
    frame: Vec<u8>,
    used: usize,
}

/// Room for frames at first: those of one sample seldom take more.
const ROOM: usize = 1 << 14;

impl<'a> BobDealing<'a> {
    pub(crate) fn new(carol: &'a Source, link: &'a mut dyn Link, alice: Option<&'a mut dyn Link>) -> Self {
        Self { carol, link, alice, tag: 0, frame: Vec::with_capacity(ROOM), used: 0 }
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], MpcError> {
        if self.used == self.frame.len() {
            self.link.recv_into(self.tag, trefoil_link::frame::MAX_PAYLOAD, &mut self.frame)?;
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
        if let Some(alice) = &mut self.alice {
            alice.meter().enter(Phase::Offline, step);
        }
    }

    fn shown(&mut self) -> Option<&mut dyn Link> {
        Some(&mut *self.link)
    }

    fn open_mask(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: None, bob: Some(at.stream(self.carol, purpose)?) })
    }

    fn open_shares(&mut self, _: At, _: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: None, bob: None })
    }

    fn public(&self, at: At, purpose: Purpose) -> Result<[u8; 32], MpcError> {
        at.public(self.carol, purpose)
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
        let alice = self.alice.as_mut().ok_or_else(no_peer)?;
        Ok(alice.send(forwarded(self.tag as usize), &[bytemuck::cast_slice(words)])?)
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
