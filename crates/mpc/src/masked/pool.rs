//! Maximum over windows by tournament: max(a, b) = b + ReLU(a - b) on masked wires, the difference being local.
//!
//! A 2 x 2 window takes two levels: compare and select (3 rounds, by keys none), re-open (1), compare and select (3).
//! The result is additive. For each comparison: the comparison's bits and 128 bits dealt; 64 bits each way for each re-opened winner.

use std::sync::Arc;

use trefoil_prg::Purpose;
use trefoil_ring::Words;
use trefoil_ring::geometry::Pool2d;

use super::dealing::{At, Dealing};
use super::layout::Layout;
use super::local::window_slot;
use super::online::{Online, Role};
use super::relu::{ReluMaterial, deal_relu, relu};
use crate::error::MpcError;

/// Material of one max-pool step: a level of the tournament each.
#[derive(Default)]
pub(crate) struct MaxMaterial {
    levels: Vec<MaxLevel>,
    /// This party's mask of the window's one element, where there is nothing to compare.
    single: Words,
}

struct MaxLevel {
    positive: ReluMaterial,
    /// This party's masks of the second operands.
    second: Words,
    /// This party's masks of the winners, where they are opened again.
    winners: Words,
}

impl MaxMaterial {
    pub(crate) fn words(&self) -> usize {
        let level = |l: &MaxLevel| l.positive.words() + l.second.len() + l.winners.len();
        self.levels.iter().map(level).sum::<usize>() + self.single.len()
    }
}

/// Candidates of a window, level by level: (pairs, whether one candidate passes without a comparison).
pub(crate) fn rounds(window: usize) -> Vec<(usize, bool)> {
    let mut left = window;
    let mut out = Vec::new();
    while left > 1 {
        out.push((left / 2, left % 2 == 1));
        left = left.div_ceil(2);
    }
    out
}

/// The elements of all windows, slot by slot: `n` of each.
fn slots(x: &[u64], batch: usize, pool: &Pool2d, n: usize) -> Words {
    let slots = pool.window.0 * pool.window.1;
    let mut out = Words::with_capacity(slots * n);
    for slot in 0..slots {
        window_slot(x, batch, pool, slot, out.grow(n));
    }
    out
}

/// The pairs of neighbouring candidates, `n` elements each.
fn pairs_of(candidates: &[u64], n: usize) -> impl Iterator<Item = (&[u64], &[u64])> {
    candidates.chunks_exact(2 * n.max(1)).map(move |pair| pair.split_at(n))
}

/// The differences of neighbouring candidates, end to end.
fn differences(candidates: &[u64], n: usize) -> Words {
    let mut out = Words::with_capacity(candidates.len() / 2);
    for (first, second) in pairs_of(candidates, n) {
        out.grow(n).iter_mut().zip(first.iter().zip(second)).for_each(|(o, (a, b))| *o = a.wrapping_sub(*b));
    }
    out
}

/// The winners, and behind them the candidate that passed without a comparison.
fn advance(candidates: &[u64], mut winners: Words, passes: bool, n: usize) -> Words {
    if passes {
        winners.extend(&candidates[candidates.len() - n..]);
    }
    winners
}

/// Deals a max-pool of `batch` samples with `n` outputs in all under masks `lambda`.
pub(crate) fn deal_max<D: Dealing>(
    d: &mut D,
    at: At,
    batch: usize,
    n: usize,
    pool: &Pool2d,
    layout: &Layout,
    lambda: &[u64],
) -> Result<MaxMaterial, MpcError> {
    let mut candidates = if D::COMPUTES { slots(lambda, batch, pool, n) } else { Words::default() };
    let levels = rounds(pool.window.0 * pool.window.1);
    let mut m = MaxMaterial::default();
    for (l, &(pairs, passes)) in levels.iter().enumerate() {
        let at = at.unit(l)?;
        let positive = deal_relu(d, at, pairs * n, 0, layout, &Arc::new(differences(&candidates, n)))?;
        let mut second = D::room(pairs * n);
        if D::KEEPS {
            pairs_of(&candidates, n).for_each(|(_, b)| second.extend(b));
        }
        let mut winners = Words::default();
        if l + 1 < levels.len() {
            let mut draw = d.open_mask(at, Purpose::Lambda)?;
            winners = d.mask(&mut draw, pairs * n);
            if D::COMPUTES {
                let kept = if D::KEEPS { winners.clone() } else { Words::default() };
                candidates = advance(&candidates, std::mem::replace(&mut winners, kept), passes, n);
            }
        }
        m.levels.push(MaxLevel { positive, second, winners });
    }
    if levels.is_empty() {
        m.single = candidates;
    }
    Ok(m)
}

/// Adds this evaluator's additive share of a wire, delta - lambda.
fn add_share(role: Role, delta: &[u64], lambda: &[u64], out: &mut [u64]) {
    for (o, (d, l)) in out.iter_mut().zip(delta.iter().zip(lambda)) {
        *o = o.wrapping_add(role.public(*d)).wrapping_sub(*l);
    }
}

/// Additive shares of the maximum of each window.
pub(crate) fn max_pool(
    net: &mut Online<'_>,
    batch: usize,
    n: usize,
    pool: &Pool2d,
    layout: &Layout,
    delta: &[u64],
    m: MaxMaterial,
) -> Result<Words, MpcError> {
    let mut candidates = slots(delta, batch, pool, n);
    let levels = rounds(pool.window.0 * pool.window.1);
    let mut result = Words::default();
    if levels.is_empty() {
        result = Words::zeros(n);
        add_share(net.role, &candidates, &m.single, &mut result);
        return Ok(result);
    }
    for (&(_, passes), level) in levels.iter().zip(m.levels) {
        let mut winner = relu(net, 0, layout, &differences(&candidates, n), level.positive)?;
        let parts = winner.chunks_exact_mut(n.max(1)).zip(level.second.chunks_exact(n.max(1)));
        for ((out, lambda), (_, second)) in parts.zip(pairs_of(&candidates, n)) {
            add_share(net.role, second, lambda, out);
        }
        if level.winners.is_empty() {
            result = winner;
        } else {
            let opened = net.open(winner, &level.winners)?;
            candidates = advance(&candidates, opened, passes, n);
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::rounds;

    #[test]
    fn every_candidate_meets_the_final() {
        assert_eq!(rounds(1), []);
        assert_eq!(rounds(4), [(2, false), (1, false)]);
        assert_eq!(rounds(9), [(4, true), (2, true), (1, true), (1, false)]);
    }
}
