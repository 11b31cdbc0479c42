//! Maximum over windows by tournament: max(a, b) = b + ReLU(a - b) on masked wires, the difference being local.
//!
//! A 2 x 2 window takes two levels: compare and select (3 rounds, by keys none), re-open (1), compare and select (3).
//! The result is additive. For each comparison: the comparison's bits and 128 bits dealt; 64 bits each way for each re-opened winner.

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

fn slots(x: &[u64], batch: usize, pool: &Pool2d, n: usize) -> Vec<Words> {
    (0..pool.window.0 * pool.window.1)
        .map(|slot| {
            let mut out = Words::zeros(n);
            window_slot(x, batch, pool, slot, &mut out);
            out
        })
        .collect()
}

/// The differences of neighbouring candidates, and the second of each pair, end to end.
fn pair_up(candidates: &[Words], pairs: usize) -> (Words, Words) {
    let n = candidates.first().map_or(0, |c| c.len());
    let (mut difference, mut second) = (Words::with_capacity(pairs * n), Words::with_capacity(pairs * n));
    for pair in candidates.chunks_exact(2) {
        difference.extend(&pair[0]);
        second.extend(&pair[1]);
    }
    difference.iter_mut().zip(second.iter()).for_each(|(a, b)| *a = a.wrapping_sub(*b));
    (difference, second)
}

fn advance(mut candidates: Vec<Words>, winners: &[u64], passes: bool, n: usize) -> Vec<Words> {
    let left = if passes { candidates.pop() } else { None };
    let mut next: Vec<Words> = winners.chunks_exact(n.max(1)).map(|w| w.to_vec().into()).collect();
    next.extend(left);
    next
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
    let mut candidates = if D::COMPUTES { slots(lambda, batch, pool, n) } else { vec![] };
    let levels = rounds(pool.window.0 * pool.window.1);
    let mut m = MaxMaterial::default();
    for (l, &(pairs, passes)) in levels.iter().enumerate() {
        let at = at.unit(l)?;
        let (difference, second) = pair_up(&candidates, pairs);
        let positive = deal_relu(d, at, pairs * n, 0, layout, &difference)?;
        let mut winners = Words::default();
        if l + 1 < levels.len() {
            let mut draw = d.open_mask(at, Purpose::Lambda)?;
            winners = d.mask(&mut draw, pairs * n);
            candidates = if D::COMPUTES { advance(candidates, &winners, passes, n) } else { vec![] };
        }
        m.levels.push(MaxLevel { positive, second, winners });
    }
    if levels.is_empty() {
        m.single = candidates.pop().unwrap_or_default();
    }
    Ok(m)
}

/// This evaluator's additive share of a wire: delta - lambda.
fn share_of(role: Role, delta: &[u64], lambda: &[u64]) -> Words {
    delta.iter().zip(lambda).map(|(d, l)| role.public(*d).wrapping_sub(*l)).collect::<Vec<_>>().into()
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
        return Ok(share_of(net.role, &candidates.pop().unwrap_or_default(), &m.single));
    }
    for (&(pairs, passes), level) in levels.iter().zip(m.levels) {
        let (difference, second) = pair_up(&candidates, pairs);
        let mut winner = relu(net, 0, layout, &difference, level.positive)?;
        super::local::add(&mut winner, &share_of(net.role, &second, &level.second));
        if level.winners.is_empty() {
            result = winner;
        } else {
            let opened = net.open(winner, &level.winners)?;
            candidates = advance(candidates, &opened, passes, n);
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
