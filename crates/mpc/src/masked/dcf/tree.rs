//! The tree's pseudo-random generator, and the blocks and values that grow on it.
//!
//! The generator is AES-128 under three public keys in Matyas-Meyer-Oseas form, AES_k(s) XOR s: a seed's left child comes
//! of the seed itself, its right child of the seed with its lowest bit turned. The keys are another draw's in every draw
//! of root seeds (a step of a program in one lot): what an attacker computes against one draw serves against no other.
//!
//! **What is needed of it.** The proof of Boyle et al. replaces the other evaluator's seeds by uniform ones level by level:
//! each is uniform and independent of the view when its children are, and grows once. So a pseudo-random generator is
//! enough. Nothing shows a function of a seed together with that seed, and no two seeds differ by a secret that lasts:
//! circular correlation robustness and the linear orthomorphism that brings it (Guo, Katz, Wang, Yu 2020) are not needed.
//!
//! **The bound**, ciphers ideal: against m unknown seeds of one draw, a call of a cipher tells something only if it enters
//! at a seed or at one turned, or, backwards, where a block of theirs left: two of 2^128 places for each seed, 2 q m / 2^128
//! for q calls. Up to 2 m inputs of a cipher are distinct but with probability m^2 / 2^128 (two seeds of which one is the
//! other, or the other turned), and a permutation's outputs then differ where random ones would not, in all three
//! ciphers, with at most 5 m^2 / 2^128. With 2^20 keys of 2^5 levels in a draw m is 2^25: for q = 2^80 calls against it
//! the advantage is at most 2^-22; under one set of keys for all draws m would count every seed ever grown.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use trefoil_ring::Words;

/// Two ring values and a narrow one: an element of a group is these numbers reduced; what the group lacks is zero.
pub(crate) type Value = [u64; 3];

pub(in crate::masked) type Block = [u64; 2];

/// Blocks that the widest cipher instructions take side by side: buffers are rounded up to them, for what is left over
/// would be enciphered block by block.
const SIDE_BY_SIDE: usize = 64;

/// The ciphers of one draw of keys: a child's seed, a side's ring values, the rest of both sides.
pub(in crate::masked) struct Ciphers([Aes128; 3]);

pub(in crate::masked) const SEED: usize = 0;
pub(in crate::masked) const WIDE: usize = 1;
pub(in crate::masked) const REST: usize = 2;

impl Ciphers {
    /// Those that the draw's public number chooses.
    pub(in crate::masked) fn new(number: &[u8; 32]) -> Self {
        Self([SEED, WIDE, REST].map(|i| {
            let mut key = [0; 16];
            key.copy_from_slice(&number[..16]);
            key[15] ^= i as u8;
            Aes128::new(&Array::from(key))
        }))
    }

    /// `out = AES(seeds) XOR seeds`, for as many keys as `out` is long.
    pub(in crate::masked) fn generate(&self, cipher: usize, seeds: &[Block], out: &mut [Block]) {
        let seeds = &seeds[..out.len()];
        out.copy_from_slice(seeds);
        let blocks: &mut [[u8; 16]] = bytemuck::cast_slice_mut(out);
        self.0[cipher].encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
        out.iter_mut().zip(seeds).for_each(|(o, s)| *o = xor(*o, *s));
    }
}

/// How many blocks to compute for `n` keys.
pub(in crate::masked) fn rounded(n: usize) -> usize {
    n.next_multiple_of(SIDE_BY_SIDE)
}

/// Secret blocks, erased on drop.
pub(in crate::masked) struct Blocks(Words);

impl Blocks {
    /// Zeros for `n` keys, and what it takes to compute them side by side.
    pub(in crate::masked) fn zeros(n: usize) -> Self {
        Self(Words::zeros(2 * rounded(n)))
    }

    pub(in crate::masked) fn get(&self) -> &[Block] {
        self.0.as_chunks().0
    }

    pub(in crate::masked) fn get_mut(&mut self) -> &mut [Block] {
        self.0.as_chunks_mut().0
    }

    /// Overwrites the first blocks.
    pub(in crate::masked) fn set(&mut self, words: &[u64]) {
        self.0[..words.len()].copy_from_slice(words);
    }
}

/// Secret values, erased on drop.
pub(in crate::masked) struct Values(Words);

impl Values {
    pub(in crate::masked) fn zeros(n: usize) -> Self {
        Self(Words::zeros(3 * n))
    }

    pub(in crate::masked) fn get(&self) -> &[Value] {
        self.0.as_chunks().0
    }

    pub(in crate::masked) fn get_mut(&mut self) -> &mut [Value] {
        self.0.as_chunks_mut().0
    }
}

/// `one` where the mask is all ones, `zero` where it is none.
pub(in crate::masked) fn pick(mask: u64, one: u64, zero: u64) -> u64 {
    zero ^ (mask & (one ^ zero))
}

pub(in crate::masked) fn pick_block(mask: u64, one: Block, zero: Block) -> Block {
    [pick(mask, one[0], zero[0]), pick(mask, one[1], zero[1])]
}

pub(in crate::masked) fn xor(a: Block, b: Block) -> Block {
    [a[0] ^ b[0], a[1] ^ b[1]]
}

/// `-v` where the mask is all ones, `v` where it is none.
pub(in crate::masked) fn negate(mask: u64, v: Value) -> Value {
    v.map(|v| (v ^ mask).wrapping_sub(mask))
}

pub(in crate::masked) fn add(a: Value, b: Value) -> Value {
    [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1]), a[2].wrapping_add(b[2])]
}

pub(in crate::masked) fn sub(a: Value, b: Value) -> Value {
    [a[0].wrapping_sub(b[0]), a[1].wrapping_sub(b[1]), a[2].wrapping_sub(b[2])]
}
