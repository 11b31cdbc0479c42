//! `runs`: the training runs that a client has to do with: listed, stopped, removed.

use serde::Serialize;
use trefoil_client::{RunStatus, Stage};

use crate::access::Access;
use crate::output;
use crate::table::Table;

/// Arguments of `runs`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil runs --identity keys/owner\n\n\
    Example: end a run with its epoch; what it reveals or publishes at its end follows\n  \
    trefoil runs --stop wards --identity keys/owner")]
pub(crate) struct Args {
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
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut client = args.access.connect()?;
    if let Some(name) = &args.stop {
        client.stop(name)?;
        return output::line(format!("{name} ends with its epoch"));
    }
    if let Some(name) = &args.drop {
        client.drop_run(name)?;
        return output::line(format!("dropped {name}: its states and what it revealed are erased on all servers"));
    }
    let all: Vec<Listed> = client.runs()?.iter().map(Listed::new).collect();
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
    output::line(t.text())
}
