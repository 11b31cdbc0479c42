//! Distributed comparison functions: keys of x -> payload where x < alpha, else 0 (Boyle et al., EUROCRYPT 2021, fig. 1).
//!
//! The producer, who knows alpha and the payload, grows a path of a binary tree from two secret root seeds, one of each
//! evaluator, and publishes one correction word a level to both. Each evaluator walks its own tree along the public x and
//! ends with an additive share of the function's value. Values lie in Z_2^64 x Z_2^64 x Z_2^narrow or are one bit.
//!
//! A function of one bit ends early (Boyle et al. 2016, § 3.2): the values of the last seven bits of x are the 128 bits of
//! one block, seven levels of the tree are neither dealt nor walked.
//!
//! Correction words are the same for both evaluators and tell neither anything without the other's root seed.

use rayon::prelude::*;
use trefoil_prg::Purpose;
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::{pack, packed_bytes, unpack};

use super::dealing::{At, Dealing, Draw};
use super::online::Role;
use crate::error::MpcError;

mod correct;
pub(in crate::masked) mod tree;
mod walk;

use correct::correct;
use tree::{Ciphers, Value, Values};
use walk::Walk;

/// Keys generated and evaluated side by side: their seeds and children fit the cache. A multiple of 64.
pub(crate) const KEYS: usize = 256;

/// Levels of a function of one bit that one block stands for: it has 2^7 bits.
const PACKED: u32 = 7;

/// Where a function's values lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// One bit: the last number of a [`Value`] modulo 2.
    Bit,
    /// Two values modulo 2^64 and one of so many bits, at most 62; 0: there is none.
    Wide(u32),
}

/// Functions from numbers of so many bits (at least one) to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) bits: u32,
    pub(crate) group: Group,
}

/// The draw of many keys' root seeds, and the public number that chooses their trees' ciphers.
pub(crate) struct Roots {
    draw: Draw,
    number: [u8; 32],
}

/// Own root seeds and the correction words of many keys, [`KEYS`] by [`KEYS`].
#[derive(Default)]
pub(crate) struct Keys {
    number: [u8; 32],
    roots: Words,
    corrections: Words,
}

impl Keys {
    pub(crate) fn words(&self) -> usize {
        self.roots.len() + self.corrections.len()
    }
}

impl Group {
    fn wide(self) -> bool {
        self != Group::Bit
    }

    /// Bits of the last number.
    fn narrow(self) -> u32 {
        match self {
            Group::Bit => 1,
            Group::Wide(bits) => bits,
        }
    }

    fn mask(self) -> u64 {
        (1 << self.narrow()) - 1
    }

    /// Words of the values of `n` keys in one correction word.
    fn value_words(self, n: usize) -> usize {
        2 * n * usize::from(self.wide()) + packed_bytes(n, self.narrow()).div_ceil(8)
    }

    /// Words of one level of `n` keys: seeds, values, and two planes of control bits.
    fn level_words(self, n: usize) -> usize {
        2 * n + self.value_words(n) + 2 * n.div_ceil(64)
    }

    /// Words of what corrects the leaves of `n` keys: a block or a value each.
    fn leaf_words(self, n: usize) -> usize {
        if self.wide() { self.value_words(n) } else { 2 * n }
    }

    fn write(self, values: &[Value], out: &mut [u64], scratch: &mut [u64]) {
        let n = values.len();
        let (wide, narrow) = out.split_at_mut(2 * n * usize::from(self.wide()));
        wide.chunks_exact_mut(2).zip(values).for_each(|(o, v)| o.copy_from_slice(&v[..2]));
        if self.narrow() > 0 {
            scratch.iter_mut().zip(values).for_each(|(s, v)| *s = v[2]);
            pack(&scratch[..n], self.narrow(), &mut bytemuck::cast_slice_mut(narrow)[..packed_bytes(n, self.narrow())]);
        }
    }

    fn read(self, words: &[u64], values: &mut [Value], scratch: &mut [u64]) {
        let n = values.len();
        let (wide, narrow) = words.split_at(2 * n * usize::from(self.wide()));
        values.iter_mut().zip(wide.chunks_exact(2)).for_each(|(v, w)| v[..2].copy_from_slice(w));
        if self.narrow() > 0 {
            unpack(&bytemuck::cast_slice(narrow)[..packed_bytes(n, self.narrow())], self.narrow(), &mut scratch[..n]);
            values.iter_mut().zip(scratch.iter()).for_each(|(v, s)| v[2] = *s);
        }
    }
}

impl Shape {
    /// Bits of x that the leaves stand for; the tree walks the bits above them.
    fn leaf_bits(self) -> u32 {
        if self.group.wide() { 0 } else { self.bits.min(PACKED) }
    }

    /// Words of the correction words of up to [`KEYS`] keys.
    fn piece_words(self, n: usize) -> usize {
        (self.bits - self.leaf_bits()) as usize * self.group.level_words(n) + self.group.leaf_words(n)
    }

    /// Words of the correction words of any number of keys.
    fn words(self, n: usize) -> usize {
        let rest = if n.is_multiple_of(KEYS) { 0 } else { self.piece_words(n % KEYS) };
        n / KEYS * self.piece_words(KEYS) + rest
    }
}

/// The addressed draw of root seeds.
pub(crate) fn open_keys<D: Dealing>(d: &mut D, at: At) -> Result<Roots, MpcError> {
    Ok(Roots { draw: d.open_mask(at, Purpose::KeyRoot)?, number: d.public(at, Purpose::KeyRoot)? })
}

/// Deals `n` more keys, after a multiple of [`KEYS`] of them. `points` writes alpha and the payload of the keys from its
/// first argument on; it runs at the producer only, whose threads share the work.
pub(crate) fn deal_keys<D: Dealing>(
    d: &mut D,
    roots: &mut Roots,
    n: usize,
    shape: Shape,
    out: &mut Keys,
    points: impl Fn(usize) -> (u64, Value) + Sync,
) -> Result<(), MpcError> {
    let [alice, bob] = d.parts(&mut roots.draw, 2 * n);
    let ciphers = Ciphers::new(&roots.number);
    d.publish(shape.words(n), &mut out.corrections, |words| {
        words.par_chunks_mut(shape.piece_words(KEYS)).enumerate().for_each(|(i, words)| {
            let keys = i * KEYS..n.min((i + 1) * KEYS);
            let (mut alpha, mut payload) = (Words::zeros(keys.len()), Values::zeros(keys.len()));
            for (e, (a, p)) in keys.clone().zip(alpha.iter_mut().zip(payload.get_mut())) {
                (*a, *p) = points(e);
            }
            let roots = [&alice, &bob].map(|r| &r[2 * keys.start..2 * keys.end]);
            correct(&ciphers, shape, roots, &alpha, payload.get(), words);
        });
    })?;
    if D::KEEPS {
        out.number = roots.number;
        out.roots.extend(&alice);
        out.roots.extend(&bob);
    }
    Ok(())
}

/// Room for `n` keys at a party that keeps them.
pub(crate) fn room<D: Dealing>(n: usize, shape: Shape) -> Keys {
    Keys { number: [0; 32], roots: D::room(2 * n), corrections: D::room(shape.words(n)) }
}

/// Evaluates keys at the public points `x`, [`KEYS`] by [`KEYS`] on the pool's threads: `take` gets the index of the
/// first key, this evaluator's additive shares, unreduced in the last number and their item
/// of `out`.
pub(crate) fn evaluate<'o>(
    role: Role,
    keys: &Keys,
    n: usize,
    shape: Shape,
    x: impl Fn(usize) -> u64 + Sync,
    out: impl IndexedParallelIterator<Item = &'o mut [u64]>,
    take: impl Fn(usize, &[Value], &mut [u64]) + Sync,
) {
    let pieces = keys.corrections.par_chunks(shape.piece_words(KEYS)).zip(keys.roots.par_chunks(2 * KEYS));
    let ciphers = Ciphers::new(&keys.number);
    let room = || (Walk::new(KEYS.min(n)), Vec::with_capacity(KEYS));
    pieces.zip(out).enumerate().for_each_init(room, |(walk, points), (i, ((corrections, roots), out))| {
        let start = i * KEYS;
        points.clear();
        points.extend((start..n.min(start + KEYS)).map(&x));
        take(start, walk.run(&ciphers, role, shape, roots, corrections, points), out);
    });
}

#[cfg(test)]
mod tests;
