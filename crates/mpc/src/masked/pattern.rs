//! Bits that all three servers draw from the seed that all of them know, and nobody else: dropout patterns.
//!
//! What multiplies a masked wire must be known to the producer too, who must mask the result alike.

use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;

use super::dealing::At;
use crate::error::MpcError;

/// One plane of `n` bits, each one with probability `keep / 2^16`.
pub(crate) fn pattern(common: &Source, at: At, n: usize, keep: u32) -> Result<Words, MpcError> {
    let mut drawn = Words::zeros(n.div_ceil(4));
    at.stream(common, Purpose::Pattern)?.fill(&mut drawn);
    let mut plane = Words::zeros(n.div_ceil(64));
    for i in 0..n {
        let chance = drawn[i / 4] >> (16 * (i % 4)) & 0xffff;
        plane[i / 64] |= u64::from(chance < u64::from(keep)) << (i % 64);
    }
    Ok(plane)
}
