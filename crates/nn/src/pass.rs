//! Graph edits before compilation, each saying what it did: fewer values to open, fewer comparisons.

mod affine;
mod edit;
pub(crate) mod order;
mod tidy;

use crate::graph::{Graph, GraphError, Layer, Post};

/// Leaves a softmax or sigmoid at the end of a network, and dropout behind it, to the client: it sees as much either way,
/// and no server computes it.
pub fn leave_answer(graph: &mut Graph) {
    let mut at = graph.nodes.len().saturating_sub(1);
    while matches!(graph.nodes.get(at).map(|n| &n.layer), Some(Layer::Dropout { .. })) {
        at = graph.nodes[at].inputs.first().copied().unwrap_or(0);
    }
    let post = match graph.nodes.get(at).map(|n| &n.layer) {
        Some(Layer::Softmax) => Post::Softmax,
        Some(Layer::Sigmoid) => Post::Sigmoid,
        _ => return,
    };
    if at == 0 || graph.post != Post::None {
        return;
    }
    loop {
        let last = graph.nodes.len() - 1;
        let is_answer = !matches!(graph.nodes[last].layer, Layer::Dropout { .. });
        if !edit::bypass(graph, last) {
            return;
        }
        if is_answer {
            graph.post = post;
            return;
        }
    }
}

/// A scale and shift per channel that became part of a linear layer, or of another such layer, by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fold {
    /// Whose scale and shift.
    pub(crate) affine: String,
    /// Which layer took them.
    pub(crate) into: String,
    /// Whether that layer lies behind it, not before.
    pub(crate) behind: bool,
}

/// Runs every pass until none finds anything to do; gives a note for each edit.
///
/// The result computes the same function up to the rounding of folded weights, and holds no
/// [`crate::graph::Layer::ChannelAffine`].
pub fn run(graph: &mut Graph) -> Result<Vec<String>, GraphError> {
    run_saying(graph, &mut Vec::new())
}

/// The same, and adds to `folds` what was folded, in that order.
pub(crate) fn run_saying(graph: &mut Graph, folds: &mut Vec<Fold>) -> Result<Vec<String>, GraphError> {
    let mut notes = Vec::new();
    graph.shapes()?;
    edit::sweep(graph);
    loop {
        let before = notes.len();
        tidy::settle_norms(graph, &mut notes);
        tidy::simplify_activations(graph, &mut notes);
        tidy::drop_no_ops(graph, &mut notes)?;
        tidy::merge_padding(graph, &mut notes)?;
        affine::fold(graph, &mut notes, folds)?;
        order::pool_first(graph, &mut notes);
        if notes.len() == before {
            break;
        }
    }
    affine::make_diagonal(graph, &mut notes)?;
    graph.shapes()?;
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    #[test]
    fn the_last_activation_is_left_to_the_client() {
        let node = |layer, from: &[usize]| Node { name: "n".into(), layer, inputs: from.to_vec() };
        let input = || node(Layer::Input { shape: vec![3] }, &[]);
        for (layer, post) in [(Layer::Softmax, Post::Softmax), (Layer::Sigmoid, Post::Sigmoid)] {
            let nodes = vec![input(), node(Layer::Tanh, &[0]), node(layer.clone(), &[1])];
            let mut graph = Graph { nodes, post: Post::None };
            leave_answer(&mut graph);
            assert_eq!((graph.nodes.len(), graph.post), (2, post));
            leave_answer(&mut graph);
            assert_eq!((graph.nodes.len(), graph.post), (2, post), "a tanh stays");
            let mut alone = Graph { nodes: vec![input(), node(layer, &[0])], post: Post::None };
            leave_answer(&mut alone);
            assert_eq!((alone.nodes.len(), alone.post), (2, Post::None), "a network keeps a layer");
        }
    }
}
