//! Secret words without a shape: erased on drop, never shown.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::spare;

/// Words of a share or a mask. Erased on drop; `Debug` shows only how many there are.
///
/// What lies in the buffer beyond the words is zero, so that growing need not clear it, and an erased buffer serves
/// the next value.
#[derive(Default)]
pub struct Words {
    buffer: Vec<u64>,
    len: usize,
}

impl Words {
    /// `n` zeros.
    pub fn zeros(n: usize) -> Self {
        Self { buffer: spare::take(n), len: n }
    }

    /// The words, taken out: the caller now answers for erasing them.
    pub fn into_vec(mut self) -> Vec<u64> {
        let mut words = std::mem::take(&mut self.buffer);
        words.truncate(self.len);
        self.len = 0;
        words
    }

    /// Appends words; a buffer that must grow is erased before it is given back.
    pub fn extend(&mut self, words: &[u64]) {
        self.grow(words.len()).copy_from_slice(words);
    }

    /// Appends `n` zeros and gives them to be filled.
    pub fn grow(&mut self, n: usize) -> &mut [u64] {
        let at = self.len;
        if self.buffer.len() - at < n {
            let mut grown = Self::with_capacity((at + n).max(2 * self.buffer.len()));
            grown.buffer[..at].copy_from_slice(self);
            grown.len = at;
            *self = grown;
        }
        self.len += n;
        &mut self.buffer[at..at + n]
    }

    /// No words, with room for `n`.
    pub fn with_capacity(n: usize) -> Self {
        Self { buffer: spare::take(n), len: 0 }
    }

    /// The words as bytes, little-endian, where they lie.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    /// The words as bytes, to fill in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }
}

impl From<Vec<u64>> for Words {
    fn from(words: Vec<u64>) -> Self {
        Self { len: words.len(), buffer: words }
    }
}

/// A copy.
impl From<&[u64]> for Words {
    fn from(words: &[u64]) -> Self {
        let mut copy = Self::zeros(words.len());
        copy.copy_from_slice(words);
        copy
    }
}

impl Clone for Words {
    fn clone(&self) -> Self {
        Self::from(&self[..])
    }
}

impl PartialEq for Words {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Words {}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        erase(self);
        spare::give(std::mem::take(&mut self.buffer));
    }
}

/// Overwrites with zeros, at the speed of memory: the barrier keeps the compiler from leaving it out.
pub(crate) fn erase(words: &mut [u64]) {
    words.fill(0);
    zeroize::optimization_barrier(words);
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Words[{}]", self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_buffer_that_was_used_comes_back_as_zeros() {
        for n in [3, 700, 5000] {
            for _ in 0..3 {
                let mut words = Words::with_capacity(n);
                words.grow(n).fill(u64::MAX);
                drop(words);
                assert!(Words::zeros(n).iter().all(|&w| w == 0));
                assert!(Words::with_capacity(n).grow(n).iter().all(|&w| w == 0));
            }
        }
    }

    #[test]
    fn words_taken_out_are_only_those() {
        let mut words = Words::with_capacity(1000);
        words.extend(&[1, 2, 3]);
        assert_eq!(words.into_vec(), [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn growing_is_appending(pieces in prop::collection::vec(prop::collection::vec(1u64.., 0..900), 0..8)) {
            let mut words = Words::default();
            for piece in &pieces {
                prop_assert!(words.grow(piece.len()).iter().all(|&w| w == 0));
                let at = words.len() - piece.len();
                words[at..].copy_from_slice(piece);
            }
            prop_assert_eq!(&words[..], &pieces.concat()[..]);
            prop_assert_eq!(words.bytes().len(), 8 * words.len());
        }
    }
}
