//! Pools over windows and over whole images.

use trefoil_nn::graph::Layer;
use trefoil_ring::geometry::{Pads, Pool2d};

use super::Call;
use crate::ImportError;
use crate::keras_h5::build::Flow;

pub(super) fn windows(call: &mut Call<'_, '_>, kind: fn(Pool2d) -> Layer) -> Result<Flow, ImportError> {
    let s = call.settings;
    s.channels_last()?;
    let [height, width, channels] = call.image()?;
    let (input, window) = ((height, width), s.pair_or("pool_size", (2, 2))?);
    let stride = s.pair_or("strides", window)?;
    let pads = match s.text("padding", "valid")? {
        "valid" => Pads::default(),
        "same" => Pads::same(input, window, stride, (1, 1)),
        other => return Err(s.fail(format!("padding is {other:?}, must be valid or same"))),
    };
    call.push(kind(Pool2d { input, channels, window, stride, pads }))
}

pub(super) fn global(call: &mut Call<'_, '_>, kind: fn(Pool2d) -> Layer) -> Result<Flow, ImportError> {
    call.settings.channels_last()?;
    let [height, width, channels] = call.image()?;
    let size = (height, width);
    let pool = Pool2d { input: size, channels, window: size, stride: size, pads: Pads::default() };
    let pooled = call.push(kind(pool))?;
    if call.settings.flag("keepdims", false)? {
        return Ok(pooled);
    }
    call.push_after("flatten", Layer::Reshape { shape: vec![channels] }, &[pooled])
}
