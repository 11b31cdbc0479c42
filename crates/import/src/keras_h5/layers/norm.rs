//! Batch normalisation: a layer of its own, which passes fold into its neighbours for prediction.

use trefoil_nn::graph::{Array, BatchNorm, Layer};

use super::Call;
use crate::ImportError;
use crate::keras_h5::build::Flow;

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`.
pub(super) fn batch(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let s = call.settings;
    let shape = call.builder.shape(call.single()?.node);
    let (rank, channels) = (shape.len(), shape.last().copied().unwrap_or(0));
    if s.axis("axis", rank, -1)? + 1 != rank {
        return Err(s.fail("only the last axis can be normalised"));
    }
    if s.flag("renorm", false)? {
        return Err(s.fail("renorm cannot be run"));
    }
    let (epsilon, momentum) = (s.number("epsilon", 1e-3)? as f32, s.number("momentum", 0.99)? as f32);
    if !(s.flag("scale", true)? && s.flag("center", true)?) {
        call.only_predicts("has no scale or no center");
    }
    let mut or = |flag: &str, weight: &str, default: f32| {
        let constant = Array { shape: vec![channels], data: vec![default; channels] };
        if s.flag(flag, true)? { call.weight(&[weight], &[channels]) } else { Ok(constant) }
    };
    let (gamma, beta) = (or("scale", "gamma", 1.0)?, or("center", "beta", 0.0)?);
    let mean = call.weight(&["moving_mean"], &[channels])?;
    let variance = call.weight(&["moving_variance"], &[channels])?;
    let norm = BatchNorm { gamma, beta, mean, variance, epsilon, momentum };
    let (scale, shift) = norm.affine();
    if let Some(c) = scale.data.iter().zip(&shift.data).position(|(a, b)| !a.is_finite() || !b.is_finite()) {
        let (variance, mean) = (norm.variance.data[c], norm.mean.data[c]);
        return Err(s.fail(format!("variance {variance} and mean {mean} of channel {c} give no finite scale")));
    }
    call.push(Layer::BatchNorm(norm))
}
