//! Batch normalisation disappears into a linear neighbour, or becomes a diagonal convolution.

use trefoil_ring::geometry::{Conv2d, Pads};

use super::Fold;
use super::edit::{consumers, insert, only_feeds, sweep};
use crate::graph::{Array, Graph, GraphError, Layer, Node, NodeId};

/// Folds every [`Layer::ChannelAffine`] that has a linear neighbour where folding is exact, and says so.
pub(super) fn fold(graph: &mut Graph, notes: &mut Vec<String>, folds: &mut Vec<Fold>) -> Result<(), GraphError> {
    let mut i = 1;
    while i < graph.nodes.len() {
        if !into_producer(graph, i, notes, folds) && !before_average(graph, i, notes, folds) {
            into_consumers(graph, i, notes, folds)?;
        }
        i += 1;
    }
    Ok(())
}

/// The affine at `id`: its scale and shift.
fn affine(graph: &Graph, id: NodeId) -> Option<(Vec<f32>, Vec<f32>)> {
    match &graph.nodes[id].layer {
        Layer::ChannelAffine { scale, shift } => Some((scale.data.clone(), shift.data.clone())),
        _ => None,
    }
}

/// s (x W + b) + t = x (W s) + (b s + t).
fn into_producer(graph: &mut Graph, id: NodeId, notes: &mut Vec<String>, folds: &mut Vec<Fold>) -> bool {
    let Some((scale, shift)) = affine(graph, id) else { return false };
    let from = graph.nodes[id].inputs[0];
    if !only_feeds(graph, from, id) {
        return false;
    }
    let mut node = graph.nodes[from].clone();
    match &mut node.layer {
        Layer::Dense { kernel, bias } | Layer::Conv2d { kernel, bias, .. } => {
            for (w, s) in kernel.data.iter_mut().zip(scale.iter().cycle()) {
                *w *= s;
            }
            let old = bias.take().map_or_else(|| vec![0.0; scale.len()], |b| b.data);
            let new = old.iter().zip(&scale).zip(&shift).map(|((b, s), t)| b * s + t).collect();
            *bias = Some(Array { shape: vec![scale.len()], data: new });
        }
        Layer::ChannelAffine { scale: first, shift: offset } => {
            for ((s, t), (s2, t2)) in first.data.iter_mut().zip(&mut offset.data).zip(scale.iter().zip(&shift)) {
                *s *= s2;
                *t = *t * s2 + t2;
            }
        }
        _ => return false,
    }
    notes.push(format!("{}: folded into {}", graph.nodes[id].name, node.name));
    folds.push(Fold { affine: graph.nodes[id].name.clone(), into: node.name.clone(), behind: false });
    graph.nodes[id] = node;
    sweep(graph);
    true
}

/// An average of affine values is the affine of the average: exchanged, so that the affine meets what comes before.
fn before_average(graph: &mut Graph, id: NodeId, notes: &mut Vec<String>, folds: &mut Vec<Fold>) -> bool {
    if affine(graph, id).is_none() {
        return false;
    }
    let from = graph.nodes[id].inputs[0];
    if !matches!(graph.nodes[from].layer, Layer::AveragePool(_)) || !only_feeds(graph, from, id) {
        return false;
    }
    let before = graph.nodes[from].inputs[0];
    let linear = matches!(graph.nodes[before].layer, Layer::Dense { .. } | Layer::Conv2d { .. });
    if !linear || !only_feeds(graph, before, from) {
        return false;
    }
    let (a, b) = (graph.nodes[from].clone(), graph.nodes[id].clone());
    notes.push(format!("{}: moved before {}", b.name, a.name));
    graph.nodes[from] = Node { inputs: a.inputs.clone(), ..b };
    graph.nodes[id] = Node { inputs: vec![from], ..a };
    into_producer(graph, from, notes, folds);
    true
}

/// (s x + t) W + b = x (s W) + (b + t W), wherever every consumer is linear and no padding hides the shift.
fn into_consumers(
    graph: &mut Graph,
    id: NodeId,
    notes: &mut Vec<String>,
    folds: &mut Vec<Fold>,
) -> Result<(), GraphError> {
    let Some((scale, shift)) = affine(graph, id) else { return Ok(()) };
    let readers = consumers(graph, id);
    let mut targets = Vec::new();
    for reader in readers {
        match &graph.nodes[reader].layer {
            Layer::Reshape { .. } => {
                let behind = consumers(graph, reader);
                let dense = |&i: &NodeId| matches!(graph.nodes[i].layer, Layer::Dense { .. });
                if behind.is_empty() || !behind.iter().all(dense) {
                    return Ok(());
                }
                targets.extend(behind);
            }
            _ => targets.push(reader),
        }
    }
    let exact = |&i: &NodeId| match &graph.nodes[i].layer {
        Layer::Dense { kernel, .. } => kernel.shape[0].is_multiple_of(scale.len()),
        Layer::Conv2d { geometry, .. } => geometry.pads.is_none() || shift.iter().all(|&t| t == 0.0),
        _ => false,
    };
    if targets.is_empty() || !targets.iter().all(exact) {
        return Ok(());
    }
    for target in targets {
        absorb(&mut graph.nodes[target].layer, &scale, &shift);
        let (affine, into) = (graph.nodes[id].name.clone(), graph.nodes[target].name.clone());
        notes.push(format!("{affine}: folded into {into}"));
        folds.push(Fold { affine, into, behind: true });
    }
    let from = graph.nodes[id].inputs[0];
    for node in &mut graph.nodes {
        node.inputs.iter_mut().filter(|i| **i == id).for_each(|i| *i = from);
    }
    sweep(graph);
    Ok(())
}

/// Multiplies the input channels of a linear layer by `scale` and adds what `shift` contributes to its bias.
fn absorb(layer: &mut Layer, scale: &[f32], shift: &[f32]) {
    let (kernel, bias, outputs, inputs, groups) = match layer {
        Layer::Dense { kernel, bias } => {
            let (i, o) = (kernel.shape[0], kernel.shape[1]);
            (kernel, bias, o, i, 1)
        }
        Layer::Conv2d { geometry, kernel, bias } => {
            (kernel, bias, geometry.out_channels, geometry.in_channels / geometry.groups, geometry.groups)
        }
        _ => return,
    };
    let mut sums = bias.take().map_or_else(|| vec![0.0; outputs], |b| b.data.iter().map(|&b| f64::from(b)).collect());
    for (r, row) in kernel.data.chunks_exact_mut(outputs).enumerate() {
        for (o, w) in row.iter_mut().enumerate() {
            let channel = (o / (outputs / groups) * inputs + r % inputs) % scale.len();
            sums[o] += f64::from(shift[channel]) * f64::from(*w);
            *w *= scale[channel];
        }
    }
    *bias = Some(Array { shape: vec![outputs], data: sums.iter().map(|&b| b as f32).collect() });
}

/// Turns the affines that are left into depthwise 1 x 1 convolutions.
pub(super) fn make_diagonal(graph: &mut Graph, notes: &mut Vec<String>) -> Result<(), GraphError> {
    let mut i = 1;
    while i < graph.nodes.len() {
        let Layer::ChannelAffine { scale, shift } = graph.nodes[i].layer.clone() else {
            i += 1;
            continue;
        };
        let shape = graph.shapes()?[i].clone();
        let channels = scale.data.len();
        let name = graph.nodes[i].name.clone();
        let (h, w) = match shape[..] {
            [h, w, _] => (h, w),
            _ => (shape.iter().product::<usize>() / channels, 1),
        };
        let geometry = Conv2d {
            input: (h, w),
            in_channels: channels,
            out_channels: channels,
            kernel: (1, 1),
            stride: (1, 1),
            dilation: (1, 1),
            pads: Pads::default(),
            groups: channels,
        };
        let kernel = Array { shape: vec![1, 1, 1, channels], data: scale.data };
        let conv = Layer::Conv2d { geometry, kernel, bias: Some(shift) };
        notes.push(format!("{name}: no linear layer to fold it into, made a product per channel"));
        if shape.len() == 3 {
            graph.nodes[i].layer = conv;
            i += 1;
            continue;
        }
        let reshape = |shape| Layer::Reshape { shape };
        let from = graph.nodes[i].inputs[0];
        insert(graph, i, Node { name: name.clone(), layer: reshape(vec![h, w, channels]), inputs: vec![from] });
        insert(graph, i + 1, Node { name, layer: conv, inputs: vec![i] });
        graph.nodes[i + 2].layer = reshape(shape);
        graph.nodes[i + 2].inputs = vec![i + 1];
        i += 3;
    }
    Ok(())
}
