//! Piecewise polynomials of a masked wire, exact in the ring.
//!
//! With knots t_1 < .. < t_J, pieces p_0 .. p_J and bits b_j = [x >= t_j],
//!
//! ```text
//! f(x) = p_0(x) + sum_j b_j q_j(x) = p_I(x)        q_j = p_j - p_{j-1},  I = sum_j b_j
//! ```
//!
//! **Comparing.** The wire x - t_j is delta - t_j under the same mask. The leaves' monomials (or a comparison key) are
//! functions of the mask alone, so one dealt set serves all knots: an evaluator evaluates J polynomials on the same shares,
//! or one key at J points. Each result is linear in those shares and is opened under a mask of its own, drawn for this knot
//! and node: the shares themselves are never shown, and no mask covers two openings. What depends on the knot, the masks of
//! the nodes and their monomials, is dealt for each. The J n comparisons of all knots share their rounds.
//!
//! **Selecting.** The bits ascend, so bit s of the number I of the wire's piece is the XOR of all b_j with 2^s | j: local on
//! XOR shares. Only these r = ceil(log2(J + 1)) bits are opened, as Ihat = I XOR rho under r fresh mask bits. A key of a
//! point function (see `point`) gives shares of e_p lambda^m for every p of r bits and m <= d, where e_p = [p = rho]; and
//!
//! ```text
//! f(x) = sum_p e_p p_{Ihat XOR p}(delta - lambda)
//! ```
//!
//! is a sum of these with public coefficients: q(delta - lambda) expands into
//! sum_m lambda^m (-1)^m sum_{i >= m} binomial(i, m) q_i delta^(i - m). Local; Grotto (Storrier et al. 2023) finds a
//! spline's piece by keys, too. 128 r + 64 (d + 1) bits dealt, which bob passes on to alice.
//!
//! **Products of masks.** Keys take the evaluators' link before anything is evaluated, and more instructions; few knots cost
//! fewer bits without. `Op::Piecewise` says which way, the planner chooses. There the bits are opened each as b_j = bhat_j + (1 - 2 bhat_j) beta_j (a masked bit
//! times a value: Patra et al. 2021, ABY2.0), and
//!
//! ```text
//! f(x) = (p_0 + sum_j bhat_j q_j)(delta - lambda) + sum_j (1 - 2 bhat_j) beta_j q_j(delta - lambda)
//! ```
//!
//! is a sum of dealt lambda^m and beta_j lambda^m: 64 (d - 1) bits for the powers, 64 (d + 1) J for those times the masks.
//! Without knots there is neither comparison nor selection.

use std::sync::Arc;

use rayon::prelude::*;
use trefoil_prg::Purpose;
use trefoil_ring::Words;

use super::compare::{CompareMaterial, deal_sign_masks, deal_signs, signs};
use super::dealing::{At, Dealing};
use super::layout::{Layout, chunks};
use super::local::bit;
use super::online::{Online, Role};
use super::point::{self, Expansion, Points, SIDE, Value, deal_points};
use super::repeat::copy_bits;
use crate::error::MpcError;

/// Most coefficients of a piece.
const TERMS: usize = 4;

const BINOMIAL: [[u64; TERMS]; TERMS] = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 2, 1, 0], [1, 3, 3, 1]];

/// Public numbers of a piecewise polynomial, as ring elements.
pub(crate) struct Pieces {
    knots: Vec<u64>,
    pieces: Vec<[u64; TERMS]>,
    /// Coefficients that a piece has.
    terms: usize,
    /// Whether keys select.
    keys: bool,
}

impl Pieces {
    /// The numbers were checked: ascending knots, one piece more, two to four coefficients each. `keys` select, or not.
    pub(crate) fn new(knots: &[i64], pieces: &[Vec<i64>], keys: bool) -> Self {
        let coefficients =
            |p: &Vec<i64>| -> [u64; TERMS] { std::array::from_fn(|m| p.get(m).map_or(0, |c| *c as u64)) };
        Self {
            knots: knots.iter().map(|k| *k as u64).collect(),
            pieces: pieces.iter().map(coefficients).collect(),
            terms: pieces.first().map_or(0, Vec::len).min(TERMS),
            keys,
        }
    }

    /// The keys that select a piece, if keys do.
    fn keys(&self) -> Option<point::Shape> {
        self.keys.then(|| key_shape(self.knots.len(), self.terms))
    }

    /// Words of what is opened last for `n` wires: numbers of pieces, bit by bit, or all bits.
    fn opened(&self, n: usize) -> usize {
        match self.keys() {
            Some(shape) => shape.bits as usize * n.div_ceil(64),
            None => (self.knots.len() * n).div_ceil(64),
        }
    }

    /// Words that each evaluator sends for `n` wires, round by round.
    pub(crate) fn opened_by_round(&self, n: usize, layout: &Layout) -> Vec<usize> {
        if self.knots.is_empty() {
            return vec![];
        }
        let compared = (self.knots.len() * n).div_ceil(64);
        layout.levels.iter().map(|l| l.opened() * compared).chain([self.opened(n)]).collect()
    }
}

fn key_shape(knots: usize, terms: usize) -> point::Shape {
    point::Shape { bits: usize::BITS - knots.leading_zeros(), terms }
}

/// Coefficients of the powers of lambda in p(delta - lambda).
fn expand(p: &[u64; TERMS], delta: u64) -> [u64; TERMS] {
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
    select: Selection,
}

/// Material that selects the piece.
enum Selection {
    Keys(Points),
    Powers(Powers),
}

impl Default for Selection {
    fn default() -> Self {
        Selection::Powers(Powers::default())
    }
}

#[derive(Default)]
struct Powers {
    /// This party's masks.
    lambda: Arc<Words>,
    /// Shares of the masks' squares, cubes ..
    powers: Vec<Words>,
    /// Shares of beta_j lambda^m for every m, knot by knot.
    selected: Vec<Words>,
}

impl PiecewiseMaterial {
    pub(crate) fn words(&self) -> usize {
        let select = match &self.select {
            Selection::Keys(keys) => keys.words(),
            Selection::Powers(p) => p.powers.iter().chain(&p.selected).map(|w| w.len()).sum::<usize>(),
        };
        self.compare.words() + select
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
    let mut compare = CompareMaterial::default();
    if !pieces.knots.is_empty() {
        let masks = |start: usize, out: &mut [u64]| out.copy_from_slice(&lambda[start..start + out.len()]);
        compare = deal_signs(d, at, n, pieces.knots.len(), layout, masks)?;
        compare.sign = deal_sign_masks(d, at, pieces.opened(n))?;
    }
    let masks = &compare.sign;
    let select = match pieces.keys() {
        Some(shape) => {
            let plane = n.div_ceil(64);
            let rho = |e: usize| (0..shape.bits as usize).map(|s| bit(&masks[s * plane..], e) << s).sum();
            let powers = |e: usize| std::array::from_fn(|m| lambda[e].wrapping_pow(m as u32));
            Selection::Keys(deal_points(d, at.unit(1)?, n, shape, rho, powers)?)
        }
        None => Selection::Powers(deal_powers(d, at, n, pieces, masks, lambda)?),
    };
    Ok(PiecewiseMaterial { compare, select })
}

/// Deals powers of `lambda`, alone and times the bits' masks `beta`.
fn deal_powers<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    pieces: &Pieces,
    beta: &[u64],
    lambda: Arc<Words>,
) -> Result<Powers, MpcError> {
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
    Ok(Powers { lambda, powers, selected })
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
    let mut shares = Words::default();
    if !pieces.knots.is_empty() {
        shares = signs(net, n, pieces.knots.len(), layout, &m.compare, |start, out| {
            for (e, o) in (start..).zip(out) {
                *o = delta[e % n].wrapping_sub(pieces.knots[e / n]);
            }
        })?;
    }
    match (&m.select, pieces.keys()) {
        (Selection::Keys(keys), Some(shape)) => {
            let numbers = net.open_bits(numbers(&shares, n, pieces.knots.len(), shape.bits), &m.compare.sign)?;
            Ok(by_keys(net.role, pieces, shape, delta, &numbers, keys))
        }
        (Selection::Powers(held), None) => {
            let bits = if pieces.knots.is_empty() { shares } else { net.open_bits(shares, &m.compare.sign)? };
            Ok(by_powers(net.role, pieces, delta, &bits, held))
        }
        _ => Err(MpcError::Material("a piecewise polynomial has material of another selection".into())),
    }
}

/// XOR shares of the bits of the pieces' numbers, plane by plane, from those of the bits of `knots` knots: bit s is one
/// where the bits of an odd number of the knots 2^s, 2 2^s .. are.
fn numbers(shares: &[u64], n: usize, knots: usize, bits: u32) -> Words {
    let plane = n.div_ceil(64);
    let mut out = Words::zeros(bits as usize * plane);
    for (s, sum) in out.chunks_exact_mut(plane).enumerate() {
        for j in (1..=knots).filter(|j| j.trailing_zeros() as usize >= s) {
            let mut copy = Words::zeros(plane);
            copy_bits(shares, (j - 1) * n, &mut copy, 0, n);
            sum.iter_mut().zip(copy.iter()).for_each(|(s, c)| *s ^= c);
        }
    }
    out
}

/// The sum of dealt powers with the coefficients of each wire's piece, found by keys; `numbers` are the masked bits of the
/// pieces' numbers.
fn by_keys(role: Role, pieces: &Pieces, shape: point::Shape, delta: &[u64], numbers: &[u64], keys: &Points) -> Words {
    /// Wires that one thread takes at a time.
    const PART: usize = 8 * SIDE;
    let (plane, points) = (delta.len().div_ceil(64), 1 << shape.bits);
    let ciphers = keys.ciphers();
    // No wire is in a piece beyond the last.
    let mut table = pieces.pieces.clone();
    table.resize(points, [0; TERMS]);
    let mut out = Words::zeros(delta.len());
    out.par_chunks_mut(PART).zip(delta.par_chunks(PART)).enumerate().for_each_init(
        || Expansion::new(shape),
        |room, (part, (out, delta))| {
            for (i, (out, delta)) in out.chunks_mut(SIDE).zip(delta.chunks(SIDE)).enumerate() {
                let piece = part * (PART / SIDE) + i;
                let shares = room.run(role, &ciphers, shape, keys, piece);
                let mut masked = [0; SIDE];
                for s in 0..shape.bits as usize {
                    let word = numbers[s * plane + piece];
                    masked.iter_mut().enumerate().for_each(|(e, m)| *m |= (word >> e & 1) << s);
                }
                match shape.terms {
                    2 => sums::<2>(shares, &table, &masked, delta, out),
                    3 => sums::<3>(shares, &table, &masked, delta, out),
                    _ => sums::<4>(shares, &table, &masked, delta, out),
                }
            }
        },
    );
    out
}

/// For up to [`SIDE`] wires the sum over all points p and powers m of the share of e_p lambda^m times its coefficient in
/// piece `masked XOR p`, of `T` coefficients.
fn sums<const T: usize>(
    shares: &[[Value; SIDE]],
    table: &[[u64; TERMS]],
    masked: &[u64; SIDE],
    delta: &[u64],
    out: &mut [u64],
) {
    for (e, (out, delta)) in out.iter_mut().zip(delta).enumerate() {
        // Sums over the points of share m times coefficient i >= m.
        let mut sums = [[0u64; T]; T];
        for (p, shares) in shares.iter().enumerate() {
            let (share, piece) = (&shares[e], &table[masked[e] as usize ^ p]);
            for m in 0..T {
                for i in m..T {
                    sums[m][i] = sums[m][i].wrapping_add(share[m].wrapping_mul(piece[i]));
                }
            }
        }
        *out = (0..T).fold(0u64, |all, m| {
            let power = (m..T)
                .rev()
                .fold(0u64, |sum, i| sum.wrapping_mul(*delta).wrapping_add(BINOMIAL[i][m].wrapping_mul(sums[m][i])));
            if m % 2 == 0 { all.wrapping_add(power) } else { all.wrapping_sub(power) }
        });
    }
}

/// The sum of dealt powers with the coefficients that the masked bits `bhat` say.
fn by_powers(role: Role, pieces: &Pieces, delta: &[u64], bhat: &[u64], held: &Powers) -> Words {
    let n = delta.len();
    let difference = |p: &[[u64; TERMS]]| std::array::from_fn(|m| p[1][m].wrapping_sub(p[0][m]));
    let steps: Vec<[u64; TERMS]> = pieces.pieces.windows(2).map(difference).collect();
    let mut out = Words::zeros(n);
    for (i, (o, delta)) in out.iter_mut().zip(delta).enumerate() {
        let mut public = pieces.pieces[0];
        let mut sum = 0u64;
        for (j, q) in steps.iter().enumerate() {
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
