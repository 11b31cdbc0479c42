//! `predict`: private predictions for files.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use trefoil_client::{Client, Manifest, ModelInfo, Reveal};
use trefoil_data::{Resize, load_input, write_npy};
use trefoil_nn::graph::Post;

use crate::access::Access;
use crate::accuracy::{Totals, decided};
use crate::training::served::{judged, verdict};
use crate::{output, places};

/// Arguments of `predict`.
#[derive(clap::Args)]
#[command(after_help = "Example: the three most likely classes of two scans\n  \
    trefoil predict --model mnist a.png b.png --identity keys/ward-3 --reveal probabilities --top 3\n\n\
    Example: the logits of a whole array, as an array\n  \
    trefoil predict --model mnist images.npy --identity keys/ward-3 --out logits.npy\n\n\
    Example: a model of pairs takes inputs two by two\n  \
    trefoil predict --model same a.png b.png --identity keys/ward-3")]
pub(crate) struct Args {
    /// .npy, .npz, .png, .jpg, .csv or IDX files; each holds one sample or several
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,
    /// The model's name
    #[arg(long, value_name = "NAME")]
    model: String,
    #[command(flatten)]
    access: Access,
    /// What to ask for [default: logits if the owner allows them, else label; of pairs label if allowed]
    #[arg(long)]
    reveal: Option<Wanted>,
    /// Print the K largest outputs of each sample
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Write all outputs (or the labels) to this .npy file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How pictures of another size are brought to the model's
    #[arg(long, default_value = "exact")]
    resize: ResizeHow,
    /// Samples sent at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// The outputs of the last layer; of pairs the distance
    Logits,
    /// The class alone, or whether a pair is similar: the servers reveal nothing else
    Label,
    /// The logits, turned into probabilities here
    Probabilities,
}

/// How pictures of another size are brought to the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ResizeHow {
    /// They are refused
    Exact,
    /// Width and height are scaled apart
    Stretch,
    /// Scaled with their proportions, the rest is black
    Fit,
}

/// A sample: its file, and its number in that.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Place {
    input: String,
    index: usize,
}

/// What an answer is of.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Asked {
    Sample(Place),
    Pair { inputs: [Place; 2] },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.input, self.index)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Sample(place) => place.fmt(f),
            Asked::Pair { inputs: [a, b] } => write!(f, "{a} and {b}"),
        }
    }
}

#[derive(Serialize)]
struct One {
    #[serde(flatten)]
    asked: Asked,
    label: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<(u32, f32)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<f32>,
}

#[derive(Serialize)]
struct All {
    model: String,
    reveal: Wanted,
    predictions: Vec<One>,
    #[serde(flatten)]
    totals: Totals,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    args.out.as_deref().map_or(Ok(()), |out| places::check("--out", out, &args.inputs))?;
    let mut client = args.access.connect()?;
    let model = client.model(&args.model)?;
    let reveal = wanted(&client, &model, args.reveal)?;
    let pair = matches!(model.manifest.post, Post::Distance { .. });
    let (names, data) = read(&args, &model.manifest.program.input_shape, pair)?;
    let answers = ask(&mut client, &model, reveal, &data, (names.len(), args.batch as usize))?;
    if let Some(path) = &args.out {
        match &answers.labels {
            Some(labels) => {
                let labels: Vec<f32> = labels.iter().map(|l| *l as f32).collect();
                write_npy(path, &[labels.len()], &labels)?;
            }
            None => write_npy(path, &[names.len(), answers.outputs], &answers.values)?,
        }
    }
    let one = |(i, asked): (usize, Asked)| match &answers.labels {
        Some(labels) => {
            let answer = pair.then(|| verdict(labels[i] == 1).to_owned());
            One { asked, label: labels[i], answer, top: Vec::new(), outputs: Vec::new() }
        }
        None => {
            let outputs = answers.values[i * answers.outputs..][..answers.outputs].to_vec();
            if pair {
                let post = model.manifest.post;
                let (label, answer) = (decided(post, &outputs, 1)[0], judged(post, outputs[0]));
                return One { asked, label, answer, top: Vec::new(), outputs };
            }
            let top = top(&outputs, args.top as usize);
            One { asked, label: top[0].0, answer: None, top, outputs }
        }
    };
    let predictions: Vec<One> = names.into_iter().enumerate().map(one).collect();
    if args.json {
        return output::json(&All { model: args.model, reveal, predictions, totals: answers.totals });
    }
    for p in &predictions {
        let shown: Vec<String> = match (&p.top[..], &p.answer, &p.outputs[..]) {
            (_, Some(answer), _) => vec![answer.clone()],
            ([], _, [squared]) => vec![format!("distance {:.4}", squared.max(0.0).sqrt())],
            ([], ..) => vec![p.label.to_string()],
            (top, ..) => top.iter().map(|(l, v)| format!("{l} ({v:.4})")).collect(),
        };
        output::line(format!("{}: {}", p.asked, shown.join("  ")))?;
    }
    Ok(())
}

/// What every answer will be of, and the values of all.
fn read(args: &Args, shape: &[usize], pair: bool) -> anyhow::Result<(Vec<Asked>, Vec<f32>)> {
    let shape = match shape {
        [2, one @ ..] if pair => one,
        _ if pair => bail!("the model is one of pairs, but takes an input of shape {shape:?}"),
        _ => shape,
    };
    let resize = match args.resize {
        ResizeHow::Exact => Resize::Exact,
        ResizeHow::Stretch => Resize::Stretch,
        ResizeHow::Fit => Resize::Fit,
    };
    let (mut names, mut data) = (Vec::new(), Vec::new());
    for path in &args.inputs {
        let samples = load_input(path, shape, resize)?;
        names.extend((0..samples.len()).map(|index| Place { input: path.display().to_string(), index }));
        data.extend_from_slice(&samples.data);
    }
    if names.is_empty() {
        bail!("the inputs hold no sample");
    }
    let asked = if pair { paired(&names)? } else { names.into_iter().map(Asked::Sample).collect() };
    Ok((asked, data))
}

/// Inputs two by two.
fn paired(names: &[Place]) -> anyhow::Result<Vec<Asked>> {
    match names.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|p| Asked::Pair { inputs: p.clone() }).collect()),
        _ => bail!("the model takes pairs, and {} inputs are no whole number of them", names.len()),
    }
}

/// What came back for all samples.
struct Answers {
    /// Outputs as asked for; empty where labels were.
    values: Vec<f32>,
    /// Outputs of one sample.
    outputs: usize,
    labels: Option<Vec<u32>>,
    totals: Totals,
}

fn ask(
    client: &mut Client,
    model: &ModelInfo,
    wanted: Wanted,
    data: &[f32],
    (samples, batch): (usize, usize),
) -> anyhow::Result<Answers> {
    let reveal = if wanted == Wanted::Label { Reveal::Label } else { Reveal::Logits };
    let size = data.len() / samples;
    let bar = output::progress("predicting", samples as u64);
    let labels = (reveal == Reveal::Label).then(Vec::new);
    let mut all = Answers { values: Vec::new(), outputs: 1, labels, totals: Totals::default() };
    for (i, chunk) in data.chunks(size * batch).enumerate() {
        let n = chunk.len() / size;
        let p = client.predict(model, reveal, chunk, n);
        let p = p.with_context(|| format!("samples {} to {} of {samples}", i * batch, i * batch + n - 1))?;
        all.totals.add(&p);
        all.outputs = p.outputs;
        all.values.extend(p.logits.unwrap_or_default());
        if let Some(l) = &mut all.labels {
            l.extend(p.labels.unwrap_or_default());
        }
        bar.inc(n as u64);
    }
    bar.finish_and_clear();
    if wanted == Wanted::Probabilities {
        let post = if model.manifest.post == Post::None { Post::Softmax } else { model.manifest.post };
        post.apply(&mut all.values, all.outputs);
    }
    Ok(all)
}

fn wanted(client: &Client, model: &ModelInfo, asked: Option<Wanted>) -> anyhow::Result<Wanted> {
    let Manifest { name, post, .. } = &model.manifest;
    let granted = model.manifest.reveals_to(client.name());
    let least = granted.last().filter(|_| post.judges());
    let wanted = match (asked, least.or(granted.first())) {
        (Some(wanted), _) => wanted,
        (None, Some(Reveal::Logits)) => Wanted::Logits,
        (None, Some(Reveal::Label)) => Wanted::Label,
        (None, None) => bail!("{} may not query {name}: ask its owner, {}", client.name(), model.owner),
    };
    match (wanted, post) {
        (Wanted::Probabilities, Post::Distance { .. }) => {
            bail!("--reveal: {name} judges pairs; ask for label or logits")
        }
        (Wanted::Label, Post::Distance { similar: 0 }) => {
            bail!("--reveal: {name} has no bound by which pairs are similar; ask for logits, their distance")
        }
        _ => Ok(wanted),
    }
}

/// The `k` largest, largest first, ties to the lower index.
fn top(row: &[f32], k: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(k);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first() {
        assert_eq!(top(&[1.0, 3.0, 3.0, 2.0], 3), [(1, 3.0), (2, 3.0), (3, 2.0)]);
        assert_eq!(top(&[1.0], 5).len(), 1);
    }

    #[test]
    fn pairs_are_inputs_two_by_two() {
        let place = |i: usize| Place { input: format!("{}.npy", i / 3), index: i % 3 };
        let names: Vec<Place> = (0..4).map(place).collect();
        let pairs = paired(&names).unwrap();
        let words: Vec<String> = pairs.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["0.npy[0] and 0.npy[1]", "0.npy[2] and 1.npy[0]"]);
        let of = |asked| One { asked, label: 1, answer: None, top: vec![], outputs: vec![] };
        let json = |asked| serde_json::to_string(&of(asked)).unwrap();
        let both = "{\"inputs\":[{\"input\":\"0.npy\",\"index\":2},{\"input\":\"1.npy\",\"index\":0}],\"label\":1}";
        assert_eq!(json(pairs.into_iter().next_back().unwrap()), both);
        assert_eq!(json(Asked::Sample(place(1))), "{\"input\":\"0.npy\",\"index\":1,\"label\":1}");
        assert!(paired(&names[..3]).unwrap_err().to_string().contains("3 inputs"));
    }
}
