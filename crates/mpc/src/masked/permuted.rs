//! Softmax in the clear at carol, of classes in an order that she does not know.
//!
//! Additive logits z of a row of n classes, at scale s. From the seed that only they share, alice and bob draw for each
//! row a permutation pi of the classes (exactly uniform: Durstenfeld 1964, by rejection), an offset o, and words r that
//! re-randomise; from the seed that only they share, alice and carol draw t:
//!
//! ```text
//! A -> C:  top 64 - shift bits of pi(z_A) + o + r        B -> C:  top 64 - shift bits of pi(z_B) - r
//! C:       v = pi(z + o) >> shift  modulo 2^(64 - shift), at most one unit off;  p = softmax(v)
//! C -> B:  p - t                                         A:  t
//! A, B:    pi^-1 of their shares
//! ```
//!
//! **What leaks.** Carol learns v up to o: of each row, each time it is used, the multiset of its likelihoods, and which
//! row of the data set that is (she knows the batches). She does not learn which class a likelihood belongs to: pi is
//! uniform and new for every row of every step, so that what she sees is distributed alike for any two orders of the
//! classes, and no logit: o is uniform, so that an additive constant stays secret. Labels are not among what she sees.
//! But multisets tell something: how sure the model is of a row, which rows are alike, how that changes over the epochs;
//! where some classes are rarer or harder than others, a row whose likelihoods look like theirs may be guessed to be
//! theirs. Alice receives nothing. Bob receives p - t, which is uniform.
//!
//! **Cost.** Two messages one after the other, counted as two rounds: (64 - shift) bits a logit from each evaluator, then
//! 3 n words a row from carol. No pattern has fewer: she must hear both, and someone must hear her. Nothing is dealt. Dahl
//! 2017 has this mode.

use trefoil_link::{Link, Phase, Tag};
use trefoil_prg::{Purpose, Source};
use trefoil_ring::Words;
use zeroize::Zeroizing;

use super::dealing::{At, Dealing};
use super::likelihood::{TABLE, softmax};
use super::online::Role;
use super::output::{self, open_values, seal_values, value_bytes};
use super::shuffle::order;
use crate::error::MpcError;

/// What hides the classes and the logits' constant, re-randomises, and shares the result.
#[derive(Default)]
pub(crate) struct PermutedMaterial {
    /// At alice and carol: alice's share of the result, or the helper's key.
    pub(crate) share: Words,
    /// What alice adds to her share of the logits, row by row.
    offset: Words,
    output: Words,
    /// Which class comes where, row by row.
    order: Zeroizing<Vec<u32>>,
    /// The lot, at an evaluator.
    pub(crate) lot: u64,
}

impl PermutedMaterial {
    pub(crate) fn words(&self) -> usize {
        self.share.len() + self.offset.len() + self.output.len() + self.order.len().div_ceil(2)
    }

    /// Draws what the evaluators' own source gives for `rows` rows of `n` logits in all.
    pub(crate) fn drawn(mut self, peer: &Source, at: At, rows: usize, n: usize) -> Result<Self, MpcError> {
        self.lot = peer.lot();
        self.output = output::draw(peer, at, n)?;
        self.offset = Words::zeros(rows);
        at.stream(peer, Purpose::LogitOffset)?.fill(&mut self.offset);
        self.order = Zeroizing::new(Vec::with_capacity(n));
        for row in 0..rows {
            let stream = at.unit(row)?.stream(peer, Purpose::ClassOrder)?;
            self.order.extend_from_slice(&order(n / rows, stream));
        }
        Ok(self)
    }
}

/// Draws alice's share of the likelihoods, or the key of it, of `words` words. Nothing is dealt.
pub(crate) fn deal_permuted<D: Dealing>(d: &mut D, at: At, words: usize) -> Result<PermutedMaterial, MpcError> {
    let mut draw = d.open_shares(at, Purpose::Likelihood)?;
    let [share, _] = d.parts(&mut draw, words);
    Ok(PermutedMaterial { share, ..PermutedMaterial::default() })
}

/// At an evaluator: its message, the logits in the order drawn, re-randomised and truncated by `shift`.
pub(crate) fn mixed(role: Role, rows: usize, shift: u32, logits: &[u64], m: &PermutedMaterial) -> Zeroizing<Vec<u8>> {
    let classes = logits.len() / rows.max(1);
    let mut mixed = Words::zeros(logits.len());
    let by_row = mixed.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)).zip(m.order.chunks_exact(classes));
    for (((to, from), order), o) in by_row.zip(m.offset.iter()) {
        let o = role.public(*o);
        to.iter_mut().zip(order).for_each(|(z, class)| *z = from[*class as usize].wrapping_add(o));
    }
    Zeroizing::new(seal_values(role, mixed, &m.output, shift))
}

/// A share of the likelihoods of `rows` rows, back in the classes' own order.
pub(crate) fn sorted(rows: usize, mixed: &[u64], m: &PermutedMaterial) -> Words {
    let classes = m.order.len() / rows.max(1);
    let mut share = Words::zeros(mixed.len());
    let lines = share.chunks_exact_mut(classes).zip(mixed.chunks_exact(classes));
    let orders = m.order.chunks_exact(classes).flat_map(|order| [order; TABLE]);
    for ((to, from), order) in lines.zip(orders) {
        order.iter().zip(from).for_each(|(class, v)| to[*class as usize] = *v);
    }
    share
}

/// Counts the two rounds that asking takes: for the message, and for the answer that one evaluator waits for.
pub(crate) fn enter(link: &mut dyn Link, step: usize) {
    let meter = link.meter();
    meter.enter(Phase::Online, step);
    meter.round();
    meter.round();
}

/// At an evaluator: its share of the likelihoods of `rows` rows of logits, which carol computes.
pub(crate) fn ask_carol(
    role: Role,
    step: usize,
    carol: &mut dyn Link,
    (rows, shift): (usize, u32),
    logits: &[u64],
    mut m: PermutedMaterial,
) -> Result<Words, MpcError> {
    enter(carol, step);
    carol.send(step as Tag, &[&mixed(role, rows, shift, logits, &m)])?;
    let mut mixed = std::mem::take(&mut m.share);
    if role == Role::B {
        mixed = Words::zeros(TABLE * logits.len());
        carol.recv(step as Tag, bytemuck::cast_slice_mut(&mut mixed))?;
    }
    Ok(sorted(rows, &mixed, &m))
}

/// At carol: computes the likelihoods of `rows` rows of `classes` logits, which have `bits` fraction bits after the
/// shift; the result has `fraction_bits`.
pub(crate) fn answer(
    step: usize,
    [alice, bob]: [&mut dyn Link; 2],
    (rows, classes): (usize, usize),
    bits: (u32, u32, u32),
    m: &PermutedMaterial,
) -> Result<(), MpcError> {
    let mut sealed = [(); 2].map(|()| Zeroizing::new(vec![0; value_bytes(rows * classes, bits.0)]));
    for (link, sealed) in [&mut *alice, &mut *bob].into_iter().zip(&mut sealed) {
        link.meter().enter(Phase::Online, step);
        link.recv(step as Tag, sealed)?;
    }
    let table = shared([&sealed[0], &sealed[1]], (rows, classes), bits, &m.share)?;
    Ok(bob.send(step as Tag, &[bytemuck::cast_slice(&table)])?)
}

/// Bob's share of the likelihoods of the logits in both evaluators' messages; alice's is `hers`.
pub(crate) fn shared(
    [alice, bob]: [&[u8]; 2],
    (rows, classes): (usize, usize),
    (shift, bits, fraction_bits): (u32, u32, u32),
    hers: &[u64],
) -> Result<Words, MpcError> {
    let n = rows * classes;
    let values = Zeroizing::new(open_values(alice, bob, n, shift)?);
    let mut table = Words::zeros(TABLE * n);
    for (row, out) in values.chunks_exact(classes).zip(table.chunks_exact_mut(TABLE * classes)) {
        softmax(row, shift, bits, fraction_bits, out);
    }
    table.iter_mut().zip(hers).for_each(|(p, t)| *p = p.wrapping_sub(*t));
    Ok(table)
}
