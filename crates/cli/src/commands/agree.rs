//! `agree`: shows an owner what a training run does with the data, and agrees to exactly that.

use std::io::{IsTerminal, stdin};

use anyhow::bail;
use trefoil_client::training::{learnt, words};
use trefoil_client::{Order, RunSpec, RunStatus, SetInfo};

use crate::access::Access;
use crate::output;
use crate::training::explain::print_reveals;
use crate::training::features;

/// Arguments of `agree`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil agree wards --identity keys/ward-1\n\n\
    What is shown is what the servers hold each other to: a run that reveals anything else is another run.")]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "NAME")]
    name: String,
    /// Agree without being asked
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut client = args.access.connect()?;
    let status = client.run_status(&args.name)?;
    let spec = client.run_spec(&status)?;
    let set = client.sets()?.into_iter().find(|s| s.epoch == spec.set);
    print(&status, &spec, set.as_ref())?;
    if !args.yes {
        if !stdin().is_terminal() {
            bail!("not agreed: nobody is there to be asked (--yes agrees)");
        }
        output::line("\nAgree? Type the run's name")?;
        let mut answer = String::new();
        stdin().read_line(&mut answer)?;
        if answer.trim() != args.name {
            bail!("not agreed");
        }
    }
    client.agree(&status, &spec)?;
    output::line(format!("agreed to {}", args.name))
}

fn print(status: &RunStatus, spec: &RunSpec, set: Option<&SetInfo>) -> anyhow::Result<()> {
    let hash: String = status.hash[..8].iter().map(|b| format!("{b:02x}")).collect();
    output::line(format!("{}: run {hash} of {}, coordinated by {}", spec.name, spec.owner, spec.coordinator))?;
    let rows = spec.training;
    match set {
        Some(s) => {
            let blocks: Vec<&str> = s.declaration.blocks.iter().map(|b| b.name.as_str()).collect();
            output::line(format!(
                "data    set {} ({} rows; columns {}), rows {}..{} to train on",
                s.declaration.name,
                s.declaration.rows,
                blocks.join(", "),
                rows.first,
                rows.end
            ))?;
        }
        None => output::line(format!("data    rows {}..{} to train on", rows.first, rows.end))?,
    }
    if let Some(c) = &spec.check {
        output::line(format!("        rows {}..{} to check it on after each epoch", c.rows.first, c.rows.end))?;
    }
    if let Some(features) = features::words(spec) {
        output::line(format!("first   {features}"))?;
    }
    let order = if spec.order == Order::Drawn { "drawn by the servers" } else { "fixed in the run" };
    output::line(format!(
        "work    {} epochs of {} steps, {} rows each, in an order {order}",
        spec.epochs,
        spec.steps(),
        spec.batch
    ))?;
    // All of them: what is left out here could hold what the author does not name.
    let tensors: Vec<String> = spec.step.states.iter().map(|s| format!("{} {:?}", s.name, s.shape)).collect();
    output::line(format!("keeps   {}", tensors.join(", ")))?;
    print_reveals(&words(spec), &learnt(spec))
}
