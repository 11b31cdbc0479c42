//! For the test kit alone: an interceptor that sees, and may replace, what every draw gives.
//!
//! Compiled only with the feature `replay`, which no deployed crate enables: a deployed binary holds no way to
//! replace a mask.

use std::sync::Arc;

use crate::address::DrawId;

/// Sees the words of a draw as they are taken, and may replace them.
pub trait Interceptor: Send + Sync {
    /// `words` are words `at..` of the draw `draw`.
    fn filled(&self, draw: &DrawId, at: u64, words: &mut [u64]);
}

/// An interceptor on one stream.
pub(crate) struct Tap {
    pub(crate) draw: DrawId,
    pub(crate) interceptor: Arc<dyn Interceptor>,
    pub(crate) at: u64,
}

impl Tap {
    pub(crate) fn filled(&mut self, words: &mut [u64]) {
        self.interceptor.filled(&self.draw, self.at, words);
        self.at += words.len() as u64;
    }
}
