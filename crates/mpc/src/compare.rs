//! The ways of comparing a masked wire with zero, as part of the plan that all parties agree on.

use serde::{Deserialize, Serialize};

use crate::program::Window;

/// How a comparison is computed. Every way gives the same result; they differ in rounds, bytes and instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compare {
    /// A carry tree over masked bits: leaves of `block` bits (1 to 8), then ANDs of `arity` pairs (2 to 8) a round.
    Tree {
        /// Bits of one leaf.
        block: u32,
        /// Pairs combined by one node.
        arity: u32,
    },
    /// Keys of a distributed comparison function, dealt on the wire's mask: no rounds online, many dealt bytes.
    Keys,
}

/// How the piece of a piecewise polynomial is selected. Either way gives the same result; they differ in bytes and
/// instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Selecting {
    /// Products of masks with the knots' bits: many dealt bytes.
    #[default]
    Products,
    /// A key of a point function for each value: a fifth of the bytes for many knots, more instructions.
    Keys,
}

impl Default for Compare {
    /// Blocks and nodes of four: few bits dealt, few rounds.
    fn default() -> Self {
        Compare::Tree { block: 4, arity: 4 }
    }
}

impl std::fmt::Display for Compare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Compare::Tree { block, arity } => write!(f, "tree {block}x{arity}"),
            Compare::Keys => f.write_str("keys"),
        }
    }
}

impl Compare {
    /// Every way a plan may name, the default first.
    pub fn all() -> impl Iterator<Item = Compare> {
        let trees = (1..=8).flat_map(|block| (2..=8).map(move |arity| Compare::Tree { block, arity }));
        let others = trees.chain([Compare::Keys]).filter(|c| *c != Compare::default());
        std::iter::once(Compare::default()).chain(others)
    }

    /// Whether a plan may name it.
    pub(crate) fn check(self) -> Result<(), String> {
        match self {
            Compare::Tree { block: 1..=8, arity: 2..=8 } | Compare::Keys => Ok(()),
            Compare::Tree { block, arity } => {
                Err(format!("blocks of {block} and nodes of {arity}: must be 1 to 8 and 2 to 8"))
            }
        }
    }

    /// Words that a comparison and the selection after it take for one element, rounded up. The window was checked.
    pub(crate) fn words(self, window: Window) -> u64 {
        let body = u64::from(window.k - 1);
        // A level of a key: a seed, two ring values, a packed one and two bits.
        let Compare::Tree { block, arity } = self else { return 24 + 5 * body };
        let mut pairs = body.div_ceil(u64::from(block));
        let mut planes = pairs << block;
        while pairs > 1 {
            let nodes = pairs.div_ceil(u64::from(arity));
            planes += 4 * pairs + (nodes << (arity + 1));
            pairs = nodes;
        }
        13 + planes / 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_are_allowed_and_others_refused() {
        assert_eq!(Compare::all().count(), 8 * 7 + 1);
        assert!(Compare::all().all(|c| c.check().is_ok()));
        for (block, arity) in [(0, 4), (9, 4), (4, 1), (4, 9), (u32::MAX, u32::MAX)] {
            assert!(Compare::Tree { block, arity }.check().unwrap_err().contains("must be"));
        }
    }
}
