//! The network that a run publishes.

use trefoil_nn::graph::{Graph, Post};
use trefoil_nn::pass::leave_answer;
use trefoil_nn::train::Loss;
use trefoil_proto::control::InputEncoding;
use trefoil_proto::dataset::{Content, Declaration};

use super::TrainingError;

/// The network `graph` as it is served once it is trained with `loss`: what is last is left to the client. Trained on pairs, it tells the
/// distance of two inputs; similar are those closer than half the margin, as in training.
pub fn served(loss: Loss, graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    match loss {
        Loss::Contrastive { margin } => graph.post = Post::distance(margin / 2.0),
        Loss::Triplet { .. } => graph.post = Post::distance(0.0),
        _ => leave_answer(&mut graph),
    }
    graph
}

/// How the served model's inputs become numbers: as those that it was trained on.
pub(super) fn input(graph: &Graph, declaration: &Declaration) -> Result<InputEncoding, TrainingError> {
    let encoding = |i: usize| match declaration.blocks.get(i).map(|b| b.content) {
        Some(Content::Values(e)) => Some(e),
        _ => None,
    };
    let first = encoding(0).unwrap_or_default();
    let inputs: usize = graph.shapes()?[0].iter().product();
    let own_block = declaration.blocks.first().is_some_and(|b| b.width as usize == inputs);
    if graph.towers() > 1 && own_block && encoding(1) != Some(first) {
        return Err(TrainingError::Pair);
    }
    Ok(first)
}
