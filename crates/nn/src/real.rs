//! The numbers that clear evaluation works on: `f32` for speed, `f64` for references and range analysis.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use ndarray::LinalgScalar;

/// A floating-point number.
pub trait Real:
    Copy
    + Send
    + Sync
    + PartialOrd
    + Default
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + LinalgScalar
{
    /// Zero.
    const ZERO: Self;
    /// The nearest number of this type.
    fn of(v: f64) -> Self;
    /// The same number as `f64`.
    fn to_f64(self) -> f64;
    /// The larger of two numbers.
    fn larger(self, other: Self) -> Self {
        if self < other { other } else { self }
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    fn of(v: f64) -> Self {
        v as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    fn of(v: f64) -> Self {
        v
    }
    fn to_f64(self) -> f64 {
        self
    }
}

/// Weights as numbers of another type.
pub(crate) fn convert<T: Real>(v: &[f32]) -> Vec<T> {
    v.iter().map(|&v| T::of(f64::from(v))).collect()
}
