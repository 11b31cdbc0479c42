//! Public factors, and operands brought to one scale.

use super::wires::{Local, WireId, Wires};
use trefoil_mpc::program::Rows;

use super::{MEMORY_BITS, PARAMETER_BITS, RATE_BITS};

/// The largest scale that a product with a constant near one may have.
const LARGEST: u32 = 50;
/// The largest scale of a sum with a row per sample.
const LARGEST_OF_ROWS: u32 = 46;
/// Fewest fraction bits of a constant that is no power of two.
const FEWEST: u32 = 8;

impl Wires {
    /// The wires at the largest of their scales, but that of a parameter where the result has a row per sample: there
    /// the few numbers of a bias are truncated, not the many they are added to.
    pub(super) fn level(&mut self, xs: &[WireId], rows: Rows) -> Vec<WireId> {
        let scales = || xs.iter().map(|x| self.scale(*x));
        let most = if rows == Rows::Each { LARGEST_OF_ROWS } else { PARAMETER_BITS };
        let scale = scales().filter(|s| *s <= most).max().unwrap_or(most);
        xs.iter().map(|x| self.at(*x, scale)).collect()
    }

    /// A wire times a public constant.
    pub(super) fn times(&mut self, x: WireId, factor: f64) -> Result<WireId, String> {
        if !factor.is_finite() || factor.abs() >= 31f64.exp2() {
            return Err(format!("the factor {factor} must be below 2^31"));
        }
        // A small factor leaves as many integer bits free as it has leading zeros.
        let room = LARGEST + (-factor.abs().max(1e-9).log2()).floor().max(0.0) as u32;
        let wanted = factor_bits(factor);
        let least = wanted.min(FEWEST + room - LARGEST);
        let x = if least > 0 && self.scale(x) + least > room.min(60) { self.at_most(x, self.fraction_bits) } else { x };
        let extra = wanted.min(room.min(60).saturating_sub(self.scale(x)));
        let units = (factor * f64::from(extra).exp2()).round() as i64;
        let dims = self.dims(x).clone();
        Ok(if units == 1 && extra == 0 { x } else { self.local(Local::Scale(units, extra), vec![x], dims) })
    }

    /// A wire times a public number of the step.
    pub(super) fn rated(&mut self, x: WireId, rate: usize) -> WireId {
        let x = self.at_most(x, MEMORY_BITS);
        let dims = self.dims(x).clone();
        self.local(Local::Rate(rate, RATE_BITS), vec![x], dims)
    }
}

/// Fraction bits that hold a constant exactly, or it and its distance from one to a thousandth.
fn factor_bits(factor: f64) -> u32 {
    const MOST: u32 = 34;
    let distance = (1.0 - factor.abs()).abs();
    let fine = if distance > 0.0 { factor.abs().min(distance) } else { factor.abs() } / 1024.0;
    let error = |bits: u32| {
        let one = f64::from(bits).exp2();
        ((factor * one).round() / one - factor).abs()
    };
    (0..MOST).find(|bits| error(*bits) <= fine).unwrap_or(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_get_the_bits_they_need() {
        assert_eq!([0.0, 1.0, -1.0, 2.0, 0.25, -0.5, 1.25].map(factor_bits), [0, 0, 0, 0, 2, 1, 2]);
        for c in [0.9, 0.999, 0.001, 1.0 / 1152.0, 1e-4, 1.0 / 0.7] {
            let one = f64::from(factor_bits(c)).exp2();
            let c2 = (c * one).round() / one;
            assert!((c - c2).abs() <= c.min((1.0 - c).abs()) / 1000.0, "{c} became {c2}");
        }
    }
}
