//! Activations: as layers of their own, or inside another layer.

use serde_json::Value;
use trefoil_nn::graph::{Layer, Post};

use super::Call;
use crate::ImportError;
use crate::keras_h5::build::Flow;
use crate::keras_h5::json::{Settings, brief};

/// Slope of Keras' activation "leaky_relu"; the layer LeakyReLU has another default.
const NAMED_SLOPE: f32 = 0.2;
/// Slopes of "hard_sigmoid" in Keras 2 and 3.
const HARD_SLOPES: [f32; 2] = [0.2, 1.0 / 6.0];

/// The layer Activation.
pub(super) fn layer(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let input = call.single()?;
    match call.settings.get("activation") {
        None => Ok(input),
        Some(value) => named(call, value, input, ""),
    }
}

/// The activation that a layer applies to its own output.
pub(super) fn inline(call: &mut Call<'_, '_>, flow: Flow) -> Result<Flow, ImportError> {
    match call.settings.get("activation") {
        None => Ok(flow),
        Some(value) => named(call, value, flow, "activation"),
    }
}

/// The layer ReLU.
pub(super) fn relu(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let layer = relu_of(&call.settings)?;
    call.push(layer)
}

/// The layer LeakyReLU.
pub(super) fn leaky_relu(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let layer = leaky_relu_of(&call.settings)?;
    call.push(layer)
}

/// The layer ELU.
pub(super) fn elu(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let layer = elu_of(&call.settings)?;
    call.push(layer)
}

/// The layer Softmax.
pub(super) fn softmax(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let input = call.single()?;
    softmax_of(call, &call.settings, input)
}

/// An activation by name, or as a serialized layer or function.
fn named(call: &mut Call<'_, '_>, value: &Value, input: Flow, part: &str) -> Result<Flow, ImportError> {
    let class = value.get("class_name").and_then(Value::as_str);
    let config = value.get("config");
    let function = config.and_then(Value::as_str).filter(|_| class == Some("function"));
    let layer = match (value.as_str().or(function), class, config) {
        (Some(name), ..) => match name {
            "linear" => return Ok(input),
            "relu" => Layer::Relu,
            "relu6" => Layer::ClippedRelu { ceiling: 6.0 },
            "leaky_relu" => Layer::LeakyRelu { slope: NAMED_SLOPE },
            // The last one is left to the client in the end.
            "sigmoid" => Layer::Sigmoid,
            "tanh" => Layer::Tanh,
            "hard_sigmoid" => Layer::HardSigmoid { slope: HARD_SLOPES[usize::from(!call.builder.keras2)] },
            "softplus" => Layer::Softplus,
            "elu" => Layer::Elu { alpha: 1.0 },
            "silu" | "swish" => Layer::Silu,
            "gelu" => Layer::Gelu,
            "softmax" => return softmax_last(call, input),
            other => return Err(unknown(call, other)),
        },
        (_, Some("ReLU"), Some(config)) => relu_of(&Settings::new(call.settings.layer, "ReLU", config))?,
        (_, Some("LeakyReLU"), Some(config)) => {
            leaky_relu_of(&Settings::new(call.settings.layer, "LeakyReLU", config))?
        }
        (_, Some("ELU"), Some(config)) => elu_of(&Settings::new(call.settings.layer, "ELU", config))?,
        (_, Some("Softmax"), Some(config)) => {
            return softmax_of(call, &Settings::new(call.settings.layer, "Softmax", config), input);
        }
        _ => return Err(unknown(call, &class.map_or_else(|| brief(value), str::to_string))),
    };
    call.push_after(part, layer, &[input])
}

fn unknown(call: &Call<'_, '_>, activation: &str) -> ImportError {
    call.settings.fail(format!(
        "activation {activation:?} cannot be run on shares; those that can: linear, relu, relu6, leaky_relu, elu, \
         sigmoid, hard_sigmoid, tanh, softplus, silu, gelu, and as the last softmax"
    ))
}

fn relu_of(s: &Settings<'_>) -> Result<Layer, ImportError> {
    let (max, slope) = (s.number_if("max_value")?, slope(s, "negative_slope", 0.0)?);
    if s.number("threshold", 0.0)? != 0.0 {
        return Err(s.fail("threshold must be 0"));
    }
    match max {
        Some(_) if slope != 0.0 => Err(s.fail("max_value and negative_slope together cannot be run")),
        Some(max) if max > 0.0 && (max as f32).is_finite() => Ok(Layer::ClippedRelu { ceiling: max as f32 }),
        Some(max) => Err(s.fail(format!("max_value is {max}, must be positive"))),
        None if slope != 0.0 => Ok(Layer::LeakyRelu { slope }),
        None => Ok(Layer::Relu),
    }
}

fn leaky_relu_of(s: &Settings<'_>) -> Result<Layer, ImportError> {
    // Keras 2 calls it alpha.
    let key = if s.get("alpha").is_some() { "alpha" } else { "negative_slope" };
    Ok(Layer::LeakyRelu { slope: slope(s, key, 0.3)? })
}

fn elu_of(s: &Settings<'_>) -> Result<Layer, ImportError> {
    Ok(Layer::Elu { alpha: slope(s, "alpha", 1.0)? })
}

fn slope(s: &Settings<'_>, key: &str, default: f64) -> Result<f32, ImportError> {
    let slope = s.number(key, default)? as f32;
    if slope.is_finite() { Ok(slope) } else { Err(s.fail(format!("{key} is too large"))) }
}

fn softmax_of(call: &Call<'_, '_>, s: &Settings<'_>, input: Flow) -> Result<Flow, ImportError> {
    let rank = call.builder.shape(input.node).len();
    if s.axis("axis", rank, -1)? + 1 != rank {
        return Err(s.fail("softmax is possible over the last axis only"));
    }
    softmax_last(call, input)
}

/// Leaves a softmax to the client.
fn softmax_last(call: &Call<'_, '_>, input: Flow) -> Result<Flow, ImportError> {
    if input.post != Post::None {
        return Err(call.settings.fail("comes after a softmax, which can only be last"));
    }
    Ok(Flow { post: Post::Softmax, ..input })
}
