//! Sigmoid, tanh and their relatives: fitted piecewise polynomials, the same that training uses.
//!
//! The argument is brought to [`ARGUMENT_BITS`] fraction bits, all knots are compared at once, and the result has as many
//! fraction bits as a value within -1 and 1 may have; the product behind it truncates.

use trefoil_mpc::program::{Op, Window};
use trefoil_mpc::{Compare, Selecting};

use super::CompileError;
use super::layers::{Lowering, fault};
use super::wires::WireId;
use crate::fit::{ARGUMENT_BITS, Fit, FitError};

/// A difference of an argument and a knot reads so many bits more than the argument's: knots lie within -16 and 16.
const KNOT_BITS: u32 = 6;
/// Most fraction bits of an argument whose knots a fit can place.
const MOST_ARGUMENT: u32 = 24;
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

/// ln(1 + e^x), and the others that grow like x: 1.3e-4 by the fit, 2^-13 times a slope of 1.13 by the argument's rounding.
pub(super) const SOFTPLUS: Fitted = Fitted { name: "softplus", fit: crate::fit::softplus, error: 3e-4 };
/// x where x >= 0, e^x - 1 elsewhere.
pub(super) const ELU: Fitted = Fitted { name: "elu", fit: crate::fit::elu, error: 3e-4 };
/// x / (1 + e^-x).
pub(super) const SILU: Fitted = Fitted { name: "silu", fit: crate::fit::silu, error: 3e-4 };
/// x times the standard normal distribution function.
pub(super) const GELU: Fitted = Fitted { name: "gelu", fit: crate::fit::gelu, error: 3e-4 };

impl Lowering {
    /// The function of a value.
    pub(super) fn fitted(&mut self, layer: &str, wire: WireId, of: &Fitted) -> Result<WireId, CompileError> {
        let fit = (of.fit)(ARGUMENT_BITS).map_err(|e| fault(layer, e.to_string()))?;
        let (pieces, degree) = (fit.pieces.len(), fit.pieces[0].len() - 1);
        self.notes.push(format!(
            "{layer}: {} by a polynomial in {pieces} pieces of degree {degree}, at most {:.0e} off",
            of.name, of.error
        ));
        Ok(self.piecewise(layer, wire, fit))
    }

    /// Straight pieces: nothing is approximated, and the argument keeps its fraction bits, up to [`MOST_ARGUMENT`].
    pub(super) fn hard_sigmoid(&mut self, layer: &str, wire: WireId, slope: f64) -> Result<WireId, CompileError> {
        let fit = crate::fit::hard_sigmoid(slope, self.options.fraction_bits.min(MOST_ARGUMENT));
        let fit = fit.map_err(|e| fault(layer, e.to_string()))?;
        Ok(self.piecewise(layer, wire, fit))
    }

    /// x where x >= 0, `alpha` (e^x - 1) elsewhere: alpha elu(x) + (1 - alpha) relu(x).
    pub(super) fn elu(&mut self, layer: &str, wire: WireId, alpha: f64) -> Result<WireId, CompileError> {
        let y = self.fitted(layer, wire, &ELU)?;
        if alpha == 1.0 {
            return Ok(y);
        }
        let wire = self.without_gain(wire);
        let wire = self.comparable(wire);
        let positive = self.relu(layer, wire);
        let y = self.wires.truncated(y);
        Ok(self.mixed(layer, (y, alpha), positive))
    }

    fn piecewise(&mut self, layer: &str, wire: WireId, fit: Fit) -> WireId {
        let Fit { x_scale, knots, pieces, scale } = fit;
        let x = self.without_gain(wire);
        let x = self.wires.at_most(x, x_scale);
        let x = self.wires.raised(x, x_scale);
        let x = self.wires.masked(x);
        // As wide as any comparison's, and a bit for the difference.
        let k = (self.options.window_bits + x_scale + 1).saturating_sub(self.options.fraction_bits);
        let window = Window { lo: 0, k: k.clamp(x_scale + KNOT_BITS, WIDEST) };
        let op = Op::Piecewise {
            x,
            knots,
            pieces,
            scale,
            window,
            compare: Compare::default(),
            select: Selecting::default(),
        };
        self.wires.emit(layer, op, scale, 1.0)
    }

    /// The value at a scale at which it can be compared, added and joined with others.
    pub(super) fn comparable(&mut self, wire: WireId) -> WireId {
        if self.wires.scale(wire) > self.options.largest_scale() { self.wires.truncated(wire) } else { wire }
    }
}
