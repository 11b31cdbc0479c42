//! What a piecewise polynomial makes of an interval.

/// A piecewise polynomial with coefficients as numbers, all in units.
#[derive(Debug)]
pub(super) struct Piecewise<'a> {
    knots: &'a [i64],
    pieces: Vec<Vec<f64>>,
}

impl<'a> Piecewise<'a> {
    pub(super) fn new(knots: &'a [i64], pieces: &[Vec<i64>]) -> Self {
        let numbers = |p: &Vec<i64>| p.iter().map(|c| *c as f64).collect();
        Self { knots, pieces: pieces.iter().map(numbers).collect() }
    }

    /// The least and the largest value for arguments from `low` to `high`.
    pub(super) fn span(&self, low: f64, high: f64) -> (f64, f64) {
        let piece = |x: f64| self.knots.partition_point(|k| *k as f64 <= x);
        let mut span = (f64::INFINITY, f64::NEG_INFINITY);
        for i in piece(low)..=piece(high) {
            let from = if i == 0 { low } else { low.max(self.knots[i - 1] as f64) };
            let to = self.knots.get(i).map_or(high, |k| high.min(*k as f64));
            for x in [from, to].into_iter().chain(turns(&self.pieces[i]).filter(|x| (from..=to).contains(x))) {
                let (y, off) = value(&self.pieces[i], x);
                if y.is_nan() {
                    return (f64::NEG_INFINITY, f64::INFINITY);
                }
                span = (span.0.min(y - off), span.1.max(y + off));
            }
        }
        span
    }

    /// What arguments from `low` to `high` are compared by: from the least to the largest difference with a knot.
    pub(super) fn compared(&self, (low, high): (f64, f64)) -> (f64, f64) {
        let (first, last) = (self.knots.first().copied().unwrap_or(0), self.knots.last().copied().unwrap_or(0));
        ((low - last as f64).min(low), (high - first as f64).max(high))
    }
}

/// A polynomial's value, and how far rounding may have put it off. A constant has its value at infinity too.
fn value(p: &[f64], x: f64) -> (f64, f64) {
    let horner = |size: bool| {
        let of = |v: f64| if size { v.abs() } else { v };
        p.iter().rev().fold(0.0, |sum, c| if sum == 0.0 { of(*c) } else { sum * of(x) + of(*c) })
    };
    (horner(false), horner(true) * 8.0 * f64::EPSILON)
}

/// Where a polynomial of degree 3 at most may turn.
fn turns(p: &[f64]) -> impl Iterator<Item = f64> + use<> {
    let at = |i: usize| p.get(i).copied().unwrap_or(0.0);
    let (a, b, c) = (3.0 * at(3), 2.0 * at(2), at(1));
    let roots = if a == 0.0 {
        [-c / b, f64::NAN]
    } else {
        let root = (b * b - 4.0 * a * c).max(0.0).sqrt();
        [(-b - root) / (2.0 * a), (-b + root) / (2.0 * a)]
    };
    roots.into_iter().filter(|x| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit;

    #[test]
    fn spans_hold_what_arguments_reach_and_little_more() {
        for fit in [fit::sigmoid(13).unwrap(), fit::tanh(13).unwrap(), fit::softplus(13).unwrap()] {
            let p = Piecewise::new(&fit.knots, &fit.pieces);
            let one = f64::from(fit.scale).exp2();
            for (low, high) in [(-100_000, 100_000), (-7_000, 9_000), (3, 3), (12_345, 12_400), (-90_000, -89_000)] {
                let (least, most) = p.span(f64::from(low), f64::from(high));
                let values = (low..=high).map(|x| fit.at(x.into()) as f64);
                let reached = values.fold((f64::INFINITY, f64::NEG_INFINITY), |s, y| (s.0.min(y), s.1.max(y)));
                assert!(least <= reached.0 && reached.1 <= most, "{low}..{high}");
                assert!(reached.0 - least < 1e-3 * one && most - reached.1 < 1e-3 * one, "{low}..{high}");
            }
        }
    }

    #[test]
    fn an_argument_without_bounds_saturates() {
        let fit = fit::tanh(13).unwrap();
        let (least, most) = Piecewise::new(&fit.knots, &fit.pieces).span(f64::NEG_INFINITY, f64::INFINITY);
        let one = f64::from(fit.scale).exp2();
        assert!((least / one + 1.0).abs() < 1e-3 && (most / one - 1.0).abs() < 1e-3, "{least} to {most}");
        let soft = fit::softplus(13).unwrap();
        let most = Piecewise::new(&soft.knots, &soft.pieces).span(0.0, f64::INFINITY).1;
        assert_eq!(most, f64::INFINITY);
        assert_eq!(Piecewise::new(&[], &[vec![1, 1]]).span(f64::NAN, f64::NAN), (f64::NEG_INFINITY, f64::INFINITY));
    }

    #[test]
    fn polynomials_turn_where_their_slope_is_zero() {
        let sorted = |p: &[f64]| {
            let mut all: Vec<f64> = turns(p).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        assert_eq!(sorted(&[0.0, -3.0, 0.0, 1.0]), [-1.0, 1.0]);
        assert_eq!(sorted(&[5.0, -4.0, 1.0]), [2.0]);
        assert_eq!(sorted(&[5.0, 4.0]), [0.0; 0]);
    }
}
