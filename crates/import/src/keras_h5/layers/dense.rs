//! Fully connected layers.

use trefoil_nn::graph::Layer;

use super::{Call, activation};
use crate::ImportError;
use crate::keras_h5::build::Flow;

pub(super) fn dense(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let units = call.settings.size("units")?;
    let inputs = call.builder.shape(call.single()?.node).last().copied();
    let inputs = inputs.ok_or_else(|| call.settings.fail("its input is a scalar"))?;
    let kernel = call.weight(&["kernel"], &[inputs, units])?;
    let bias = call.bias(units)?;
    let flow = call.push(Layer::Dense { kernel, bias })?;
    activation::inline(call, flow)
}
