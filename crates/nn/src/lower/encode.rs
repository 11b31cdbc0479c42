//! Numbers to and from fixed point: states, records and public numbers.

use thiserror::Error;
use trefoil_ring::Words;

use super::RATE_BITS;

/// A number that fixed point cannot hold.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{what} holds {value}: must be a number below 2^{bits} in absolute value")]
pub struct EncodeError {
    /// Where it is.
    pub what: String,
    /// The number.
    pub value: f64,
    /// Integer bits there are.
    pub bits: u32,
}

/// Numbers at `scale` fraction bits; `what` names them in errors.
pub fn encode(what: &str, values: &[f64], scale: u32) -> Result<Words, EncodeError> {
    let bits = 62 - scale.min(61);
    let unit = |value: f64| {
        let fits = value.abs() < f64::from(bits).exp2();
        let units = (value * f64::from(scale).exp2()).round() as i64 as u64;
        if fits { Ok(units) } else { Err(EncodeError { what: what.into(), value, bits }) }
    };
    Ok(values.iter().map(|v| unit(*v)).collect::<Result<Vec<_>, _>>()?.into())
}

/// The numbers that words at `scale` fraction bits stand for.
pub fn decode(words: &[u64], scale: u32) -> Vec<f64> {
    words.iter().map(|w| *w as i64 as f64 / f64::from(scale).exp2()).collect()
}

/// The public numbers of one step, as the program takes them.
pub fn encode_rates(rates: &[f64]) -> Result<Vec<i64>, EncodeError> {
    // A product with a gradient must fit beside a parameter.
    const BITS: u32 = 9;
    let unit = |value: &f64| {
        let fits = value.abs() < f64::from(BITS).exp2();
        let units = (value * f64::from(RATE_BITS).exp2()).round() as i64;
        if fits { Ok(units) } else { Err(EncodeError { what: "a rate".into(), value: *value, bits: BITS }) }
    };
    rates.iter().map(unit).collect()
}
