//! The tensors of a layer in their order: what is trained, and what is kept.

use crate::graph::{Array, Layer};

/// What a tensor is to its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Multiplies the input: weight decay applies.
    Kernel,
    /// A bias, or a channel's scale or shift.
    Channel,
    /// A moving average.
    Moving,
}

/// Name, use and values of each tensor.
pub(crate) fn tensors(layer: &Layer) -> Vec<(&'static str, Part, &Array)> {
    match layer {
        Layer::Dense { kernel, bias } | Layer::Conv2d { kernel, bias, .. } => {
            let bias = bias.iter().map(|b| ("bias", Part::Channel, b));
            std::iter::once(("kernel", Part::Kernel, kernel)).chain(bias).collect()
        }
        Layer::ChannelAffine { scale, shift } => {
            vec![("scale", Part::Channel, scale), ("shift", Part::Channel, shift)]
        }
        Layer::BatchNorm(n) => vec![
            ("gamma", Part::Channel, &n.gamma),
            ("beta", Part::Channel, &n.beta),
            ("mean", Part::Moving, &n.mean),
            ("variance", Part::Moving, &n.variance),
        ],
        _ => Vec::new(),
    }
}

/// The same tensors, to write to.
pub(crate) fn tensors_mut(layer: &mut Layer) -> Vec<&mut Array> {
    match layer {
        Layer::Dense { kernel, bias } | Layer::Conv2d { kernel, bias, .. } => {
            std::iter::once(kernel).chain(bias).collect()
        }
        Layer::ChannelAffine { scale, shift } => vec![scale, shift],
        Layer::BatchNorm(n) => vec![&mut n.gamma, &mut n.beta, &mut n.mean, &mut n.variance],
        _ => Vec::new(),
    }
}
