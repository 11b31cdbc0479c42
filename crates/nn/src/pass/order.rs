//! Maximum pooling before the activation: they commute, and fewer elements are then compared.

use super::edit::only_feeds;
use crate::graph::{Graph, Layer};

/// Moves monotone activations behind the max-pool (and the zero padding) that follows them.
pub(crate) fn pool_first(graph: &mut Graph, notes: &mut Vec<String>) {
    for i in 1..graph.nodes.len() {
        if !matches!(graph.nodes[i].layer, Layer::MaxPool(_)) {
            continue;
        }
        let from = graph.nodes[i].inputs[0];
        if !only_feeds(graph, from, i) {
            continue;
        }
        if matches!(graph.nodes[from].layer, Layer::ZeroPad(_)) {
            let before = graph.nodes[from].inputs[0];
            if monotone(&graph.nodes[before].layer) && only_feeds(graph, before, from) {
                exchange(graph, before, from);
            }
        }
        if monotone(&graph.nodes[from].layer) {
            exchange(graph, from, i);
            notes.push(format!("{}: moved behind {}", graph.nodes[i].name, graph.nodes[from].name));
        }
    }
}

/// Activations f with f(0) = 0 and f(a) <= f(b) for a <= b.
fn monotone(layer: &Layer) -> bool {
    match layer {
        Layer::Relu | Layer::ClippedRelu { .. } => true,
        Layer::LeakyRelu { slope } => (0.0..=1.0).contains(slope),
        _ => false,
    }
}

/// Exchanges a layer and its only consumer; both have one input.
fn exchange(graph: &mut Graph, first: usize, second: usize) {
    let (a, b) = (graph.nodes[first].clone(), graph.nodes[second].clone());
    graph.nodes[first].name = b.name;
    graph.nodes[first].layer = b.layer;
    graph.nodes[second].name = a.name;
    graph.nodes[second].layer = a.layer;
}
