//! A ledger of draws that finds an address drawn twice.

use std::collections::HashMap;
use std::sync::Mutex;

use trefoil_prg::{DrawId, Ledger};

/// Counts every draw by its full address. One log serves one party, since both ends of a pair make the same draws.
#[derive(Default)]
pub struct DrawLog(Mutex<HashMap<DrawId, usize>>);

impl Ledger for DrawLog {
    fn record(&self, draw: DrawId) {
        if let Ok(mut log) = self.0.lock() {
            *log.entry(draw).or_default() += 1;
        }
    }
}

impl DrawLog {
    /// How many different addresses were drawn.
    pub fn len(&self) -> usize {
        self.0.lock().map_or(0, |l| l.len())
    }

    /// Whether nothing was drawn.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses drawn, in their order.
    pub fn draws(&self) -> Vec<DrawId> {
        let mut draws: Vec<DrawId> = self.0.lock().map_or_else(|_| vec![], |l| l.keys().cloned().collect());
        draws.sort_unstable();
        draws
    }

    /// The addresses drawn more than once.
    pub fn repeated(&self) -> Vec<DrawId> {
        self.0.lock().map_or_else(|_| vec![], |l| l.iter().filter(|(_, n)| **n > 1).map(|(d, _)| d.clone()).collect())
    }
}
