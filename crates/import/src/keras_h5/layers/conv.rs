//! Convolutions: plain, depthwise and separable.

use trefoil_nn::graph::{Array, Layer};
use trefoil_ring::geometry::{Conv2d, Pads};

use super::{Call, activation};
use crate::ImportError;
use crate::keras_h5::build::Flow;

pub(super) fn conv(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let filters = call.settings.size("filters")?;
    let groups = call.settings.size_or("groups", 1)?;
    let geometry = geometry(call, filters, groups)?;
    let kernel = call.weight(&["kernel"], &geometry.kernel_shape())?;
    let bias = call.bias(filters)?;
    let flow = call.push(Layer::Conv2d { geometry, kernel, bias })?;
    activation::inline(call, flow)
}

pub(super) fn depthwise(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let (geometry, kernel) = depthwise_part(call)?;
    let bias = call.bias(geometry.out_channels)?;
    let flow = call.push(Layer::Conv2d { geometry, kernel, bias })?;
    activation::inline(call, flow)
}

/// Depthwise, then 1x1, with nothing in between.
pub(super) fn separable(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let filters = call.settings.size("filters")?;
    let (geometry, kernel) = depthwise_part(call)?;
    let middle = call.push_after("depthwise", Layer::Conv2d { geometry, kernel, bias: None }, call.inputs)?;
    let pointwise = Conv2d {
        input: geometry.output().map_err(|e| call.settings.fail(e.to_string()))?,
        in_channels: geometry.out_channels,
        out_channels: filters,
        kernel: (1, 1),
        stride: (1, 1),
        dilation: (1, 1),
        pads: Pads::default(),
        groups: 1,
    };
    let kernel = call.weight(&["pointwise_kernel"], &pointwise.kernel_shape())?;
    let bias = call.bias(filters)?;
    let flow = call.push_after("pointwise", Layer::Conv2d { geometry: pointwise, kernel, bias }, &[middle])?;
    activation::inline(call, flow)
}

/// Keras' depthwise kernel is `[h, w, channels, multiplier]`; output `c * multiplier + m` reads channel `c`, which is
/// the rule of groups over the same values as `[h, w, 1, channels * multiplier]`.
fn depthwise_part(call: &mut Call<'_, '_>) -> Result<(Conv2d, Array), ImportError> {
    let [_, _, channels] = call.image()?;
    let multiplier = call.settings.size_or("depth_multiplier", 1)?;
    let outputs = channels.checked_mul(multiplier).ok_or_else(|| call.settings.fail("too many channels"))?;
    let geometry = geometry(call, outputs, channels)?;
    let (h, w) = geometry.kernel;
    // Keras 3 names the kernel of a plain depthwise layer like any other.
    let mut kernel = call.weight(&["depthwise_kernel", "kernel"], &[h, w, channels, multiplier])?;
    kernel.shape = geometry.kernel_shape();
    Ok((geometry, kernel))
}

fn geometry(call: &Call<'_, '_>, out_channels: usize, groups: usize) -> Result<Conv2d, ImportError> {
    let s = call.settings;
    s.channels_last()?;
    let [height, width, in_channels] = call.image()?;
    let (kernel, stride) = (s.pair("kernel_size")?, s.pair_or("strides", (1, 1))?);
    let (dilation, input) = (s.pair_or("dilation_rate", (1, 1))?, (height, width));
    let pads = match s.text("padding", "valid")? {
        "valid" => Pads::default(),
        "same" => Pads::same(input, kernel, stride, dilation),
        other => return Err(s.fail(format!("padding is {other:?}, must be valid or same"))),
    };
    let geometry = Conv2d { input, in_channels, out_channels, kernel, stride, dilation, pads, groups };
    geometry.output().map_err(|e| s.fail(e.to_string()))?;
    Ok(geometry)
}
