//! What range analysis refuses, and what would fit.

use std::fmt;

use thiserror::Error;
use trefoil_mpc::program::ProgramError;

use super::WireRange;

/// Options under which the samples would fit with the margin demanded; `None`: none of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// The most fraction bits, with the same window.
    pub fraction_bits: Option<u32>,
    /// The narrowest window, with the same fraction bits.
    pub window_bits: Option<u32>,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fraction_bits, self.window_bits) {
            (Some(b), Some(k)) => write!(f, "{b} fraction bits or a window of {k} bits would fit"),
            (Some(b), None) => write!(f, "{b} fraction bits would fit"),
            (None, Some(k)) => write!(f, "a window of {k} bits would fit"),
            (None, None) => f.write_str("neither fewer fraction bits nor a wider window would fit: rescale the model"),
        }
    }
}

/// A network whose values do not fit, or a check that cannot be made.
#[derive(Debug, Error)]
pub enum RangeError {
    /// An input range that is no range.
    #[error("input range {low}..={high}: must be two finite numbers in order")]
    Input {
        /// Lowest value.
        low: f64,
        /// Highest value.
        high: f64,
    },
    /// Samples that are not whole inputs.
    #[error("{elements} elements are no whole number of samples of {size}, or none at all")]
    Samples {
        /// Elements given.
        elements: usize,
        /// Elements of one sample.
        size: usize,
    },
    /// A sample outside the declared input range.
    #[error("sample {sample}: element {element} is {value}, outside the declared {low}..={high}")]
    Sample {
        /// Which sample.
        sample: usize,
        /// Which of its elements.
        element: usize,
        /// The value.
        value: f32,
        /// Lowest value declared.
        low: f64,
        /// Highest value declared.
        high: f64,
    },
    /// A value that exceeds its limits on the samples.
    #[error(
        "layer {} (step {}, {}): the samples reach {:.4}..{:.4}, which exceeds {:.4}..{:.4}; {fit}",
        wire.layer, wire.step, wire.op, wire.low, wire.high, wire.limit_low, wire.limit_high
    )]
    Broken {
        /// The first such value.
        wire: Box<WireRange>,
        /// What would fit.
        fit: Fit,
    },
    /// The program cannot end as asked.
    #[error(transparent)]
    Program(#[from] ProgramError),
}
