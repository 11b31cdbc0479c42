//! A masked bit as a number: b = bhat + (1 - 2 bhat) beta with beta dealt in the ring. Local; 64 bits dealt.

use trefoil_prg::Purpose;
use trefoil_ring::Words;

use super::dealing::{At, Dealing};
use super::layout::chunks;
use super::local::bit;
use super::online::Role;
use crate::error::MpcError;

/// Deals the masks `beta` of `n` bits (one plane, whole at the producer) as ring values: shares of them.
pub(crate) fn deal_bit<D: Dealing>(d: &mut D, at: At, n: usize, beta: &[u64]) -> Result<Words, MpcError> {
    let mut draw = d.open_shares(at, Purpose::Beta)?;
    let mut out = D::room(n);
    for (start, len, _) in chunks(n) {
        d.deal(&mut draw, len, 64, &mut out, |out| {
            out.iter_mut().enumerate().for_each(|(i, o)| *o = bit(beta, start + i));
        })?;
    }
    Ok(out)
}

/// This evaluator's additive share of every bit, from the public bits `bhat`.
pub(crate) fn number(role: Role, bhat: &[u64], mut beta: Words) -> Words {
    for (i, o) in beta.iter_mut().enumerate() {
        let b = bit(bhat, i);
        *o = role.public(b).wrapping_add(1u64.wrapping_sub(b << 1).wrapping_mul(*o));
    }
    beta
}
