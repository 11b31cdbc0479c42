//! The widest pieces that meet a tolerance, with coefficients rounded to what the ring can hold.

use std::f64::consts::PI;

use super::{Fit, FitError, Target};

/// Most pieces: an operation has at most 64 knots.
pub(super) const MOST: usize = 65;
/// Where the error of a piece is measured.
const SAMPLES: i64 = 48;
/// How often the tolerance is halved in search of the smallest that needs no further piece.
const REFINEMENTS: usize = 12;

/// The approximation by polynomials of this degree; none if the scales or the number of pieces do not allow it.
pub(super) fn fit(target: &Target, degree: usize) -> Result<Option<Fit>, FitError> {
    let Target { from, to, x_scale, scale, .. } = *target;
    let one = f64::from(x_scale).exp2();
    let (first, last) = ((from * one).round(), (to * one).round());
    let largest = 31f64.exp2();
    if !(first < last && first.abs() < largest && last.abs() < largest) {
        return Err(FitError::Range { from, to, x_scale });
    }
    if x_scale * degree as u32 > scale {
        return Ok(None);
    }
    let cover = |tolerance: f64| cover(target, degree, first as i64, last as i64, tolerance);
    let Some(mut best) = cover(target.tolerance) else { return Ok(None) };
    // As many pieces as are needed, all of them as good as that number allows.
    let (mut low, mut high) = (0.0, target.tolerance);
    for _ in 0..REFINEMENTS {
        let middle = (low + high) / 2.0;
        match cover(middle).filter(|c| c.len() == best.len()) {
            Some(better) => (best, high) = (better, middle),
            None => low = middle,
        }
    }
    let line = |[c0, c1]: [f64; 2]| {
        let mut line = vec![0; degree + 1];
        line[0] = rounded(c0, scale);
        line[1] = rounded(c1, scale - x_scale);
        line
    };
    let mut pieces = Vec::new();
    let mut knots: Vec<i64> = best.iter().map(|(start, _)| *start).collect();
    match target.below {
        Some(below) => pieces.push(line(below)),
        None => drop(knots.remove(0)),
    }
    pieces.extend(best.into_iter().map(|(_, coefficients)| coefficients));
    if let Some(above) = target.above {
        pieces.push(line(above));
        knots.push(last as i64);
    }
    Ok(Some(Fit { x_scale, scale, knots, pieces }))
}

/// Starts and coefficients of the pieces from `first` to `last`, each as wide as may be.
fn cover(target: &Target, degree: usize, first: i64, last: i64, tolerance: f64) -> Option<Vec<(i64, Vec<i64>)>> {
    let mut pieces = Vec::new();
    let mut start = first;
    while start < last {
        let good = |end: i64| {
            let piece = polynomial(target, degree, start, end);
            (error(target, &piece, start, end) <= tolerance).then_some(piece)
        };
        let (mut end, mut best) = (start + 1, good(start + 1)?);
        if let Some(whole) = good(last) {
            (end, best) = (last, whole);
        }
        let mut bad = last + 1;
        while end < last && bad - end > 1 {
            let middle = end + (bad - end) / 2;
            match good(middle.min(last)) {
                Some(piece) => (end, best) = (middle, piece),
                None => bad = middle,
            }
        }
        pieces.push((start, best));
        if pieces.len() == MOST - 1 && end < last {
            return None;
        }
        start = end;
    }
    Some(pieces)
}

/// The coefficients on `start ..= end`, rounded from the highest power down.
fn polynomial(target: &Target, degree: usize, start: i64, end: i64) -> Vec<i64> {
    let unit = (-f64::from(target.x_scale)).exp2();
    let (a, b) = (start as f64 * unit, end as f64 * unit);
    let mut coefficients = vec![0; degree + 1];
    let mut real = vec![0.0; degree + 1];
    for power in (0..=degree).rev() {
        let bits = target.scale - power as u32 * target.x_scale;
        let done = |x: f64| real.iter().rev().fold(0.0, |sum, c| sum * x + c);
        let top = leading(power, a, b, &|x| (target.function)(x) - done(x));
        coefficients[power] = rounded(top, bits);
        real[power] = coefficients[power] as f64 / f64::from(bits).exp2();
    }
    coefficients
}

/// The leading coefficient of the interpolant of this degree at the Chebyshev nodes of `a .. b`: a divided difference.
fn leading(degree: usize, a: f64, b: f64, f: &dyn Fn(f64) -> f64) -> f64 {
    let nodes: Vec<f64> = (0..=degree)
        .map(|i| (a + b) / 2.0 + (b - a) / 2.0 * ((2 * i + 1) as f64 * PI / (2 * degree + 2) as f64).cos())
        .collect();
    let mut values: Vec<f64> = nodes.iter().map(|x| f(*x)).collect();
    for order in 1..=degree {
        for i in 0..=degree - order {
            values[i] = (values[i + 1] - values[i]) / (nodes[i + order] - nodes[i]);
        }
    }
    values[0]
}

/// The largest error at samples of `start .. end`, as the ring computes.
fn error(target: &Target, piece: &[i64], start: i64, end: i64) -> f64 {
    let (unit, out) = ((-f64::from(target.x_scale)).exp2(), (-f64::from(target.scale)).exp2());
    let last = end - 1;
    (0..=SAMPLES)
        .map(|i| start + ((last - start) as i128 * i as i128 / SAMPLES as i128) as i64)
        .map(|x| {
            let value = piece.iter().rev().fold(0i64, |sum, c| sum.wrapping_mul(x).wrapping_add(*c));
            (value as f64 * out - (target.function)(x as f64 * unit)).abs()
        })
        .fold(0.0, f64::max)
}

/// A coefficient in units of `bits` fraction bits.
fn rounded(c: f64, bits: u32) -> i64 {
    (c * f64::from(bits).exp2()).round() as i64
}
