//! Sigmoid and tanh of a value: fitted piecewise polynomials, the same that training uses.
//!
//! The argument is brought to [`ARGUMENT_BITS`] fraction bits, all knots are compared at once, and the result has as many
//! fraction bits as a value within -1 and 1 may have; the product behind it truncates.

use trefoil_mpc::Compare;
use trefoil_mpc::program::{Op, Window};

use super::CompileError;
use super::layers::{Lowering, fault};
use super::wires::WireId;
use crate::fit::{ARGUMENT_BITS, Fit, FitError};

/// A difference of an argument and a knot reads so many bits more than [`ARGUMENT_BITS`]: knots lie within -16 and 16.
const KNOT_BITS: u32 = 6;
/// The widest window.
const WIDEST: u32 = 64;

/// A function that is fitted.
pub(super) struct Fitted {
    /// Its name.
    name: &'static str,
    /// Its approximation for an argument of so many fraction bits.
    fit: fn(u32) -> Result<Fit, FitError>,
    /// How far the result may be from the function, roundings included.
    error: f64,
}

/// 1 / (1 + e^-x): 1.3e-4 by the fit, 2^-13 / 4 by the argument's rounding, a unit by the result's.
pub(super) const SIGMOID: Fitted = Fitted { name: "sigmoid", fit: crate::fit::sigmoid, error: 2e-4 };
/// tanh x: 1.3e-4 by the fit, 2^-13 by the argument's rounding, a unit by the result's.
pub(super) const TANH: Fitted = Fitted { name: "tanh", fit: crate::fit::tanh, error: 3e-4 };

impl Lowering {
    /// The function of a value.
    pub(super) fn fitted(&mut self, layer: &str, wire: WireId, of: &Fitted) -> Result<WireId, CompileError> {
        let fit = (of.fit)(ARGUMENT_BITS).map_err(|e| fault(layer, e.to_string()))?;
        let (pieces, degree) = (fit.pieces.len(), fit.pieces[0].len() - 1);
        self.notes.push(format!(
            "{layer}: {} by a polynomial in {pieces} pieces of degree {degree}, at most {:.0e} off",
            of.name, of.error
        ));
        let x = self.without_gain(wire);
        let x = self.wires.at_most(x, ARGUMENT_BITS);
        let x = self.wires.raised(x, ARGUMENT_BITS);
        let x = self.wires.masked(x);
        // As wide as any comparison's, and a bit for the difference.
        let k = (self.options.window_bits + ARGUMENT_BITS + 1).saturating_sub(self.options.fraction_bits);
        let window = Window { lo: 0, k: k.clamp(ARGUMENT_BITS + KNOT_BITS, WIDEST) };
        let Fit { knots, pieces, scale, .. } = fit;
        let op = Op::Piecewise { x, knots, pieces, scale, window, compare: Compare::default() };
        Ok(self.wires.emit(layer, op, scale, 1.0))
    }

    /// The value at a scale at which it can be compared, added and joined with others.
    pub(super) fn comparable(&mut self, wire: WireId) -> WireId {
        if self.wires.scale(wire) > self.options.largest_scale() { self.wires.truncated(wire) } else { wire }
    }
}
