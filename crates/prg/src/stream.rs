//! A seekable pseudo-random stream: AES-128 in counter mode.

use aes::Aes128;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use zeroize::Zeroize;

/// A pseudo-random stream of words, the same on every machine. The cipher's state is erased on drop.
///
/// Key and first counter block are 256 bits of one hash output, so that streams of different keys do not even share
/// their counter values.
pub struct Stream {
    cipher: Ctr128BE<Aes128>,
    #[cfg(feature = "replay")]
    tap: Option<crate::replay::Tap>,
}

impl Stream {
    /// The stream of this key material, which is erased.
    pub(crate) fn new(mut material: [u8; 32]) -> Self {
        let (key, iv) = material.split_at(16);
        let cipher = match (key.try_into(), iv.try_into()) {
            (Ok(key), Ok(iv)) => Ctr128BE::new(key, iv),
            _ => unreachable!("both halves of 32 bytes are 16 bytes"),
        };
        material.zeroize();
        Self {
            cipher,
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
        self.cipher.write_keystream(bytemuck::cast_slice_mut(words));
        #[cfg(feature = "replay")]
        if let Some(tap) = &mut self.tap {
            tap.filled(words);
        }
    }

    /// The next `n` words of the stream.
    pub fn words(&mut self, n: usize) -> Vec<u64> {
        let mut words = vec![0; n];
        self.fill(&mut words);
        words
    }

    /// Goes to the word with this index.
    pub fn seek(&mut self, word: u64) {
        self.cipher.seek(u128::from(word) * 8);
        #[cfg(feature = "replay")]
        if let Some(tap) = &mut self.tap {
            tap.at = word;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole_and_seeking_finds_them() {
        let whole = Stream::new([3; 32]).words(1000);
        let mut s = Stream::new([3; 32]);
        let mut pieces = s.words(1);
        pieces.extend(s.words(0));
        pieces.extend(s.words(998));
        pieces.extend(s.words(1));
        assert_eq!(whole, pieces);
        for at in [0, 1, 2, 3, 511, 999] {
            s.seek(at);
            assert_eq!(s.words(1)[0], whole[at as usize]);
        }
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
