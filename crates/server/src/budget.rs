//! Bounds on the memory that clients' shares, and open runs, may take at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in use, and how many there may be.
pub(crate) struct Budget {
    used: Arc<AtomicU64>,
    limit: u64,
}

/// Bytes that are given back when this is dropped.
pub(crate) struct Reserved {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { used: Arc::default(), limit }
    }

    /// Reserves memory for what a client is about to send; `None` while others have reserved too much. A single
    /// request always fits: the bounds on programs and batches limit it.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reserved> {
        let before = self.used.fetch_add(bytes, Ordering::AcqRel);
        let reserved = Reserved { used: self.used.clone(), bytes };
        (before == 0 || before.saturating_add(bytes) <= self.limit).then_some(reserved)
    }

    /// Reserves memory for as long as it may take, within the limit whatever it is; else says what is free.
    pub(crate) fn hold(&self, bytes: u64) -> Result<Reserved, u64> {
        let before = self.used.fetch_add(bytes, Ordering::AcqRel);
        let reserved = Reserved { used: self.used.clone(), bytes };
        if before.saturating_add(bytes) <= self.limit { Ok(reserved) } else { Err(self.limit.saturating_sub(before)) }
    }

    /// The most bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }
}

/// Bytes as people read them.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

impl Drop for Reserved {
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
        let held = budget.hold(60);
        assert!(held.is_ok() && budget.hold(50).err() == Some(40) && budget.hold(40).is_ok());
        drop(held);
        assert_eq!(budget.hold(101).err(), Some(100), "what is held never exceeds the limit");
    }
}
