//! `models`: what is shared and may be queried.

use serde::Serialize;
use trefoil_client::{InputEncoding, Listing, Reveal};

use super::explain::shape;
use crate::access::Access;
use crate::output;
use crate::table::Table;

/// Arguments of `models`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil models --config cluster.toml --identity keys/ward-3")]
pub(crate) struct Args {
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
    epoch: u64,
    input_shape: Vec<usize>,
    outputs: usize,
    fraction_bits: u32,
    input: InputEncoding,
    /// What this client may ask for.
    reveals: Vec<Reveal>,
    /// Requests for which material is ready.
    ready: u32,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut client = args.access.connect()?;
    let mut all = Vec::new();
    let Listing { agreed, torn } = client.list_models()?;
    for m in agreed {
        let program = &m.manifest.program;
        all.push(Listed {
            name: m.manifest.name.clone(),
            owner: m.owner,
            epoch: m.epoch,
            input_shape: program.input_shape.clone(),
            outputs: program.infer()?.last().map_or(0, |v| v.elements()),
            fraction_bits: program.fraction_bits,
            input: m.manifest.input,
            reveals: m.manifest.reveals_to(client.name()),
            ready: m.ready,
        });
    }
    match (args.json, &all[..]) {
        (true, all) => output::json(&all)?,
        (false, []) => output::line("no models for this client")?,
        (false, all) => output::line(table(all))?,
    }
    output::refuse_torn(&torn)
}

fn table(all: &[Listed]) -> String {
    let mut t = Table::new(&["name", "owner", "input", ">outputs", "you may ask for", ">ready"]);
    for m in all {
        let reveals: Vec<String> = m.reveals.iter().map(|r| format!("{r:?}").to_lowercase()).collect();
        let ready = m.ready.to_string();
        let (name, owner) = (m.name.clone(), m.owner.clone());
        t.row(vec![name, owner, shape(&m.input_shape), m.outputs.to_string(), reveals.join(", "), ready]);
    }
    t.text()
}
