//! `explain`: what will run, what it costs on a given link, what is revealed to whom.

use anyhow::{Context, bail};
use serde::Serialize;
use trefoil_client::{InputEncoding, Reveal};
use trefoil_link::Network;
use trefoil_nn::compile::{Compiled, compile};
use trefoil_nn::graph::Post;
use trefoil_nn::range::{self, How, RangeReport};

use crate::model::ModelArgs;
use crate::output;
use crate::plan::{Layer, layers, plan_for, predict};
use crate::table::Table;
use crate::training::description::load;
use crate::training::explain::explain as training;

/// Arguments of `explain`.
#[derive(clap::Args)]
#[command(after_help = "Example: one image over a wide network\n  trefoil explain model.h5 --network wan\n\n\
    Example: a built-in network, labels only, 32 images at once\n  trefoil explain net:B --reveal label --batch 32 --network 5ms,1gbit\n\n\
    Example: a training run\n  trefoil explain examples/lenet.toml --network wan")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The link between the servers: loopback, lan (0.1 ms, 10 Gb/s), wan (40 ms, 352 Mb/s) or ROUNDTRIP,BANDWIDTH
    #[arg(long, value_name = "LINK", default_value = "lan")]
    network: Network,
    /// Samples at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// What is revealed to the client: logits or label [default: logits; of pairs label]
    #[arg(long, value_name = "WHAT", value_parser = super::share::reveal)]
    reveal: Option<Reveal>,
    /// Of a training run (RUN.toml): take the small sizes that the file has under "quick"
    #[arg(long)]
    quick: bool,
    /// Plan for material that is dealt ahead of requests
    #[arg(long)]
    ahead: bool,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Predicted<'a> {
    #[serde(flatten)]
    layer: &'a Layer,
    predicted_online_s: f64,
    predicted_offline_s: f64,
}

/// What the plan would be on another link.
#[derive(Serialize)]
struct Elsewhere {
    network: &'static str,
    compares: Vec<String>,
    rounds: u64,
    bytes_online: u64,
    bytes_offline: u64,
    predicted_online_s: f64,
    predicted_offline_s: f64,
}

#[derive(Serialize)]
struct Revealed {
    recipient: &'static str,
    purpose: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Learns {
    party: &'static str,
    learns: String,
}

#[derive(Serialize)]
struct Wire {
    layer: String,
    operation: &'static str,
    low: f64,
    high: f64,
    limit_low: f64,
    limit_high: f64,
    proved: bool,
}

#[derive(Serialize)]
struct Explained<'a> {
    model: String,
    batch: u32,
    network: Network,
    layers: Vec<Predicted<'a>>,
    rounds: u64,
    bytes_online: u64,
    bytes_offline: u64,
    bytes_forwarded: u64,
    bytes_input: u64,
    predicted_online_s: f64,
    predicted_offline_s: f64,
    elsewhere: Vec<Elsewhere>,
    reveals: Vec<Revealed>,
    learns: Vec<Learns>,
    fraction_bits: u32,
    window_bits: u32,
    ranges: Vec<Wire>,
    notes: Vec<String>,
}

/// Refuses what a training run's file says itself.
fn refuse_model_options(args: &Args) -> anyhow::Result<()> {
    let (model, input) = (&args.model, args.model.input.encoding());
    let given = [
        ("batch", args.batch != 1),
        ("reveal", args.reveal.is_some()),
        ("ahead", args.ahead),
        ("architecture", model.architecture.is_some()),
        ("similar-below", model.similar_below.is_some()),
        ("fraction-bits", model.fraction_bits != 16),
        ("window-bits", model.window_bits != 32),
        ("scale, --offset or --range", input != InputEncoding::default()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => bail!("--{option} is not for training runs: the file says it"),
        None => Ok(()),
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if args.model.model.extension().is_some_and(|e| e == "toml") {
        refuse_model_options(&args)?;
        return training(&load(&args.model.model, args.quick)?, &args.network, args.json);
    }
    if args.quick {
        bail!("--quick is for training runs (RUN.toml)");
    }
    let graph = args.model.load()?;
    let mut compiled = compile(&graph, &args.model.options()).context("the model cannot run on shares")?;
    let usual = if graph.post.judges() { Reveal::Label } else { Reveal::Logits };
    let reveal = args.reveal.unwrap_or(usual);
    let elsewhere = elsewhere(&compiled, &args, reveal)?;
    compiled.program = plan_for(&args.network, &compiled.program, args.batch, args.ahead)?;
    let input = args.model.input.encoding();
    let report = range::check(&compiled, reveal, &(input.low..=input.high), None).context("the range of values")?;
    let program = compiled.ending_in(reveal)?;
    let layers = layers(&program, args.batch as usize)?;
    let predicted = |layer| {
        let (predicted_online_s, predicted_offline_s) = predict(&args.network, layer);
        Predicted { layer, predicted_online_s, predicted_offline_s }
    };
    let predicted: Vec<Predicted<'_>> = layers.iter().map(predicted).collect();
    let sum = |f: fn(&Predicted<'_>) -> f64| predicted.iter().map(f).sum::<f64>();
    let count = |f: fn(&Layer) -> u64| layers.iter().map(f).sum::<u64>();
    let outputs = compiled.program.infer()?.last().map_or(0, |v| v.elements());
    let revealed = trefoil_mpc::cost::cost(&program, args.batch as usize)?.iter().map(|c| c.revealed).sum();
    let explained = Explained {
        model: args.model.model.display().to_string(),
        batch: args.batch,
        network: args.network,
        rounds: count(|l| l.rounds),
        bytes_online: count(|l| l.bytes_online),
        bytes_offline: count(|l| l.bytes_offline),
        bytes_forwarded: count(|l| l.bytes_forwarded),
        bytes_input: 8 * u64::from(args.batch) * program.input_shape.iter().product::<usize>() as u64,
        predicted_online_s: sum(|p| p.predicted_online_s),
        predicted_offline_s: sum(|p| p.predicted_offline_s),
        layers: predicted,
        elsewhere,
        reveals: vec![Revealed {
            recipient: "the client",
            purpose: purpose(reveal, outputs, graph.post),
            bytes: revealed,
        }],
        learns: learns(reveal, outputs, graph.post),
        fraction_bits: args.model.fraction_bits,
        window_bits: args.model.window_bits,
        ranges: wires(&report),
        notes: compiled.notes.iter().chain(&report.notes).cloned().collect(),
    };
    if args.json { output::json(&explained) } else { print(&explained, &compiled, &report) }
}

/// The plans for the links that have names.
fn elsewhere(compiled: &Compiled, args: &Args, reveal: Reveal) -> anyhow::Result<Vec<Elsewhere>> {
    let on = |(network, link): (&'static str, Network)| {
        let program = plan_for(&link, &compiled.program, args.batch, args.ahead)?;
        let program = Compiled { program, ..compiled.clone() }.ending_in(reveal)?;
        let layers = layers(&program, args.batch as usize)?;
        let (mut online, mut offline) = (0.0, 0.0);
        for (on, off) in layers.iter().map(|l| predict(&link, l)) {
            online += on;
            offline += off;
        }
        let count = |f: fn(&Layer) -> u64| layers.iter().map(f).sum::<u64>();
        let mut compares: Vec<String> = layers.iter().flat_map(|l| l.compares.iter().cloned()).collect();
        compares.dedup();
        Ok(Elsewhere {
            network,
            compares,
            rounds: count(|l| l.rounds),
            bytes_online: count(|l| l.bytes_online),
            bytes_offline: count(|l| l.bytes_offline),
            predicted_online_s: online,
            predicted_offline_s: offline,
        })
    };
    [("loopback", Network::LOOPBACK), ("lan", Network::LAN), ("wan", Network::WAN)].into_iter().map(on).collect()
}

fn print_elsewhere(plans: &[Elsewhere]) -> anyhow::Result<()> {
    output::line("\nThe plan on other links")?;
    let mut t =
        Table::new(&["link", "compared by", ">rounds", ">bytes online", ">offline", ">time online", ">offline"]);
    for p in plans {
        t.row(vec![
            p.network.into(),
            p.compares.join(", "),
            p.rounds.to_string(),
            output::bytes(p.bytes_online),
            output::bytes(p.bytes_offline),
            output::time(p.predicted_online_s),
            output::time(p.predicted_offline_s),
        ]);
    }
    output::line(t.text())
}

fn print(e: &Explained<'_>, compiled: &Compiled, report: &RangeReport) -> anyhow::Result<()> {
    output::line(format!(
        "{}: {} sample(s) at once, round trip {}, {:.0} Mb/s each way\n",
        e.model,
        e.batch,
        output::time(e.network.round_trip_s),
        e.network.bits_per_s / 1e6
    ))?;
    let mut t = Table::new(&[
        "layer",
        "operation",
        "in",
        "out",
        "compared by",
        ">rounds",
        ">bytes online",
        ">offline",
        ">time online",
        ">offline",
    ]);
    for p in &e.layers {
        let l = p.layer;
        t.row(vec![
            l.layer.clone(),
            l.operation.clone(),
            shape(&l.input),
            shape(&l.output),
            l.compares.join(", "),
            l.rounds.to_string(),
            output::bytes(l.bytes_online),
            output::bytes(l.bytes_offline),
            output::time(p.predicted_online_s),
            output::time(p.predicted_offline_s),
        ]);
    }
    t.row(vec![
        "total".into(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        e.rounds.to_string(),
        output::bytes(e.bytes_online),
        output::bytes(e.bytes_offline),
        output::time(e.predicted_online_s),
        output::time(e.predicted_offline_s),
    ]);
    output::line(t.text())?;
    output::line(format!(
        "\nRounds and bytes are exact (bytes of all parties, frame headers included); times are estimates of the link and \
         of one core's arithmetic.\nOffline work depends on no input and can be done ahead. The client sends {} of shares.",
        output::bytes(e.bytes_input)
    ))?;
    print_elsewhere(&e.elsewhere)?;
    output::line("\nRevealed")?;
    for r in &e.reveals {
        output::line(format!("  to {}: {} ({})", r.recipient, r.purpose, output::bytes(r.bytes)))?;
    }
    print_learns(&e.learns)?;
    print_ranges(compiled, report)
}

fn print_learns(learns: &[Learns]) -> anyhow::Result<()> {
    output::line("\nWhat each party learns")?;
    learns.iter().try_for_each(|l| output::line(format!("  {:<7} {}", l.party, l.learns)))
}

/// Prints who learns what when `reveal` is revealed.
pub(crate) fn print_disclosure(reveal: Reveal, outputs: usize, post: Post) -> anyhow::Result<()> {
    print_learns(&learns(reveal, outputs, post))
}

/// Prints the fixed point format, the ranges and the notes.
pub(crate) fn print_ranges(compiled: &Compiled, report: &RangeReport) -> anyhow::Result<()> {
    let o = compiled.options;
    let most = f64::from(o.window_bits) - 1.0 - f64::from(o.fraction_bits);
    output::line(format!(
        "\nFixed point: {} fraction bits, steps of {:.2e}; compared values within +-{}",
        o.fraction_bits,
        (-f64::from(o.fraction_bits)).exp2(),
        most.exp2()
    ))?;
    let mut t = Table::new(&["layer", "operation", ">lowest", ">highest", ">limit", "known"]);
    for w in &report.wires {
        t.row(vec![
            w.layer.clone(),
            w.op.into(),
            number(w.low),
            number(w.high),
            format!("{:.4e}", w.limit_high),
            match w.how {
                How::Proved => "proved".into(),
                How::Measured => format!("measured on {}", report.samples),
            },
        ]);
    }
    output::line(t.text())?;
    for note in compiled.notes.iter().chain(&report.notes) {
        output::line(format!("note: {note}"))?;
    }
    Ok(())
}

/// Three decimals, without a sign on zero.
fn number(x: f64) -> String {
    let text = format!("{x:.3}");
    if text == "-0.000" { "0.000".into() } else { text }
}

fn wires(report: &RangeReport) -> Vec<Wire> {
    let wire = |w: &range::WireRange| Wire {
        layer: w.layer.clone(),
        operation: w.op,
        low: w.low,
        high: w.high,
        limit_low: w.limit_low,
        limit_high: w.limit_high,
        proved: w.how == How::Proved,
    };
    report.wires.iter().map(wire).collect()
}

fn purpose(reveal: Reveal, outputs: usize, post: Post) -> String {
    let pairs = matches!(post, Post::Distance { .. });
    let what = match (reveal, outputs) {
        (Reveal::Logits, _) if pairs => {
            "the squared distance of what the network makes of two inputs, truncated and re-randomised".into()
        }
        (Reveal::Label, _) if pairs => "whether two inputs are similar and nothing else".into(),
        (Reveal::Logits, _) => format!("the {outputs} outputs of the last layer, truncated and re-randomised"),
        (Reveal::Label, 1) => "whether the one output is positive and nothing else".into(),
        (Reveal::Label, _) => format!("the index of the largest of {outputs} outputs and nothing else"),
    };
    format!("{what}: the answer")
}

fn learns(reveal: Reveal, outputs: usize, post: Post) -> Vec<Learns> {
    let evaluator = "the architecture and its shapes, who asks when and for how many samples, and masked values that \
                     are uniformly random: nothing of inputs, weights or answers";
    let learns = |party, learns: &str| Learns { party, learns: learns.into() };
    vec![
        learns("alice", evaluator),
        learns("bob", evaluator),
        learns(
            "carol",
            "the architecture, batch sizes and how often material is used: nothing that depends on any value",
        ),
        Learns { party: "client", learns: format!("the architecture and {}", purpose(reveal, outputs, post)) },
        learns("owner", "nothing of any request"),
    ]
}

/// A shape as 28x28x1.
pub(crate) fn shape(s: &[usize]) -> String {
    s.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}
