//! Secret words without a shape: erased on drop, never shown.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Words of a share or a mask. Erased on drop; `Debug` shows only how many there are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Words(Vec<u64>);

impl Words {
    /// `n` zeros.
    pub fn zeros(n: usize) -> Self {
        Self(vec![0; n])
    }

    /// The words, taken out: the caller now answers for erasing them.
    pub fn into_vec(mut self) -> Vec<u64> {
        std::mem::take(&mut self.0)
    }

    /// Appends words; a buffer that must grow is erased before it is given back.
    pub fn extend(&mut self, words: &[u64]) {
        self.grow(words.len()).copy_from_slice(words);
    }

    /// Appends `n` zeros and gives them to be filled.
    pub fn grow(&mut self, n: usize) -> &mut [u64] {
        let len = self.0.len();
        if self.0.capacity() - len < n {
            let mut grown = Vec::with_capacity((len + n).max(2 * self.0.capacity()));
            grown.extend_from_slice(&self.0);
            erase(&mut self.0);
            self.0 = grown;
        }
        self.0.resize(len + n, 0);
        &mut self.0[len..]
    }

    /// No words, with room for `n`.
    pub fn with_capacity(n: usize) -> Self {
        Self(Vec::with_capacity(n))
    }

    /// The words as bytes, little-endian, where they lie.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    /// The words as bytes, to fill in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

impl From<Vec<u64>> for Words {
    fn from(words: Vec<u64>) -> Self {
        Self(words)
    }
}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.0
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

/// Overwrites with zeros, at the speed of memory: the barrier keeps the compiler from leaving it out.
pub(crate) fn erase(words: &mut [u64]) {
    words.fill(0);
    zeroize::optimization_barrier(words);
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Words[{}]", self.0.len())
    }
}
