//! Layers that move or drop elements: flattening, reshaping, zeros around an image, dropout.

use trefoil_nn::graph::{Layer, Post};
use trefoil_ring::geometry::Pads;

use super::Call;
use crate::ImportError;
use crate::keras_h5::build::Flow;

pub(super) fn flatten(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    call.settings.channels_last()?;
    let n = elements(call)?;
    call.push(Layer::Reshape { shape: vec![n] })
}

pub(super) fn reshape(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let s = call.settings;
    let target = s.open_sizes("target_shape")?;
    let known = target.iter().flatten().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n > 0);
    let known = known.ok_or_else(|| s.fail("target_shape is empty or too large"))?;
    let open = target.iter().filter(|d| d.is_none()).count();
    let n = elements(call)?;
    if open > 1 || !n.is_multiple_of(known) {
        return Err(s.fail(format!("target_shape does not fit {n} elements")));
    }
    call.push(Layer::Reshape { shape: target.iter().map(|d| d.unwrap_or(n / known)).collect() })
}

pub(super) fn zero_pad(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    call.settings.channels_last()?;
    let [(top, bottom), (left, right)] = call.settings.pairs("padding")?;
    call.push(Layer::ZeroPad(Pads { top, bottom, left, right }))
}

/// Without effect in prediction. After a softmax, which is left to the client, there is nothing to drop.
pub(super) fn dropout(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let input = call.single()?;
    if call.settings.get("noise_shape").is_some() || input.post != Post::None {
        call.only_predicts("has a noise_shape, or follows the last activation");
        return Ok(input);
    }
    let rate = call.settings.number("rate", 0.0)? as f32;
    call.push(Layer::Dropout { rate })
}

fn elements(call: &Call<'_, '_>) -> Result<usize, ImportError> {
    // Every shape in the builder has been checked.
    Ok(call.builder.shape(call.single()?.node).iter().product())
}
