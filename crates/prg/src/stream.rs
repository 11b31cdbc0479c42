//! A seekable pseudo-random stream: AES-128 in counter mode.

use aes::Aes128Enc;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, Zeroizing};

/// Words whose counters are written before they are enciphered: they stay in the first-level cache.
const PIECE: usize = 2048;

/// A pseudo-random stream of words, the same on every machine. The cipher's state is erased on drop.
///
/// Key and first counter block are 256 bits of one hash output, so that streams of different keys do not even share
/// their counter values.
pub struct Stream {
    cipher: Aes128Enc,
    /// The first counter block, big-endian.
    first: Zeroizing<u128>,
    /// The next word.
    at: u64,
    #[cfg(feature = "replay")]
    tap: Option<crate::replay::Tap>,
}

impl Stream {
    /// The stream of this key material, which is erased.
    pub(crate) fn new(mut material: [u8; 32]) -> Self {
        let (mut key, mut first) = (Array::from([0; 16]), Zeroizing::new([0; 16]));
        key.copy_from_slice(&material[..16]);
        first.copy_from_slice(&material[16..]);
        material.zeroize();
        let cipher = Aes128Enc::new(&key);
        key.zeroize();
        Self {
            cipher,
            first: Zeroizing::new(u128::from_be_bytes(*first)),
            at: 0,
            #[cfg(feature = "replay")]
            tap: None,
        }
    }

    /// The same stream, told on to `interceptor`.
    #[cfg(feature = "replay")]
    pub(crate) fn tapped(
        mut self,
        draw: crate::DrawId,
        interceptor: Option<std::sync::Arc<dyn crate::replay::Interceptor>>,
    ) -> Self {
        self.tap = interceptor.map(|interceptor| crate::replay::Tap { draw, interceptor, at: 0 });
        self
    }

    /// Fills `words` with the next words of the stream.
    pub fn fill(&mut self, words: &mut [u64]) {
        let (begun, rest) = words.split_at_mut(words.len().min(self.at as usize % 2));
        if let [word] = begun {
            *word = self.block()[1];
            self.at += 1;
        }
        let (whole, last) = rest.split_at_mut(rest.len() & !1);
        for piece in whole.chunks_mut(PIECE) {
            self.blocks(piece);
            self.at += piece.len() as u64;
        }
        if let [word] = last {
            *word = self.block()[0];
            self.at += 1;
        }
        #[cfg(feature = "replay")]
        if let Some(tap) = &mut self.tap {
            tap.filled(words);
        }
    }

    /// The block that holds the next word.
    fn block(&self) -> Zeroizing<[u64; 2]> {
        let mut block = Zeroizing::new([0; 2]);
        self.blocks(&mut *block);
        block
    }

    /// Whole blocks of the stream from the one that holds the next word on.
    fn blocks(&self, words: &mut [u64]) {
        let counter = self.first.wrapping_add(u128::from(self.at / 2));
        let (high, low) = ((counter >> 64) as u64, counter as u64);
        // Blocks until the low half is full, which nearly all pieces are far from.
        let room = usize::try_from(!low).unwrap_or(usize::MAX).saturating_add(1);
        let (blocks, _) = words.as_chunks_mut::<2>();
        let (first, carried) = blocks.split_at_mut(blocks.len().min(room));
        write_counters(first, high, low);
        write_counters(carried, high.wrapping_add(1), 0);
        let blocks: &mut [[u8; 16]] = bytemuck::cast_slice_mut(words);
        self.cipher.encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
    }

    /// The next `n` words of the stream.
    pub fn words(&mut self, n: usize) -> Vec<u64> {
        let mut words = vec![0; n];
        self.fill(&mut words);
        words
    }

    /// Goes to the word with this index.
    pub fn seek(&mut self, word: u64) {
        self.at = word;
        #[cfg(feature = "replay")]
        if let Some(tap) = &mut self.tap {
            tap.at = word;
        }
    }
}

/// Writes counter blocks whose low half counts up from `low` without a carry.
fn write_counters(blocks: &mut [[u64; 2]], high: u64, low: u64) {
    let high = high.swap_bytes();
    for (i, block) in (0u64..).zip(blocks) {
        *block = [high, low.wrapping_add(i).swap_bytes()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole_and_seeking_finds_them() {
        let whole = Stream::new([3; 32]).words(9000);
        let mut s = Stream::new([3; 32]);
        let mut pieces = s.words(1);
        pieces.extend(s.words(0));
        pieces.extend(s.words(4998));
        pieces.extend(s.words(3));
        pieces.extend(s.words(3997));
        pieces.extend(s.words(1));
        assert_eq!(whole, pieces);
        for at in [0, 1, 2, 3, 511, 8999] {
            s.seek(at);
            assert_eq!(s.words(1)[0], whole[at as usize]);
        }
    }

    #[test]
    fn a_counter_carries_into_its_high_half() {
        let mut material = [7; 32];
        material[24..].fill(0xff);
        let mut expected = [0; 16];
        expected[..8].copy_from_slice(&0x0707_0707_0707_0708u64.to_be_bytes());
        let mut block = Array::from(expected);
        Aes128Enc::new(&Array::from([7; 16])).encrypt_block(&mut block);
        let words = Stream::new(material).words(4);
        let second: Vec<u8> = words[2..].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(second, block[..]);
        material[16..24].fill(0xff);
        let mut block = Array::from([0; 16]);
        Aes128Enc::new(&Array::from([7; 16])).encrypt_block(&mut block);
        let words = Stream::new(material).words(4);
        let second: Vec<u8> = words[2..].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(second, block[..], "from the last counter to zero");
    }

    #[test]
    fn the_stream_is_aes_128_ctr() {
        // NIST SP 800-38A, F.5.1: CTR-AES128, first block of keystream XOR plaintext = ciphertext.
        let hex = |s: &str| -> Vec<u8> {
            (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap()).collect()
        };
        let mut material = [0; 32];
        material[..16].copy_from_slice(&hex("2b7e151628aed2a6abf7158809cf4f3c"));
        material[16..].copy_from_slice(&hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
        let words = Stream::new(material).words(2);
        let keystream: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let plain = hex("6bc1bee22e409f96e93d7e117393172a");
        let cipher = hex("874d6191b620e3261bef6864990db6ce");
        assert!(keystream.iter().zip(&plain).zip(&cipher).all(|((k, p), c)| k ^ p == *c));
    }
}
