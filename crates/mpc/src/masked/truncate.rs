//! Truncation without the failure probability of local truncation.
//!
//! Opened z with |z| < 2^62: let z' = z + 2^62 and d' = delta + 2^62. The wrap of z' + lambda is exactly
//! top(lambda) AND NOT top(d'), the first known to the producer, the second public; with tau = lambda >> f dealt,
//!
//! ```text
//! z >> f = (d' >> f) - 2^(62-f) - tau + (1 - top(d')) * 2^(64-f) * top(lambda)   (+0 or +1 unit)
//! ```
//!
//! as additive shares, locally: no round. top(lambda) enters times 2^(64-f), so f bits of its share are dealt:
//! 64 + f bits dealt. Stochastic rounding: the coin has the probability of the dropped fraction (which functionality
//! that is: Li et al. 2023).

use trefoil_prg::Purpose;
use trefoil_ring::Words;

use super::dealing::{At, Dealing};
use super::layout::chunks;
use super::online::Role;
use crate::error::MpcError;

const OFFSET: u64 = 1 << 62;

/// Shares of tau and of top(lambda).
#[derive(Default)]
pub(crate) struct TruncateMaterial {
    tau: Words,
    top: Words,
}

impl TruncateMaterial {
    pub(crate) fn words(&self) -> usize {
        self.tau.len() + self.top.len()
    }
}

/// Deals the truncation by `f` bits of `n` wires under the masks `lambda` (whole at the producer).
pub(crate) fn deal_truncate<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    f: u32,
    lambda: &[u64],
) -> Result<TruncateMaterial, MpcError> {
    let mut tau = d.open_shares(at, Purpose::Tau)?;
    let mut top = d.open_shares(at, Purpose::Top)?;
    let mut m = TruncateMaterial { tau: D::room(n), top: D::room(n) };
    for (start, len, _) in chunks(n) {
        let fill = |out: &mut [u64], shift: u32| {
            out.iter_mut().zip(&lambda[start..start + len]).for_each(|(o, l)| *o = l >> shift);
        };
        d.deal(&mut tau, len, 64, &mut m.tau, |out| fill(out, f))?;
        d.deal(&mut top, len, f, &mut m.top, |out| fill(out, 63))?;
    }
    Ok(m)
}

/// The public terms of a truncation: (d' >> f) - 2^(62-f), and all ones where the wrap is possible.
pub(crate) fn public_terms(delta: u64, f: u32) -> (u64, u64) {
    let d = delta.wrapping_add(OFFSET);
    ((d >> f).wrapping_sub(OFFSET >> f), (d >> 63).wrapping_sub(1))
}

/// This evaluator's additive share of z >> f for every wire.
pub(crate) fn truncate(role: Role, f: u32, delta: &[u64], m: TruncateMaterial) -> Words {
    let mut out = m.tau;
    for ((o, d), top) in out.iter_mut().zip(delta).zip(m.top.iter()) {
        let (public, no_top) = public_terms(*d, f);
        *o = role.public(public).wrapping_sub(*o).wrapping_add(no_top & (top << (64 - f)));
    }
    out
}
