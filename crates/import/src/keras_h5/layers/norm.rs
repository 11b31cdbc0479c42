//! Batch normalisation with its moving statistics: one scale and one shift per channel.

use trefoil_nn::graph::{Array, Layer};

use super::Call;
use crate::ImportError;
use crate::keras_h5::build::Flow;

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, computed in double precision.
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
    let epsilon = s.number("epsilon", 1e-3)?;
    let mut optional = |flag: &str, weight: &str| {
        if s.flag(flag, true)? { call.weight(&[weight], &[channels]).map(|a| Some(a.data)) } else { Ok(None) }
    };
    let (gamma, beta) = (optional("scale", "gamma")?, optional("center", "beta")?);
    let mean = call.weight(&["moving_mean"], &[channels])?.data;
    let variance = call.weight(&["moving_variance"], &[channels])?.data;
    let (mut scale, mut shift) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
    for c in 0..channels {
        let a = gamma.as_ref().map_or(1.0, |g| f64::from(g[c])) / (f64::from(variance[c]) + epsilon).sqrt();
        let b = beta.as_ref().map_or(0.0, |b| f64::from(b[c])) - f64::from(mean[c]) * a;
        if !(a as f32).is_finite() || !(b as f32).is_finite() {
            let reason = format!("variance {} and mean {} of channel {c} give no finite scale", variance[c], mean[c]);
            return Err(s.fail(reason));
        }
        scale.push(a as f32);
        shift.push(b as f32);
    }
    let vector = |data| Array { shape: vec![channels], data };
    call.push(Layer::ChannelAffine { scale: vector(scale), shift: vector(shift) })
}
