//! From values as the user has them to fixed point, as the model's owner declared.

use thiserror::Error;
use trefoil_proto::control::InputEncoding;
use trefoil_ring::Words;
use trefoil_ring::fixed::encode_one;

/// A value that cannot be sent to a model, or not that many of them.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum EncodeError {
    /// Not a number, or infinite.
    #[error("sample {sample}: element {element} is {value}: not a finite number; clean the input")]
    NotFinite {
        /// Which sample.
        sample: usize,
        /// Which of its elements.
        element: usize,
        /// The value.
        value: f32,
    },
    /// Outside what the owner declared.
    #[error(
        "sample {sample}: element {element} is {value}, after scaling {scaled}: the declared range is \
         {low}..={high} (scaled = value * {scale} + {offset}); check the units of the input"
    )]
    OutOfRange {
        /// Which sample.
        sample: usize,
        /// Which of its elements.
        element: usize,
        /// The value.
        value: f32,
        /// The value after scaling.
        scaled: f64,
        /// Lowest value after scaling.
        low: f64,
        /// Highest value after scaling.
        high: f64,
        /// Factor.
        scale: f64,
        /// Added after the factor.
        offset: f64,
    },
    /// Not whole samples.
    #[error("{got} values given: {batch} samples of {size} values each are {}", batch.saturating_mul(*size))]
    Count {
        /// Values given.
        got: usize,
        /// Samples announced.
        batch: usize,
        /// Values of one sample.
        size: usize,
    },
}

impl EncodeError {
    /// The same of samples that come after `before` others.
    pub(crate) fn shifted(mut self, before: usize) -> Self {
        match &mut self {
            EncodeError::NotFinite { sample, .. } | EncodeError::OutOfRange { sample, .. } => *sample += before,
            EncodeError::Count { .. } => {}
        }
        self
    }
}

/// Encodes samples of `size` values each, lying one after the other, at `fraction_bits`.
///
/// A value beyond the range by less than a quarter of a unit is what rounding made of the range's end, and is taken
/// for it. Anything else outside is an error, never a wrap.
pub fn encode_samples(
    encoding: &InputEncoding,
    fraction_bits: u32,
    samples: &[f32],
    size: usize,
) -> Result<Words, EncodeError> {
    let InputEncoding { scale, offset, low, high } = *encoding;
    let slack = (-f64::from(fraction_bits) - 2.0).exp2();
    let mut words = Words::with_capacity(samples.len());
    for (i, &value) in samples.iter().enumerate() {
        let (sample, element) = (i / size.max(1), i % size.max(1));
        if !value.is_finite() {
            return Err(EncodeError::NotFinite { sample, element, value });
        }
        let scaled = f64::from(value) * scale + offset;
        let beyond = EncodeError::OutOfRange { sample, element, value, scaled, low, high, scale, offset };
        // Written so that a range or a scale that is no number refuses, too.
        if !(scaled >= low - slack && scaled <= high + slack) {
            return Err(beyond);
        }
        let word = encode_one(i, scaled.max(low).min(high), fraction_bits, low, high).map_err(|_| beyond)?;
        words.extend(&[word]);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_value_fits() {
        let pixels: Vec<f32> = (0..=255u8).map(f32::from).collect();
        let signed = InputEncoding { scale: 1.0 / 127.5, offset: -1.0, low: -1.0, high: 1.0 };
        for (encoding, first, last) in [(InputEncoding::default(), 0, 1 << 16), (signed, -(1 << 16), 1 << 16)] {
            let words = encode_samples(&encoding, 16, &pixels, 256).unwrap();
            assert_eq!((words[0] as i64, words[255] as i64), (first, last));
        }
    }

    #[test]
    fn the_sample_and_element_are_named() {
        let encode = |v: &[f32]| encode_samples(&InputEncoding::default(), 16, v, 2);
        assert!(encode(&[0.0, 255.0, 1.0, 2.0]).is_ok());
        let e = encode(&[0.0, 1.0, 2.0, 256.0]).unwrap_err();
        assert!(matches!(e, EncodeError::OutOfRange { sample: 1, element: 1, .. }), "{e}");
        assert!(e.to_string().contains("256") && e.to_string().contains("0..=1"), "{e}");
        let e = encode(&[0.0, f32::NAN]).unwrap_err();
        assert!(matches!(e, EncodeError::NotFinite { sample: 0, element: 1, .. }));
        assert!(encode(&[-0.1, 0.0]).is_err());
        assert!(encode(&[f32::INFINITY]).is_err());
        let broken = InputEncoding { low: f64::NAN, ..InputEncoding::default() };
        assert!(encode_samples(&broken, 16, &[0.0], 1).is_err());
    }
}
