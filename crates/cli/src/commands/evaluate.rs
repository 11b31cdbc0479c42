//! `evaluate`: a shared model on a labelled set, privately.

use std::path::PathBuf;

use anyhow::Context;
use trefoil_data::{Resize, Split, load_dir_as};

use crate::access::Access;
use crate::accuracy::{Accuracy, measure};
use crate::{model, output};

/// Arguments of `evaluate`.
#[derive(clap::Args)]
#[command(after_help = "Example: the owner compares with the model in the clear\n  \
    trefoil evaluate --model mnist --data mnist/ --clear model.h5 --identity keys/owner")]
pub(crate) struct Args {
    /// The model's name
    #[arg(long, value_name = "NAME")]
    model: String,
    /// A labelled set: its test part is used where it has one
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    access: Access,
    /// The model's file, to compare with (stays on this host)
    #[arg(long, value_name = "MODELFILE")]
    clear: Option<PathBuf>,
    /// The architecture of a file that holds weights only
    #[arg(long, value_name = "JSON", requires = "clear")]
    architecture: Option<PathBuf>,
    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Samples sent at once
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let clear = args.clear.as_deref().map(|p| model::load(p, args.architecture.as_deref())).transpose()?;
    let mut client = args.access.connect()?;
    let info = client.model(&args.model)?;
    let shape = &info.manifest.program.input_shape;
    let set = load_dir_as(&args.data, Split::Test, shape, Resize::Fit).context("cannot read the set")?;
    let set = set.take(args.count.unwrap_or(usize::MAX));
    let result = measure(&mut client, &info, &set, args.batch as usize, clear.as_ref())?;
    if args.json { output::json(&result) } else { print(&result) }
}

/// Prints a result as lines.
pub(crate) fn print(r: &Accuracy) -> anyhow::Result<()> {
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    output::line(format!("accuracy on {} samples, computed on shares: {}", r.count, percent(r.accuracy)))?;
    if let (Some(clear), Some(agreement)) = (r.clear_accuracy, r.label_agreement) {
        output::line(format!("in the clear: {}; same labels: {}", percent(clear), percent(agreement)))?;
    }
    if let Some(e) = r.max_logit_error {
        output::line(format!("largest difference of a logit: {e:.6}"))?;
    }
    let t = &r.totals;
    output::line(format!(
        "{} rounds, {} online, {} offline, {}",
        t.rounds,
        output::bytes(t.bytes_online),
        output::bytes(t.bytes_offline),
        output::time(r.seconds)
    ))
}
