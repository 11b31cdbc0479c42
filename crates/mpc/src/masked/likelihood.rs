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
    net.to_alice(&own, &mut theirs)?;
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
