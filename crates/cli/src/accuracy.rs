//! A shared model on a labelled set: how often it is right, and how far from the model in the clear.

use std::time::Instant;

use anyhow::{Context, bail};
use serde::Serialize;
use trefoil_client::{Client, ModelInfo, Prediction};
use trefoil_data::Samples;
use trefoil_nn::graph::{Graph, Post};
use trefoil_proto::control::StepReport;

use crate::commands::scaled;
use crate::output;

/// What all requests took together, as measured by the servers.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Totals {
    /// Rounds between the evaluators.
    pub(crate) rounds: u64,
    /// Bytes between the evaluators and those of the answers.
    pub(crate) bytes_online: u64,
    /// Bytes that carol sent.
    pub(crate) bytes_offline: u64,
    /// Each step of the program: time and traffic.
    #[serde(skip)]
    pub(crate) steps: Vec<StepReport>,
    /// Bytes of the answers.
    #[serde(skip)]
    pub(crate) revealed: u64,
}

impl Totals {
    /// Adds a request.
    pub(crate) fn add(&mut self, p: &Prediction) {
        let add = |to: &mut u64, n: u64| *to = to.saturating_add(n);
        self.steps.resize(self.steps.len().max(p.alice.steps.len()), StepReport::default());
        for ((sum, alice), bob) in self.steps.iter_mut().zip(&p.alice.steps).zip(&p.bob.steps) {
            add(&mut sum.nanos, alice.nanos);
            add(&mut sum.rounds, alice.rounds);
            add(&mut sum.online, alice.online);
            add(&mut sum.offline, bob.offline);
            add(&mut self.rounds, alice.rounds);
            add(&mut self.bytes_online, alice.online);
            add(&mut self.bytes_offline, bob.offline);
        }
        add(&mut self.revealed, p.revealed);
        add(&mut self.bytes_online, p.revealed);
    }
}

/// The result over a set; parts of 1.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Accuracy {
    /// Samples.
    pub(crate) count: usize,
    /// Right labels.
    pub(crate) accuracy: f64,
    /// Right labels of the model in the clear.
    pub(crate) clear_accuracy: Option<f64>,
    /// Labels that are those of the model in the clear.
    pub(crate) label_agreement: Option<f64>,
    /// Largest difference of a logit.
    pub(crate) max_logit_error: Option<f64>,
    /// What it took.
    #[serde(flatten)]
    pub(crate) totals: Totals,
    /// What the client waited.
    pub(crate) seconds: f64,
    /// The labels predicted.
    #[serde(skip)]
    pub(crate) labels: Vec<u32>,
    /// The outputs; none where labels were asked for.
    #[serde(skip)]
    pub(crate) outputs: Vec<f32>,
}

impl Accuracy {
    /// Compares with the answers of `graph`, in the clear, to the same samples.
    pub(crate) fn compare(&mut self, model: &ModelInfo, set: &Samples, graph: &Graph) -> anyhow::Result<()> {
        let post = model.manifest.post;
        // The file of a network that serves pairs does not know of them.
        let graph = if matches!(post, Post::Distance { .. }) { &Graph { post, ..graph.clone() } } else { graph };
        let expected = graph.answers(set.len(), &scaled(&set.data, &model.manifest.input))?;
        let labels = decided(post, &expected, expected.len() / set.len().max(1));
        self.clear_accuracy = set.labels.as_ref().map(|truth| part(&labels, truth));
        self.label_agreement = Some(part(&self.labels, &labels));
        if !self.outputs.is_empty() {
            let errors = self.outputs.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs()));
            self.max_logit_error = Some(errors.fold(0.0, f64::max));
        }
        Ok(())
    }
}

/// Predicts a labelled set in batches, and compares with `clear` where the owner has it.
pub(crate) fn measure(
    client: &mut Client,
    model: &ModelInfo,
    set: &Samples,
    batch: usize,
    clear: Option<&Graph>,
) -> anyhow::Result<Accuracy> {
    let Some(truth) = set.labels.as_ref().filter(|_| !set.is_empty()) else { bail!("the set has no labelled sample") };
    let granted = model.manifest.reveals_to(client.name());
    let reveal = *granted.first().with_context(|| format!("{} may not query this model", client.name()))?;
    let bar = output::progress("predicting", set.len() as u64);
    let began = Instant::now();
    let mut totals = Totals::default();
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    for start in (0..set.len()).step_by(batch) {
        let part = set.slice(start..start + batch);
        let p = client.predict(model, reveal, &part.data, part.len())?;
        totals.add(&p);
        match &p.logits {
            Some(l) => labels.extend(decided(model.manifest.post, l, p.outputs)),
            None => labels.extend(p.labels.clone().unwrap_or_default()),
        }
        logits.extend(p.logits.unwrap_or_default());
        bar.inc(part.len() as u64);
    }
    let seconds = began.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let mut result = Accuracy {
        count: set.len(),
        accuracy: part(&labels, truth),
        clear_accuracy: None,
        label_agreement: None,
        max_logit_error: None,
        totals,
        seconds,
        labels,
        outputs: logits,
    };
    if let Some(graph) = clear {
        result.compare(model, set, graph)?;
    }
    Ok(result)
}

/// The part of labels that are the same.
fn part(a: &[u32], b: &[u32]) -> f64 {
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
    same as f64 / a.len().max(1) as f64
}

/// What outputs say: of a pair whether it is similar, of a single output whether it is positive, else which is largest.
pub(crate) fn decided(post: Post, outputs: &[f32], per_sample: usize) -> Vec<u32> {
    match (post, per_sample) {
        (Post::Distance { .. }, _) => outputs.iter().map(|d| u32::from(post.is_similar(*d) == Some(true))).collect(),
        (_, 1) => outputs.iter().map(|z| u32::from(*z > 0.0)).collect(),
        _ => argmax(outputs, per_sample),
    }
}

/// The index of the largest output of each sample, ties to the lower one.
pub(crate) fn argmax(outputs: &[f32], per_sample: usize) -> Vec<u32> {
    let largest = |row: &[f32]| {
        let best = (0u32..).zip(row).reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map_or(0, |b| b.0)
    };
    outputs.chunks(per_sample.max(1)).map(largest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_parts() {
        assert_eq!(argmax(&[0.0, 1.0, 1.0, 5.0, -1.0, 0.0], 3), [1, 0]);
        assert_eq!(part(&[1, 2, 3, 4], &[1, 2, 0, 0]), 0.5);
        assert_eq!(decided(Post::distance(0.5), &[0.2, 0.3], 1), [1, 0]);
        assert_eq!(decided(Post::Sigmoid, &[0.2, -0.3], 1), [1, 0]);
        assert_eq!(decided(Post::None, &[0.0, 1.0, 5.0, 1.0], 2), [1, 0]);
    }
}
