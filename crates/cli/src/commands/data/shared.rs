//! Data sets that several owners share among the servers.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Serialize;
use trefoil_client::{Client, Content, Contribution, Listing, SetInfo, Stage};
use trefoil_data::{Resize, Split, load_dir_as, load_input, load_labels};

use super::declaration;
use super::through::Through;
use crate::access::Access;
use crate::output;
use crate::table::Table;

/// Arguments of `data declare`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil data declare wards.toml --identity keys/owner\n\n\
    The file names the columns, the rows, and who contributes which of them. Owners agree on the order of the rows\n\
    beforehand: rows of one number belong together.\n\n  \
    name = \"wards\"\n  rows = 60000\n\n  \
    [[column]]\n  name = \"pixels\"\n  width = 784\n  scale = \"1/255\"\n  range = \"0..1\"\n\n  \
    [[column]]\n  name = \"label\"\n  classes = 10\n\n  \
    [[part]]\n  owner = \"ward-1\"\n  column = \"pixels\"\n  rows = \"0..30000\"\n\n  \
    [[part]]\n  owner = \"ward-2\"\n  column = \"pixels\"\n  rows = \"30000..60000\"\n\n  \
    [[part]]\n  owner = \"laboratory\"\n  column = \"label\"")]
pub(super) struct Declare {
    /// The declaration
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    #[command(flatten)]
    access: Access,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Arguments of `data contribute`.
#[derive(clap::Args)]
#[command(after_help = "Example: numbers\n  \
    trefoil data contribute wards --part 0 --input scans.npy --identity keys/ward-1\n\n\
    Example: labels, which become one-hot here before they are shared\n  \
    trefoil data contribute wards --part 2 --input labels.csv --labels --identity keys/laboratory\n\n\
    Example: what public layers make of scans of 0 to 255, computed here\n  \
    trefoil data contribute wards --part 0 --input scans.npy --through model.h5 --layer conv_2 \\\n    \
    --identity keys/ward-1")]
pub(super) struct Contribute {
    /// The data set
    #[arg(value_name = "NAME")]
    name: String,
    /// Which part, by its number in `trefoil data list`
    #[arg(long, value_name = "N")]
    part: u32,
    /// The part's rows: .npy, .npz, .csv, IDX or a labelled set
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The file holds labels
    #[arg(long)]
    labels: bool,
    #[command(flatten)]
    through: Through,
    #[command(flatten)]
    access: Access,
    /// One JSON object instead of a line
    #[arg(long)]
    json: bool,
}

/// Arguments of `data list`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil data list --identity keys/ward-1")]
pub(super) struct List {
    #[command(flatten)]
    access: Access,
    /// A JSON array instead of tables
    #[arg(long)]
    json: bool,
}

/// Arguments of `data drop`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil data drop wards --identity keys/owner")]
pub(super) struct Drop {
    /// The data set
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    access: Access,
    /// One JSON object instead of a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    epoch: u64,
    coordinator: String,
    rows: u32,
    columns: usize,
    metric_rows: u32,
    complete: bool,
    parts: Vec<ListedPart>,
}

#[derive(Serialize)]
struct ListedPart {
    part: usize,
    owner: String,
    column: String,
    width: u32,
    labels: bool,
    first_row: u32,
    end_row: u32,
    arrived: bool,
}

#[derive(Serialize)]
struct Contributed {
    name: String,
    part: u32,
    rows: usize,
    columns: u32,
    seconds: f64,
}

#[derive(Serialize)]
struct Dropped {
    name: String,
    dropped: bool,
    /// Runs that used it and were not over, among those that this client has to do with.
    runs: Vec<String>,
}

impl Listed {
    fn new(set: &SetInfo) -> Self {
        let d = &set.declaration;
        let parts = d.parts.iter().zip(&set.arrived).enumerate().filter_map(|(i, (p, arrived))| {
            let block = d.blocks.get(p.block as usize)?;
            Some(ListedPart {
                part: i,
                owner: p.owner.clone(),
                column: block.name.clone(),
                width: block.width,
                labels: block.content == Content::OneHot,
                first_row: p.first,
                end_row: p.end,
                arrived: *arrived,
            })
        });
        Self {
            name: d.name.clone(),
            epoch: set.epoch,
            coordinator: set.coordinator.clone(),
            rows: d.rows,
            columns: d.width(),
            metric_rows: d.metric_rows,
            complete: set.is_complete(),
            parts: parts.collect(),
        }
    }

    fn print(&self) -> anyhow::Result<()> {
        let state = if self.complete { "complete" } else { "parts are missing" };
        let Self { name, coordinator, rows, columns, metric_rows, .. } = self;
        output::line(format!(
            "{name}, declared by {coordinator}: {rows} rows of {columns} columns, {state}; metrics are of {metric_rows} rows or more"
        ))?;
        let mut t = Table::new(&[">part", "owner", "column", ">width", ">rows", "state"]);
        for p in &self.parts {
            let rows = format!("{}..{}", p.first_row, p.end_row);
            let column = if p.labels { format!("{} (labels)", p.column) } else { p.column.clone() };
            let state = if p.arrived { "there" } else { "missing" };
            t.row(vec![p.part.to_string(), p.owner.clone(), column, p.width.to_string(), rows, state.into()]);
        }
        output::line(t.text())
    }
}

pub(super) fn declare(args: &Declare) -> anyhow::Result<()> {
    let declaration = declaration::load(&args.file)?;
    let mut client = args.access.connect()?;
    client.declare(&declaration)?;
    let listed = Listed::new(&client.set(&declaration.name)?);
    if args.json { output::json(&listed) } else { listed.print() }
}

pub(super) fn contribute(args: &Contribute) -> anyhow::Result<()> {
    let mut client = args.access.connect()?;
    let set = client.set(&args.name)?;
    let Some((part, block)) = set.declaration.part(args.part) else {
        let parts = set.declaration.parts.len();
        bail!("data set {} has no part {}: they are numbered 0 to {}", args.name, args.part, parts.saturating_sub(1));
    };
    let through = args.through.load(&args.name, block)?;
    if args.labels != (block.content == Content::OneHot) {
        let (holds, advice) = if args.labels { ("numbers", "leave out") } else { ("labels", "add") };
        bail!("column {} holds {holds}: {advice} --labels", block.name);
    }
    let (rows, columns) = (part.rows(), block.width);
    let began = Instant::now();
    if args.labels {
        let labels = load_labels(&args.input).context("cannot read the labels")?;
        has_rows(&args.input, labels.len(), rows, args.part)?;
        client.contribute(&set, args.part, Contribution::Labels(&labels))?;
    } else {
        let wanted = through.as_ref().map_or_else(|| vec![columns as usize], |t| t.input.clone());
        let samples = match args.input.is_dir() {
            true => load_dir_as(&args.input, Split::Train, &wanted, Resize::Exact),
            false => load_input(&args.input, &wanted, Resize::Exact),
        };
        let samples = samples.context("cannot read the rows")?;
        has_rows(&args.input, samples.len(), rows, args.part)?;
        let values = match through {
            Some(t) => t.features(rows, samples.data)?,
            None => samples.data,
        };
        client.contribute(&set, args.part, Contribution::Values(&values))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        return output::json(&Contributed { name: args.name.clone(), part: args.part, rows, columns, seconds });
    }
    let time = output::time(seconds);
    output::line(format!("part {} of {} is on the servers: {rows} rows of {columns}, in {time}", args.part, args.name))
}

fn has_rows(path: &Path, got: usize, rows: usize, part: u32) -> anyhow::Result<()> {
    if got != rows {
        bail!("{}: {got} rows where part {part} has {rows}", path.display());
    }
    Ok(())
}

pub(super) fn list(args: &List) -> anyhow::Result<()> {
    let Listing { agreed, torn } = args.access.connect()?.list_sets()?;
    let all: Vec<Listed> = agreed.iter().map(Listed::new).collect();
    match (args.json, &all[..]) {
        (true, all) => output::json(&all)?,
        (false, []) => output::line("no data sets for this client")?,
        (false, all) => all.iter().try_for_each(Listed::print)?,
    }
    output::refuse_torn(&torn)
}

pub(super) fn remove(args: &Drop) -> anyhow::Result<()> {
    let mut client = args.access.connect()?;
    let set = client.sets()?.into_iter().find(|s| s.declaration.name == args.name);
    // A run of which nothing can be heard keeps nobody from dropping rows.
    let runs = set.and_then(|s| open_runs(&mut client, s.epoch).ok()).unwrap_or_default();
    client.remove_set(&args.name)?;
    if args.json {
        return output::json(&Dropped { name: args.name.clone(), dropped: true, runs });
    }
    output::line(format!("dropped {}: its declaration and all its parts are erased on all servers", args.name))?;
    let told = |run| output::line(format!("run {run} was on these rows and cannot go on: trefoil runs --drop {run}"));
    runs.iter().try_for_each(told)
}

/// The runs on a set that are not over, among those that this client has to do with.
fn open_runs(client: &mut Client, set: u64) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for status in client.runs()?.into_iter().filter(|r| r.stage != Stage::Done) {
        if client.run_spec(&status)?.set == set {
            names.push(status.name);
        }
    }
    Ok(names)
}
