//! Bounds of every value of a program, in units of its scale: intervals for a proof, points for a sample.
//!
//! Intervals hold for every input of the declared range and for every rounding that the protocol may do: a
//! truncation is off by one unit at most, a maximum by the bits below its window. Linear maps take midpoint and
//! radius, |W| times the radius being the exact worst case of one layer; the radius also covers what `f64` rounds.
//! Points follow the real numbers, so that a sample shows where the ring would wrap.

use trefoil_mpc::program::{Bilinear, Linear, Op, Program, ValueId, ValueInfo, Window};
use trefoil_ring::Tensor;
use trefoil_ring::geometry::Pool2d;

use super::functions::Piecewise;
use crate::kernels;

/// Lowest and highest value of each element.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    low: Vec<f64>,
    high: Vec<f64>,
}

impl Bounds {
    pub(super) fn point(x: Vec<f64>) -> Self {
        Self { low: x.clone(), high: x }
    }

    pub(super) fn new(low: Vec<f64>, high: Vec<f64>) -> Self {
        Self { low, high }
    }

    fn map(&self, low: impl Fn(f64) -> f64, high: impl Fn(f64) -> f64) -> Self {
        Self { low: self.low.iter().map(|&v| low(v)).collect(), high: self.high.iter().map(|&v| high(v)).collect() }
    }

    fn both(&self, f: impl Fn(&[f64]) -> Vec<f64>) -> Self {
        Self { low: f(&self.low), high: f(&self.high) }
    }

    /// The lowest and the highest of all elements.
    fn span(&self) -> (f64, f64) {
        (self.low.iter().copied().fold(f64::INFINITY, f64::min), self.high.iter().copied().fold(f64::MIN, f64::max))
    }
}

/// What a step demands of a value, and what the value is: all in units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Demand {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) limit_low: f64,
    pub(super) limit_high: f64,
}

impl Demand {
    /// What truncation, products and openings need: |z| < 2^62.
    fn ring(span: (f64, f64)) -> Self {
        let limit = 62f64.exp2() - 1024.0;
        Self { low: span.0, high: span.1, limit_low: -limit, limit_high: limit }
    }

    /// What a comparison needs: -2^(lo+k-1) <= z < 2^(lo+k-1) - 2^lo.
    fn window(span: (f64, f64), w: Window) -> Self {
        let (top, unit) = (f64::from(w.lo + w.k - 1).exp2(), f64::from(w.lo).exp2());
        Self { low: span.0, high: span.1, limit_low: -top, limit_high: top - unit.max(top * f64::EPSILON) }
    }

    /// Whether the value stays within the limits, `margin` times over.
    pub(super) fn holds(&self, margin: f64) -> bool {
        self.low * margin >= self.limit_low && self.high * margin <= self.limit_high
    }

    /// The larger of two ranges under the same demand.
    pub(super) fn joined(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high), ..self }
    }
}

/// A program with its weights as numbers.
#[derive(Debug)]
pub(super) struct Evaluator<'a> {
    program: &'a Program,
    pub(super) info: &'a [ValueInfo],
    weights: Vec<Vec<f64>>,
    last_use: Vec<ValueId>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(program: &'a Program, info: &'a [ValueInfo], weights: &[Tensor]) -> Self {
        let weights = weights.iter().map(|t| t.data().iter().map(|&v| v as i64 as f64).collect()).collect();
        let mut last_use = vec![usize::MAX; program.steps.len()];
        for (i, step) in program.steps.iter().enumerate() {
            step.op.operands().into_iter().for_each(|id| last_use[id] = i);
            if let Some(clip) = Clip::at(program, i) {
                last_use[clip.of] = i;
            }
        }
        Self { program, info, weights, last_use }
    }

    /// The demand of every step that has one. `points`: the input is one sample, not an interval.
    pub(super) fn demands(&self, input: &Bounds, points: bool) -> Vec<Option<Demand>> {
        let n = self.program.steps.len();
        let mut values: Vec<Bounds> = Vec::with_capacity(n);
        let mut demands = Vec::with_capacity(n);
        for i in 0..n {
            let (value, demand) = self.step(i, &values, input, points);
            demands.push(demand);
            values.push(value);
            for (value, _) in values.iter_mut().zip(&self.last_use).filter(|(_, last)| **last == i) {
                *value = Bounds::new(Vec::new(), Vec::new());
            }
        }
        demands
    }

    fn step(&self, i: usize, values: &[Bounds], input: &Bounds, points: bool) -> (Bounds, Option<Demand>) {
        let v = |id: ValueId| &values[id];
        let out = || (self.info[i].shape[0], self.info[i].shape[1]);
        let slack = if points { 0.0 } else { 1.0 };
        match &self.program.steps[i].op {
            Op::Input => (input.clone(), None),
            Op::Open { x } => (v(*x).clone(), Some(Demand::ring(v(*x).span()))),
            Op::Linear { x, weights, bias, map } => {
                let y = self.linear(map, v(*x), &self.weights[*weights], bias.map(|b| &self.weights[b][..]), points);
                let span = y.span();
                (y, Some(Demand::ring(span)))
            }
            Op::Product { x, y, map: Bilinear::MatMul } => {
                let (inputs, outputs) = (self.info[*y].shape[0], self.info[*y].shape[1]);
                let product = |x: &[f64], y: &[f64]| kernels::dense(x, y, None, inputs, outputs);
                let z = if points {
                    Bounds::point(product(&v(*x).low, &v(*y).low))
                } else {
                    let size = |b: &Bounds| -> Vec<f64> {
                        b.low.iter().zip(&b.high).map(|(l, h)| l.abs().max(h.abs())).collect()
                    };
                    let most = product(&size(v(*x)), &size(v(*y)));
                    Bounds::new(most.iter().map(|m| -m).collect(), most)
                };
                let span = z.span();
                (z, Some(Demand::ring(span)))
            }
            // A value times itself: of two towers, the squares of a distance.
            Op::Product { x, y, map: Bilinear::Elementwise } if x == y => {
                let size = |l: f64, h: f64| l.abs().max(h.abs());
                let least = |l: f64, h: f64| if l <= 0.0 && h >= 0.0 { 0.0 } else { l.abs().min(h.abs()) };
                let of = |f: &dyn Fn(f64, f64) -> f64| {
                    v(*x).low.iter().zip(&v(*x).high).map(|(l, h)| f(*l, *h).powi(2)).collect()
                };
                let z = Bounds::new(of(&least), of(&size));
                let span = z.span();
                (z, Some(Demand::ring(span)))
            }
            Op::Sum { x, keep: 0, batch: false } => (v(*x).both(|x| vec![x.iter().sum()]), None),
            Op::Piecewise { x, knots, pieces, window, .. } => {
                let p = Piecewise::new(knots, pieces);
                let spans: Vec<(f64, f64)> = v(*x).low.iter().zip(&v(*x).high).map(|(l, h)| p.span(*l, *h)).collect();
                let y = Bounds::new(spans.iter().map(|s| s.0).collect(), spans.iter().map(|s| s.1).collect());
                (y, Some(Demand::window(p.compared(v(*x).span()), *window)))
            }
            Op::Slice { x, axis, start, len } => {
                let shape = &self.info[*x].shape;
                let inner: usize = shape[axis + 1..].iter().product();
                let cut = |x: &[f64]| {
                    x.chunks(shape[*axis] * inner)
                        .flat_map(|x| x[start * inner..(start + len) * inner].to_vec())
                        .collect()
                };
                (v(*x).both(cut), None)
            }
            Op::Truncate { x, shift } => (shifted(v(*x), *shift, slack), None),
            Op::Relu { x, shift, window, .. } => {
                let y = shifted(v(*x), *shift, slack).map(|l| l.max(-slack), |h| h.max(0.0));
                (y, Some(Demand::window(v(*x).span(), *window)))
            }
            Op::MaxPool { x, pool, window, .. } => {
                let x = v(*x);
                let y = x.both(|x| kernels::max_pool(pool, x, out()));
                let lowest = least(pool, &x.low, out());
                let spread = y.high.iter().zip(&lowest).map(|(h, l)| h - l).fold(0.0, f64::max);
                let rounds = (pool.window.0 * pool.window.1).next_power_of_two().trailing_zeros();
                let lost = slack * f64::from(rounds) * f64::from(window.lo).exp2();
                (y.map(|l| l - lost, |h| h), Some(Demand::window((-spread, spread), *window)))
            }
            Op::AveragePool { x, pool, extra } => {
                let factor = f64::from(*extra).exp2();
                let average = |x: &[f64]| {
                    kernels::pool(pool, x, out(), 0.0, |a, b| a + b, |sum, n| sum * (factor / n as f64).round())
                };
                (v(*x).both(average), None)
            }
            Op::Scale { x, factor, .. } => {
                let f = *factor as f64;
                let y = v(*x).both(|x| x.iter().map(|v| v * f).collect());
                (if f < 0.0 { Bounds::new(y.high, y.low) } else { y }, None)
            }
            Op::Offset { x, units } => (v(*x).map(|l| l + *units as f64, |h| h + *units as f64), None),
            Op::Add { x, y } => match Clip::at(self.program, i) {
                Some(clip) if !points => (clip.bounds(v(clip.of)), None),
                _ => {
                    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
                    (Bounds::new(sum(&v(*x).low, &v(*y).low), sum(&v(*x).high, &v(*y).high)), None)
                }
            },
            Op::Concat { xs, axis } => {
                let outer = self.info[i].shape[..*axis].iter().product();
                let inner = |id: ValueId| self.info[id].shape[*axis..].iter().product();
                let join = |side: fn(&Bounds) -> &[f64]| {
                    let parts: Vec<(&[f64], usize)> = xs.iter().map(|&id| (side(v(id)), inner(id))).collect();
                    kernels::concat(&parts, outer)
                };
                (Bounds::new(join(|b| &b.low), join(|b| &b.high)), None)
            }
            Op::Reshape { x, .. } => (v(*x).clone(), None),
            Op::Pad { x, pads } => {
                let s = &self.info[*x].shape;
                (v(*x).both(|x| kernels::zero_pad(x, (s[0], s[1], s[2]), *pads)), None)
            }
            Op::Argmax { x, window, .. } => {
                let (low, high) = v(*x).span();
                let empty = Bounds::new(Vec::new(), Vec::new());
                (empty, Some(Demand::window((low - high, high - low), *window)))
            }
            Op::Reveal { x, .. } => {
                let demand = (!v(*x).low.is_empty()).then(|| Demand::ring(v(*x).span()));
                (v(*x).clone(), demand)
            }
            // What no layer of a prediction compiles to has no bounds here: nothing is proved of it, nor fits.
            _ => {
                let n = self.info[i].elements();
                let unknown = Bounds::new(vec![f64::NEG_INFINITY; n], vec![f64::INFINITY; n]);
                let span = unknown.span();
                (unknown, Some(Demand::ring(span)))
            }
        }
    }

    fn linear(&self, map: &Linear, x: &Bounds, w: &[f64], bias: Option<&[f64]>, points: bool) -> Bounds {
        let apply = |x: &[f64], w: &[f64], bias: Option<&[f64]>| match map {
            Linear::Dense { inputs, outputs } => kernels::dense(x, w, bias, *inputs, *outputs),
            Linear::Conv(g) => {
                let out = g.output().unwrap_or_default();
                kernels::conv2d(g, x, w, bias, out)
            }
        };
        if points {
            return Bounds::point(apply(&x.low, w, bias));
        }
        let terms = (w.len() / map.outputs()) as f64 + 4.0;
        let middle: Vec<f64> = x.low.iter().zip(&x.high).map(|(l, h)| l + (h - l) / 2.0).collect();
        let rounding = terms * f64::EPSILON;
        let radius: Vec<f64> =
            x.low.iter().zip(&x.high).map(|(l, h)| (h - l) / 2.0 + rounding * l.abs().max(h.abs())).collect();
        let magnitudes: Vec<f64> = w.iter().map(|w| w.abs()).collect();
        let offset: Option<Vec<f64>> = bias.map(|b| b.iter().map(|b| rounding * b.abs()).collect());
        let middle = apply(&middle, w, bias);
        let radius = apply(&radius, &magnitudes, offset.as_deref());
        let grown = |m: &f64, r: &f64| r * (1.0 + rounding) + rounding * m.abs();
        let edge = |sign: f64| middle.iter().zip(&radius).map(|(m, r)| m + sign * grown(m, r)).collect();
        Bounds::new(edge(-1.0), edge(1.0))
    }
}

/// The smallest element of each window.
fn least(pool: &Pool2d, x: &[f64], out: (usize, usize)) -> Vec<f64> {
    kernels::pool(pool, x, out, f64::INFINITY, f64::min, |v, _| v)
}

/// z >> shift, up to one unit more where a rounding may do that.
fn shifted(x: &Bounds, shift: u32, slack: f64) -> Bounds {
    let unit = f64::from(shift).exp2();
    let slack = if shift == 0 { 0.0 } else { slack };
    x.map(|l| (l / unit).floor(), |h| (h / unit).floor() + slack)
}

/// relu(x) - relu(x - c) in a program: bounded by c, which intervals of the two terms would not show.
#[derive(Debug)]
struct Clip {
    of: ValueId,
    ceiling: f64,
    shift: u32,
}

impl Clip {
    fn at(program: &Program, i: ValueId) -> Option<Self> {
        let op = |id: ValueId| &program.steps[id].op;
        let Op::Add { x, y } = op(i) else { return None };
        let Op::Relu { x: of, shift, .. } = op(*x) else { return None };
        let Op::Scale { x: above, factor: -1, extra: 0 } = op(*y) else { return None };
        let Op::Relu { x: lowered, shift: same, .. } = op(*above) else { return None };
        let Op::Offset { x: also, units } = op(*lowered) else { return None };
        let fits = of == also && shift == same && *units < 0;
        fits.then(|| Self { of: *of, ceiling: -(*units as f64), shift: *shift })
    }

    /// Both terms are off by one unit at most.
    fn bounds(&self, x: &Bounds) -> Bounds {
        let unit = f64::from(self.shift).exp2();
        let clipped = |v: f64| (v.clamp(0.0, self.ceiling) / unit).floor();
        x.map(|l| clipped(l) - 2.0, |h| clipped(h) + 2.0)
    }
}
