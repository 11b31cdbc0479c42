//! `train`: a network trained on shares, as a description says; or its twin in the clear.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::output;
use crate::training::clear;
use crate::training::curve::svg;
use crate::training::data::Records;
use crate::training::description::{Description, load};
use crate::training::report::{self, EpochRow, Event};

/// Arguments of `train`.
#[derive(clap::Args)]
#[command(after_help = "Example: everything on this host, from the rows that the file names\n  \
    trefoil train examples/hospitals.toml --trial\n\n\
    Example: the same run in the clear\n  trefoil train examples/hospitals.toml --clear")]
pub(crate) struct Args {
    /// The description
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// Train in the clear, in f32, with the same batches
    #[arg(long)]
    clear: bool,
    /// Take the sizes in the file's [quick] section
    #[arg(long)]
    quick: bool,
    /// Draw loss and accuracy of the epochs here
    #[arg(long, value_name = "FILE.svg")]
    curve: Option<PathBuf>,
    /// JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut d = load(&args.run, args.quick)?;
    let records = rows(&d, args.json)?;
    clear::pretrain(&mut d, args.json)?;
    let bar = if args.json { indicatif::ProgressBar::hidden() } else { output::progress("training in the clear", 0) };
    let done = clear::train(&d, &records, &bar)?;
    curve(&args, &d.name, &done.epochs)?;
    if args.json {
        done.epochs.iter().try_for_each(|e| output::json(&Event::Epoch(e)))?;
        return output::json(&Event::Report(&done.report));
    }
    report::epochs(&done.epochs)?;
    done.report.print()
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
    std::fs::write(path, svg(name, epochs)).with_context(|| format!("cannot write {}", path.display()))
}
