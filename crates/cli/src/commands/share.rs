//! `share`: a model owner's network, compiled, checked, shown and shared among the servers.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use trefoil_client::{InputEncoding, Manifest, Reveal, manifest};
use trefoil_data::{Resize, Split, load_dir_as, load_input};
use trefoil_link::Network;
use trefoil_nn::compile::{Compiled, compile};
use trefoil_nn::graph::Graph;
use trefoil_nn::range::{self, RangeReport};
use trefoil_proto::control::{Ahead, Grant};
use trefoil_proto::identity::check_name;

use super::explain;
use crate::access::{Access, load_cluster};
use crate::model::ModelArgs;
use crate::output;
use crate::plan::{layers, plan_for};
use crate::table::Table;

/// Samples measured, at most.
const SAMPLES: usize = 256;

/// Arguments of `share`.
#[derive(clap::Args)]
#[command(after_help = "Example: one ward may ask for labels only\n  \
    trefoil share model.h5 --as mnist --config cluster.toml --identity keys/owner --allow ward-3=label\n\n\
    Example: material for 20 single predictions is kept ready\n  \
    trefoil share model.h5 --as mnist --identity keys/owner --ahead 20")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The model's name on the servers
    #[arg(long = "as", value_name = "NAME")]
    name: String,
    #[command(flatten)]
    access: Access,
    /// Who may query it, and what may be revealed to them (repeat it; yourself too, to evaluate it) [default: every client of the cluster file]
    #[arg(long, value_name = "CLIENT[=logits,label]")]
    allow: Vec<String>,
    /// What may be revealed where --allow does not say [default: logits,label, or logits where a label is impossible; of pairs label]
    #[arg(long, value_name = "WHAT")]
    reveal: Option<String>,
    /// Inputs to measure where ranges cannot be proved: a data set or a file
    #[arg(long, value_name = "PATH")]
    samples: Option<PathBuf>,
    /// Material to keep ready, for so many requests
    #[arg(long, value_name = "N", default_value_t = 0)]
    ahead: u32,
    /// Samples of each request: what is planned for, and what material is kept ready for
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    ahead_batch: u32,
    /// Plan for this link between the servers: loopback, lan, wan or ROUNDTRIP,BANDWIDTH such as 40ms,352mbit
    #[arg(long, value_name = "LINK", default_value = "lan")]
    network: Network,
    /// Do not ask before sharing
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    check_name(&args.name).context("--as")?;
    let cluster = load_cluster(&args.access.config)?;
    let graph = args.model.load()?;
    let mut compiled = compile(&graph, &args.model.options()).context("the model cannot run on shares")?;
    compiled.program = plan_for(&args.network, &compiled.program, args.ahead_batch, args.ahead > 0)?;
    let input = args.model.input.encoding();
    let possible = match compiled.ending_in(Reveal::Label) {
        Ok(_) if graph.post.judges() => "label",
        Ok(_) => "logits,label",
        Err(_) => "logits",
    };
    let grants = grants(&args.allow, args.reveal.as_deref().unwrap_or(possible))?;
    if let Some(g) = grants.iter().find(|g| g.client != "*" && cluster.client(&g.client).is_none()) {
        let known: Vec<&str> = cluster.client.iter().map(|c| c.name.as_str()).collect();
        bail!("--allow {}: no such client in the cluster file (it has: {})", g.client, known.join(", "));
    }
    let samples = args.samples.as_deref().map(|p| samples(p, &graph, &compiled, &input)).transpose()?;
    let strictest =
        if grants.iter().any(|g| g.reveals.contains(&Reveal::Label)) { Reveal::Label } else { Reveal::Logits };
    let report = check(&compiled, strictest, &input, samples.as_deref())?;
    let mut manifest = manifest(&args.name, &compiled, input, grants)?;
    if args.ahead > 0 {
        let granted = manifest.grants.iter().flat_map(|g| g.reveals.iter().copied());
        let reveals: BTreeSet<Reveal> = granted.collect();
        let ahead = |reveal| Ahead { batch: args.ahead_batch, reveal, count: args.ahead };
        manifest.ahead = reveals.into_iter().map(ahead).collect();
    }
    show(&graph, &compiled, &report, &manifest)?;
    if !args.yes && !confirmed()? {
        bail!("not shared");
    }
    let mut client = args.access.connect()?;
    client.share(&manifest, &compiled.weights)?;
    output::line(format!(
        "\nshared as {}: {} weights, on alice, bob and carol",
        args.name,
        compiled.weights.iter().map(trefoil_ring::Tensor::len).sum::<usize>()
    ))
}

/// Whether every value fits, for inputs of the declared range.
pub(crate) fn check(
    compiled: &Compiled,
    reveal: Reveal,
    input: &InputEncoding,
    samples: Option<&[f32]>,
) -> anyhow::Result<RangeReport> {
    range::check(compiled, reveal, &(input.low..=input.high), samples)
        .context("the model's values do not fit (--fraction-bits, --window-bits, --range, --samples)")
}

/// "logits" or "label".
pub(crate) fn reveal(text: &str) -> Result<Reveal, String> {
    match text.trim() {
        "logits" => Ok(Reveal::Logits),
        "label" => Ok(Reveal::Label),
        other => Err(format!("{other:?}: logits or label")),
    }
}

fn reveals(text: &str) -> anyhow::Result<Vec<Reveal>> {
    text.split(',').map(|t| reveal(t).map_err(anyhow::Error::msg)).collect()
}

fn grants(allow: &[String], otherwise: &str) -> anyhow::Result<Vec<Grant>> {
    let everyone = ["*".to_owned()];
    let one = |text: &String| {
        let (client, what) = text.split_once('=').unwrap_or((text, otherwise));
        let reveals = reveals(what).with_context(|| format!("what may be revealed to {client}"))?;
        Ok(Grant { client: client.to_owned(), reveals })
    };
    let all = if allow.is_empty() { &everyone[..] } else { allow };
    let grants = all.iter().map(one).collect::<anyhow::Result<Vec<Grant>>>()?;
    let mut seen = BTreeSet::new();
    if let Some(g) = grants.iter().find(|g| !seen.insert(&g.client)) {
        bail!("--allow names {} twice: say once what may be revealed to it, such as --allow {0}=label", g.client);
    }
    Ok(grants)
}

/// Samples to measure, brought to the model's scale. Inputs of pairs are taken two by two.
fn samples(path: &Path, graph: &Graph, compiled: &Compiled, input: &InputEncoding) -> anyhow::Result<Vec<f32>> {
    let towers = graph.towers();
    let shape = &compiled.program.input_shape[usize::from(towers > 1)..];
    let set = if path.is_dir() {
        load_dir_as(path, Split::Train, shape, Resize::Fit)
    } else {
        load_input(path, shape, Resize::Fit)
    };
    let set = set.context("cannot read the samples")?.take(SAMPLES);
    Ok(scaled(&set.take(set.len() / towers * towers).data, input))
}

/// Values as the user has them, brought to the model's scale.
pub(crate) fn scaled(values: &[f32], input: &InputEncoding) -> Vec<f32> {
    values.iter().map(|v| (f64::from(*v) * input.scale + input.offset) as f32).collect()
}

fn show(graph: &Graph, compiled: &Compiled, report: &RangeReport, manifest: &Manifest) -> anyhow::Result<()> {
    let outputs = compiled.program.infer()?.last().map_or(0, |v| v.elements());
    output::line(format!(
        "What will run ({} layers, input {})\n",
        graph.nodes.len(),
        explain::shape(&compiled.program.input_shape)
    ))?;
    let widest = manifest.grants.iter().flat_map(|g| &g.reveals).min().copied().unwrap_or(Reveal::Label);
    let program = compiled.ending_in(widest)?;
    let mut t = Table::new(&["layer", "operation", "in", "out", "compared by", ">rounds", ">online", ">offline"]);
    for l in layers(&program, 1)? {
        let cost = [l.rounds.to_string(), output::bytes(l.bytes_online), output::bytes(l.bytes_offline)];
        let what = [
            l.layer.clone(),
            l.operation.clone(),
            explain::shape(&l.input),
            explain::shape(&l.output),
            l.compares.join(", "),
        ];
        t.row(what.into_iter().chain(cost).collect());
    }
    output::line(t.text())?;
    explain::print_disclosure(widest, outputs, manifest.post)?;
    output::line("\nWho may query it")?;
    for g in &manifest.grants {
        let who = if g.client == "*" { "every client of the cluster file" } else { &g.client };
        let what: Vec<String> = g.reveals.iter().map(|r| format!("{r:?}").to_lowercase()).collect();
        output::line(format!("  {who}: {}", what.join(", ")))?;
    }
    let InputEncoding { scale, offset, low, high } = manifest.input;
    output::line(format!("Inputs: value * {scale:.6} + {offset}, within {low}..={high}"))?;
    explain::print_ranges(compiled, report)
}

/// Asks on a terminal; without one nobody can be asked.
fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("not shared: nobody is there to be asked (--yes shares)");
    }
    eprint!("\nShare it? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_say_who_and_what() {
        let all = grants(&[], "logits,label").unwrap();
        assert_eq!((all[0].client.as_str(), &all[0].reveals[..]), ("*", &[Reveal::Logits, Reveal::Label][..]));
        let two = grants(&["ann=label".into(), "bert".into()], "logits").unwrap();
        assert_eq!((&two[0].reveals[..], &two[1].reveals[..]), (&[Reveal::Label][..], &[Reveal::Logits][..]));
        assert!(grants(&["ann=everything".into()], "logits").is_err());
        let twice = grants(&["ward-3".into(), "bert".into(), "ward-3=label".into()], "logits").unwrap_err();
        assert!(twice.to_string().starts_with("--allow names ward-3 twice"), "{twice}");
    }
}
