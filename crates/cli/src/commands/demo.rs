//! `demo`: the whole system on this host, from training to the answer that only the client sees.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use trefoil_client::{InputEncoding, ModelInfo, Reveal, manifest};
use trefoil_data::{Resize, Samples, Split, digits, load_dir_as};
use trefoil_link::Network;
use trefoil_nn::build::demo_cnn;
use trefoil_nn::compile::{CompileOptions, compile};
use trefoil_nn::graph::Graph;
use trefoil_nn::train::{TrainSpec, clear};
use trefoil_proto::Transport;
use trefoil_proto::control::Grant;

use super::share::check;
use super::{print_accuracy, scaled};
use crate::accuracy::{Accuracy, measure};
use crate::plan::{Layer, layers, plan_for};
use crate::table::Table;
use crate::trial::{Trial, TrialOptions};
use crate::{model, output};

/// Digits to train on, and epochs.
const TRAINED: usize = 3_000;
const EPOCHS: usize = 3;
/// Digits there are.
const CLASSES: usize = 10;
/// Test digits come from another seed than those trained on.
const SEEDS: [u64; 2] = [1, 2];
/// Predictions printed.
const SHOWN: usize = 20;

/// Arguments of `demo`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil demo\n\n\
    Example: your own model and labelled images\n  trefoil demo --model model.h5 --data mnist --count 100 --batch 10")]
pub(crate) struct Args {
    /// A Keras file (.keras or .h5) [default: a small network that is trained now]
    #[arg(long, value_name = "F", requires = "data")]
    model: Option<PathBuf>,
    /// A labelled set [default: digits that are generated]
    #[arg(long, value_name = "DIR", requires = "model")]
    data: Option<PathBuf>,
    /// Samples to predict
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Samples sent at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// How the three processes are connected
    #[arg(long, default_value = "tls")]
    link: Socket,
    /// Delay and limit the links between the servers, and plan for that: lan, wan, or round trip and bandwidth
    #[arg(long, value_name = "NET")]
    network: Option<Network>,
    /// Keep keys, sealed stores and logs in this new folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// One JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// Links over sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Socket {
    /// TLS 1.3, certificates pinned on both sides
    Tls,
    /// Plain TCP
    Tcp,
}

impl Socket {
    /// As the cluster file has it.
    pub(crate) fn transport(self) -> Transport {
        match self {
            Socket::Tls => Transport::Tls,
            Socket::Tcp => Transport::Tcp,
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    link: Transport,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    batch: u32,
    requests: usize,
    #[serde(flatten)]
    accuracy: &'a Accuracy,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let tell = |text: &str| if args.json { Ok(()) } else { output::line(text) };
    let options = TrialOptions {
        transport: args.link.transport(),
        lanes: 2,
        keep: args.keep.clone(),
        pool_mb: 256,
        network: args.network,
        clients: Vec::new(),
        helper: false,
    };
    tell("Starting alice, bob and carol: three processes on this host, with fresh keys")?;
    let trial = Trial::start(&options)?;
    let (graph, set) = match (&args.model, &args.data) {
        (Some(file), Some(data)) => own(file, data)?,
        _ => trained(args.count as usize, args.json)?,
    };
    let set = set.take(args.count as usize);
    let input = InputEncoding::default();
    let mut compiled = compile(&graph, &CompileOptions::default()).context("the model cannot run on shares")?;
    compiled.program = plan_for(&args.network.unwrap_or(Network::LOOPBACK), &compiled.program, args.batch, false)?;
    let samples = scaled(&set.data, &input);
    check(&compiled, Reveal::Logits, &input, Some(&samples))?;
    let grants = vec![Grant { client: "client".into(), reveals: vec![Reveal::Logits] }];
    let manifest = manifest("demo", &compiled, input, grants)?;
    tell("The model's owner shares the weights: each server gets random numbers")?;
    let mut owner = trial.client("owner")?;
    trial.once_ready(|| owner.share(&manifest, &compiled.weights))?;
    drop(owner);
    let mut client = trial.client("client")?;
    let info = trial.once_ready(|| client.model("demo"))?;
    tell(&format!("The client shares {} images and alone opens the answers\n", set.len()))?;
    let accuracy = measure(&mut client, &info, &set, args.batch as usize, Some(&graph))?;
    let requests = set.len().div_ceil(args.batch as usize);
    if args.json {
        let Args { network, batch, .. } = args;
        return output::json(&Report { link: options.transport, network, batch, requests, accuracy: &accuracy });
    }
    show(&set, &accuracy)?;
    table(&info, &accuracy, &set, args.batch as usize)?;
    output::line("")?;
    print_accuracy(&accuracy)?;
    held(args.keep.as_deref(), &compiled.weights, set.len())?;
    let ended = Instant::now();
    drop(trial);
    output::line(format!("\nAll three servers are stopped ({})", output::time(ended.elapsed().as_secs_f64())))
}

/// The user's model and test set.
fn own(file: &Path, data: &Path) -> anyhow::Result<(Graph, Samples)> {
    let graph = model::load(file, None)?;
    let shapes = graph.shapes()?;
    let set = load_dir_as(data, Split::Test, &shapes[0], Resize::Fit).context("cannot read the set")?;
    if set.is_empty() {
        bail!("{}: no samples", data.display());
    }
    Ok((graph, set))
}

/// A small network, trained in the clear on generated digits, and others to test on.
fn trained(tested: usize, quiet: bool) -> anyhow::Result<(Graph, Samples)> {
    let began = Instant::now();
    let set = digits::generate(TRAINED, SEEDS[0]);
    let test = digits::generate(tested, SEEDS[1]);
    let labels: Vec<u8> = set.labels.iter().flatten().map(|l| *l as u8).collect();
    let mut graph = demo_cnn(1)?;
    let spec = TrainSpec { epochs: EPOCHS, ..TrainSpec::classifier() };
    let steps = EPOCHS * (TRAINED / spec.batch);
    let bar = if quiet { indicatif::ProgressBar::hidden() } else { output::progress("training", steps as u64) };
    let mut seen = 0.0;
    let records = clear::labelled(&scaled(&set.data, &InputEncoding::default()), &labels, CLASSES)?;
    clear::fit::<f32>(&mut graph, &records, &spec, |p| {
        seen = 0.95 * seen + 0.05 * p.score.accuracy.unwrap_or_default();
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    if !quiet {
        let time = output::time(began.elapsed().as_secs_f64());
        output::line(format!(
            "The model's owner trained a small CNN in the clear on {TRAINED} generated digits: {:.1} % right at the end, {time}",
            100.0 * seen
        ))?;
    }
    Ok((graph, test))
}

/// One picture, and actual and predicted labels.
fn show(set: &Samples, accuracy: &Accuracy) -> anyhow::Result<()> {
    if let (Some(first), [h, w, 1]) = (set.sample(0), &set.shape[..]) {
        output::line(picture(first, *h, *w) + "\n")?;
    }
    let actual = set.labels.as_deref().unwrap_or_default();
    let join = |l: &[u32]| l.iter().take(SHOWN).map(|l| format!("{l:>2}")).collect::<Vec<_>>().join(" ");
    let more = if actual.len() > SHOWN { " ..." } else { "" };
    output::line(format!("actual     {}{more}", join(actual)))?;
    output::line(format!("predicted  {}{more}\n", join(&accuracy.labels)))
}

/// A grey picture of values 0 to 255 in half blocks, two rows to a line.
fn picture(values: &[f32], height: usize, width: usize) -> String {
    const SHADES: [char; 5] = [' ', '.', 'o', 'O', '@'];
    let at = |y: usize, x: usize| if y < height { values[y * width + x] } else { 0.0 };
    let shade = |v: f32| SHADES[((v / 256.0 * SHADES.len() as f32) as usize).min(SHADES.len() - 1)];
    let row = |y: usize| (0..width).map(|x| shade(f32::midpoint(at(y, x), at(y + 1, x)))).collect::<String>();
    let rows: Vec<String> = (0..height).step_by(2).map(row).map(|r| r.trim_end().to_owned()).collect();
    let inked = |r: &String| !r.is_empty();
    let first = rows.iter().position(inked).unwrap_or(0);
    let last = rows.iter().rposition(inked).map_or(first, |l| l + 1);
    rows[first..last].join("\n")
}

/// What each layer took, beside what was predicted.
fn table(info: &ModelInfo, accuracy: &Accuracy, set: &Samples, batch: usize) -> anyhow::Result<()> {
    let program = info.manifest.program.ending_in(Reveal::Logits, info.manifest.window)?;
    let whole = set.len() / batch;
    let rest = set.len() % batch;
    let planned = layers(&program, batch)?;
    let last = if rest > 0 { layers(&program, rest)? } else { Vec::new() };
    let t = &accuracy.totals;
    let mut out = Table::new(&["layer", "operation", ">time", ">rounds", ">online", ">offline", "as explained"]);
    let mut all_as_planned = true;
    for (i, l) in planned.iter().enumerate() {
        let due = |f: fn(&Layer) -> u64| f(l) * whole as u64 + last.get(i).map_or(0, f);
        let steps = t.steps.get(l.steps.clone()).unwrap_or_default();
        let sum = |f: fn(&trefoil_proto::control::StepReport) -> u64| steps.iter().map(f).sum::<u64>();
        let revealed = if l.steps.end == t.steps.len() { t.revealed } else { 0 };
        let (rounds, online, offline) = (sum(|s| s.rounds), sum(|s| s.online) + revealed, sum(|s| s.offline));
        let same = (rounds, online, offline) == (due(|l| l.rounds), due(|l| l.bytes_online), due(|l| l.bytes_offline));
        all_as_planned &= same;
        let time = output::time(output::seconds(sum(|s| s.nanos)));
        let counts = [rounds.to_string(), output::bytes(online), output::bytes(offline)];
        let verdict = if same { "yes".to_owned() } else { "NO".to_owned() };
        let row = [l.layer.clone(), l.operation.clone(), time].into_iter().chain(counts).chain([verdict]);
        out.row(row.collect());
    }
    output::line(out.text())?;
    if !all_as_planned {
        bail!("rounds or bytes differ from what `explain` says: please report this");
    }
    Ok(())
}

/// Who held what.
fn held(kept: Option<&Path>, weights: &[trefoil_ring::Tensor], images: usize) -> anyhow::Result<()> {
    let n: usize = weights.iter().map(trefoil_ring::Tensor::len).sum();
    output::line("\nWho held what")?;
    output::line(format!("  owner   {n} weights in the clear; saw no image and no answer"))?;
    output::line(format!("  client  {images} images and their answers; saw no weight"))?;
    output::line("  alice   a random share of every weight and image, values under masks that she cannot remove")?;
    output::line("  bob     the other share, the same masked values")?;
    output::line("  carol   the seeds of the masks and nothing that they hide")?;
    output::line("  Two servers together could read everything: they belong in different hands.")?;
    match kept {
        Some(folder) => output::line(format!("  keys, sealed stores and logs are kept in {}", folder.display())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_drawn() {
        let p = picture(&[0.0, 255.0, 0.0, 255.0, 128.0, 0.0], 3, 2);
        assert_eq!(p, " @\n.");
    }
}
