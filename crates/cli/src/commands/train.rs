//! `train`: a network trained on shares, as a description says; or its twin in the clear.

use std::path::PathBuf;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use trefoil_client::training::{learnt, served, words};
use trefoil_client::{Client, Declaration, RunSpec};
use trefoil_link::Network;
use trefoil_mpc::program::Shown;

use super::demo::Socket;
use crate::access::Access;
use crate::training::clear;
use crate::training::curve::svg;
use crate::training::data::Records;
use crate::training::description::{Description, load};
use crate::training::explain::{explain, print_reveals};
use crate::training::features::{self, by_owners};
use crate::training::private::{Finished, Watch, peak, shown, start_trial, watch};
use crate::training::report::{self, EpochRow, Event, Warned};
use crate::training::served::ask;
use crate::trial::{Trial, TrialOptions};
use crate::{output, places, weights};

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
    /// Write the trained weights, if they were revealed to you: to FILE.h5 for Keras, or into this folder as .npy
    #[arg(long, value_name = "FILE.h5|DIR")]
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
    args.weights.as_deref().map_or(Ok(()), weights::check_name)?;
    let mut d = load(&args.run, args.quick)?;
    if args.dry_run {
        return explain(&d, &args.network.unwrap_or(Network::LAN), args.json);
    }
    if !args.clear {
        check_revealed(&args, &d, args.trial.then_some("owner"))?;
    }
    check_places(&args, &d)?;
    if args.clear {
        let mut records = rows(&d, args.json)?;
        clear::pretrain(&mut d, args.json)?;
        by_owners(&mut d, Some(&mut records))?;
        return in_the_clear(&args, &d, &records).map(drop);
    }
    if args.trial {
        return on_trial(&args, d);
    }
    clear::pretrain(&mut d, args.json)?;
    let owners = by_owners(&mut d, None)?;
    let mut client = args.access.connect()?;
    check_revealed(&args, &d, Some(client.name()))?;
    check_rows(&d, &client.set(&d.training.set)?.declaration)?;
    let spec = client.begin(&d.training, &args.network.unwrap_or(Network::LAN))?;
    if !args.json {
        print_features(&spec, owners)?;
        print_reveals(&words(&spec), &learnt(&spec))?;
    }
    let others: Vec<String> = client.run_status(&spec.name)?.missing;
    if !args.json && !others.is_empty() {
        output::line(format!(
            "The servers have the run. It begins once {} agreed: trefoil agree {}",
            if let [one] = &others[..] { format!("{one} has") } else { format!("{} have", others.join(" and ")) },
            spec.name
        ))?;
    }
    let done = watched(&args, &d, &mut client, &spec)?;
    finish(&args, &d, &spec, &done)
}

/// Who extracts features, if anybody does.
fn print_features(spec: &RunSpec, owners: Option<String>) -> anyhow::Result<()> {
    features::words(spec).or(owners).map_or(Ok(()), output::line)
}

fn bar(args: &Args, what: &str) -> ProgressBar {
    if args.json { ProgressBar::hidden() } else { output::progress(what, 0) }
}

fn in_the_clear(args: &Args, d: &Description, records: &Records) -> anyhow::Result<clear::Trained> {
    let done = clear::train(d, records, &bar(args, "training in the clear"))?;
    if args.json {
        done.epochs.iter().try_for_each(|e| output::json(&Event::Epoch(e)))?;
        done.ranges.iter().try_for_each(|r| output::json(&Event::Warning(Warned { text: r })))?;
        output::json(&Event::Report(&done.report))?;
    } else {
        report::epochs(&done.epochs)?;
        done.report.print()?;
        done.ranges.iter().try_for_each(output::line)?;
    }
    if args.clear {
        curve(args, &d.training.name, &done.epochs)?;
        if let Some(path) = &args.weights {
            weights::write(path, &done.graph)?;
        }
    }
    Ok(done)
}

fn on_trial(args: &Args, mut d: Description) -> anyhow::Result<()> {
    let mut records = rows(&d, args.json)?;
    clear::pretrain(&mut d, args.json)?;
    let owners = by_owners(&mut d, Some(&mut records))?;
    let tell = |text: &str| if args.json { Ok(()) } else { output::line(text) };
    let options = TrialOptions {
        transport: args.link.transport(),
        lanes: 2,
        keep: None,
        pool_mb: 256,
        network: args.network,
        clients: records.owners(),
        helper: d.training.spec.likelihoods == Some(Shown::Helper),
    };
    let all = if options.helper { "alice, bob, carol and the helper: four" } else { "alice, bob and carol: three" };
    tell(&format!("Starting {all} processes on this host, with fresh keys"))?;
    let trial = Trial::start(&options)?;
    let (rows, width) = (records.rows, records.width());
    tell(&format!("{rows} rows of {width} numbers, shared by: {}; all owners agree", records.owners().join(", ")))?;
    let (mut owner, spec) = start_trial(&trial, &d, &records, &args.network.unwrap_or(Network::LOOPBACK))?;
    if !args.json {
        print_features(&spec, owners)?;
        print_reveals(&words(&spec), &learnt(&spec))?;
        output::line("")?;
    }
    let mut done = watched(args, &d, &mut owner, &spec)?;
    if let Some(p) = &mut done.report.private {
        p.peak_rss_bytes = peak(&trial);
    }
    finish(args, &d, &spec, &done)?;
    let mut asked = match &spec.publish {
        Some(p) => {
            let model = trial.once_ready(|| owner.model(&p.manifest.name))?;
            ask(&d, &records, &mut owner, model)?
        }
        None => None,
    };
    drop(trial);
    if let (Some(asked), false) = (&asked, args.json) {
        asked.print()?;
    }
    if args.compare {
        tell("\nThe same in the clear")?;
        let clear = in_the_clear(args, &d, &records)?;
        if let Some(asked) = &mut asked {
            asked.beside(&served(d.training.spec.loss, &d.training.reveal, &clear.graph)?)?;
        }
    }
    match &asked {
        Some(asked) if args.json => output::json(&Event::Predictions(&asked.answers)),
        Some(asked) if args.compare => asked.print_beside(),
        _ => Ok(()),
    }
}

fn watched(args: &Args, d: &Description, client: &mut Client, spec: &RunSpec) -> anyhow::Result<Finished> {
    let bar = bar(args, "training");
    watch(client, spec, &Watch { patience: d.training.patience, bar: &bar, json: args.json })
}

fn finish(args: &Args, d: &Description, spec: &RunSpec, done: &Finished) -> anyhow::Result<()> {
    if args.json {
        done.weights.iter().try_for_each(|w| output::json(&Event::Revealed(&shown(w))))?;
        output::json(&Event::Report(&done.report))?;
    } else {
        report::epochs(&done.epochs)?;
        done.report.print()?;
    }
    curve(args, &spec.name, &done.epochs)?;
    if let Some(path) = &args.weights {
        if done.weights.is_empty() {
            bail!("--weights: none were revealed to you; [reveal] weights = \"owner\" asks for them");
        }
        weights::write(path, &d.training.network(&done.weights)?)?;
    }
    Ok(())
}

/// Refuses to train for what the run will not reveal to `me`, as far as it is known who that is.
fn check_revealed(args: &Args, d: &Description, me: Option<&str>) -> anyhow::Result<()> {
    let reveal = &d.training.reveal;
    let mine = reveal.weights.as_deref().is_some_and(|w| w == "owner" || me.is_none_or(|me| w == me));
    if args.weights.is_some() && !mine {
        bail!("--weights: none will be revealed to you; [reveal] weights = \"owner\" asks for them");
    }
    if args.curve.is_some() && !reveal.metrics {
        bail!("--curve: loss and accuracy will not be revealed; [reveal] metrics = \"coordinator\" asks for them");
    }
    Ok(())
}

/// Refuses a run that means more rows than its data set has: a run on a cluster takes them all.
fn check_rows(d: &Description, set: &Declaration) -> anyhow::Result<()> {
    let (name, there) = (&set.name, set.rows);
    match d.rows {
        Some(rows) if rows > there as usize => {
            bail!(
                "[train] rows: {rows}, but data set {name} has {there}: correct it or leave it out; a run takes all its set's rows"
            )
        }
        _ => Ok(()),
    }
}

/// Refuses to train for files that cannot be written in the end.
fn check_places(args: &Args, d: &Description) -> anyhow::Result<()> {
    let reads = [std::slice::from_ref(&args.run), &d.reads].concat();
    args.curve.as_ref().map_or(Ok(()), |path| places::check("--curve", path, &reads))?;
    args.weights.as_deref().map_or(Ok(()), |path| weights::check_place(path, &reads))
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
