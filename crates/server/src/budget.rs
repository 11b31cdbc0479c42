//! A bound on the memory that clients' shares may take at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in use, and how many there may be.
pub(crate) struct Budget {
    used: AtomicU64,
    limit: u64,
}

/// Bytes that are given back when this is dropped.
pub(crate) struct Reserved<'a> {
    used: &'a AtomicU64,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit }
    }

    /// Reserves memory for what a client is about to send; `None` while others have reserved too much. A single
    /// request always fits: the bounds on programs and batches limit it.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reserved<'_>> {
        let before = self.used.fetch_add(bytes, Ordering::AcqRel);
        let reserved = Reserved { used: &self.used, bytes };
        (before == 0 || before.saturating_add(bytes) <= self.limit).then_some(reserved)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_costs_nothing() {
        let budget = Budget::new(100);
        let first = budget.reserve(60);
        assert!(first.is_some() && budget.reserve(50).is_none());
        let second = budget.reserve(40);
        assert!(second.is_some() && budget.reserve(1).is_none());
        drop((first, second));
        assert!(budget.reserve(1000).is_some(), "one request alone always fits");
        assert!(budget.reserve(100).is_some());
    }
}
