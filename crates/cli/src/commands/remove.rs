//! `remove`: a model and everything prepared for it.

use crate::access::Access;
use crate::output;

/// Arguments of `remove`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil remove mnist --config cluster.toml --identity keys/owner")]
pub(crate) struct Args {
    /// The model's name on the servers
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    args.access.connect()?.remove(&args.name)?;
    output::line(format!("removed {}: its shares, seeds and material are erased on all servers", args.name))
}
