//! Seeds: 32 secret bytes, erased on drop and never shown.

use std::fmt;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The operating system gave no randomness.
#[derive(Debug, Clone, Error)]
#[error("the operating system gave no randomness: {0}")]
pub struct RandomError(String);

/// Fills `bytes` from the operating system's generator.
pub fn random_bytes(bytes: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(bytes).map_err(|e| RandomError(e.to_string()))
}

/// A 32-byte secret from which streams are derived. Erased on drop; `Debug` shows nothing of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A fresh seed from the operating system.
    pub fn random() -> Result<Self, RandomError> {
        let mut seed = Self([0; 32]);
        random_bytes(&mut seed.0)?;
        Ok(seed)
    }

    /// A seed that was agreed, received or unsealed.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes: to seal or to send to the one party that is to hold them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The seed for `context` and `data`: keyed BLAKE3, so seeds of different contexts are independent.
    ///
    /// `context` names the use and must not end in a zero byte.
    pub fn derive(&self, context: &str, data: &[u8]) -> Seed {
        let mut h = blake3::Hasher::new_keyed(&self.0);
        h.update(context.as_bytes());
        h.update(&[0]);
        h.update(data);
        let out = Seed(*h.finalize().as_bytes());
        h.zeroize();
        out
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_seeds_differ_by_context_and_data() {
        let s = Seed::from_bytes([7; 32]);
        let all = [s.derive("a", b"x"), s.derive("a", b"y"), s.derive("b", b"x"), s.derive("ax", b"")];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a.expose(), b.expose());
            }
        }
        assert_eq!(s.derive("a", b"x").expose(), all[0].expose());
        assert_eq!(format!("{s:?}"), "Seed(..)");
    }
}
