//! The shape of a comparison: blocks of leaf bits and the levels of multi-input ANDs above them.
//!
//! Producer, evaluators and counter walk one [`Layout`], so that they agree on every plane dealt and opened.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::compare::Compare;
use crate::program::Window;

/// Elements whose planes lie side by side: 64 words a plane, so that a chunk's working set stays in the cache.
pub(crate) const CHUNK: usize = 4096;

/// One node: combines the pairs `start .. start + len` of its level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The products of two or more masks that are dealt: bit 2i stands for the mask of g_i, bit 2i + 1 for that of p_i.
    pub(crate) monomials: Vec<u16>,
}

impl Node {
    /// Whether the node's own P is needed: not in the lowest, into which nothing propagates.
    pub(crate) fn want_p(&self) -> bool {
        self.start > 0
    }

    fn new(start: usize, len: usize) -> Self {
        let want_p = start > 0;
        // What g_i is multiplied with: any of the p above it; and p alone with others of their kind.
        let spread = |s: u16| (0..len).filter(|j| s >> j & 1 == 1).map(|j| 1u16 << (2 * j + 1)).sum::<u16>();
        let above = |i: usize| (0..1u16 << (len - i - 1)).map(move |s| spread(s << (i + 1)));
        let g = (0..len).flat_map(|i| above(i).map(move |s| s | 1 << (2 * i)));
        let p = (0..1u16 << len).filter(|s| want_p || s & 1 == 0).map(spread);
        let mut monomials: Vec<u16> = g.chain(p).filter(|s| s.count_ones() >= 2).collect();
        monomials.sort_unstable();
        Self { start, len, monomials }
    }
}

/// One level: `pairs` pairs are opened (all but the lowest P) and combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) pairs: usize,
    pub(crate) nodes: Vec<Node>,
}

impl Level {
    /// Bit planes opened.
    pub(crate) fn opened(&self) -> usize {
        2 * self.pairs - 1
    }

    /// Bit planes dealt.
    pub(crate) fn dealt(&self) -> usize {
        self.nodes.iter().map(|n| n.monomials.len()).sum()
    }
}

/// Plane of pair `e`'s G among the opened planes of a level: G0, G1, P1, G2, P2, ...
pub(crate) fn plane_g(e: usize) -> usize {
    if e == 0 { 0 } else { 2 * e - 1 }
}

/// Plane of pair `e`'s P, `e > 0`.
pub(crate) fn plane_p(e: usize) -> usize {
    2 * e
}

/// A comparison of `window.k` bits: a carry tree over the lower `k - 1` of them, or keys and no tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) window: Window,
    /// Whether the carry comes from keys.
    pub(crate) keys: bool,
    /// Bits of each leaf block, lowest first.
    pub(crate) blocks: Vec<u32>,
    pub(crate) levels: Vec<Level>,
}

/// Layouts that are kept: networks have one or two.
const KEPT: usize = 64;
type Kept = HashMap<(Window, Compare), Arc<Layout>>;
static LAYOUTS: RwLock<Option<Kept>> = RwLock::new(None);

impl Layout {
    /// The same as [`Layout::new`], computed once: it takes longer than a small comparison.
    pub(crate) fn of(window: Window, compare: Compare) -> Arc<Self> {
        let key = (window, compare);
        let kept = LAYOUTS.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = kept.as_ref().and_then(|l| l.get(&key)) {
            return layout.clone();
        }
        drop(kept);
        let layout = Arc::new(Self::new(window, compare));
        let mut kept = LAYOUTS.write().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get_or_insert_default();
        if kept.len() < KEPT {
            kept.insert(key, layout.clone());
        }
        layout
    }

    /// The window and the way of comparing were checked.
    pub(crate) fn new(window: Window, compare: Compare) -> Self {
        let Compare::Tree { block, arity } = compare else {
            return Self { window, keys: true, blocks: vec![], levels: vec![] };
        };
        let (body, arity) = (window.k - 1, arity as usize);
        let blocks: Vec<u32> = (0..body).step_by(block as usize).map(|s| block.min(body - s)).collect();
        let mut levels = Vec::new();
        let mut pairs = blocks.len();
        while pairs > 1 {
            let nodes: Vec<Node> =
                (0..pairs).step_by(arity).map(|start| Node::new(start, arity.min(pairs - start))).collect();
            let next = nodes.len();
            levels.push(Level { pairs, nodes });
            pairs = next;
        }
        Self { window, keys: false, blocks, levels }
    }

    /// Bit planes of the leaves' monomials.
    pub(crate) fn leaf_planes(&self) -> usize {
        self.blocks.iter().map(|b| (1 << b) - 1).sum()
    }

    /// Bit planes of the leaves' (G, P), the lowest P left out.
    pub(crate) fn pair_planes(&self) -> usize {
        (2 * self.blocks.len()).saturating_sub(1)
    }

    /// Bits each evaluator sends for one element, by round.
    pub(crate) fn opened_by_round(&self) -> Vec<usize> {
        self.levels.iter().map(Level::opened).chain([1]).collect()
    }
}

/// The chunks of `n` elements: (first element, elements, words a plane).
pub(crate) fn chunks(n: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..n).step_by(CHUNK).map(move |start| {
        let len = CHUNK.min(n - start);
        (start, len, len.div_ceil(64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_model() {
        // (lo, k) -> rounds, online bits, offline bits: printed by the design's executable model.
        for (lo, k, rounds, online, offline) in
            [(0, 64, 3, 39, 329), (0, 32, 3, 19, 151), (16, 32, 3, 19, 151), (16, 24, 3, 15, 101)]
        {
            let l = Layout::new(Window { lo, k }, Compare::default());
            let opened = l.opened_by_round();
            let dealt = l.leaf_planes() + l.levels.iter().map(Level::dealt).sum::<usize>() + 1;
            assert_eq!((opened.len(), opened.iter().sum::<usize>(), dealt), (rounds, online, offline), "{lo} {k}");
        }
    }

    #[test]
    fn layouts_that_are_kept_are_those_computed() {
        let window = Window { lo: 3, k: 24 };
        let computed = Layout::new(window, Compare::default());
        for _ in 0..2 {
            assert_eq!(*Layout::of(window, Compare::default()), computed);
        }
        for lo in 0..2 * KEPT as u32 {
            assert_eq!(Layout::of(Window { lo, k: 8 }, Compare::Keys).window.lo, lo);
        }
        assert!(LAYOUTS.read().unwrap().as_ref().unwrap().len() <= KEPT);
    }

    #[test]
    fn chunks_cover_everything_once() {
        for n in [0, 1, 64, 4095, 4096, 4097, 10_000] {
            let mut at = 0;
            for (start, len, words) in chunks(n) {
                assert_eq!((start, words), (at, len.div_ceil(64)));
                at += len;
            }
            assert_eq!(at, n);
        }
    }
}
