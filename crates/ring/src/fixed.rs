//! Fixed point: a real number x is held as round(x * 2^f) in two's complement modulo 2^64.

use thiserror::Error;

/// A value that fixed point cannot hold.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FixedError {
    /// Not a number, or infinite.
    #[error("element {index} is {value}: not a finite number")]
    NotFinite {
        /// Position in the input.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Outside the range declared for this value.
    #[error("element {index} is {value}: outside {low}..={high}")]
    OutOfRange {
        /// Position in the input.
        index: usize,
        /// The value.
        value: f64,
        /// Lowest value allowed.
        low: f64,
        /// Highest value allowed.
        high: f64,
    },
    /// More fraction bits than the protocol's truncation allows.
    #[error("{0} fraction bits: must be 1 to 30")]
    FractionBits(u32),
}

/// A fixed-point format: `fraction_bits` binary digits after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedPoint {
    fraction_bits: u32,
}

impl FixedPoint {
    /// A format with 1 to 30 fraction bits (a product has twice as many and must leave room below 2^62).
    pub fn new(fraction_bits: u32) -> Result<Self, FixedError> {
        if (1..=30).contains(&fraction_bits) {
            Ok(Self { fraction_bits })
        } else {
            Err(FixedError::FractionBits(fraction_bits))
        }
    }

    /// Binary digits after the point.
    pub fn fraction_bits(self) -> u32 {
        self.fraction_bits
    }

    /// Encodes values that must lie in `low..=high`; anything else is an error, never a wrap.
    pub fn encode(self, values: &[f32], low: f64, high: f64) -> Result<Vec<u64>, FixedError> {
        values
            .iter()
            .enumerate()
            .map(|(index, &v)| encode_one(index, f64::from(v), self.fraction_bits, low, high))
            .collect()
    }

    /// Decodes elements held at this scale.
    pub fn decode(self, elements: &[u64]) -> Vec<f64> {
        elements.iter().map(|&e| decode_one(e, self.fraction_bits)).collect()
    }
}

/// Encodes one value at `scale` binary digits after the point; `index` only names it in an error.
///
/// The magnitude must also stay below 2^62 after scaling.
pub fn encode_one(index: usize, value: f64, scale: u32, low: f64, high: f64) -> Result<u64, FixedError> {
    if !value.is_finite() {
        return Err(FixedError::NotFinite { index, value });
    }
    let scaled = (value * (scale as f64).exp2()).round();
    if value < low || value > high || scaled.abs() >= 62f64.exp2() {
        return Err(FixedError::OutOfRange { index, value, low, high });
    }
    Ok(scaled as i64 as u64)
}

/// The real number that an element at `scale` binary digits after the point stands for.
pub fn decode_one(element: u64, scale: u32) -> f64 {
    element as i64 as f64 / (scale as f64).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_and_decodes_to_half_a_unit() {
        let f = FixedPoint::new(16).unwrap();
        let x = [0.0, 1.0, -1.0, 0.333, -7.25, 1234.5678];
        let back = f.decode(&f.encode(&x, -2000.0, 2000.0).unwrap());
        for (a, b) in x.iter().zip(back) {
            assert!((f64::from(*a) - b).abs() <= 0.5 / 65536.0);
        }
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        let f = FixedPoint::new(16).unwrap();
        assert!(matches!(f.encode(&[0.0, f32::NAN], -1.0, 1.0), Err(FixedError::NotFinite { index: 1, .. })));
        assert!(matches!(f.encode(&[f32::INFINITY], -1.0, 1.0), Err(FixedError::NotFinite { .. })));
        assert!(matches!(f.encode(&[1.5], -1.0, 1.0), Err(FixedError::OutOfRange { .. })));
        assert!(matches!(encode_one(0, 1e18, 16, -1e30, 1e30), Err(FixedError::OutOfRange { .. })));
        assert_eq!(FixedPoint::new(0), Err(FixedError::FractionBits(0)));
        assert_eq!(FixedPoint::new(31), Err(FixedError::FractionBits(31)));
    }
}
