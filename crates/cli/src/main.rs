//! `trefoil`: private deep learning with secret sharing among three servers, from the command line.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod access;
mod accuracy;
mod commands;
mod model;
mod output;
mod places;
mod plan;
mod table;
mod training;
mod trial;
mod weights;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;

use commands::Command;

/// Requests allocate and free the same large buffers over and over: this allocator keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Private deep learning: a model and the data it runs on stay secret from the servers that compute.
#[derive(Parser)]
#[command(name = "trefoil", version, arg_required_else_help = true)]
#[command(after_help = "Example: see it work, with nothing to prepare\n  trefoil demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has had enough.
        Err(e) if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {}", output::chain(&e));
            ExitCode::FAILURE
        }
    }
}
