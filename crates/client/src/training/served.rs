//! The network that a run publishes.

use trefoil_mpc::program::Reveal;
use trefoil_nn::graph::{Graph, Post};
use trefoil_nn::pass::leave_answer;
use trefoil_nn::train::Loss;
use trefoil_proto::control::{Grant, InputEncoding};
use trefoil_proto::dataset::{Block, Content, Declaration};

use super::{Reveals, TrainingError};

/// The network `graph` as it is served once it is trained with `loss`: what is last is left to the client. Trained on pairs, it
/// judges two inputs; similar are those closer than `reveal` says, or else than half the margin, as in training.
pub fn served(loss: Loss, reveal: &Reveals, graph: &Graph) -> Result<Graph, TrainingError> {
    let mut graph = graph.clone();
    let bound = reveal.similar_below;
    match (loss, bound) {
        (Loss::Contrastive { margin }, _) => graph.post = Post::distance(bound.unwrap_or(margin / 2.0)),
        (Loss::Triplet { .. }, _) => graph.post = Post::distance(bound.unwrap_or(0.0)),
        (_, Some(bound)) => return Err(TrainingError::Bound(bound)),
        (_, None) => leave_answer(&mut graph),
    }
    match bound.filter(|bound| *bound <= 0.0 || !graph.post.judges()) {
        Some(bound) => Err(TrainingError::Bound(bound)),
        None => Ok(graph),
    }
}

/// What the one who runs it may ask of the served network.
pub(super) fn grant(owner: &str, reveal: &Reveals, graph: &Graph) -> Grant {
    let usual = if graph.post.judges() { Reveal::Label } else { Reveal::Logits };
    Grant { client: owner.into(), reveals: reveal.answers.clone().unwrap_or_else(|| vec![usual]) }
}

/// What a model of this kind tells those who are granted `reveals`, in words.
pub(super) fn told(post: Post, reveals: &[Reveal]) -> String {
    let pairs = matches!(post, Post::Distance { .. });
    let what = |r: &Reveal| match (r, post.similar_below()) {
        (Reveal::Logits, _) if pairs => "distances of pairs".to_owned(),
        (Reveal::Logits, _) => "answers".into(),
        (Reveal::Label, Some(bound)) => format!("verdicts on pairs (closer than {bound:.4} or not, nothing else)"),
        (Reveal::Label, None) => "labels".into(),
    };
    let all: Vec<String> = reveals.iter().map(what).collect();
    format!("{} {}", all.join(" and "), if pairs { "by" } else { "of" })
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
