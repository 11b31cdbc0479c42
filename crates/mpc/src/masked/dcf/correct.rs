//! The producer's side: correction words. It branches on nothing secret: secret bits select by masks.

use trefoil_ring::Words;

use super::tree::{Blocks, Ciphers, REST, SEED, Value, Values, WIDE, add, negate, pick, pick_block, sub, xor};
use super::{Group, Shape};

/// The children of one party's seeds.
struct Children {
    turned: Blocks,
    seeds: [Blocks; 2],
    wide: [Blocks; 2],
    rest: Blocks,
}

impl Children {
    fn new(n: usize, group: Group) -> Self {
        let pair = |n| [Blocks::zeros(n), Blocks::zeros(n)];
        let wide = pair(if group.wide() { n } else { 0 });
        Self { turned: Blocks::zeros(n), seeds: pair(n), wide, rest: Blocks::zeros(n) }
    }

    fn grow(&mut self, ciphers: &Ciphers, seeds: &Blocks) {
        self.turned.get_mut().iter_mut().zip(seeds.get()).for_each(|(t, s)| *t = [s[0] ^ 1, s[1]]);
        for (side, from) in [seeds, &self.turned].into_iter().enumerate() {
            ciphers.generate(SEED, from.get(), self.seeds[side].get_mut());
            ciphers.generate(WIDE, from.get(), self.wide[side].get_mut());
        }
        ciphers.generate(REST, seeds.get(), self.rest.get_mut());
    }

    /// The value of key `e` on a side.
    fn value(&self, e: usize, side: usize, group: Group) -> Value {
        let [a, b] = if group.wide() { self.wide[side].get()[e] } else { [0; 2] };
        [a, b, self.rest.get()[e][side] & group.mask()]
    }

    /// The control bit of key `e` on a side, as a mask.
    fn bit(&self, e: usize, side: usize) -> u64 {
        (self.rest.get()[e][side] >> 63).wrapping_neg()
    }
}

/// Generates the correction words of up to `KEYS` keys into `out`, which is all zeros.
pub(super) fn correct(
    ciphers: &Ciphers,
    shape: Shape,
    roots: [&[u64]; 2],
    alpha: &[u64],
    payload: &[Value],
    out: &mut [u64],
) {
    let Shape { bits, group } = shape;
    let n = alpha.len();
    let mut seeds = roots.map(|r| {
        let mut seeds = Blocks::zeros(n);
        seeds.set(r);
        seeds
    });
    let mut on = [Words::zeros(n), Words::zeros(n)];
    on[1].fill(u64::MAX);
    let (mut acc, mut cw, mut scratch) = (Values::zeros(n), Values::zeros(n), Words::zeros(n));
    let mut children = [Children::new(n, group), Children::new(n, group)];
    let (levels, leaves) = out.split_at_mut(out.len() - group.leaf_words(n));
    for (i, level) in (shape.leaf_bits()..bits).rev().zip(levels.chunks_exact_mut(group.level_words(n))) {
        for (c, s) in children.iter_mut().zip(&seeds) {
            c.grow(ciphers, s);
        }
        let (cw_seeds, rest) = level.split_at_mut(2 * n);
        let (cw_values, cw_bits) = rest.split_at_mut(group.value_words(n));
        let (left, right) = cw_bits.split_at_mut(n.div_ceil(64));
        for (e, cw_seed) in cw_seeds.chunks_exact_mut(2).enumerate() {
            let a = (alpha[e] >> i & 1).wrapping_neg();
            // The path goes on to the side of alpha's bit; the other side is lost: both parties' seeds become equal.
            let side = |c: &Children, to: u64| pick_block(to, c.seeds[1].get()[e], c.seeds[0].get()[e]);
            let value = |c: &Children, to: u64| {
                let (l, r) = (c.value(e, 0, group), c.value(e, 1, group));
                [pick(to, r[0], l[0]), pick(to, r[1], l[1]), pick(to, r[2], l[2])]
            };
            let [c0, c1] = &children;
            let seed = xor(side(c0, !a), side(c1, !a));
            cw_seed.copy_from_slice(&seed);
            let sum = &mut acc.get_mut()[e];
            let lost = sub(sub(value(c1, !a), value(c0, !a)), *sum);
            let mut v = negate(on[1][e], add(lost, payload[e].map(|p| p & a)));
            v[2] &= group.mask();
            cw.get_mut()[e] = v;
            *sum = add(add(sub(*sum, value(c1, a)), value(c0, a)), negate(on[1][e], v));
            let bit_left = c0.bit(e, 0) ^ c1.bit(e, 0) ^ !a;
            let bit_right = c0.bit(e, 1) ^ c1.bit(e, 1) ^ a;
            left[e / 64] |= (bit_left & 1) << (e % 64);
            right[e / 64] |= (bit_right & 1) << (e % 64);
            let bit = pick(a, bit_right, bit_left);
            for ((c, seeds), on) in children.iter().zip(&mut seeds).zip(&mut on) {
                let (kept, mask) = (side(c, a), on[e]);
                seeds.get_mut()[e] = [kept[0] ^ (mask & seed[0]), kept[1] ^ (mask & seed[1])];
                on[e] = pick(a, c.bit(e, 1), c.bit(e, 0)) ^ (mask & bit);
            }
        }
        group.write(cw.get(), cw_values, &mut scratch);
    }
    if !group.wide() {
        return correct_bits(ciphers, shape, &seeds, acc.get(), alpha, payload, leaves);
    }
    let last = [0, 1].map(|p| convert(ciphers, group, &seeds[p], n));
    for (e, v) in cw.get_mut().iter_mut().enumerate() {
        let ends = sub(sub(last[1].get()[e], last[0].get()[e]), acc.get()[e]);
        *v = negate(on[1][e], ends);
        v[2] &= group.mask();
    }
    group.write(cw.get(), leaves, &mut scratch);
}

/// The leaves' correction words where a leaf is a block of bits: after it, the parties' blocks on the path differ where
/// the last bits of x are less than alpha's.
fn correct_bits(
    ciphers: &Ciphers,
    shape: Shape,
    seeds: &[Blocks; 2],
    acc: &[Value],
    alpha: &[u64],
    payload: &[Value],
    out: &mut [u64],
) {
    let [mut own, mut other] = [Blocks::zeros(alpha.len()), Blocks::zeros(alpha.len())];
    ciphers.generate(SEED, seeds[0].get(), own.get_mut());
    ciphers.generate(SEED, seeds[1].get(), other.get_mut());
    let low = (1 << shape.leaf_bits()) - 1;
    for (e, out) in out.chunks_exact_mut(2).enumerate() {
        let less = (1u128 << (alpha[e] & low)) - 1;
        let on = (payload[e][2] & 1).wrapping_neg();
        let held = (acc[e][2] & 1).wrapping_neg();
        let table = [less as u64 & on ^ held, (less >> 64) as u64 & on ^ held];
        out.copy_from_slice(&xor(table, xor(own.get()[e], other.get()[e])));
    }
}

/// The wide values that `n` leaf seeds stand for. A leaf's seed is never expanded, so the generator's blocks may serve.
pub(super) fn convert(ciphers: &Ciphers, group: Group, seeds: &Blocks, n: usize) -> Values {
    let (mut out, mut block) = (Values::zeros(n), Blocks::zeros(n));
    ciphers.generate(WIDE, seeds.get(), block.get_mut());
    out.get_mut().iter_mut().zip(block.get()).for_each(|(o, b)| o[..2].copy_from_slice(b));
    if group.narrow() > 0 {
        ciphers.generate(REST, seeds.get(), block.get_mut());
        out.get_mut().iter_mut().zip(block.get()).for_each(|(o, b)| o[2] = b[0] & group.mask());
    }
    out
}
