//! The approximations that training uses, for inputs of 16 fraction bits unless told otherwise.

use super::{Fit, FitError, Target};
use crate::tape::Function;

/// Fraction bits of the results that stay within -1 and 1.
const UNIT: u32 = 58;
/// Fraction bits of the results that grow with x.
const GROWING: u32 = 44;
/// The tolerance of most: about four units of 16 fraction bits.
const TOLERANCE: f64 = 1.0 / 16384.0;

/// 1 / (1 + e^-x), exactly 0 and 1 beyond. Largest error within the range: 1.3e-4.
pub fn sigmoid(x_scale: u32) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &|x| 1.0 / (1.0 + (-x).exp()),
        from: -9.5,
        to: 9.5,
        below: Some([0.0, 0.0]),
        above: Some([1.0, 0.0]),
        tolerance: TOLERANCE * 2.0,
        x_scale,
        scale: UNIT,
    })
}

/// tanh x, exactly -1 and 1 beyond. Largest error within the range: 1.3e-4.
pub fn tanh(x_scale: u32) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &f64::tanh,
        from: -5.0,
        to: 5.0,
        below: Some([-1.0, 0.0]),
        above: Some([1.0, 0.0]),
        tolerance: TOLERANCE * 2.0,
        x_scale,
        scale: UNIT,
    })
}

/// e^x of x <= 0, exactly 0 below -10. Largest error within the range: 6.5e-5.
pub fn exp(x_scale: u32) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &f64::exp,
        from: -10.0,
        to: 0.0,
        below: Some([0.0, 0.0]),
        above: None,
        tolerance: TOLERANCE,
        x_scale,
        scale: UNIT,
    })
}

/// 1 / x for x in 1 ..= `most`, with `scale` fraction bits. Largest error within the range: 6.5e-5.
pub fn reciprocal(x_scale: u32, most: f64, scale: u32) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &f64::recip,
        from: 1.0,
        to: most,
        below: None,
        above: None,
        tolerance: TOLERANCE,
        x_scale,
        scale,
    })
}

/// ln x for x in 1 ..= `most`. Largest error within the range: 2.5e-4.
pub fn log(x_scale: u32, most: f64) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &f64::ln,
        from: 1.0,
        to: most,
        below: None,
        above: None,
        tolerance: TOLERANCE * 4.0,
        x_scale,
        scale: UNIT - 2,
    })
}

/// ln(1 + e^x): 0 below -9.2, x above 9.2. Largest error within the range: 1.3e-4.
pub fn softplus(x_scale: u32) -> Result<Fit, FitError> {
    rectifier(Function::Softplus, -9.2, 9.2, 0.0, x_scale)
}

/// `slope` x + 1/2 within 0 and 1, those beyond: exact but for the coefficients' rounding.
pub fn hard_sigmoid(slope: f64, x_scale: u32) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &|x| slope * x + 0.5,
        from: -0.5 / slope,
        to: 0.5 / slope,
        below: Some([0.0, 0.0]),
        above: Some([1.0, 0.0]),
        tolerance: 1e-6,
        x_scale,
        scale: UNIT,
    })
}

/// x where x >= 0, e^x - 1 elsewhere: exactly -1 below -9.1, x above 0. Largest error within the range: 1.3e-4.
pub fn elu(x_scale: u32) -> Result<Fit, FitError> {
    rectifier(Function::Elu, -9.1, 0.0, -1.0, x_scale)
}

/// x / (1 + e^-x): 0 below -11.6, x above 11.6. Largest error within the range: 1.3e-4.
pub fn silu(x_scale: u32) -> Result<Fit, FitError> {
    rectifier(Function::Silu, -11.6, 11.6, 0.0, x_scale)
}

/// x times the standard normal distribution function: 0 below -4.1, x above 4.1. Largest error within the range: 1.3e-4.
pub fn gelu(x_scale: u32) -> Result<Fit, FitError> {
    rectifier(Function::Gelu, -4.1, 4.1, 0.0, x_scale)
}

/// A function that is `below` at the left and x at the right.
fn rectifier(function: Function, from: f64, to: f64, below: f64, x_scale: u32) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &|x| function.of(x),
        from,
        to,
        below: Some([below, 0.0]),
        above: Some([0.0, 1.0]),
        tolerance: TOLERANCE * 2.0,
        x_scale,
        scale: GROWING,
    })
}

/// The derivative of [`gelu`], exactly 0 and 1 beyond 4.6. Largest error within the range: 1.3e-4.
pub fn gelu_slope(x_scale: u32) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &|x| Function::GeluSlope.of(x),
        from: -4.6,
        to: 4.6,
        below: Some([0.0, 0.0]),
        above: Some([1.0, 0.0]),
        tolerance: TOLERANCE * 2.0,
        x_scale,
        scale: UNIT,
    })
}

/// x^(-1/2) for x in 1 .. 4: what is left of a wide range after a power of four was taken out. Largest error within the range: 2.5e-4.
pub fn unit_inverse_sqrt(x_scale: u32) -> Result<Fit, FitError> {
    inverse_sqrt(x_scale, TOLERANCE * 4.0)
}

/// The same for what is computed once. Largest error within the range: 1e-6.
pub fn fine_inverse_sqrt(x_scale: u32) -> Result<Fit, FitError> {
    inverse_sqrt(x_scale, TOLERANCE / 64.0)
}

fn inverse_sqrt(x_scale: u32, tolerance: f64) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &|x| x.powf(-0.5),
        from: 1.0,
        to: 4.0,
        below: None,
        above: None,
        tolerance,
        x_scale,
        scale: UNIT,
    })
}

/// 1 / x for x in 1 .. 4: what is left of a wide range after a power of four was taken out. Largest error within the range: 2.5e-4.
pub fn unit_reciprocal(x_scale: u32) -> Result<Fit, FitError> {
    Fit::new(&Target {
        function: &f64::recip,
        from: 1.0,
        to: 4.0,
        below: None,
        above: None,
        tolerance: TOLERANCE * 4.0,
        x_scale,
        scale: UNIT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error at every number from `from` to `to`.
    fn worst(fit: &Fit, from: f64, to: f64, f: impl Fn(f64) -> f64) -> f64 {
        let (one, out) = (f64::from(fit.x_scale).exp2(), f64::from(fit.scale).exp2());
        ((from * one) as i64..=(to * one) as i64)
            .map(|x| (fit.at(x) as f64 / out - f(x as f64 / one)).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn errors_are_as_stated_at_every_number() {
        for bits in [12, 13, 16] {
            let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
            let soft = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
            let found = [
                ("sigmoid", worst(&sigmoid(bits).unwrap(), -20.0, 20.0, sigma), 1.3e-4),
                ("tanh", worst(&tanh(bits).unwrap(), -20.0, 20.0, f64::tanh), 1.3e-4),
                ("exp", worst(&exp(bits).unwrap(), -20.0, 0.0, f64::exp), 6.5e-5),
                ("reciprocal", worst(&reciprocal(bits, 10.0, 58).unwrap(), 1.0, 10.0, f64::recip), 6.5e-5),
                ("log", worst(&log(bits, 10.0).unwrap(), 1.0, 10.0, f64::ln), 2.5e-4),
                ("softplus", worst(&softplus(bits).unwrap(), -30.0, 30.0, soft), 1.3e-4),
                ("elu", worst(&elu(bits).unwrap(), -30.0, 30.0, |x| Function::Elu.of(x)), 1.3e-4),
                ("silu", worst(&silu(bits).unwrap(), -30.0, 30.0, |x| Function::Silu.of(x)), 1.3e-4),
                ("gelu", worst(&gelu(bits).unwrap(), -30.0, 30.0, |x| Function::Gelu.of(x)), 1.3e-4),
                ("gelu'", worst(&gelu_slope(bits).unwrap(), -20.0, 20.0, |x| Function::GeluSlope.of(x)), 1.3e-4),
                ("x^-1/2", worst(&unit_inverse_sqrt(bits).unwrap(), 1.0, 4.0, |x| x.powf(-0.5)), 2.5e-4),
                ("1/x", worst(&unit_reciprocal(bits).unwrap(), 1.0, 4.0, f64::recip), 2.5e-4),
            ];
            for (name, error, stated) in found {
                assert!(error <= stated, "{name} at {bits} bits: {error:.2e}, stated {stated:.2e}");
                assert!(error > stated / 20.0, "{name} at {bits} bits: {error:.2e}, far better than stated");
            }
        }
    }

    #[test]
    fn the_fine_inverse_square_root_is_as_stated() {
        let fit = fine_inverse_sqrt(22).unwrap();
        assert!(fit.pieces.len() <= 40, "{} pieces", fit.pieces.len());
        let error = worst(&fit, 1.0, 4.0, |x| x.powf(-0.5));
        assert!(error <= 1e-6 && error > 5e-8, "{error:.2e}");
    }

    #[test]
    fn saturation_is_exact_far_beyond_the_range() {
        let far = 1i64 << 30;
        let (s, t, e) = (sigmoid(13).unwrap(), tanh(13).unwrap(), exp(13).unwrap());
        assert_eq!([s.at(-far), s.at(far)], [0, 1 << s.scale]);
        assert_eq!([t.at(-far), t.at(far)], [-1 << t.scale, 1 << t.scale]);
        assert_eq!(e.at(-far), 0);
        for (p, below) in [(softplus(13), 0), (elu(13), -1), (silu(13), 0), (gelu(13), 0)].map(|(p, y)| (p.unwrap(), y))
        {
            assert_eq!([p.at(-far), p.at(far)], [below << p.scale, far << (p.scale - 13)]);
        }
        let g = gelu_slope(13).unwrap();
        assert_eq!([g.at(-far), g.at(far)], [0, 1 << g.scale]);
    }

    #[test]
    fn a_hard_sigmoid_is_straight() {
        for (slope, bits) in [(0.2, 1), (0.2, 16), (1.0 / 6.0, 1), (1.0 / 6.0, 16), (1.0 / 6.0, 24)] {
            let fit = hard_sigmoid(slope, bits).unwrap();
            assert_eq!((fit.pieces.len(), fit.pieces[0].len()), (3, 2));
            let hard = |x: f64| (slope * x + 0.5).clamp(0.0, 1.0);
            let units = f64::from(bits).exp2();
            for x in (-4000..=4000).map(|i| ((f64::from(i) / 1000.0) * units).round()) {
                let y = fit.at(x as i64) as f64 / f64::from(UNIT).exp2();
                assert!((y - hard(x / units)).abs() < 1e-8, "{slope} at {bits} bits: {y} for {x}");
            }
        }
    }

    #[test]
    fn many_classes_and_what_cannot_be_fitted() {
        let wide = reciprocal(13, 1000.0, 58).unwrap();
        assert!(worst(&wide, 1.0, 1000.0, f64::recip) < 6.5e-5);
        let target = |from, to, tolerance| Target {
            function: &f64::sin,
            from,
            to,
            below: None,
            above: None,
            tolerance,
            x_scale: 16,
            scale: 50,
        };
        assert!(matches!(Fit::new(&target(1.0, 1.0, 1e-3)), Err(FitError::Range { .. })));
        assert!(matches!(Fit::new(&target(0.0, 1e6, 1e-3)), Err(FitError::Range { .. })));
        assert!(matches!(Fit::new(&target(0.0, f64::NAN, 1e-3)), Err(FitError::Range { .. })));
        assert!(matches!(Fit::new(&target(0.0, 1000.0, 1e-6)), Err(FitError::Tolerance { .. })));
    }
}
