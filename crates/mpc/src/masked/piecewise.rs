//! Piecewise polynomials of a masked wire, exact in the ring.
//!
//! With knots t_1 < .. < t_J, pieces p_0 .. p_J and bits b_j = [x >= t_j],
//!
//! ```text
//! f(x) = p_0(x) + sum_j b_j q_j(x)        q_j = p_j - p_{j-1}
//! ```
//!
//! The wire x - t_j is delta - t_j under the same mask, so the bits come of one comparison of J n elements, in one set
//! of rounds; without knots there is none. With b_j = bhat_j + (1 - 2 bhat_j) beta_j (a masked bit times a value: Patra et
//! al. 2021, ABY2.0) and x = delta - lambda,
//!
//! ```text
//! f(x) = (p_0 + sum_j bhat_j q_j)(delta - lambda) + sum_j (1 - 2 bhat_j) beta_j q_j(delta - lambda)
//! ```
//!
//! is a sum of the dealt lambda^m and beta_j lambda^m with public coefficients: every q(delta - lambda) expands into
//! sum_m lambda^m (-1)^m sum_{i >= m} binomial(i, m) q_i delta^(i - m). Local after the comparison.
//!
//! For degree d, beside the comparisons' bits: 64 (d - 1) bits dealt for the powers and 64 (d + 1) J for those times
//! the bits' masks.

use std::sync::Arc;

use trefoil_prg::Purpose;
use trefoil_ring::Words;

use super::compare::{CompareMaterial, compare, deal_compare};
use super::dealing::{At, Dealing};
use super::layout::{Layout, chunks};
use super::local::bit;
use super::online::{Online, Role};
use crate::error::MpcError;

/// Most coefficients of a piece.
const TERMS: usize = 4;

/// Public numbers of a piecewise polynomial, as ring elements.
pub(crate) struct Pieces {
    knots: Vec<u64>,
    /// p_0, q_1, .. q_J.
    steps: Vec<[u64; TERMS]>,
    /// Coefficients that a piece has.
    terms: usize,
}

impl Pieces {
    /// The numbers were checked: ascending knots, one piece more, two to four coefficients each.
    pub(crate) fn new(knots: &[i64], pieces: &[Vec<i64>]) -> Self {
        let coefficients =
            |p: &Vec<i64>| -> [u64; TERMS] { std::array::from_fn(|m| p.get(m).map_or(0, |c| *c as u64)) };
        let whole: Vec<_> = pieces.iter().map(coefficients).collect();
        let difference = |p: &[[u64; TERMS]]| std::array::from_fn(|m| p[1][m].wrapping_sub(p[0][m]));
        let steps = whole.iter().take(1).copied().chain(whole.windows(2).map(difference)).collect();
        Self {
            knots: knots.iter().map(|k| *k as u64).collect(),
            steps,
            terms: pieces.first().map_or(0, Vec::len).min(TERMS),
        }
    }

    /// Elements compared for `n` wires: all of them with the first knot, then with the second.
    pub(crate) fn compared(&self, n: usize) -> usize {
        self.knots.len() * n
    }
}

/// Coefficients of the powers of lambda in p(delta - lambda).
fn expand(p: &[u64; TERMS], delta: u64) -> [u64; TERMS] {
    const BINOMIAL: [[u64; TERMS]; TERMS] = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 2, 1, 0], [1, 3, 3, 1]];
    std::array::from_fn(|m| {
        let sum = (m..TERMS)
            .rev()
            .fold(0u64, |sum, i| sum.wrapping_mul(delta).wrapping_add(BINOMIAL[i][m].wrapping_mul(p[i])));
        if m % 2 == 0 { sum } else { sum.wrapping_neg() }
    })
}

/// Material of a piecewise polynomial of n wires.
#[derive(Default)]
pub(crate) struct PiecewiseMaterial {
    compare: CompareMaterial,
    /// This party's masks.
    lambda: Arc<Words>,
    /// Shares of the masks' squares, cubes ..
    powers: Vec<Words>,
    /// Shares of beta_j lambda^m for every m, knot by knot.
    selected: Vec<Words>,
}

impl PiecewiseMaterial {
    pub(crate) fn words(&self) -> usize {
        self.compare.words() + self.powers.iter().chain(&self.selected).map(|w| w.len()).sum::<usize>()
    }
}

/// Deals a piecewise polynomial of `n` wires under masks `lambda`.
pub(crate) fn deal_piecewise<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    pieces: &Pieces,
    layout: &Layout,
    lambda: Arc<Words>,
) -> Result<PiecewiseMaterial, MpcError> {
    let all = pieces.compared(n);
    let mut compare = CompareMaterial::default();
    if all > 0 {
        compare = deal_compare(d, at, all, layout, |start, out| {
            out.iter_mut().enumerate().for_each(|(e, o)| *o = lambda[(start + e) % n]);
        })?;
    }
    let beta = &compare.sign;
    let (mut powers, mut selected) = (vec![], vec![]);
    for m in 2..pieces.terms {
        let mut draw = d.open_shares(at.level(m)?, Purpose::Power)?;
        let mut out = D::room(n);
        for (start, len, _) in chunks(n) {
            d.deal(&mut draw, len, 64, &mut out, |out| {
                out.iter_mut().zip(&lambda[start..]).for_each(|(o, l)| *o = l.wrapping_pow(m as u32));
            })?;
        }
        powers.push(out);
    }
    for j in 0..pieces.knots.len() {
        for m in 0..pieces.terms {
            let mut draw = d.open_shares(at.unit(j)?.level(m)?, Purpose::BetaPower)?;
            let mut out = D::room(n);
            for (start, len, _) in chunks(n) {
                d.deal(&mut draw, len, 64, &mut out, |out| {
                    for (e, (o, l)) in out.iter_mut().zip(&lambda[start..]).enumerate() {
                        *o = l.wrapping_pow(m as u32) & bit(beta, j * n + start + e).wrapping_neg();
                    }
                })?;
            }
            selected.push(out);
        }
    }
    Ok(PiecewiseMaterial { compare, lambda, powers, selected })
}

/// This evaluator's additive share of f(x) for every wire: the comparison's rounds, then local.
pub(crate) fn piecewise(
    net: &mut Online<'_>,
    pieces: &Pieces,
    layout: &Layout,
    delta: &[u64],
    m: &PiecewiseMaterial,
) -> Result<Words, MpcError> {
    let n = delta.len();
    let mut bhat = Words::default();
    if !pieces.knots.is_empty() {
        bhat = compare(net, pieces.compared(n), layout, &m.compare, |start, out| {
            for (e, o) in (start..).zip(out) {
                *o = delta[e % n].wrapping_sub(pieces.knots[e / n]);
            }
        })?;
    }
    Ok(combine(net.role, pieces, delta, &bhat, m))
}

/// The sum of dealt powers with public coefficients.
fn combine(role: Role, pieces: &Pieces, delta: &[u64], bhat: &[u64], held: &PiecewiseMaterial) -> Words {
    let n = delta.len();
    let mut out = Words::zeros(n);
    for (i, (o, delta)) in out.iter_mut().zip(delta).enumerate() {
        let mut public = pieces.steps[0];
        let mut sum = 0u64;
        for (j, q) in pieces.steps[1..].iter().enumerate() {
            let b = bit(bhat, j * n + i);
            let selected = &held.selected[j * pieces.terms..(j + 1) * pieces.terms];
            let value =
                selected.iter().zip(expand(q, *delta)).fold(0u64, |v, (s, c)| v.wrapping_add(c.wrapping_mul(s[i])));
            sum = sum.wrapping_add(1u64.wrapping_sub(b << 1).wrapping_mul(value));
            public.iter_mut().zip(q).for_each(|(p, q)| *p = p.wrapping_add(q & b.wrapping_neg()));
        }
        let c = expand(&public, *delta);
        sum = sum.wrapping_add(role.public(c[0])).wrapping_add(c[1].wrapping_mul(held.lambda[i]));
        for (c, power) in c[2..].iter().zip(&held.powers) {
            sum = sum.wrapping_add(c.wrapping_mul(power[i]));
        }
        *o = sum;
    }
    out
}
