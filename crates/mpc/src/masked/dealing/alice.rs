//! Alice's side of the offline phase: draws from one seed, and what bob passes on.

use trefoil_link::{Link, Phase};
use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;

use super::super::online::{forwarded, shorter};
use super::{At, Dealing, Draw, fill, next, no_peer};
use crate::error::MpcError;

/// Alice: her material comes from the seed she shares with carol; what carol publishes she has from bob.
pub(crate) struct AliceDealing<'a> {
    carol: &'a Source,
    /// None where the program publishes nothing.
    bob: Option<&'a mut dyn Link>,
    /// None where the program shows carol nothing, and where everything is prepared first.
    to_carol: Option<&'a mut dyn Link>,
    step: usize,
}

impl<'a> AliceDealing<'a> {
    pub(crate) fn new(carol: &'a Source, bob: Option<&'a mut dyn Link>, to_carol: Option<&'a mut dyn Link>) -> Self {
        Self { carol, bob, to_carol, step: 0 }
    }
}

impl Dealing for AliceDealing<'_> {
    const PUBLIC: u64 = u64::MAX;

    fn begin_step(&mut self, step: usize) {
        self.step = step;
        if let Some(bob) = &mut self.bob {
            bob.meter().enter(Phase::Offline, step);
        }
    }

    fn shown(&mut self) -> Option<&mut dyn Link> {
        shorter(&mut self.to_carol)
    }

    fn open_mask(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        Ok(Draw { alice: Some(at.stream(self.carol, purpose)?), bob: None })
    }

    fn open_shares(&mut self, at: At, purpose: Purpose) -> Result<Draw, MpcError> {
        self.open_mask(at, purpose)
    }

    fn public(&self, at: At, purpose: Purpose) -> Result<[u8; 32], MpcError> {
        at.public(self.carol, purpose)
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
        let bob = self.bob.as_mut().ok_or_else(no_peer)?;
        Ok(bob.recv(forwarded(self.step), bytemuck::cast_slice_mut(out.grow(n)))?)
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
