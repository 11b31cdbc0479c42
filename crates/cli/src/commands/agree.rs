//! `agree`: shows an owner what a training run does with the data, and agrees to exactly that.

use std::io::{IsTerminal, stdin};
use std::path::PathBuf;

use anyhow::{Context, bail};
use trefoil_client::training::{learnt, words};
use trefoil_client::{METRIC_ROWS, Order, RunSpec, RunStatus, SetInfo, Stage};
use trefoil_link::Network;

use crate::access::Access;
use crate::output;
use crate::training::consent::{Described, compare, told_by_form};
use crate::training::explain::print_reveals;
use crate::training::features;

/// Arguments of `agree`.
#[derive(clap::Args)]
#[command(after_help = "Example: read a run, compare it with the description that its author published, and agree\n  \
    trefoil agree wards --description run.toml --identity keys/ward-1\n\n\
    Example: take it back; the run stops where it is until you agree again\n  \
    trefoil agree wards --withdraw --identity keys/ward-1\n\n\
    What is shown is what the servers hold each other to: a run that reveals anything else is another run.")]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "NAME")]
    name: String,
    /// Agree only if the run at the servers is the one of this description
    #[arg(long, value_name = "RUN.toml")]
    description: Option<PathBuf>,
    /// The description's small sizes, if its author took them
    #[arg(long, requires = "description")]
    quick: bool,
    /// The link that the author planned for
    #[arg(long, value_name = "NET", requires = "description")]
    network: Option<Network>,
    /// Take the agreement back: the run stops where it is
    #[arg(long, conflicts_with_all = ["description", "yes"])]
    withdraw: bool,
    /// Agree without being asked
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut client = args.access.connect()?;
    let status = client.run_status(&args.name)?;
    if args.withdraw {
        client.withdraw(&status)?;
        return output::line(withdrawn(&client.run_status(&args.name)?));
    }
    if status.stage == Stage::Done {
        bail!("run {} is over: there is nothing left to agree to", args.name);
    }
    let network = args.network.unwrap_or(Network::LAN);
    let described = args.description.as_deref().map(|file| Described::read(file, args.quick, network)).transpose()?;
    let spec = client.run_spec(&status)?;
    let set = client.sets()?.into_iter().find(|s| s.epoch == spec.set);
    print(&status, &spec, set.as_ref())?;
    examine(described.as_ref(), &spec, set.as_ref())?;
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

fn withdrawn(status: &RunStatus) -> String {
    let name = &status.name;
    let before = match status.revealed.len() {
        0 if status.done == 0 && status.alice.steps == 0 && status.alice.extracted.rows == 0 => {
            return format!("withdrawn from {name}, which had not begun; nothing was revealed");
        }
        0 => "nothing was revealed before".to_owned(),
        1 => format!("one value was revealed before (`trefoil runs {name}`)"),
        n => format!("{n} values were revealed before (`trefoil runs {name}`)"),
    };
    format!(
        "withdrawn from {name}: it stops where it is, and nothing more of it is revealed; {before}. `trefoil agree {name}` lets \
         it go on"
    )
}

/// Says what is checked of the run and what is not; with a description, that it is this run.
fn examine(described: Option<&Described>, spec: &RunSpec, set: Option<&SetInfo>) -> anyhow::Result<()> {
    if let Some(set) = set {
        spec.check(&set.declaration).context("not agreed: the run makes no sense")?;
    }
    output::line("\nChecked here and by the servers, from the programs' form")?;
    let least = set.map_or(METRIC_ROWS, |s| s.declaration.metric_rows);
    told_by_form(spec, least).iter().try_for_each(|t| output::line(format!("  {t}")))?;
    let Some(described) = described else {
        return output::line(
            "Not checked: what the programs make of the rows. Names and purposes are their author's words. Ask for the run's \
             description\nand give it with --description: then the run is compared with it.",
        );
    };
    let set = set.with_context(|| format!("the data set of {} is not yours to see", spec.name))?;
    compare(described, spec, set)?;
    output::line(format!(
        "Checked here: the run is the one of {}, in every program, reveal and number.",
        described.file.display()
    ))
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
        "work    {} of {} steps, {} rows each, in an order {order}",
        output::count(spec.epochs, "epoch"),
        spec.steps(),
        spec.batch
    ))?;
    if spec.publish.as_ref().is_some_and(|p| p.finish.is_some()) {
        output::line("last    a program makes the published model's weights of what training leaves, on shares")?;
    }
    // All of them: what is left out here could hold what the author does not name.
    let tensors: Vec<String> = spec.step.states.iter().map(|s| format!("{} {:?}", s.name, s.shape)).collect();
    output::line(format!("keeps   {}", tensors.join(", ")))?;
    print_reveals(&words(spec), &learnt(spec))
}
