//! The network that a run publishes.

use trefoil_nn::graph::{Graph, Post};
use trefoil_nn::pass::leave_answer;
use trefoil_nn::train::Loss;
use trefoil_proto::control::InputEncoding;
use trefoil_proto::dataset::{Block, Content, Declaration};

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
    // The ones and zeros of a class are numbers too.
    let encoding = |b: &Block| match b.content {
        Content::Values(e) => e,
        Content::OneHot => InputEncoding { scale: 1.0, ..InputEncoding::default() },
    };
    let Some(first) = declaration.blocks.first() else { return Ok(InputEncoding::default()) };
    let inputs = graph.shapes()?[0].iter().product::<usize>().saturating_mul(graph.towers());
    let mut before = 0;
    for b in &declaration.blocks {
        if before < inputs && encoding(b) != encoding(first) {
            return Err(TrainingError::Scales { one: first.name.clone(), other: b.name.clone() });
        }
        before = before.saturating_add(b.width as usize);
    }
    Ok(encoding(first))
}
