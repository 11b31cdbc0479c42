//! ReLU and selection without a round: comparison keys on the wire's own mask (Boyle et al. 2021, Gupta et al. 2023).
//!
//! Let D = (delta >> lo) mod 2^k, public, and Lambda likewise of lambda; D1, Lambda1 their top bits, D0, Lambda0 the rest.
//! Then [z >= 0] = 1 xor D1 xor t with t = Lambda1 xor [D0 < Lambda0]. A key with the payload (1 - 2 Lambda1) * v gives
//! shares of t * v once those of Lambda1 * v, dealt, are added. For v = (1, tau, top), with shares of tau and top as for a
//! truncation, b * (z >> f) is a public combination of them: b = t if D1 = 1, else 1 - t. Without truncation v = (1, lambda).

use rayon::prelude::*;
use trefoil_prg::Purpose;
use trefoil_ring::Words;

use super::dcf::{self, Group, KEYS, Keys, Shape};
use super::dealing::{At, Dealing};
use super::layout::chunks;
use super::online::Role;
use super::truncate::public_terms;
use crate::error::MpcError;
use crate::program::Window;

/// Material of a selection by keys.
#[derive(Default)]
pub(crate) struct KeyedMaterial {
    keys: Keys,
    /// Shares of Lambda1 and of its products with tau and top, or with lambda.
    half: Words,
    half_value: Words,
    half_top: Words,
    /// f > 0: shares of tau and top. f = 0: this party's lambda.
    value: Words,
    top: Words,
}

impl KeyedMaterial {
    pub(crate) fn words(&self) -> usize {
        let words = [&self.half, &self.half_value, &self.half_top, &self.value, &self.top];
        self.keys.words() + words.iter().map(|w| w.len()).sum::<usize>()
    }
}

fn shape(f: u32, window: Window) -> Shape {
    Shape { bits: window.k - 1, group: Group::Wide(f) }
}

/// Lambda1 and Lambda0, or D1 and D0.
fn split(window: Window, wire: u64) -> (u64, u64) {
    let low = wire >> window.lo;
    (low >> (window.k - 1) & 1, low & ((1 << (window.k - 1)) - 1))
}

/// Deals ReLU with truncation by `f` bits of `n` wires under masks `lambda`.
pub(crate) fn deal_keyed<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    f: u32,
    window: Window,
    lambda: &[u64],
) -> Result<KeyedMaterial, MpcError> {
    let shape = shape(f, window);
    let mut roots = dcf::open_keys(d, at)?;
    let mut halves = d.open_shares(at, Purpose::Half)?;
    let mut products = d.open_shares(at, if f == 0 { Purpose::HalfLambda } else { Purpose::HalfTau })?;
    let mut m = KeyedMaterial {
        keys: dcf::room::<D>(n, shape),
        half: D::room(n),
        half_value: D::room(n),
        ..Default::default()
    };
    let mut truncated = None;
    if f > 0 {
        (m.half_top, m.value, m.top) = (D::room(n), D::room(n), D::room(n));
        truncated = Some([
            d.open_shares(at, Purpose::HalfTop)?,
            d.open_shares(at, Purpose::Tau)?,
            d.open_shares(at, Purpose::Top)?,
        ]);
    } else if D::KEEPS {
        m.value.extend(lambda);
    }
    let half = |i: usize| split(window, lambda[i]).0;
    for (start, len, _) in chunks(n) {
        let fill = |out: &mut [u64], value: &dyn Fn(usize) -> u64| {
            out.iter_mut().enumerate().for_each(|(i, o)| *o = value(start + i));
        };
        d.deal(&mut halves, len, 64, &mut m.half, |out| fill(out, &half))?;
        d.deal(&mut products, len, 64, &mut m.half_value, |out| fill(out, &|i| half(i) * (lambda[i] >> f)))?;
        if let Some([half_tops, taus, tops]) = &mut truncated {
            d.deal(half_tops, len, f, &mut m.half_top, |out| fill(out, &|i| half(i) & (lambda[i] >> 63)))?;
            d.deal(taus, len, 64, &mut m.value, |out| fill(out, &|i| lambda[i] >> f))?;
            d.deal(tops, len, f, &mut m.top, |out| fill(out, &|i| lambda[i] >> 63))?;
        }
        dcf::deal_keys(d, &mut roots, len, shape, &mut m.keys, |i| {
            let wire = lambda[start + i];
            let (top, rest) = split(window, wire);
            let sign = 1u64.wrapping_sub(2 * top);
            (rest, [1, wire >> f, wire >> 63].map(|v| sign.wrapping_mul(v)))
        })?;
    }
    Ok(m)
}

/// This evaluator's additive share of [z >= 0] * (z >> f) for every wire: no message.
pub(crate) fn keyed(role: Role, f: u32, window: Window, delta: &[u64], m: &KeyedMaterial) -> Words {
    let mut out = Words::zeros(delta.len());
    let point = |i: usize| split(window, delta[i]).1;
    let pieces = out.par_chunks_mut(KEYS);
    dcf::evaluate(role, &m.keys, delta.len(), shape(f, window), point, pieces, |start, values, out| {
        for ((i, v), out) in (start..).zip(values).zip(out) {
            let t = v[0].wrapping_add(m.half[i]);
            let t_value = v[1].wrapping_add(m.half_value[i]);
            let (public, wrap, t_wrap) = if f == 0 {
                (delta[i], 0, 0)
            } else {
                let (public, no_top) = public_terms(delta[i], f);
                let wrap = |top: u64| no_top & (top << (64 - f));
                (public, wrap(m.top[i]), wrap(v[2].wrapping_add(m.half_top[i])))
            };
            let selected = public.wrapping_mul(t).wrapping_sub(t_value).wrapping_add(t_wrap);
            let whole = role.public(public).wrapping_sub(m.value[i]).wrapping_add(wrap);
            let (top, _) = split(window, delta[i]);
            *out = if top == 1 { selected } else { whole.wrapping_sub(selected) };
        }
    });
    out
}
