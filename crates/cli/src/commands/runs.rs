//! `runs`: the training runs that a client has to do with: listed, stopped, removed; what they revealed to it.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;
use trefoil_client::{Client, Listing, Opened, RunStatus, Stage, When};
use trefoil_nn::graph::Graph;
use trefoil_nn::layers::named;

use crate::access::Access;
use crate::table::Table;
use crate::training::description::{Description, load};
use crate::training::features::by_owners;
use crate::{output, weights};

/// Arguments of `runs`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil runs --identity keys/owner\n\n\
    Example: what one run took, and every value that it revealed so far\n  \
    trefoil runs wards --identity keys/ward-1\n\n\
    Example: the weights that a run revealed to you\n  \
    trefoil runs wards --weights wards-weights --identity keys/ward-1\n\n\
    Example: end a run with its epoch; what it reveals or publishes at its end follows\n  \
    trefoil runs --stop wards --identity keys/owner")]
pub(crate) struct Args {
    /// One run alone, with what it revealed so far
    #[arg(value_name = "NAME", conflicts_with_all = ["stop", "drop"])]
    name: Option<String>,
    /// Write the trained weights that the run revealed to you: as .npy into this folder, or to FILE.h5 for Keras
    #[arg(long, value_name = "DIR|FILE.h5", requires = "name")]
    weights: Option<PathBuf>,
    /// The run's description: FILE.h5 takes the layers from it
    #[arg(long, value_name = "RUN.toml", requires = "weights")]
    description: Option<PathBuf>,
    /// End this run with its epoch
    #[arg(long, value_name = "NAME", conflicts_with = "drop")]
    stop: Option<String>,
    /// Remove this run, its states and what it revealed
    #[arg(long, value_name = "NAME")]
    drop: Option<String>,
    #[command(flatten)]
    access: Access,
    /// A JSON array instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    owner: String,
    coordinator: String,
    state: &'static str,
    missing: Vec<String>,
    withdrawn: Vec<String>,
    epoch: u32,
    epochs: u32,
    steps_done: u64,
    steps: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_per_step: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<f64>,
    resumed: u32,
    note: String,
    /// Of all steps together, between the evaluators.
    rounds: u64,
    bytes_online: u64,
    bytes_offline: u64,
    peak_rss_bytes: u64,
    revealed: Vec<Shown>,
}

/// A value that was revealed.
#[derive(Serialize)]
struct Shown {
    recipient: String,
    purpose: String,
    /// Epochs behind it.
    epoch: u32,
    /// Whether this client can have it written.
    #[serde(skip)]
    own_weights: bool,
}

/// What a run revealed so far, in order.
fn revealed(client: &mut Client, r: &RunStatus) -> anyhow::Result<Vec<Shown>> {
    if r.revealed.is_empty() {
        return Ok(Vec::new());
    }
    let spec = client.run_spec(r)?;
    let mut all = r.revealed.clone();
    all.sort_unstable_by_key(|v| (v.epoch, v.index));
    let shown = all.iter().filter_map(|v| {
        let d = spec.reveals.get(v.index as usize)?;
        let epoch = v.epoch + u32::from(d.when == When::EachEpoch);
        let own_weights = d.when == When::AtEnd && d.recipient == client.name();
        Some(Shown { recipient: d.recipient.clone(), purpose: d.purpose.clone(), epoch, own_weights })
    });
    Ok(shown.collect())
}

impl Listed {
    fn new(r: &RunStatus) -> Self {
        let state = match r.stage {
            Stage::Waiting if !r.withdrawn.is_empty() => "lacks agreement",
            Stage::Waiting => "waiting",
            Stage::Running if r.stopped => "stopping",
            Stage::Running => "running",
            Stage::Done => "done",
        };
        Self {
            name: r.name.clone(),
            owner: r.owner.clone(),
            coordinator: r.coordinator.clone(),
            state,
            missing: r.missing.clone(),
            withdrawn: r.withdrawn.clone(),
            epoch: r.at.epoch,
            epochs: r.epochs,
            steps_done: r.done,
            steps: u64::from(r.epochs) * u64::from(r.steps),
            seconds_per_step: r.step_time.map(|t| t.as_secs_f64()),
            seconds_left: r.left.map(|t| t.as_secs_f64()),
            resumed: r.alice.resumed,
            note: r.note.clone(),
            rounds: r.bob.rounds + r.alice.extracted.rounds + r.bob.publication.rounds,
            bytes_online: r.bob.online_bytes + r.alice.extracted.online_bytes + r.bob.publication.online_bytes,
            bytes_offline: r.bob.offline_bytes + r.bob.extracted.offline_bytes + r.bob.publication.offline_bytes,
            peak_rss_bytes: r.alice.peak_rss.max(r.bob.peak_rss),
            revealed: Vec::new(),
        }
    }
}

/// Where the weights go that a run revealed to this client.
struct Fetch<'a> {
    path: &'a Path,
    description: Option<Description>,
}

impl<'a> Fetch<'a> {
    /// What can be known before the servers are asked.
    fn new(args: &'a Args) -> anyhow::Result<Option<Self>> {
        let Some(path) = args.weights.as_deref() else { return Ok(None) };
        weights::check_name(path)?;
        let description = match &args.description {
            Some(file) => {
                let mut d = load(file, false)?;
                by_owners(&mut d, None)?;
                Some(d)
            }
            None if weights::is_hdf5(path) => bail!(
                "--weights {}: a file for Keras takes the run's layers: give --description RUN.toml, or a folder for .npy",
                path.display()
            ),
            None => None,
        };
        weights::check_place(path, description.as_ref().map_or(&[], |d| &d.reads))?;
        Ok(Some(Self { path, description }))
    }

    /// Fetches and writes them; says how many.
    fn write(&self, client: &mut Client, status: &RunStatus) -> anyhow::Result<String> {
        let spec = client.run_spec(status)?;
        let all = client.trained_weights(&spec, status)?;
        let (name, me) = (&status.name, client.name());
        if all.is_empty() {
            let promised = spec.reveals.iter().any(|d| d.recipient == me && d.when == When::AtEnd);
            let why = if promised {
                "yet: they come at its end"
            } else {
                "and will not: [reveal] weights names who gets them"
            };
            bail!("--weights: run {name} has revealed no weights to {me} {why}");
        }
        match &self.description {
            Some(d) => weights::write(self.path, &self.network(d, &all)?)?,
            None => weights::write_revealed(self.path, &all)?,
        }
        let tensors = output::count(all.len() as u32, "tensor");
        Ok(format!("the weights that {name} revealed to {me} are in {}: {tensors}", self.path.display()))
    }

    fn network(&self, d: &Description, all: &[(String, Opened)]) -> anyhow::Result<Graph> {
        let kept = named(&d.training.graph).map(|(name, _)| name).find(|n| all.iter().all(|(given, _)| given != n));
        if let (Some(kept), Some(_)) = (kept, &d.pretrain) {
            bail!(
                "--weights {}: {kept} was trained beforehand, by the run's owner, and not revealed; take a folder for .npy",
                self.path.display()
            );
        }
        Ok(d.training.network(all)?)
    }
}

impl Listed {
    /// Prints what the run took and what it revealed.
    fn print(&self) -> anyhow::Result<()> {
        output::line(format!(
            "\n{} rounds, {} online, {} offline; peak memory {}\n\nRevealed so far",
            self.rounds,
            output::bytes(self.bytes_online),
            output::bytes(self.bytes_offline),
            output::bytes(self.peak_rss_bytes)
        ))?;
        if self.revealed.is_empty() {
            return output::line("  nothing to anybody");
        }
        let mut t = Table::new(&[">epoch", "to", "what"]);
        for s in &self.revealed {
            t.row(vec![s.epoch.to_string(), s.recipient.clone(), s.purpose.clone()]);
        }
        output::line(t.text())?;
        if self.revealed.iter().any(|s| s.own_weights) {
            output::line(format!(
                "Weights that were revealed to you: trefoil runs {} --weights DIR writes them",
                self.name
            ))?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let fetch = Fetch::new(&args)?;
    let mut client = args.access.connect()?;
    if let Some(name) = &args.stop {
        if client.run_status(name)?.stage == Stage::Done {
            bail!("run {name} is over: there is nothing left to stop");
        }
        client.stop(name)?;
        return output::line(format!("{name} ends with its epoch"));
    }
    if let Some(name) = &args.drop {
        client.drop_run(name)?;
        return output::line(format!("dropped {name}: its states and what it revealed are erased on all servers"));
    }
    let Listing { agreed: statuses, torn } = match &args.name {
        Some(name) => Listing { agreed: vec![client.run_status(name)?], torn: vec![] },
        None => client.list_runs()?,
    };
    let mut all: Vec<Listed> = statuses.iter().map(Listed::new).collect();
    if args.json || args.name.is_some() {
        for (listed, status) in all.iter_mut().zip(&statuses) {
            listed.revealed = revealed(&mut client, status)?;
        }
    }
    let written = match (&fetch, &statuses[..]) {
        (Some(fetch), [status]) => Some(fetch.write(&mut client, status)?),
        _ => None,
    };
    match (args.json, &all[..]) {
        (true, all) => output::json(&all)?,
        (false, []) => output::line("no runs for this client")?,
        (false, all) => output::line(table(all))?,
    }
    if let (false, Some(_)) = (args.json, &args.name) {
        all.iter().try_for_each(Listed::print)?;
        written.map_or(Ok(()), output::line)?;
    }
    output::refuse_torn(&torn)
}

fn table(all: &[Listed]) -> String {
    let mut t = Table::new(&["run", "owner", "state", ">epoch", ">steps", ">a step", ">left", ">resumed", "note"]);
    for r in all {
        let time = |s: Option<f64>| s.map_or_else(|| "-".to_owned(), output::time);
        t.row(vec![
            r.name.clone(),
            r.owner.clone(),
            r.state.into(),
            format!("{}/{}", r.epoch, r.epochs),
            format!("{}/{}", r.steps_done, r.steps),
            time(r.seconds_per_step),
            time(r.seconds_left),
            r.resumed.to_string(),
            r.note.clone(),
        ]);
    }
    t.text()
}
