//! The tree's pseudo-random generator, and the blocks and values that grow on it.
//!
//! The generator is AES-128 under three fixed public keys in Matyas-Meyer-Oseas form, AES_k(s) XOR s: a seed's left child
//! comes of the seed itself, its right child of the seed with its lowest bit turned. In the ideal-cipher model this is a
//! pseudo-random generator: q cipher calls against m seeds find one with probability about 2 q m / 2^128, and two seeds
//! of which one is the other, or the other turned, turn up with probability about m^2 / 2^128.

use std::sync::LazyLock;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use trefoil_ring::Words;

/// Two ring values and a narrow one: an element of a group is these numbers reduced; what the group lacks is zero.
pub(crate) type Value = [u64; 3];

pub(super) type Block = [u64; 2];

/// Blocks that the widest cipher instructions take side by side: buffers are rounded up to them, for what is left over
/// would be enciphered block by block.
const SIDE_BY_SIDE: usize = 64;

/// The fixed ciphers: a child's seed, a side's ring values, the rest of both sides.
static CIPHERS: LazyLock<[Aes128; 3]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let mut key = *b"Trefoil DCF PRG ";
        key[15] = b'0' + i as u8;
        Aes128::new(&Array::from(key))
    })
});
pub(super) const SEED: usize = 0;
pub(super) const WIDE: usize = 1;
pub(super) const REST: usize = 2;

/// `out = AES(seeds) XOR seeds`, for as many keys as `out` is long.
pub(super) fn generate(cipher: usize, seeds: &[Block], out: &mut [Block]) {
    let seeds = &seeds[..out.len()];
    out.copy_from_slice(seeds);
    let blocks: &mut [[u8; 16]] = bytemuck::cast_slice_mut(out);
    CIPHERS[cipher].encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
    out.iter_mut().zip(seeds).for_each(|(o, s)| *o = xor(*o, *s));
}

/// How many blocks to compute for `n` keys.
pub(super) fn rounded(n: usize) -> usize {
    n.next_multiple_of(SIDE_BY_SIDE)
}

/// Secret blocks, erased on drop.
pub(super) struct Blocks(Words);

impl Blocks {
    /// Zeros for `n` keys, and what it takes to compute them side by side.
    pub(super) fn zeros(n: usize) -> Self {
        Self(Words::zeros(2 * rounded(n)))
    }

    pub(super) fn get(&self) -> &[Block] {
        self.0.as_chunks().0
    }

    pub(super) fn get_mut(&mut self) -> &mut [Block] {
        self.0.as_chunks_mut().0
    }

    /// Overwrites the first blocks.
    pub(super) fn set(&mut self, words: &[u64]) {
        self.0[..words.len()].copy_from_slice(words);
    }
}

/// Secret values, erased on drop.
pub(super) struct Values(Words);

impl Values {
    pub(super) fn zeros(n: usize) -> Self {
        Self(Words::zeros(3 * n))
    }

    pub(super) fn get(&self) -> &[Value] {
        self.0.as_chunks().0
    }

    pub(super) fn get_mut(&mut self) -> &mut [Value] {
        self.0.as_chunks_mut().0
    }
}

/// `one` where the mask is all ones, `zero` where it is none.
pub(super) fn pick(mask: u64, one: u64, zero: u64) -> u64 {
    zero ^ (mask & (one ^ zero))
}

pub(super) fn pick_block(mask: u64, one: Block, zero: Block) -> Block {
    [pick(mask, one[0], zero[0]), pick(mask, one[1], zero[1])]
}

pub(super) fn xor(a: Block, b: Block) -> Block {
    [a[0] ^ b[0], a[1] ^ b[1]]
}

/// `-v` where the mask is all ones, `v` where it is none.
pub(super) fn negate(mask: u64, v: Value) -> Value {
    v.map(|v| (v ^ mask).wrapping_sub(mask))
}

pub(super) fn add(a: Value, b: Value) -> Value {
    [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1]), a[2].wrapping_add(b[2])]
}

pub(super) fn sub(a: Value, b: Value) -> Value {
    [a[0].wrapping_sub(b[0]), a[1].wrapping_sub(b[1]), a[2].wrapping_sub(b[2])]
}
