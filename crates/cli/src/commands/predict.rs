//! `predict`: private predictions for files.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use trefoil_client::{Client, ModelInfo, Reveal};
use trefoil_data::{Resize, load_input, write_npy};
use trefoil_nn::graph::Post;

use crate::access::Access;
use crate::accuracy::Totals;
use crate::output;

/// Arguments of `predict`.
#[derive(clap::Args)]
#[command(after_help = "Example: the three most likely classes of two scans\n  \
    trefoil predict --model mnist a.png b.png --identity keys/ward-3 --reveal probabilities --top 3\n\n\
    Example: the logits of a whole array, as an array\n  \
    trefoil predict --model mnist images.npy --identity keys/ward-3 --out logits.npy")]
pub(crate) struct Args {
    /// .npy, .npz, .png, .jpg, .csv or IDX files; each holds one sample or several
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,
    /// The model's name
    #[arg(long, value_name = "NAME")]
    model: String,
    #[command(flatten)]
    access: Access,
    /// What to ask for [default: logits if the owner allows them, else label]
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
    /// The outputs of the last layer
    Logits,
    /// The class alone: the servers reveal nothing else
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

#[derive(Serialize)]
struct One {
    input: String,
    index: usize,
    label: u32,
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
    let mut client = args.access.connect()?;
    let model = client.model(&args.model)?;
    let wanted = wanted(&client, &model, args.reveal)?;
    let shape = &model.manifest.program.input_shape;
    let resize = match args.resize {
        ResizeHow::Exact => Resize::Exact,
        ResizeHow::Stretch => Resize::Stretch,
        ResizeHow::Fit => Resize::Fit,
    };
    let (mut names, mut data) = (Vec::new(), Vec::new());
    for path in &args.inputs {
        let samples = load_input(path, shape, resize)?;
        names.extend((0..samples.len()).map(|i| (path.display().to_string(), i)));
        data.extend_from_slice(&samples.data);
    }
    if names.is_empty() {
        bail!("the inputs hold no sample");
    }
    let size = data.len() / names.len();
    let reveal = if wanted == Wanted::Label { Reveal::Label } else { Reveal::Logits };
    let bar = output::progress("predicting", names.len() as u64);
    let mut totals = Totals::default();
    let (mut values, mut labels, mut outputs) = (Vec::new(), Vec::new(), 1);
    for (i, chunk) in data.chunks(size * args.batch as usize).enumerate() {
        let n = chunk.len() / size;
        let p = client
            .predict(&model, reveal, chunk, n)
            .with_context(|| format!("samples {} to {}", i * args.batch as usize, i * args.batch as usize + n - 1))?;
        totals.add(&p);
        outputs = p.outputs;
        values.extend(p.logits.unwrap_or_default());
        labels.extend(p.labels.unwrap_or_default());
        bar.inc(n as u64);
    }
    bar.finish_and_clear();
    if wanted == Wanted::Probabilities {
        let post = if model.manifest.post == Post::None { Post::Softmax } else { model.manifest.post };
        post.apply(&mut values, outputs);
    }
    if let Some(path) = &args.out {
        match wanted {
            Wanted::Label => {
                let labels: Vec<f32> = labels.iter().map(|l| *l as f32).collect();
                write_npy(path, &[labels.len()], &labels)?;
            }
            _ => write_npy(path, &[names.len(), outputs], &values)?,
        }
    }
    let rows = values.chunks(outputs).map(|row| (top(row, args.top as usize), row.to_vec()));
    let alone = labels.iter().map(|l| (vec![(*l, f32::NAN)], Vec::new()));
    let all: Vec<_> = if wanted == Wanted::Label { alone.collect() } else { rows.collect() };
    if args.json {
        let one = |((input, index), (top, outputs)): ((String, usize), (Vec<(u32, f32)>, Vec<f32>))| {
            let label = top.first().map_or(0, |t| t.0);
            let top = if outputs.is_empty() { Vec::new() } else { top };
            One { input, index, label, top, outputs }
        };
        let predictions = names.into_iter().zip(all).map(one).collect();
        return output::json(&All { model: args.model, reveal: wanted, predictions, totals });
    }
    for ((input, index), (top, outputs)) in names.iter().zip(&all) {
        let shown: Vec<String> = match outputs.is_empty() {
            true => top.iter().map(|(l, _)| l.to_string()).collect(),
            false => top.iter().map(|(l, v)| format!("{l} ({v:.4})")).collect(),
        };
        output::line(format!("{input}[{index}]: {}", shown.join("  ")))?;
    }
    Ok(())
}

fn wanted(client: &Client, model: &ModelInfo, asked: Option<Wanted>) -> anyhow::Result<Wanted> {
    if let Some(w) = asked {
        return Ok(w);
    }
    match model.manifest.reveals_to(client.name()).first() {
        Some(Reveal::Logits) => Ok(Wanted::Logits),
        Some(Reveal::Label) => Ok(Wanted::Label),
        None => bail!("{} may not query {}: ask its owner, {}", client.name(), model.manifest.name, model.owner),
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
}
