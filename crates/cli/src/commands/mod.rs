//! The subcommands, one file each.

mod agree;
mod bench;
mod data;
mod demo;
mod evaluate;
mod explain;
mod keygen;
mod models;
mod predict;
mod remove;
mod runs;
mod server;
mod share;
mod train;

use clap::Subcommand;

pub(crate) use evaluate::print as print_accuracy;
pub(crate) use keygen::{trial, write_cluster};
pub(crate) use share::scaled;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Watch it work: three servers on this host, a trained network, private predictions
    Demo(demo::Args),
    /// Make identities (keys and certificates) and the cluster file
    Keygen(keygen::Args),
    /// Run one party: alice, bob, carol or the helper
    Server(server::Args),
    /// Share a model among the servers
    Share(share::Args),
    /// List the shared models
    Models(models::Args),
    /// Remove a shared model: shares, seeds and material are erased
    Remove(remove::Args),
    /// Ask for a private prediction
    Predict(predict::Args),
    /// Measure a shared model on a labelled set
    Evaluate(evaluate::Args),
    /// Show what will run: rounds, bytes, time, reveals and who learns what
    Explain(explain::Args),
    /// Get a data set (MNIST, or digits that are generated), or share one among the servers with other owners
    Data(data::Args),
    /// Train a network on data that its owners share
    Train(train::Args),
    /// Read what a training run does with your data, agree to it, or withdraw
    Agree(agree::Args),
    /// List training runs, stop one or remove one
    Runs(runs::Args),
    /// Time the benchmark networks and single operations
    Bench(bench::Args),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Demo(a) => demo::run(a),
            Command::Keygen(a) => keygen::run(a),
            Command::Server(a) => server::run(a),
            Command::Share(a) => share::run(a),
            Command::Models(a) => models::run(a),
            Command::Remove(a) => remove::run(&a),
            Command::Predict(a) => predict::run(a),
            Command::Evaluate(a) => evaluate::run(a),
            Command::Explain(a) => explain::run(a),
            Command::Data(a) => data::run(a),
            Command::Train(a) => train::run(a),
            Command::Agree(a) => agree::run(&a),
            Command::Runs(a) => runs::run(a),
            Command::Bench(a) => bench::run(a),
        }
    }
}
