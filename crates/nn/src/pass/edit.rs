//! Editing a graph while keeping its order: consumers, removal, insertion.

use crate::graph::{Graph, Node, NodeId};

/// Who reads the output of `id`.
pub(super) fn consumers(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    (id + 1..graph.nodes.len()).filter(|&i| graph.nodes[i].inputs.contains(&id)).collect()
}

/// Whether `id` is read by `consumer` alone.
pub(super) fn only_feeds(graph: &Graph, id: NodeId, consumer: NodeId) -> bool {
    consumers(graph, id) == [consumer] && graph.nodes[consumer].inputs.iter().filter(|&&i| i == id).count() == 1
}

/// Takes out node `id`, whose value equals its first input's. False if it must stay: the output of the network
/// whose input is also read elsewhere, or the input itself.
pub(super) fn bypass(graph: &mut Graph, id: NodeId) -> bool {
    let from = graph.nodes[id].inputs[0];
    if id + 1 < graph.nodes.len() {
        for node in &mut graph.nodes[id + 1..] {
            node.inputs.iter_mut().filter(|i| **i == id).for_each(|i| *i = from);
        }
    } else if from > 0 && only_feeds(graph, from, id) {
        graph.nodes[id] = graph.nodes[from].clone();
    } else {
        return false;
    }
    sweep(graph);
    true
}

/// Drops the nodes that the output does not depend on (never the input).
pub(super) fn sweep(graph: &mut Graph) {
    let n = graph.nodes.len();
    let mut live = vec![false; n];
    live[0] = true;
    live[n - 1] = true;
    for i in (0..n).rev() {
        if live[i] {
            graph.nodes[i].inputs.iter().for_each(|&j| live[j] = true);
        }
    }
    let mut renumbered = vec![0; n];
    let mut next = 0;
    for i in 0..n {
        renumbered[i] = next;
        next += usize::from(live[i]);
    }
    let mut keep = live.iter();
    graph.nodes.retain(|_| keep.next().copied().unwrap_or(true));
    for node in &mut graph.nodes {
        node.inputs.iter_mut().for_each(|i| *i = renumbered[*i]);
    }
}

/// Puts `node` before the node at `id`; later nodes move up by one, and so do all references to them.
pub(super) fn insert(graph: &mut Graph, id: NodeId, node: Node) {
    for later in &mut graph.nodes[id..] {
        later.inputs.iter_mut().filter(|i| **i >= id).for_each(|i| *i += 1);
    }
    graph.nodes.insert(id, node);
}
