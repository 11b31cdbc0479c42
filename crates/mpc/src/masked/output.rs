//! Outputs: re-randomised shares, truncated, to the recipient alone.
//!
//! Every output is re-randomised from the seed that only the evaluators share: without that, bob's share and the
//! producer's knowledge give away the weights of a linear head. A value at scale s that is due at scale s - f leaves
//! truncated: each evaluator sends the top 64 - f bits of its share, the recipient adds them plus one modulo
//! 2^(64-f): at most one unit off, no extra round.

use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::{pack, packed_bytes, plane_words, unpack};

use super::dealing::At;
use super::online::Role;
use crate::error::MpcError;

/// Bytes that one evaluator sends for `n` values truncated by `shift`.
pub(crate) fn value_bytes(n: usize, shift: u32) -> usize {
    packed_bytes(n, 64 - shift)
}

/// Draws what re-randomises `n` words of output.
pub(crate) fn draw(peer: &Source, at: At, n: usize) -> Result<Words, MpcError> {
    let mut r = Words::zeros(n);
    at.stream(peer, Purpose::Output)?.fill(&mut r);
    Ok(r)
}

/// The message for the recipient of additive shares.
pub(crate) fn seal_values(role: Role, mut share: Words, r: &[u64], shift: u32) -> Vec<u8> {
    for (z, r) in share.iter_mut().zip(r) {
        *z = match role {
            Role::A => z.wrapping_add(*r),
            Role::B => z.wrapping_sub(*r),
        } >> shift;
    }
    let mut out = vec![0; value_bytes(share.len(), shift)];
    pack(&share, 64 - shift, &mut out);
    out
}

/// The message for the recipient of XOR-shared bits.
pub(crate) fn seal_bits(mut share: Words, r: &[u64]) -> Vec<u8> {
    share.iter_mut().zip(r).for_each(|(z, r)| *z ^= r);
    share.bytes().to_vec()
}

fn check(what: &str, expected: usize, got: &[u8]) -> Result<(), MpcError> {
    if got.len() == expected {
        return Ok(());
    }
    let expected = format!("{expected} bytes");
    Err(MpcError::Input { what: format!("the answer of {what}"), expected, got: format!("{} bytes", got.len()) })
}

/// At the recipient: `n` values, in units of the scale that is left after `shift` bits were dropped.
pub fn open_values(alice: &[u8], bob: &[u8], n: usize, shift: u32) -> Result<Vec<i64>, MpcError> {
    check("alice", value_bytes(n, shift), alice)?;
    check("bob", value_bytes(n, shift), bob)?;
    let (mut a, mut b) = (Words::zeros(n), Words::zeros(n));
    unpack(alice, 64 - shift, &mut a);
    unpack(bob, 64 - shift, &mut b);
    let one = u64::from(shift > 0);
    let sum = |(a, b): (&u64, &u64)| (a.wrapping_add(*b).wrapping_add(one) << shift) as i64 >> shift;
    Ok(a.iter().zip(b.iter()).map(sum).collect())
}

/// At the recipient: `batch` indices below `n` of `bits` bit planes.
pub fn open_labels(alice: &[u8], bob: &[u8], batch: usize, n: usize) -> Result<Vec<u32>, MpcError> {
    let bits = crate::program::index_bits(n);
    let words = plane_words(batch);
    check("alice", 8 * bits * words, alice)?;
    check("bob", 8 * bits * words, bob)?;
    let bit = |b: usize, i: usize| {
        let byte = b * words * 8 + i / 8;
        u32::from((alice[byte] ^ bob[byte]) >> (i % 8) & 1)
    };
    Ok((0..batch).map(|i| (0..bits).map(|b| bit(b, i) << b).sum()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_truncated_to_one_unit() {
        let z: Vec<u64> = (0..2000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64 as u64 >> 2).collect();
        let signed: Vec<i64> =
            z.iter().enumerate().map(|(i, v)| if i % 2 == 0 { *v as i64 } else { -(*v as i64) }).collect();
        for shift in [0, 1, 16, 20] {
            let share: Vec<u64> = (0..2000u64).map(|i| i.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(17)).collect();
            let other: Vec<u64> = signed.iter().zip(&share).map(|(z, s)| (*z as u64).wrapping_sub(*s)).collect();
            let r: Vec<u64> = share.iter().map(|s| s.rotate_left(31) ^ 0x5555).collect();
            let a = seal_values(Role::A, share.into(), &r, shift);
            let b = seal_values(Role::B, other.into(), &r, shift);
            for (got, z) in open_values(&a, &b, 2000, shift).unwrap().iter().zip(&signed) {
                let err = got - (z >> shift);
                assert!((0..=i64::from(shift > 0)).contains(&err), "{z} >> {shift}: {got}");
            }
        }
    }

    #[test]
    fn a_short_answer_is_refused() {
        assert!(matches!(open_values(&[0; 6], &[0; 5], 1, 16), Err(MpcError::Input { .. })));
        assert!(matches!(open_labels(&[0; 31], &[0; 32], 1, 10), Err(MpcError::Input { .. })));
    }
}
