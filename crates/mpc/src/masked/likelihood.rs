//! Softmax in the clear at alice: the cheap way, which shows her every row's class likelihoods.
//!
//! Additive logits z of a row, at scale s. Both evaluators add their part of one random offset o = o_A + o_B to every
//! logit of the row (o_A from alice's seed with carol, o_B from bob's: alice does not know the sum), and re-randomise
//! from their own seed. Bob sends the top 64 - shift bits of his share. Alice adds hers:
//!
//! ```text
//! v_j = (z_j + o) >> shift  modulo 2^(64 - shift)   (at most one unit off)
//! ```
//!
//! With o uniform she learns the differences v_j - v_0 and nothing else; that is what the likelihoods are made of, so
//! that an additive constant of the logits stays secret. She computes softmax of the differences in floating point.
//! What she returns is shared as (p - r, r), with r from the evaluators' own seed: no message more.
//!
//! **What leaks.** Alice learns the likelihoods of every class for every row, each time the row is used: with the
//! likelihoods over many steps she can guess labels and group rows that are alike. Bob receives nothing, carol nothing.
//!
//! One round in which bob alone sends (64 - shift) bits a logit; nothing is dealt. Dahl 2017 reveals likelihoods so.

use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;
use zeroize::Zeroizing;

use super::dealing::{At, Dealing};
use super::online::{Online, Role};
use super::output::{self, open_values, seal_values, value_bytes};
use crate::error::MpcError;

/// Rows of the result: p, -ln p, and one where p is largest.
pub(crate) const TABLE: usize = 3;

/// What hides the logits' constant, re-randomises bob's share, and shares the result.
#[derive(Default)]
pub(crate) struct LikelihoodMaterial {
    offset: Words,
    output: Words,
    share: Words,
}

impl LikelihoodMaterial {
    pub(crate) fn words(&self) -> usize {
        self.offset.len() + self.output.len() + self.share.len()
    }

    /// Draws what the evaluators' own source gives for `n` logits.
    pub(crate) fn drawn(mut self, peer: &Source, at: At, n: usize) -> Result<Self, MpcError> {
        self.output = output::draw(peer, at, n)?;
        self.share = Words::zeros(TABLE * n);
        at.stream(peer, Purpose::Likelihood)?.fill(&mut self.share);
        Ok(self)
    }
}

/// Draws each evaluator's part of the offsets of `rows` rows. Nothing is dealt.
pub(crate) fn deal_offsets<D: Dealing>(d: &mut D, at: At, rows: usize) -> Result<LikelihoodMaterial, MpcError> {
    let mut draw = d.open_mask(at, Purpose::LogitOffset)?;
    let offset = d.mask(&mut draw, rows);
    Ok(LikelihoodMaterial { offset, ..LikelihoodMaterial::default() })
}

/// This evaluator's share of the likelihoods of `rows` rows of logits, which have `bits` fraction bits after the shift;
/// the result has `fraction_bits`.
pub(crate) fn likelihoods(
    net: &mut Online<'_>,
    rows: usize,
    (shift, bits, fraction_bits): (u32, u32, u32),
    mut logits: Words,
    m: LikelihoodMaterial,
) -> Result<Words, MpcError> {
    let (n, classes) = (logits.len(), logits.len() / rows.max(1));
    for (row, o) in logits.chunks_exact_mut(classes).zip(m.offset.iter()) {
        row.iter_mut().for_each(|z| *z = z.wrapping_add(*o));
    }
    let own = Zeroizing::new(seal_values(net.role, logits, &m.output, shift));
    let mut theirs = Zeroizing::new(vec![0; value_bytes(n, shift)]);
    net.tell_alice(&own, &mut theirs)?;
    let mut share = m.share;
    if net.role == Role::A {
        let values = Zeroizing::new(open_values(&own, &theirs, n, shift)?);
        let mut table = Words::zeros(TABLE * n);
        for (row, out) in values.chunks_exact(classes).zip(table.chunks_exact_mut(TABLE * classes)) {
            softmax(row, shift, bits, fraction_bits, out);
        }
        share.iter_mut().zip(table.iter()).for_each(|(r, p)| *r = p.wrapping_sub(*r));
    }
    Ok(share)
}

/// p, -ln p and the largest of one row of logits that are known up to a common constant modulo 2^(64 - shift).
pub(crate) fn softmax(row: &[i64], shift: u32, bits: u32, fraction_bits: u32, out: &mut [u64]) {
    let first = row.first().copied().unwrap_or_default();
    let unit = f64::from(bits).exp2();
    let behind = |v: &i64| ((v.wrapping_sub(first) << shift) >> shift) as f64 / unit;
    let x = Zeroizing::new(row.iter().map(behind).collect::<Vec<f64>>());
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().map(|x| (x - top).exp()).sum();
    let largest = x.iter().position(|x| *x == top);
    let one = f64::from(fraction_bits).exp2();
    let fixed = |v: f64| (v * one).round() as i64 as u64;
    let (p, rest) = out.split_at_mut(row.len());
    let (cost, hit) = rest.split_at_mut(row.len());
    for (i, x) in x.iter().enumerate() {
        p[i] = fixed((x - top).exp() / sum);
        cost[i] = fixed(sum.ln() - (x - top));
        hit[i] = fixed(f64::from(u8::from(largest == Some(i))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(row: &[i64]) -> Vec<u64> {
        let mut out = vec![0; TABLE * row.len()];
        softmax(row, 16, 16, 16, &mut out);
        out
    }

    #[test]
    fn a_row_of_known_likelihoods() {
        // Odds of 1 : 2 : 1, in units of 2^-16.
        let two = (2.0_f64.ln() * 65536.0).round() as i64;
        let quarter = 1 << 14;
        let cost = [4.0_f64.ln(), 2.0_f64.ln()].map(|c| (c * 65536.0).round() as u64);
        let expected = [quarter, 2 * quarter, quarter, cost[0], cost[1], cost[0], 0, 1 << 16, 0];
        let near = |(a, b): (&u64, &u64)| a.abs_diff(*b) <= 1;
        assert!(table(&[0, two, 0]).iter().zip(&expected).all(near));
    }

    #[test]
    fn a_common_constant_modulo_the_ring_changes_nothing() {
        // Alice computes the same from every constant: what she is shown is as likely with each of them.
        let row = [-70_000, 3, 1 << 20, 65_536, 1 << 20];
        for constant in [1, -1, 1 << 46, i64::MAX >> 16, 0x5a5a_5a5a_5a5a] {
            let moved = row.map(|v: i64| (v.wrapping_add(constant) << 16) >> 16);
            assert_eq!(table(&moved), table(&row), "{constant}");
        }
        assert_eq!(table(&row)[12..], [1 << 16, 0, 0], "the first of the largest");
    }
}
