//! Layers of several inputs.

use trefoil_nn::graph::Layer;

use super::Call;
use crate::ImportError;
use crate::keras_h5::build::Flow;

pub(super) fn add(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    call.push(Layer::Add)
}

pub(super) fn concatenate(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    let rank = call.inputs.first().map_or(0, |i| call.builder.shape(i.node).len());
    let axis = call.settings.axis("axis", rank, -1)?;
    call.push(Layer::Concat { axis })
}
