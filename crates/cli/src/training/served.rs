//! What the model that a run publishes is asked when the run is over.

use trefoil_client::{Client, Content, ModelInfo};
use trefoil_data::Samples;
use trefoil_nn::graph::{Graph, Post};

use super::data::Records;
use super::description::Description;
use crate::accuracy::{Accuracy, measure};
use crate::output;

/// Rows predicted by a model that was just trained, at most.
const PREDICTED: usize = 100;
/// Rows sent at once.
const BATCH: usize = 10;
/// Pairs shown.
const SHOWN: usize = 6;

/// Rows that the trained model is asked about.
pub(crate) struct Asked {
    set: Samples,
    /// Whether it was trained on others.
    validation: bool,
    model: ModelInfo,
    /// What it answered.
    pub(crate) answers: Accuracy,
}

/// Asks the model that was trained and is served about the rows kept for validation, or else about the last rows. None
/// where no answer is right or wrong, or where features have several ranges.
pub(crate) fn ask(
    d: &Description,
    records: &Records,
    client: &mut Client,
    model: ModelInfo,
) -> anyhow::Result<Option<Asked>> {
    let Some((label, features)) = records.columns.split_last() else { return Ok(None) };
    let alike = features.iter().all(|c| c.block.content == Content::Values(model.manifest.input));
    if !alike || !d.training.spec.loss.counts_right() || d.training.spec.loss.labels(1) == 0 {
        return Ok(None);
    }
    let trained = d.training.spec.trained(records.rows);
    let validation = trained < records.rows;
    let first = if validation { trained } else { records.rows.saturating_sub(PREDICTED) };
    let rows = first..records.rows.min(first + PREDICTED);
    let mut values = Vec::new();
    for row in rows.clone() {
        for c in features {
            let width = c.block.width as usize;
            values.extend_from_slice(&c.values[row * width..][..width]);
        }
    }
    let truth: Vec<u32> = match (label.block.content, label.block.width) {
        (Content::OneHot, _) => label.labels[rows].to_vec(),
        (Content::Values(_), 1) => label.values[rows].iter().map(|v| u32::from(*v > 0.5)).collect(),
        _ => return Ok(None),
    };
    let shape = model.manifest.program.input_shape.clone();
    let set = Samples::new(shape, values, Some(truth))?;
    let answers = measure(client, &model, &set, BATCH, None)?;
    Ok(Some(Asked { set, validation, model, answers }))
}

impl Asked {
    /// Compares the answers with those of the network as it was trained in the clear.
    pub(crate) fn beside(&mut self, clear: &Graph) -> anyhow::Result<()> {
        self.answers.compare(&self.model, &self.set, clear)
    }

    /// Prints what was asked; of pairs some answers.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let (name, rows) = (&self.model.manifest.name, self.set.len());
        let kind = if self.validation { "validation rows" } else { "rows that it was trained on" };
        output::line(format!("\nPrivate predictions of {name}, {rows} {kind}"))?;
        let post = self.model.manifest.post;
        let truth = self.set.labels.iter().flatten();
        for (i, (label, truth)) in self.answers.labels.iter().zip(truth).enumerate().take(SHOWN) {
            if post.judges() {
                let answer = self.answers.outputs.get(i).and_then(|squared| judged(post, *squared));
                let answer = answer.unwrap_or_else(|| verdict(*label == 1).into());
                let truth = if *truth == 1 { "similar" } else { "dissimilar" };
                output::line(format!("pair {i}: {answer}; it is {truth}"))?;
            }
        }
        crate::commands::print_accuracy(&self.answers)
    }

    /// Prints them beside those of the network trained in the clear.
    pub(crate) fn print_beside(&self) -> anyhow::Result<()> {
        let percent = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{:.2} %", 100.0 * x));
        let a = &self.answers;
        output::line(format!(
            "\nThe same {} rows: {} right privately, {} by the network trained in the clear; {} of the answers are the same",
            a.count,
            percent(Some(a.accuracy)),
            percent(a.clear_accuracy),
            percent(a.label_agreement)
        ))
    }
}

/// A verdict on a pair.
pub(crate) fn verdict(similar: bool) -> &'static str {
    if similar { "Similar" } else { "Dissimilar" }
}

/// What a squared distance says of a pair, if anything.
pub(crate) fn judged(post: Post, squared: f32) -> Option<String> {
    let answer = verdict(post.is_similar(squared)?);
    Some(format!("{answer} (distance {:.4})", squared.max(0.0).sqrt()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use trefoil_client::Reveal;
    use trefoil_client::training::served;

    use super::*;
    use crate::training::description::parse;

    fn description(loss: &str, last: &str) -> Description {
        let text = format!(
            "name = \"r\"\n[model]\ninput = [4]\nlayers = [{{ dense = 3, activation = \"{last}\" }}]\n[loss]\nname = \"{loss}\"\n\
             [optimizer]\nname = \"sgd\"\nrate = 0.1\n[train]\nrows = 64\nepochs = 1\n"
        );
        parse(&text, Path::new(""), false).unwrap()
    }

    #[test]
    fn what_is_served_follows_from_the_loss() {
        for (loss, last, post, nodes) in [
            ("cross-entropy", "softmax", Post::Softmax, 2),
            ("binary-cross-entropy", "sigmoid", Post::Sigmoid, 2),
            ("mean-squared-error", "tanh", Post::None, 3),
            ("contrastive", "sigmoid", Post::distance(0.5), 3),
            ("triplet", "tanh", Post::distance(0.0), 3),
        ] {
            let d = description(loss, last);
            let graph = served(d.training.spec.loss, &d.training.reveal, &d.training.graph).unwrap();
            assert_eq!((graph.post, graph.nodes.len()), (post, nodes), "{loss}");
        }
        assert_eq!(judged(Post::distance(0.5), 0.04).as_deref(), Some("Similar (distance 0.2000)"));
        assert_eq!(judged(Post::distance(0.5), 4.0).as_deref(), Some("Dissimilar (distance 2.0000)"));
        assert_eq!(judged(Post::distance(0.0), 4.0), None);
    }

    #[test]
    fn the_bound_and_what_may_be_asked_are_the_files() {
        let base = |loss: &str, reveal: &str| {
            let text = format!(
                "name = \"r\"\n[model]\ninput = [4]\nlayers = [{{ dense = 3 }}]\n[loss]\nname = \"{loss}\"\n\
                 [optimizer]\nname = \"sgd\"\nrate = 0.1\n[train]\nrows = 64\nepochs = 1\n[reveal]\n{reveal}\n"
            );
            parse(&text, Path::new(""), false)
        };
        let (bound, both) = ("publish = \"m\"\nsimilar_below = 0.75", [Reveal::Label, Reveal::Logits]);
        for loss in ["contrastive", "triplet"] {
            let d = base(loss, &format!("{bound}\nanswers = [\"label\", \"logits\"]")).unwrap().training;
            assert_eq!(served(d.spec.loss, &d.reveal, &d.graph).unwrap().post, Post::distance(0.75));
            assert_eq!(d.reveal.answers.as_deref(), Some(&both[..]));
        }
        let d = base("binary-cross-entropy", bound).unwrap().training;
        assert!(served(d.spec.loss, &d.reveal, &d.graph).unwrap_err().to_string().contains("contrastive or triplet"));
        for (reveal, said) in [
            ("similar_below = 0.5", "publish names it"),
            ("answers = \"label\"", "publish names it"),
            ("publish = \"m\"\nanswers = []", "names nothing"),
            ("publish = \"m\"\nanswers = \"lable\"", "\"label\" is the nearest"),
            ("publish = \"m\"\nsimilar_below = 0", "0 is not within"),
        ] {
            let e = format!("{:#}", base("contrastive", reveal).unwrap_err());
            assert!(e.contains(said), "{e}");
        }
    }
}
