//! ReLU, fused with truncation: selection of a masked wire by a masked bit.
//!
//! With the sign as masked bit, b = bhat + (1 - 2 bhat) beta, and z >> f a sum of dealt and public terms (see
//! `truncate`), b * (z >> f) is a public combination of the dealt beta, tau, top, beta*tau and beta*top: local.
//! 3 * 64 + 2 f bits dealt beside the comparison. Without truncation (f = 0) beta and beta*lambda are dealt: 128 bits.

use std::sync::Arc;

use trefoil_prg::Purpose;
use trefoil_ring::Words;

use super::compare::{CompareMaterial, compare, deal_compare};
use super::dealing::{At, Dealing};
use super::keyed::{KeyedMaterial, deal_keyed, keyed};
use super::layout::{Layout, chunks};
use super::local::bit;
use super::online::{Online, Role};
use super::truncate::public_terms;
use crate::error::MpcError;

/// Material of a selection b * x or b * (x >> f).
#[derive(Default)]
pub(crate) struct SelectMaterial {
    beta: Words,
    /// f = 0 only: this party's lambda, which belongs to the wire.
    lambda: Arc<Words>,
    /// f > 0 only: shares of tau.
    value: Words,
    /// Shares of beta*tau; of beta*lambda where f = 0.
    beta_value: Words,
    /// f > 0 only: shares of top and beta*top.
    top: Words,
    beta_top: Words,
}

/// Material of a selection by the sign of the wire itself.
pub(crate) enum ReluMaterial {
    /// The sign as masked bit, and the selection by it.
    Tree(CompareMaterial, SelectMaterial),
    /// Comparison keys that select at once.
    Keys(KeyedMaterial),
}

impl SelectMaterial {
    pub(crate) fn words(&self) -> usize {
        [&self.beta, &*self.lambda, &self.value, &self.beta_value, &self.top, &self.beta_top]
            .iter()
            .map(|w| w.len())
            .sum()
    }
}

impl ReluMaterial {
    pub(crate) fn words(&self) -> usize {
        match self {
            ReluMaterial::Tree(compare, select) => compare.words() + select.words(),
            ReluMaterial::Keys(keys) => keys.words(),
        }
    }
}

/// Deals the selection of `n` wires under masks `lambda` by bits masked with `beta` (one plane, whole at the producer).
pub(crate) fn deal_select<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    f: u32,
    lambda: &Arc<Words>,
    beta: &[u64],
) -> Result<SelectMaterial, MpcError> {
    let mut betas = d.open_shares(at, Purpose::Beta)?;
    let mut m = SelectMaterial { beta: D::room(n), beta_value: D::room(n), ..Default::default() };
    if f == 0 {
        let mut products = d.open_shares(at, Purpose::BetaLambda)?;
        for (start, len, _) in chunks(n) {
            d.deal(&mut betas, len, 64, &mut m.beta, |out| fill(out, start, |i| bit(beta, i)))?;
            let product = |i: usize| lambda[i] & bit(beta, i).wrapping_neg();
            d.deal(&mut products, len, 64, &mut m.beta_value, |out| fill(out, start, product))?;
        }
        m.lambda = lambda.clone();
        return Ok(m);
    }
    (m.value, m.top, m.beta_top) = (D::room(n), D::room(n), D::room(n));
    let mut taus = d.open_shares(at, Purpose::Tau)?;
    let mut beta_taus = d.open_shares(at, Purpose::BetaTau)?;
    let mut tops = d.open_shares(at, Purpose::Top)?;
    let mut beta_tops = d.open_shares(at, Purpose::BetaTop)?;
    for (start, len, _) in chunks(n) {
        d.deal(&mut betas, len, 64, &mut m.beta, |out| fill(out, start, |i| bit(beta, i)))?;
        d.deal(&mut taus, len, 64, &mut m.value, |out| fill(out, start, |i| lambda[i] >> f))?;
        let beta_tau = |i: usize| (lambda[i] >> f) & bit(beta, i).wrapping_neg();
        d.deal(&mut beta_taus, len, 64, &mut m.beta_value, |out| fill(out, start, beta_tau))?;
        d.deal(&mut tops, len, f, &mut m.top, |out| fill(out, start, |i| lambda[i] >> 63))?;
        let beta_top = |i: usize| (lambda[i] >> 63) & bit(beta, i);
        d.deal(&mut beta_tops, len, f, &mut m.beta_top, |out| fill(out, start, beta_top))?;
    }
    Ok(m)
}

fn fill(out: &mut [u64], start: usize, value: impl Fn(usize) -> u64) {
    out.iter_mut().enumerate().for_each(|(i, o)| *o = value(start + i));
}

/// This evaluator's additive share of b * (x >> f), from the public bits `bhat` and the wires' deltas.
pub(crate) fn select(role: Role, f: u32, delta: &[u64], bhat: &[u64], m: SelectMaterial) -> Words {
    let SelectMaterial { beta: mut out, lambda, value, beta_value, top, beta_top } = m;
    let value = if f == 0 { &lambda[..] } else { &value[..] };
    let wires = out.iter_mut().zip(delta).zip(value.iter().zip(beta_value.iter())).enumerate();
    // All ones where the public bit is one.
    let chosen = |i: usize| bit(bhat, i).wrapping_neg();
    if f == 0 {
        for (i, ((o, d), (l, bl))) in wires {
            let b = chosen(i);
            let x = role.public(*d).wrapping_sub(*l) & b;
            *o = x.wrapping_add(negated(d.wrapping_mul(*o).wrapping_sub(*bl), b));
        }
        return out;
    }
    for ((i, ((o, d), (tau, beta_tau))), (top, beta_top)) in wires.zip(top.iter().zip(beta_top.iter())) {
        let (public, no_top) = public_terms(*d, f);
        let wrap = |top: u64| no_top & (top << (64 - f));
        let b = chosen(i);
        let x = role.public(public).wrapping_sub(*tau).wrapping_add(wrap(*top)) & b;
        let y = public.wrapping_mul(*o).wrapping_sub(*beta_tau).wrapping_add(wrap(*beta_top));
        *o = x.wrapping_add(negated(y, b));
    }
    out
}

/// `-y` where `b` is all ones, `y` where it is zero.
fn negated(y: u64, b: u64) -> u64 {
    (y ^ b).wrapping_sub(b)
}

/// Deals ReLU with truncation by `f` bits of `n` wires.
pub(crate) fn deal_relu<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    f: u32,
    layout: &Layout,
    lambda: &Arc<Words>,
) -> Result<ReluMaterial, MpcError> {
    if layout.keys {
        return Ok(ReluMaterial::Keys(deal_keyed(d, at, n, f, layout.window, lambda)?));
    }
    let compare = deal_compare(d, at, n, layout, |start, out| out.copy_from_slice(&lambda[start..start + out.len()]))?;
    let select = deal_select(d, at, n, f, lambda, &compare.sign)?;
    Ok(ReluMaterial::Tree(compare, select))
}

/// max(z, 0) >> f as additive shares: the comparison's rounds (by keys: none), then local.
pub(crate) fn relu(
    net: &mut Online<'_>,
    f: u32,
    layout: &Layout,
    delta: &[u64],
    m: ReluMaterial,
) -> Result<Words, MpcError> {
    match m {
        ReluMaterial::Keys(m) => Ok(keyed(net.role, f, layout.window, delta, &m)),
        ReluMaterial::Tree(material, selection) => {
            let bhat = compare(net, delta.len(), layout, &material, |start, out| {
                out.copy_from_slice(&delta[start..start + out.len()]);
            })?;
            Ok(select(net.role, f, delta, &bhat, selection))
        }
    }
}
