//! `train`: a network trained on shares, as a description says; or its twin in the clear.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use trefoil_client::{Client, Opened, RunSpec};
use trefoil_data::{Samples, write_npy};
use trefoil_link::Network;

use super::demo::Socket;
use super::print_accuracy;
use crate::access::Access;
use crate::accuracy::measure;
use crate::output;
use crate::training::clear;
use crate::training::curve::svg;
use crate::training::data::Records;
use crate::training::description::{Description, load};
use crate::training::explain::{explain, print_reveals};
use crate::training::private::{Finished, Watch, name, peak, shown, start, start_trial, watch};
use crate::training::report::{self, EpochRow, Event, Warned};
use crate::training::spec::{learnt, words};
use crate::trial::{Trial, TrialOptions};

/// Rows predicted by a model that was just trained.
const PREDICTED: usize = 20;

/// Arguments of `train`.
#[derive(clap::Args)]
#[command(after_help = "Example: everything on this host, from the rows that the file names\n  \
    trefoil train examples/hospitals.toml --trial --compare\n\n\
    Example: what it would cost over a wide network, and what it would reveal\n  \
    trefoil train examples/lenet.toml --dry-run --network wan\n\n\
    Example: on a cluster that holds the data set; its owners agree with `trefoil agree`\n  \
    trefoil train run.toml --config cluster.toml --identity keys/owner")]
pub(crate) struct Args {
    /// The description
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// Start three servers on this host, share the rows that the file names and train on them
    #[arg(long)]
    trial: bool,
    /// Train in the clear, in f32, with the same batches
    #[arg(long, conflicts_with_all = ["trial", "dry_run"])]
    clear: bool,
    /// Say what it would cost and reveal, and run nothing
    #[arg(long, conflicts_with = "trial")]
    dry_run: bool,
    /// With --trial: run it in the clear too
    #[arg(long, requires = "trial")]
    compare: bool,
    /// Take the small sizes that the file has under "quick"
    #[arg(long)]
    quick: bool,
    /// Draw loss and accuracy of the epochs here, if they were revealed
    #[arg(long, value_name = "FILE.svg")]
    curve: Option<PathBuf>,
    /// Write the trained weights into this folder as .npy, if they were revealed to you
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
    /// With --trial: how the three processes are connected
    #[arg(long, default_value = "tls")]
    link: Socket,
    /// The link to plan for; with --trial, delays and limits those between the servers
    #[arg(long, value_name = "NET")]
    network: Option<Network>,
    #[command(flatten)]
    access: Access,
    /// JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut d = load(&args.run, args.quick)?;
    if args.dry_run {
        return explain(&d, &args.network.unwrap_or(Network::LAN), args.json);
    }
    if args.clear {
        let records = rows(&d, args.json)?;
        clear::pretrain(&mut d, args.json)?;
        return in_the_clear(&args, &d, &records).map(drop);
    }
    if args.trial {
        return on_trial(&args, d);
    }
    clear::pretrain(&mut d, args.json)?;
    let (mut client, caller) = args.access.connect_as()?;
    let spec = start(&mut client, &d, &caller, &args.network.unwrap_or(Network::LAN))?;
    if !args.json {
        print_reveals(&words(&spec), &learnt(&spec))?;
    }
    let others: Vec<String> = client.run_status(&d.name)?.missing;
    if !args.json && !others.is_empty() {
        output::line(format!(
            "The servers have the run. It begins when {} agreed: trefoil agree {}",
            others.join(", "),
            d.name
        ))?;
    }
    let done = watched(&args, &d, &mut client, &spec)?;
    finish(&args, &d, &spec, &done)
}

fn bar(args: &Args, what: &str) -> ProgressBar {
    if args.json { ProgressBar::hidden() } else { output::progress(what, 0) }
}

fn in_the_clear(args: &Args, d: &Description, records: &Records) -> anyhow::Result<Vec<EpochRow>> {
    let done = clear::train(d, records, &bar(args, "training in the clear"))?;
    if args.clear {
        curve(args, &d.name, &done.epochs)?;
        if let Some(folder) = &args.weights {
            write_weights(folder, clear::weights(d, &done.graph)?)?;
        }
    }
    if args.json {
        done.epochs.iter().try_for_each(|e| output::json(&Event::Epoch(e)))?;
        done.ranges.iter().try_for_each(|r| output::json(&Event::Warning(Warned { text: r })))?;
        output::json(&Event::Report(&done.report))?;
    } else {
        report::epochs(&done.epochs)?;
        done.report.print()?;
        done.ranges.iter().try_for_each(output::line)?;
    }
    Ok(done.epochs)
}

fn on_trial(args: &Args, mut d: Description) -> anyhow::Result<()> {
    let records = rows(&d, args.json)?;
    clear::pretrain(&mut d, args.json)?;
    let tell = |text: &str| if args.json { Ok(()) } else { output::line(text) };
    let options = TrialOptions {
        transport: args.link.transport(),
        lanes: 2,
        keep: None,
        pool_mb: 256,
        network: args.network,
        clients: records.owners(),
    };
    tell("Starting alice, bob and carol: three processes on this host, with fresh keys")?;
    let trial = Trial::start(&options)?;
    let (rows, width) = (records.rows, records.width());
    tell(&format!("{} share(s) {rows} rows of {width} numbers among them, and agree(s)", records.owners().join(", ")))?;
    let (mut owner, spec) = start_trial(&trial, &d, &records, &args.network.unwrap_or(Network::LOOPBACK))?;
    if !args.json {
        print_reveals(&words(&spec), &learnt(&spec))?;
        output::line("")?;
    }
    let mut done = watched(args, &d, &mut owner, &spec)?;
    if let Some(p) = &mut done.report.private {
        p.peak_rss_bytes = peak(&trial);
    }
    finish(args, &d, &spec, &done)?;
    if let (Some(p), false) = (&spec.publish, args.json) {
        predictions(&trial, &mut owner, &p.manifest.name, &records)?;
    }
    drop(trial);
    if args.compare {
        tell("\nThe same in the clear")?;
        in_the_clear(args, &d, &records)?;
    }
    Ok(())
}

/// Asks the model that was trained and is served for the labels of the last rows.
fn predictions(trial: &Trial, client: &mut Client, name: &str, records: &Records) -> anyhow::Result<()> {
    let info = trial.once_ready(|| client.model(name))?;
    let [pixels, label] = &records.columns[..] else { return Ok(()) };
    let first = records.rows.saturating_sub(PREDICTED);
    let values = pixels.values[first * pixels.block.width as usize..].to_vec();
    let Some(labels) = label.labels.get(first..) else { return Ok(()) };
    let shape = info.manifest.program.input_shape.clone();
    let set = Samples::new(shape, values, Some(labels.to_vec()))?;
    output::line(format!("\nPrivate predictions of {name}, which nobody has seen"))?;
    print_accuracy(&measure(client, &info, &set, set.len(), None)?)
}

fn watched(args: &Args, d: &Description, client: &mut Client, spec: &RunSpec) -> anyhow::Result<Finished> {
    let bar = bar(args, "training");
    watch(client, spec, &Watch { patience: d.patience, bar: &bar, json: args.json })
}

fn finish(args: &Args, d: &Description, spec: &RunSpec, done: &Finished) -> anyhow::Result<()> {
    curve(args, &d.name, &done.epochs)?;
    if let Some(folder) = &args.weights {
        if done.weights.is_empty() {
            bail!("--weights: none were revealed to you; [reveal] weights = \"owner\" asks for them");
        }
        let numbers = |w: &Opened| w.values().iter().map(|v| *v as f32).collect();
        let all = done.weights.iter().map(|w| (name(spec, w), w.shape.clone(), numbers(w)));
        write_weights(folder, all.collect())?;
    }
    if args.json {
        done.weights.iter().try_for_each(|w| output::json(&Event::Revealed(&shown(spec, w))))?;
        return output::json(&Event::Report(&done.report));
    }
    report::epochs(&done.epochs)?;
    done.report.print()
}

/// Writes each tensor as LAYER-TENSOR.npy.
fn write_weights(folder: &Path, weights: Vec<clear::Weight>) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, shape, values) in weights {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-");
        write_npy(&folder.join(format!("{name}.npy")), &shape, &values)?;
    }
    Ok(())
}

/// The rows that the description names.
fn rows(d: &Description, quiet: bool) -> anyhow::Result<Records> {
    let Some(source) = &d.source else { bail!("[data] is missing: where are the rows?") };
    let records = source.load()?;
    if let (false, Some(note)) = (quiet, &records.note) {
        output::line(format!("note: {note}"))?;
    }
    Ok(records)
}

fn curve(args: &Args, name: &str, epochs: &[EpochRow]) -> anyhow::Result<()> {
    let Some(path) = &args.curve else { return Ok(()) };
    if epochs.iter().all(|e| e.loss.is_none()) {
        bail!("--curve: loss and accuracy were not revealed; [reveal] metrics = \"coordinator\" asks for them");
    }
    std::fs::write(path, svg(name, epochs)).with_context(|| format!("cannot write {}", path.display()))
}
