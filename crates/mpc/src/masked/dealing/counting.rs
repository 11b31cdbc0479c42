//! The offline phase counted: what the producer would send, frame by frame.

use trefoil_link::frame::HEADER;
use trefoil_prg::Purpose;
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::packed_bytes;

use super::{At, Dealing, Draw, FRAME};
use crate::error::MpcError;

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

    fn public(&self, _: At, _: Purpose) -> Result<[u8; 32], MpcError> {
        Ok([0; 32])
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
