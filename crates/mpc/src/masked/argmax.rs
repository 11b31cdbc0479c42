//! Argmax by all pairs, for a label and nothing else.
//!
//! Every pair i < j of the n values is compared once, on *shifted wires*: D = (delta_i >> lo) - (delta_j >> lo) and
//! Lambda likewise, one bit used both ways. That is a total order with ties to the lower index, so there is always
//! one winner, at most two units of 2^lo from the true maximum. A winner's bit is the AND of its n - 1 comparisons (a
//! multi-input AND over masked bits, four at a time); the index is an XOR of the winners' bits. No logit, winner's bit
//! or one-hot vector is opened.
//!
//! Rounds: the comparison's, then one for every further level of the AND (n = 10: 3 + 1, by keys 1 + 1).

use trefoil_prg::Purpose;
use trefoil_ring::Words;

use super::compare::{CompareMaterial, Scratch, and, compare, deal_compare};
use super::dealing::{At, Dealing};
use super::layout::Layout;
use super::local::shifted_column;
use super::online::Online;
use crate::compare::Compare;
use crate::error::MpcError;
use crate::program::{Window, index_bits};

const ARITY: usize = 4;

/// Sizes of the groups into which the factors of each winner's bit are combined, level by level; the last level's
/// one group stays shared.
fn and_levels(factors: usize) -> Vec<Vec<usize>> {
    let mut levels = Vec::new();
    let mut left = factors;
    while left > ARITY {
        let groups = left.div_ceil(ARITY);
        levels.push((0..groups).map(|g| left / groups + usize::from(g < left % groups)).collect());
        left = groups;
    }
    levels.push(vec![left]);
    levels
}

/// Bit planes opened by each level of the AND, for all classes; the last level opens none.
pub(crate) fn and_opened(n: usize) -> Vec<usize> {
    let levels = and_levels(n - 1);
    levels[..levels.len() - 1].iter().map(|groups| n * groups.len()).collect()
}

/// Pairs compared.
pub(crate) fn pairs(n: usize) -> usize {
    n * (n - 1) / 2
}

/// Layout of the comparison of shifted wires: bits 0..k of the differences.
pub(crate) fn shifted_layout(window: Window, compare: Compare) -> Layout {
    Layout::new(Window { lo: 0, k: window.k }, compare)
}

fn pair_list(n: usize) -> Vec<(usize, usize)> {
    (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect()
}

/// Differences of shifted wires, pair by pair, from element `start` on.
fn differences<'a>(
    x: &'a [u64],
    n: usize,
    batch: usize,
    lo: u32,
    pairs: &'a [(usize, usize)],
) -> impl Fn(usize, &mut [u64]) + 'a {
    move |start, out| {
        for (e, o) in out.iter_mut().enumerate() {
            let (pair, sample) = ((start + e) / batch, (start + e) % batch);
            let (i, j) = pairs[pair];
            *o = shifted_column(x, n, i, lo, sample).wrapping_sub(shifted_column(x, n, j, lo, sample));
        }
    }
}

/// Bits `start .. start + len` of a plane as a plane of their own, zeros behind.
fn cut(plane: &[u64], start: usize, len: usize) -> Words {
    let mut out = Words::zeros(len.div_ceil(64));
    for (w, o) in out.iter_mut().enumerate() {
        let (word, shift) = ((start + 64 * w) / 64, (start + 64 * w) % 64);
        *o = plane[word] >> shift;
        if shift > 0 && word + 1 < plane.len() {
            *o |= plane[word + 1] << (64 - shift);
        }
        let left = len - 64 * w;
        if left < 64 {
            *o &= (1 << left) - 1;
        }
    }
    out
}

/// For each class, its comparisons: (pair, whether the pair's bit counts negated).
fn factors(n: usize) -> Vec<Vec<(usize, bool)>> {
    let list = pair_list(n);
    (0..n)
        .map(|class| {
            let mine = list.iter().enumerate().filter(|(_, (i, j))| *i == class || *j == class);
            mine.map(|(p, (_, j))| (p, *j == class)).collect()
        })
        .collect()
}

/// Material of one argmax step.
#[derive(Default)]
pub(crate) struct ArgmaxMaterial {
    compare: CompareMaterial,
    /// For each level of the AND: own parts of the masks opened, shares of the groups' monomials.
    levels: Vec<(Words, Words)>,
}

impl ArgmaxMaterial {
    pub(crate) fn words(&self) -> usize {
        self.compare.words() + self.levels.iter().map(|(m, d)| m.len() + d.len()).sum::<usize>()
    }
}

/// The dealt products of a group of `size` masks: all sets of two or more, ascending.
fn group_sets(size: usize) -> impl Iterator<Item = usize> {
    (1..1usize << size).filter(|s| !s.is_power_of_two())
}

/// Deals the argmax of `batch` samples of `n` values under masks `lambda`.
pub(crate) fn deal_argmax<D: Dealing>(
    d: &mut D,
    at: At,
    batch: usize,
    n: usize,
    (window, way): (Window, Compare),
    lambda: &[u64],
) -> Result<ArgmaxMaterial, MpcError> {
    let list = pair_list(n);
    let layout = shifted_layout(window, way);
    let compare = deal_compare(d, at, list.len() * batch, &layout, differences(lambda, n, batch, window.lo, &list))?;
    let words = batch.div_ceil(64);
    let beta = &compare.sign;
    let mut masks: Vec<Vec<Words>> = vec![vec![]; n];
    if D::COMPUTES {
        for (class, factors) in factors(n).iter().enumerate() {
            masks[class] = factors.iter().map(|(p, _)| cut(beta, p * batch, batch)).collect();
        }
    }
    let mut levels = Vec::new();
    let groups = and_levels(n - 1);
    for (l, sizes) in groups.iter().enumerate() {
        let at = at.level(l)?;
        let mut shares = d.open_shares(at, Purpose::AndMonomial)?;
        let dealt: usize = sizes.iter().map(|&s| (1 << s) - 1 - s).sum();
        let m = &masks;
        let mut monomials = Words::default();
        d.deal_bits(&mut shares, n * dealt * words, &mut monomials, |out| {
            let mut planes = out.chunks_exact_mut(words);
            for class in m {
                let mut first = 0;
                for &size in sizes {
                    for (s, plane) in group_sets(size).zip(&mut planes) {
                        plane.fill(u64::MAX);
                        for f in (0..size).filter(|f| s >> f & 1 == 1) {
                            plane.iter_mut().zip(class[first + f].iter()).for_each(|(o, v)| *o &= v);
                        }
                    }
                    first += size;
                }
            }
        })?;
        let mut opened = Words::default();
        if l + 1 < groups.len() {
            let mut draw = d.open_mask(at, Purpose::AndMask)?;
            d.mask_bits(&mut draw, n * sizes.len() * words, &mut opened);
            if D::COMPUTES {
                masks = split(&opened, n, words);
            }
        }
        levels.push((opened, monomials));
    }
    Ok(ArgmaxMaterial { compare, levels })
}

fn split(planes: &[u64], classes: usize, words: usize) -> Vec<Vec<Words>> {
    let each = planes.len() / classes / words;
    let class = |c: usize| (0..each).map(|g| planes[(c * each + g) * words..][..words].to_vec().into()).collect();
    (0..classes).map(class).collect()
}

/// XOR shares of the index of each sample's largest value: `index_bits(n)` planes of `batch` bits.
pub(crate) fn argmax(
    net: &mut Online<'_>,
    batch: usize,
    n: usize,
    (window, way): (Window, Compare),
    delta: &[u64],
    m: ArgmaxMaterial,
) -> Result<Words, MpcError> {
    let list = pair_list(n);
    let words = batch.div_ceil(64);
    let bhat = compare(
        net,
        list.len() * batch,
        &shifted_layout(window, way),
        &m.compare,
        differences(delta, n, batch, window.lo, &list),
    )?;
    let mut public: Vec<Vec<Words>> = Vec::with_capacity(n);
    let mut masks: Vec<Vec<Words>> = Vec::with_capacity(n);
    for factors in factors(n) {
        masks.push(factors.iter().map(|(p, _)| cut(&m.compare.sign, p * batch, batch)).collect());
        public.push(
            factors
                .iter()
                .map(|&(p, negated)| {
                    let mut plane = cut(&bhat, p * batch, batch);
                    if negated {
                        plane.iter_mut().for_each(|w| *w = !*w);
                    }
                    plane
                })
                .collect(),
        );
    }
    let mut winners = Words::default();
    let mut scratch = Scratch::default();
    for (sizes, (own, monomials)) in and_levels(n - 1).iter().zip(&m.levels) {
        let mut shares = Words::with_capacity(n * sizes.len() * words);
        let mut dealt = monomials.chunks_exact(words);
        for class in 0..n {
            let mut first = 0;
            for &size in sizes {
                let sets: Vec<(usize, &[u64])> = group_sets(size).zip(&mut dealt).collect();
                let share = |s: usize| {
                    if s.is_power_of_two() {
                        return &masks[class][first + s.trailing_zeros() as usize][..];
                    }
                    sets[sets.partition_point(|(set, _)| *set < s)].1
                };
                shares.extend(and(net.role, words, size, |f| &public[class][first + f][..], share, &mut scratch));
                first += size;
            }
        }
        if own.is_empty() {
            winners = shares;
        } else {
            let opened = net.open_bits(shares, own)?;
            public = split(&opened, n, words);
            masks = split(own, n, words);
        }
    }
    let mut index = Words::zeros(index_bits(n) * words);
    for (class, winner) in winners.chunks_exact(words).enumerate() {
        for (b, plane) in index.chunks_exact_mut(words).enumerate() {
            if class >> b & 1 == 1 {
                plane.iter_mut().zip(winner).for_each(|(o, w)| *o ^= w);
            }
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_factor() {
        for f in 1..130 {
            let mut left = f;
            for level in and_levels(f) {
                assert_eq!(level.iter().sum::<usize>(), left);
                assert!(level.iter().all(|g| (1..=ARITY).contains(g)));
                left = level.len();
            }
            assert_eq!(left, 1);
        }
    }

    #[test]
    fn cutting_bits() {
        let plane = [0xdead_beef_0123_4567u64, 0x89ab_cdef_7654_3210];
        for start in 0..100 {
            for len in 1..(128 - start) {
                let c = cut(&plane, start, len);
                for i in 0..len {
                    assert_eq!(c[i / 64] >> (i % 64) & 1, plane[(start + i) / 64] >> ((start + i) % 64) & 1);
                }
                assert!(len % 64 == 0 || c[len / 64] >> (len % 64) == 0);
            }
        }
    }
}
