//! Numbers to and from fixed point: states, records and public numbers.

use thiserror::Error;
use trefoil_ring::Words;

use super::RATE_BITS;

/// A number that fixed point cannot hold.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum EncodeError {
    /// Too large, or no number.
    #[error("{what} holds {value}: must be a number below 2^{bits} in absolute value")]
    Range {
        /// Where it is.
        what: String,
        /// The number.
        value: f64,
        /// Integer bits there are.
        bits: u32,
    },
    /// A public number that would be rounded by more than a sixteenth.
    #[error(
        "public number {index} is {value}: must be zero or at least 2^-17; a larger learning rate or a smaller batch helps"
    )]
    Coarse {
        /// Which one.
        index: usize,
        /// The number.
        value: f64,
    },
}

/// Numbers at `scale` fraction bits; `what` names them in errors.
pub fn encode(what: &str, values: &[f64], scale: u32) -> Result<Words, EncodeError> {
    let bits = 62 - scale.min(61);
    let unit = |value: f64| {
        let fits = value.abs() < f64::from(bits).exp2();
        let units = (value * f64::from(scale).exp2()).round() as i64 as u64;
        if fits { Ok(units) } else { Err(EncodeError::Range { what: what.into(), value, bits }) }
    };
    Ok(values.iter().map(|v| unit(*v)).collect::<Result<Vec<_>, _>>()?.into())
}

/// The numbers that words at `scale` fraction bits stand for.
pub fn decode(words: &[u64], scale: u32) -> Vec<f64> {
    words.iter().map(|w| *w as i64 as f64 / f64::from(scale).exp2()).collect()
}

/// The public numbers of one step, as the program takes them. Those of all steps had better be tried before training.
pub fn encode_rates(rates: &[f64]) -> Result<Vec<i64>, EncodeError> {
    // A product with a gradient must fit beside a parameter.
    const BITS: u32 = 9;
    const FEWEST: f64 = 8.0;
    let unit = |(index, &value): (usize, &f64)| {
        let units = value * f64::from(RATE_BITS).exp2();
        if value.is_nan() || value.abs() >= f64::from(BITS).exp2() {
            return Err(EncodeError::Range { what: format!("public number {index}"), value, bits: BITS });
        }
        if value != 0.0 && units.abs() < FEWEST {
            return Err(EncodeError::Coarse { index, value });
        }
        Ok(units.round() as i64)
    };
    rates.iter().enumerate().map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_others_are_refused() {
        let values = [0.0, -1.5, 511.25, -511.0];
        assert_eq!(decode(&encode("w", &values, 52).unwrap(), 52), values);
        for bad in [1024.0, f64::NAN, f64::INFINITY] {
            let error = encode("w", &[0.0, bad], 52).unwrap_err();
            assert!(error.to_string().starts_with("w holds"), "{error}");
        }
    }

    #[test]
    fn rates_too_small_or_too_large_are_refused() {
        assert_eq!(encode_rates(&[0.0, 1.0, -0.5]).unwrap(), [0, 1 << 20, -1 << 19]);
        assert!(matches!(encode_rates(&[0.0, 1e-6]), Err(EncodeError::Coarse { index: 1, .. })));
        assert!(matches!(encode_rates(&[600.0]), Err(EncodeError::Range { .. })));
        assert!(matches!(encode_rates(&[f64::NAN]), Err(EncodeError::Range { .. })));
    }
}
