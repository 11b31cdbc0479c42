//! Piecewise polynomials for the functions that have no exact protocol: knots and integer coefficients of
//! [`Op::Piecewise`], with their measured errors.
//!
//! Pieces are interpolated at Chebyshev nodes, each as wide as the tolerance allows. Coefficients are rounded from the
//! highest power down, and the lower powers fitted again to what each rounding left: in the ring the coefficient of
//! x^m has only `scale - m * x_scale` fraction bits, and what is lost there is won back below. Outside its range a
//! function goes on as a line (a constant, mostly), so that saturation is exact. All sums are modulo 2^64: only the
//! final value must stay below 2^62 at its scale.

mod functions;
mod pieces;

use thiserror::Error;
use trefoil_mpc::cost::cost;
use trefoil_mpc::program::{Op, Program, Step, Window};
use trefoil_mpc::{Compare, Selecting};

/// Elements for which approximations are compared.
const SAMPLE: usize = 1 << 12;

/// Fraction bits of the argument of a sigmoid or the like: fewer allow higher degrees, so fewer knots.
pub const ARGUMENT_BITS: u32 = 13;

pub use functions::{
    elu, exp, fine_inverse_sqrt, gelu, gelu_slope, hard_sigmoid, log, reciprocal, sigmoid, silu, softplus, tanh,
    unit_inverse_sqrt, unit_reciprocal,
};

/// A function that cannot be approximated as asked.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FitError {
    /// The range is empty, or an end of it is no number of the input's scale below 2^31.
    #[error("range {from} to {to} at {x_scale} fraction bits: must ascend and stay below 2^31 units")]
    Range {
        /// Lower end.
        from: f64,
        /// Upper end.
        to: f64,
        /// Fraction bits of the input.
        x_scale: u32,
    },
    /// No degree from 1 to 3 reaches the tolerance with as many pieces as an operation may have.
    #[error("a tolerance of {tolerance} cannot be met by {pieces} pieces of degree 1 to 3")]
    Tolerance {
        /// What was asked for.
        tolerance: f64,
        /// Most pieces there may be.
        pieces: usize,
    },
}

/// What is approximated, and how well.
pub struct Target<'a> {
    /// The function.
    pub function: &'a dyn Fn(f64) -> f64,
    /// Lower end of the range.
    pub from: f64,
    /// Upper end of the range.
    pub to: f64,
    /// Constant and slope below the range; none: the first piece goes on.
    pub below: Option<[f64; 2]>,
    /// Constant and slope above the range; none: the last piece goes on.
    pub above: Option<[f64; 2]>,
    /// Largest absolute error within the range, at every number of the input's scale.
    pub tolerance: f64,
    /// Fraction bits of the input.
    pub x_scale: u32,
    /// Fraction bits of the result.
    pub scale: u32,
}

/// A piecewise polynomial in the ring: `pieces[j]` where exactly `j` knots are at most x.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Fraction bits of the input.
    pub x_scale: u32,
    /// Fraction bits of the result.
    pub scale: u32,
    /// Where a piece begins, in units of the input, ascending.
    pub knots: Vec<i64>,
    /// Coefficients, constant first: that of x^m in units of `scale - m * x_scale` fraction bits, modulo 2^64.
    pub pieces: Vec<Vec<i64>>,
}

impl Fit {
    /// The cheapest approximation of degree 1 to 3 that meets the tolerance.
    pub fn new(target: &Target) -> Result<Fit, FitError> {
        let fits = (1..=3).map(|degree| pieces::fit(target, degree)).collect::<Result<Vec<_>, _>>()?;
        fits.into_iter()
            .flatten()
            .min_by_key(Fit::sent_bytes)
            .ok_or(FitError::Tolerance { tolerance: target.tolerance, pieces: pieces::MOST })
    }

    /// Bytes sent for [`SAMPLE`] elements by all parties together.
    fn sent_bytes(&self) -> u64 {
        let window = Window { lo: 0, k: 32 };
        let Fit { x_scale, scale, knots, pieces } = self.clone();
        let ops = [
            Op::Input,
            Op::Open { x: 0 },
            Op::Piecewise {
                x: 1,
                knots,
                pieces,
                scale,
                window,
                compare: Compare::default(),
                select: Selecting::default(),
            },
        ];
        let program = Program {
            fraction_bits: x_scale,
            input_shape: vec![SAMPLE],
            weights: vec![],
            states: vec![],
            rates: 0,
            steps: ops.map(|op| Step { layer: String::new(), op }).into(),
        };
        let cost = cost(&program, 1).ok().and_then(|c| c.last().copied());
        cost.map_or(u64::MAX, |c| c.online + c.offline + c.forwarded)
    }

    /// The value at `x`, both in units.
    pub fn at(&self, x: i64) -> i64 {
        let piece = &self.pieces[self.knots.partition_point(|k| *k <= x)];
        piece.iter().rev().fold(0i64, |sum, c| sum.wrapping_mul(x).wrapping_add(*c))
    }

    /// The value at the number nearest to `x`.
    pub fn near(&self, x: f64) -> f64 {
        self.at((x * f64::from(self.x_scale).exp2()).round() as i64) as f64 / f64::from(self.scale).exp2()
    }
}
