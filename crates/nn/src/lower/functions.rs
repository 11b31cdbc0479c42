//! Functions of one number: piecewise polynomials where the range is small, a power of four taken out where it is wide.
//!
//! Wide ranges: with knots at powers of four, the bits [x >= 4^j] of one comparison of all knots sum up to n = 4^-j and
//! m = 2^-j for 4^j <= x < 4^(j+1). Then n x is within 1 and 4, where one cubic serves, and x^(-1/2) = m (n x)^(-1/2),
//! 1/x = n / (n x).

use trefoil_mpc::program::{Bilinear, Window};

use super::folding::UNIT_ARGUMENT_BITS;
use super::visit::Visitor;
use super::wires::{Local, WireId};
use super::{FRACTION_BITS, MEMORY_BITS};
use crate::fit::{self, ARGUMENT_BITS, Fit};
use crate::tape::{Function, Op, ValueId};

/// Fraction bits of a reciprocal that is to be multiplied without a truncation.
const WIDE_RECIPROCAL: u32 = 44;
/// Fraction bits of what is left of a wide range.
const UNIT_BITS: u32 = 30;
/// Powers of four: the largest that a wide range ends with.
const TOP: i32 = 8;
/// The smallest power of four: below, the function levels off.
const BOTTOM: i32 = -12;
/// Most elements of a sum of exponentials.
const MOST_CLASSES: usize = 1024;

impl Visitor<'_> {
    pub(super) fn function(&mut self, x: ValueId, function: Function) -> Result<WireId, String> {
        let operand = self.number(x)?;
        let classes = self.exponentials(x);
        match function {
            Function::Sigmoid => self.fitted(operand, fit::sigmoid),
            Function::Tanh => self.fitted(operand, fit::tanh),
            Function::Exp => self.fitted(operand, fit::exp),
            Function::Softplus => self.fitted(operand, fit::softplus),
            Function::Elu => self.fitted(operand, fit::elu),
            Function::Silu => self.fitted(operand, fit::silu),
            Function::Gelu => self.fitted(operand, fit::gelu),
            Function::GeluSlope => self.fitted(operand, fit::gelu_slope),
            Function::Log => match classes {
                Some(n) => self.fitted(operand, |bits| fit::log(bits, n as f64)),
                None => Err("a logarithm of anything but a sum of exponentials".into()),
            },
            Function::Reciprocal => match classes {
                Some(n) => {
                    let x = self.wires.at(operand, FRACTION_BITS);
                    let fit = fit::reciprocal(FRACTION_BITS, n as f64, WIDE_RECIPROCAL).map_err(|e| e.to_string())?;
                    let y = self.wires.piecewise(x, fit);
                    self.wide.insert(y);
                    Ok(y)
                }
                None => self.over_a_wide_range(operand, 0, false),
            },
            Function::InverseSqrt => {
                let lowest = self.lowest(x).ok_or("an inverse square root of what has no positive offset")?;
                self.over_a_wide_range(operand, (lowest.log2() / 2.0).floor() as i32, true)
            }
        }
    }

    /// How many exponentials the value is the sum of.
    fn exponentials(&self, x: ValueId) -> Option<usize> {
        let Op::Sum { x, batch: false, .. } = self.tape.values.get(x)?.op else { return None };
        let summands = &self.tape.values[x];
        let exp = matches!(summands.op, Op::Function { function: Function::Exp, .. });
        Some(summands.elements()).filter(|n| exp && (2..=MOST_CLASSES).contains(n))
    }

    /// The constant that was added last: the value is no smaller.
    fn lowest(&self, x: ValueId) -> Option<f64> {
        match &self.tape.values.get(x)?.op {
            Op::Offset { by, .. } if *by > 0.0 => Some(*by),
            Op::Reshape { x, .. } => self.lowest(*x),
            Op::Concat { xs, .. } => {
                let all = xs.iter().map(|x| self.lowest(*x)).collect::<Option<Vec<f64>>>()?;
                all.into_iter().reduce(f64::min)
            }
            _ => None,
        }
    }

    fn fitted(&mut self, x: WireId, fit: impl Fn(u32) -> Result<Fit, fit::FitError>) -> Result<WireId, String> {
        let x = self.wires.at_most(x, ARGUMENT_BITS);
        let fit = fit(self.wires.scale(x)).map_err(|e| e.to_string())?;
        let y = self.wires.piecewise(x, fit);
        Ok(self.wires.at(y, FRACTION_BITS))
    }

    /// x^(-1/2) or 1/x for x from 4^bottom to 4^(TOP + 1).
    fn over_a_wide_range(&mut self, x: WireId, bottom: i32, root: bool) -> Result<WireId, String> {
        let fine = self.fine && root;
        let w = &mut self.wires;
        let x = w.at_most(x, MEMORY_BITS);
        let scale = w.scale(x);
        let bottom = bottom.max(BOTTOM);
        if 2 * bottom + (scale as i32) < 2 || bottom >= TOP {
            return Err(format!("a range from 4^{bottom} at {scale} fraction bits"));
        }
        let dims = w.dims(x).clone();
        let n: usize = dims.shape.iter().product();
        let knots: Vec<i32> = (bottom + 1..=TOP).collect();
        let flat = super::wires::Dims::new(&[1, n], dims.rows);
        let row = w.local(Local::Reshape(flat.shape.clone()), vec![x], flat.clone());
        let less: Vec<WireId> = knots
            .iter()
            .map(|j| w.local(Local::Offset(-f64::from(2 * j).exp2(), scale), vec![row], flat.clone()))
            .collect();
        let all = super::wires::Dims::new(&[knots.len(), n], dims.rows);
        let stacked = w.local(Local::Concat(0), less, all);
        let lo = (scale as i32 + 2 * bottom - 2).max(0) as u32;
        let window = Window { lo, k: scale + 2 * (TOP as u32 + 1) + 2 - lo };
        let above = w.sign_in(stacked, window);
        let above = w.number(&above);
        let levels: Vec<WireId> = (0..knots.len())
            .map(|i| w.local(Local::Slice { axis: 0, start: i, len: 1 }, vec![above], flat.clone()))
            .collect();
        // The sum of the steps from one knot to the next; `per` fraction bits for each power.
        let mut normaliser = |per: i32| -> Result<WireId, String> {
            let at = |j: i32| f64::from(per * (TOP - j)).exp2();
            let mut sum: Option<WireId> = None;
            for (level, j) in levels.iter().zip(&knots) {
                let term = w.local(Local::Scale((at(*j) - at(j - 1)) as i64, 0), vec![*level], flat.clone());
                sum = Some(match sum {
                    Some(sum) => w.local(Local::Add, vec![sum, term], flat.clone()),
                    None => term,
                });
            }
            let sum = sum.ok_or("an empty range")?;
            let sum = w.local(Local::Offset(at(bottom), 0), vec![sum], flat.clone());
            let sum = w.local(Local::Scale(1, (per * TOP) as u32), vec![sum], flat.clone());
            Ok(w.local(Local::Reshape(dims.shape.clone()), vec![sum], dims.clone()))
        };
        let (n, m) = (normaliser(2)?, if root { Some(normaliser(1)?) } else { None });
        let unit = w.product_as_it_is(x, n, Bilinear::Elementwise, dims.clone());
        let unit = w.at(unit, if fine { UNIT_ARGUMENT_BITS } else { FRACTION_BITS });
        let fit = match root {
            true if fine => fit::fine_inverse_sqrt(UNIT_ARGUMENT_BITS),
            true => fit::unit_inverse_sqrt(FRACTION_BITS),
            false => fit::unit_reciprocal(FRACTION_BITS),
        };
        let y = w.piecewise(unit, fit.map_err(|e| e.to_string())?);
        let y = w.at(y, UNIT_BITS);
        Ok(w.product_as_it_is(y, m.unwrap_or(n), Bilinear::Elementwise, dims))
    }
}
