//! `runs`: the training runs that a client has to do with: listed, stopped, removed.

use anyhow::bail;
use serde::Serialize;
use trefoil_client::{Client, RunStatus, Stage, When};

use crate::access::Access;
use crate::output;
use crate::table::Table;

/// Arguments of `runs`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil runs --identity keys/owner\n\n\
    Example: what one run took, and every value that it revealed so far\n  \
    trefoil runs wards --identity keys/ward-1\n\n\
    Example: end a run with its epoch; what it reveals or publishes at its end follows\n  \
    trefoil runs --stop wards --identity keys/owner")]
pub(crate) struct Args {
    /// One run alone, with what it revealed so far
    #[arg(value_name = "NAME", conflicts_with_all = ["stop", "drop"])]
    name: Option<String>,
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
        Some(Shown { recipient: d.recipient.clone(), purpose: d.purpose.clone(), epoch })
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
        output::line(t.text())
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
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
    let statuses = match &args.name {
        Some(name) => vec![client.run_status(name)?],
        None => client.runs()?,
    };
    let mut all: Vec<Listed> = statuses.iter().map(Listed::new).collect();
    if args.json || args.name.is_some() {
        for (listed, status) in all.iter_mut().zip(&statuses) {
            listed.revealed = revealed(&mut client, status)?;
        }
    }
    if args.json {
        return output::json(&all);
    }
    if all.is_empty() {
        return output::line("no runs for this client");
    }
    let mut t = Table::new(&["run", "owner", "state", ">epoch", ">steps", ">a step", ">left", ">resumed", "note"]);
    for r in &all {
        let time = |s: Option<f64>| s.map_or_else(|| "-".to_owned(), output::time);
        let note = match (&r.missing[..], &r.withdrawn[..]) {
            ([], _) => r.note.clone(),
            (missing, []) => format!("waits for {}", missing.join(", ")),
            (_, withdrawn) => format!("{} withdrew", withdrawn.join(", ")),
        };
        t.row(vec![
            r.name.clone(),
            r.owner.clone(),
            r.state.into(),
            format!("{}/{}", r.epoch, r.epochs),
            format!("{}/{}", r.steps_done, r.steps),
            time(r.seconds_per_step),
            time(r.seconds_left),
            r.resumed.to_string(),
            note,
        ]);
    }
    output::line(t.text())?;
    if args.name.is_some() { all.iter().try_for_each(Listed::print) } else { Ok(()) }
}
