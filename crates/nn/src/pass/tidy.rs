//! Layers that do nothing, or that another layer can do.

use super::edit::{bypass, sweep};
use crate::graph::{Graph, GraphError, Layer};

/// Leaky ReLUs that are ReLUs.
pub(super) fn simplify_activations(graph: &mut Graph, notes: &mut Vec<String>) {
    for node in &mut graph.nodes {
        if matches!(node.layer, Layer::LeakyRelu { slope } if slope == 0.0) {
            node.layer = Layer::Relu;
            notes.push(format!("{}: slope 0, a plain ReLU", node.name));
        }
    }
}

/// Batch normalisations by their moving averages.
pub(super) fn settle_norms(graph: &mut Graph, notes: &mut Vec<String>) {
    for node in &mut graph.nodes {
        if let Layer::BatchNorm(norm) = &node.layer {
            let (scale, shift) = norm.affine();
            node.layer = Layer::ChannelAffine { scale, shift };
            notes.push(format!("{}: a scale and a shift per channel", node.name));
        }
    }
}

/// Dropout, reshapes to the same shape, empty paddings, joins of one value, reshapes of reshapes.
pub(super) fn drop_no_ops(graph: &mut Graph, notes: &mut Vec<String>) -> Result<(), GraphError> {
    let mut i = 1;
    let mut shapes = graph.shapes()?;
    while i < graph.nodes.len() {
        let node = &graph.nodes[i];
        let from = node.inputs[0];
        let name = node.name.clone();
        let idle = match &node.layer {
            Layer::Reshape { shape } => *shape == shapes[from],
            Layer::Dropout { .. } => true,
            Layer::ZeroPad(p) => p.is_none(),
            Layer::Concat { .. } => node.inputs.len() == 1,
            Layer::LeakyRelu { slope } => *slope == 1.0,
            _ => false,
        };
        let chained =
            matches!(node.layer, Layer::Reshape { .. }) && matches!(graph.nodes[from].layer, Layer::Reshape { .. });
        let nodes = graph.nodes.len();
        if idle && bypass(graph, i) {
            notes.push(format!("{name}: changes nothing, removed"));
        } else if chained {
            let first = graph.nodes[from].name.clone();
            graph.nodes[i].inputs = graph.nodes[from].inputs.clone();
            notes.push(format!("{first}: its elements are taken directly by {name}"));
            sweep(graph);
            i += 1;
            i -= nodes - graph.nodes.len();
        } else {
            i += 1;
        }
        if graph.nodes.len() < nodes {
            shapes = graph.shapes()?;
        }
    }
    Ok(())
}

/// Zero padding followed by a convolution becomes the convolution's own padding.
pub(super) fn merge_padding(graph: &mut Graph, notes: &mut Vec<String>) -> Result<(), GraphError> {
    let shapes = graph.shapes()?;
    let found = notes.len();
    for i in 1..graph.nodes.len() {
        let from = graph.nodes[i].inputs[0];
        let Layer::ZeroPad(pads) = graph.nodes[from].layer else { continue };
        let source = graph.nodes[from].inputs[0];
        let padding = graph.nodes[from].name.clone();
        let node = &mut graph.nodes[i];
        let Layer::Conv2d { geometry, .. } = &mut node.layer else { continue };
        geometry.input = (shapes[source][0], shapes[source][1]);
        geometry.pads.top += pads.top;
        geometry.pads.bottom += pads.bottom;
        geometry.pads.left += pads.left;
        geometry.pads.right += pads.right;
        node.inputs = vec![source];
        notes.push(format!("{padding}: merged into the padding of {}", node.name));
    }
    if notes.len() > found {
        sweep(graph);
    }
    Ok(())
}
