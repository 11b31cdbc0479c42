//! Distributed comparison functions: keys of x -> payload where x < alpha, else 0 (Boyle et al., EUROCRYPT 2021, fig. 1).
//!
//! The producer, who knows alpha and the payload, grows a path of a binary tree from two secret root seeds, one of each
//! evaluator, and publishes one correction word a level to both. Each evaluator walks its own tree along the public x and
//! ends with an additive share of the function's value. Values lie in Z_2^64 x Z_2^64 x Z_2^narrow or in Z_2^narrow.
//!
//! The generator is AES-128 under five fixed public keys in Matyas-Meyer-Oseas form, AES_k(s) XOR s: a pseudo-random
//! generator in the ideal-cipher model, where q cipher calls against m seeds find one with probability about q m / 2^128.
//! The evaluators branch on the public x alone, the producer on nothing: bits that are secret select by masks.
//!
//! Correction words are the same for both evaluators and tell neither anything without the other's root seed.

use std::sync::LazyLock;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use trefoil_prg::Purpose;
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::{pack, packed_bytes, unpack};

use super::dealing::{At, Dealing, Draw};
use super::online::Role;
use crate::error::MpcError;

/// Keys generated and evaluated side by side: their seeds and children fit the cache.
pub(crate) const KEYS: usize = 256;

/// Where a function's values lie; the ring values come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Whether there are two values modulo 2^64.
    pub(crate) wide: bool,
    /// Bits of the last value, at most 62; 0: there is none.
    pub(crate) narrow: u32,
}

/// One value: an element of a [`Group`] is these numbers reduced; what the group lacks is zero.
pub(crate) type Value = [u64; 3];

type Block = [u64; 2];

/// Own root seeds and the correction words of many keys, [`KEYS`] by [`KEYS`].
#[derive(Default)]
pub(crate) struct Keys {
    roots: Words,
    corrections: Words,
}

impl Keys {
    pub(crate) fn words(&self) -> usize {
        self.roots.len() + self.corrections.len()
    }
}

impl Group {
    fn mask(self) -> u64 {
        (1 << self.narrow) - 1
    }

    /// Words of the values of `n` keys in one correction word.
    fn value_words(self, n: usize) -> usize {
        2 * n * usize::from(self.wide) + packed_bytes(n, self.narrow).div_ceil(8)
    }

    /// Words of one level of `n` keys: seeds, values, and two planes of control bits.
    fn level_words(self, n: usize) -> usize {
        2 * n + self.value_words(n) + 2 * n.div_ceil(64)
    }

    fn write(self, values: &[Value], out: &mut [u64]) {
        let n = values.len();
        let (wide, narrow) = out.split_at_mut(2 * n * usize::from(self.wide));
        wide.chunks_exact_mut(2).zip(values).for_each(|(o, v)| o.copy_from_slice(&v[..2]));
        if self.narrow > 0 {
            let last: Words = values.iter().map(|v| v[2]).collect::<Vec<_>>().into();
            pack(&last, self.narrow, &mut bytemuck::cast_slice_mut(narrow)[..packed_bytes(n, self.narrow)]);
        }
    }

    fn read(self, words: &[u64], values: &mut [Value], scratch: &mut [u64]) {
        let n = values.len();
        let (wide, narrow) = words.split_at(2 * n * usize::from(self.wide));
        values.iter_mut().zip(wide.chunks_exact(2)).for_each(|(v, w)| v[..2].copy_from_slice(w));
        if self.narrow > 0 {
            unpack(&bytemuck::cast_slice(narrow)[..packed_bytes(n, self.narrow)], self.narrow, &mut scratch[..n]);
            values.iter_mut().zip(scratch.iter()).for_each(|(v, s)| v[2] = *s);
        }
    }
}

/// Words of correction words of `n` keys of functions on `bits` bits.
fn key_words(n: usize, bits: u32, group: Group) -> usize {
    bits as usize * group.level_words(n) + group.value_words(n)
}

/// The fixed ciphers: seeds to the left and right, wide values to the left and right, the rest of both sides.
static CIPHERS: LazyLock<[Aes128; 5]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let mut key = *b"Trefoil DCF PRG ";
        key[15] = b'0' + i as u8;
        Aes128::new(&Array::from(key))
    })
});
const SEED: usize = 0;
const WIDE: usize = 2;
const REST: usize = 4;

/// `out = AES(seeds) XOR seeds`.
fn generate(cipher: usize, seeds: &[Block], out: &mut [Block]) {
    out.copy_from_slice(seeds);
    let blocks: &mut [[u8; 16]] = bytemuck::cast_slice_mut(out);
    CIPHERS[cipher].encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
    out.iter_mut().zip(seeds).for_each(|(o, s)| *o = [o[0] ^ s[0], o[1] ^ s[1]]);
}

/// Secret blocks, erased on drop.
struct Blocks(Words);

impl Blocks {
    fn zeros(n: usize) -> Self {
        Self(Words::zeros(2 * n))
    }

    fn get(&self) -> &[Block] {
        bytemuck::cast_slice(&self.0)
    }

    fn get_mut(&mut self) -> &mut [Block] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// Secret values, erased on drop.
struct Values(Words);

impl Values {
    fn zeros(n: usize) -> Self {
        Self(Words::zeros(3 * n))
    }

    fn get(&self) -> &[Value] {
        bytemuck::cast_slice(&self.0)
    }

    fn get_mut(&mut self) -> &mut [Value] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// `one` where the mask is all ones, `zero` where it is none.
fn pick(mask: u64, one: u64, zero: u64) -> u64 {
    zero ^ (mask & (one ^ zero))
}

fn pick_block(mask: u64, one: Block, zero: Block) -> Block {
    [pick(mask, one[0], zero[0]), pick(mask, one[1], zero[1])]
}

/// `-v` where the mask is all ones, `v` where it is none.
fn negate(mask: u64, v: Value) -> Value {
    v.map(|v| (v ^ mask).wrapping_sub(mask))
}

fn add(a: Value, b: Value) -> Value {
    [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1]), a[2].wrapping_add(b[2])]
}

fn sub(a: Value, b: Value) -> Value {
    [a[0].wrapping_sub(b[0]), a[1].wrapping_sub(b[1]), a[2].wrapping_sub(b[2])]
}

/// The children of one party's seeds.
struct Children {
    seeds: [Blocks; 2],
    wide: [Blocks; 2],
    rest: Blocks,
}

impl Children {
    fn new(n: usize) -> Self {
        let pair = || [Blocks::zeros(n), Blocks::zeros(n)];
        Self { seeds: pair(), wide: pair(), rest: Blocks::zeros(n) }
    }

    fn grow(&mut self, group: Group, seeds: &[Block]) {
        for side in 0..2 {
            generate(SEED + side, seeds, self.seeds[side].get_mut());
            if group.wide {
                generate(WIDE + side, seeds, self.wide[side].get_mut());
            }
        }
        generate(REST, seeds, self.rest.get_mut());
    }

    /// The value of key `e` on a side.
    fn value(&self, e: usize, side: usize, group: Group) -> Value {
        let [a, b] = self.wide[side].get()[e];
        [a, b, self.rest.get()[e][side] & group.mask()]
    }

    /// The control bit of key `e` on a side, as a mask.
    fn bit(&self, e: usize, side: usize) -> u64 {
        (self.rest.get()[e][side] >> 63).wrapping_neg()
    }
}

/// Generates the correction words of up to [`KEYS`] keys into `out`, which is all zeros.
fn correct(bits: u32, group: Group, roots: [&[u64]; 2], alpha: &[u64], payload: &[Value], out: &mut [u64]) {
    let n = alpha.len();
    let mut seeds = roots.map(|r| Blocks(r.to_vec().into()));
    let mut on = [Words::zeros(n), vec![u64::MAX; n].into()];
    let mut acc = Values::zeros(n);
    let mut cw = Values::zeros(n);
    let mut children = [Children::new(n), Children::new(n)];
    let mut levels = out.chunks_exact_mut(group.level_words(n));
    for (i, level) in (0..bits).rev().zip(&mut levels) {
        for (c, s) in children.iter_mut().zip(&seeds) {
            c.grow(group, s.get());
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
            let (lost0, lost1) = (side(c0, !a), side(c1, !a));
            let seed = [lost0[0] ^ lost1[0], lost0[1] ^ lost1[1]];
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
        group.write(cw.get(), cw_values);
    }
    let last: Vec<Values> = seeds.iter().map(|s| convert(group, s)).collect();
    for (e, v) in cw.get_mut().iter_mut().enumerate() {
        let ends = sub(sub(last[1].get()[e], last[0].get()[e]), acc.get()[e]);
        *v = negate(on[1][e], ends);
        v[2] &= group.mask();
    }
    group.write(cw.get(), levels.into_remainder());
}

/// The values that leaf seeds stand for. A leaf's seed is never expanded, so the generator's blocks may serve.
fn convert(group: Group, seeds: &Blocks) -> Values {
    let n = seeds.get().len();
    let (mut out, mut block) = (Values::zeros(n), Blocks::zeros(n));
    if group.wide {
        generate(WIDE, seeds.get(), block.get_mut());
        out.get_mut().iter_mut().zip(block.get()).for_each(|(o, b)| o[..2].copy_from_slice(b));
    }
    if group.narrow > 0 {
        generate(REST, seeds.get(), block.get_mut());
        out.get_mut().iter_mut().zip(block.get()).for_each(|(o, b)| o[2] = b[0] & group.mask());
    }
    out
}

/// The addressed draw of root seeds.
pub(crate) fn open_keys<D: Dealing>(d: &mut D, at: At) -> Result<Draw, MpcError> {
    d.open_mask(at, Purpose::KeyRoot)
}

/// Deals `n` more keys of functions on `bits` bits. `points` writes alpha and the payload of the keys from its first
/// argument on; it runs at the producer only.
pub(crate) fn deal_keys<D: Dealing>(
    d: &mut D,
    draw: &mut Draw,
    n: usize,
    bits: u32,
    group: Group,
    out: &mut Keys,
    points: impl Fn(usize) -> (u64, Value),
) -> Result<(), MpcError> {
    for start in (0..n).step_by(KEYS) {
        let len = KEYS.min(n - start);
        let [alice, bob] = d.parts(draw, 2 * len);
        d.publish(key_words(len, bits, group), &mut out.corrections, |words| {
            let (mut alpha, mut payload) = (Words::zeros(len), Values::zeros(len));
            for (e, (a, p)) in alpha.iter_mut().zip(payload.get_mut()).enumerate() {
                (*a, *p) = points(start + e);
            }
            correct(bits, group, [&alice, &bob], &alpha, payload.get(), words);
        })?;
        if D::KEEPS {
            out.roots.extend(&alice);
            out.roots.extend(&bob);
        }
    }
    Ok(())
}

/// Room for `n` keys at a party that keeps them.
pub(crate) fn room<D: Dealing>(n: usize, bits: u32, group: Group) -> Keys {
    let rest = if n.is_multiple_of(KEYS) { 0 } else { key_words(n % KEYS, bits, group) };
    let corrections = D::room(n / KEYS * key_words(KEYS, bits, group) + rest);
    Keys { roots: D::room(2 * n), corrections }
}

/// Evaluates keys at the public points `x`, chunk by chunk: `take` gets the index of a chunk's first key and this
/// evaluator's additive shares, unreduced in the last value.
pub(crate) fn evaluate(
    role: Role,
    keys: &Keys,
    n: usize,
    bits: u32,
    group: Group,
    x: impl Fn(usize) -> u64,
    mut take: impl FnMut(usize, &[Value]),
) {
    let mut at = 0;
    let mut walk = Walk::new(KEYS.min(n));
    for start in (0..n).step_by(KEYS) {
        let len = KEYS.min(n - start);
        let points: Vec<u64> = (start..start + len).map(&x).collect();
        let size = key_words(len, bits, group);
        let roots = &keys.roots[2 * start..2 * (start + len)];
        take(start, walk.run(role, roots, &keys.corrections[at..at + size], &points, bits, group));
        at += size;
    }
}

/// Room for the evaluation of up to [`KEYS`] keys.
struct Walk {
    seeds: Blocks,
    gathered: Blocks,
    child: Blocks,
    wide: Blocks,
    rest: Blocks,
    on: Words,
    acc: Values,
    cw: Values,
    scratch: Words,
    order: Vec<usize>,
}

impl Walk {
    fn new(n: usize) -> Self {
        let blocks = || Blocks::zeros(n);
        Self {
            seeds: blocks(),
            gathered: blocks(),
            child: blocks(),
            wide: blocks(),
            rest: blocks(),
            on: Words::zeros(n),
            acc: Values::zeros(n),
            cw: Values::zeros(n),
            scratch: Words::zeros(n),
            order: Vec::with_capacity(n),
        }
    }

    fn run(&mut self, role: Role, roots: &[u64], corrections: &[u64], x: &[u64], bits: u32, group: Group) -> &[Value] {
        let n = x.len();
        self.seeds.0[..2 * n].copy_from_slice(roots);
        self.on.fill(!role.ones());
        self.acc.0.fill(0);
        self.cw.0.fill(0);
        let mut levels = corrections.chunks_exact(group.level_words(n));
        for (i, level) in (0..bits).rev().zip(&mut levels) {
            let (cw_seeds, rest) = level.split_at(2 * n);
            let (cw_values, cw_bits) = rest.split_at(group.value_words(n));
            group.read(cw_values, &mut self.cw.get_mut()[..n], &mut self.scratch);
            self.step(i, group, x, bytemuck::cast_slice(cw_seeds), cw_bits);
        }
        let seeds = Blocks(self.seeds.0[..2 * n].to_vec().into());
        let last = convert(group, &seeds);
        group.read(levels.remainder(), &mut self.cw.get_mut()[..n], &mut self.scratch);
        let sign = !role.ones();
        for (e, (acc, last)) in self.acc.get_mut()[..n].iter_mut().zip(last.get()).enumerate() {
            let on = self.on[e];
            let end = add(*last, self.cw.get()[e].map(|c| c & on));
            *acc = negate(sign, add(*acc, end));
        }
        &self.acc.get()[..n]
    }

    /// One level down, to the side that bit `i` of each point says.
    fn step(&mut self, i: u32, group: Group, x: &[u64], cw_seeds: &[Block], cw_bits: &[u64]) {
        let n = x.len();
        self.order.clear();
        self.order.extend((0..n).filter(|e| x[*e] >> i & 1 == 0));
        let lefts = self.order.len();
        self.order.extend((0..n).filter(|e| x[*e] >> i & 1 == 1));
        for (g, e) in self.gathered.get_mut().iter_mut().zip(&self.order) {
            *g = self.seeds.get()[*e];
        }
        let sides = [0..lefts, lefts..n];
        for (side, range) in sides.into_iter().enumerate() {
            let from = &self.gathered.get()[range.clone()];
            generate(SEED + side, from, &mut self.child.get_mut()[range.clone()]);
            if group.wide {
                generate(WIDE + side, from, &mut self.wide.get_mut()[range]);
            }
        }
        generate(REST, &self.gathered.get()[..n], &mut self.rest.get_mut()[..n]);
        for (j, &e) in self.order.iter().enumerate() {
            let side = usize::from(j >= lefts);
            let on = self.on[e];
            let (child, cw) = (self.child.get()[j], cw_seeds[e]);
            self.seeds.get_mut()[e] = [child[0] ^ (on & cw[0]), child[1] ^ (on & cw[1])];
            let rest = self.rest.get()[j][side];
            let wide = self.wide.get()[j];
            let value = [wide[0], wide[1], rest & group.mask()];
            let acc = &mut self.acc.get_mut()[e];
            *acc = add(*acc, add(value, self.cw.get()[e].map(|c| c & on)));
            let bit = cw_bits[side * n.div_ceil(64) + e / 64] >> (e % 64) & 1;
            self.on[e] = (rest >> 63).wrapping_neg() ^ (on & bit.wrapping_neg());
        }
    }
}

#[cfg(test)]
mod tests;
