//! `data`: sets to work with, and sets that several owners share among the servers.

mod declaration;
mod shared;
mod through;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;
use trefoil_data::mnist::{MIRRORS, download};
use trefoil_data::{Samples, digits, write_npy};

use crate::output;

/// The most digits in one set.
const MOST: usize = trefoil_data::MAX_VALUES / (28 * 28);

/// Arguments of `data`.
#[derive(clap::Args)]
#[command(after_help = "Example: MNIST\n  trefoil data mnist --out mnist\n\n\
    Example: 2,000 digits that look hand-written\n  trefoil data digits --count 2000 --out digits\n\n\
    Example: two wards and a laboratory share one training set; each contributes its part\n  \
    trefoil data declare wards.toml --identity keys/owner\n  \
    trefoil data contribute wards --part 0 --input scans.npy --identity keys/ward-1")]
pub(crate) struct Args {
    #[command(subcommand)]
    set: Set,
}

#[derive(Subcommand)]
enum Set {
    /// Download MNIST's four files and check that they are the real ones
    #[command(after_help = "Example:\n  trefoil data mnist --out mnist --mirror https://mirror.example.org/mnist/")]
    Mnist {
        /// Folder to put them in
        #[arg(long, value_name = "DIR", default_value = "mnist")]
        out: PathBuf,
        /// Where to get them (repeat it) [default: two public mirrors]
        #[arg(long, value_name = "URL")]
        mirror: Vec<String>,
    },
    /// Generate labelled 28x28 digits, as images.npy and labels.npy
    #[command(after_help = "Example:\n  trefoil data digits --count 2000 --out digits --seed 7")]
    Digits {
        /// How many
        #[arg(long, value_name = "N")]
        count: usize,
        /// Folder to put them in
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A seed gives the same digits on every machine
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
    },
    /// Declare a data set: its columns, its rows, and which owner contributes which of them
    Declare(shared::Declare),
    /// Contribute a part of a declared data set
    Contribute(shared::Contribute),
    /// List the data sets you declared or contribute to
    List(shared::List),
    /// Remove a data set you declared, with all its parts
    Drop(shared::Drop),
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.set {
        Set::Mnist { out, mirror } => {
            let mirrors = if mirror.is_empty() { MIRRORS.map(str::to_owned).to_vec() } else { mirror };
            let bar = output::progress("downloading", 0);
            download(&out, &mirrors, &mut |file, done, all| {
                bar.set_message(file.to_owned());
                bar.set_length(all.unwrap_or(done));
                bar.set_position(done);
            })?;
            bar.finish_and_clear();
            output::line(format!("MNIST is in {}: 60,000 samples to train on, 10,000 to test on", out.display()))
        }
        Set::Digits { count, out, seed } => {
            if count == 0 || count > MOST {
                bail!("--count {count}: must be 1 to {MOST}");
            }
            let set = digits::generate(count, seed);
            write_set(&out, &set)?;
            output::line(format!("{count} digits are in {}: images.npy and labels.npy", out.display()))
        }
        Set::Declare(args) => shared::declare(&args),
        Set::Contribute(args) => shared::contribute(&args),
        Set::List(args) => shared::list(&args),
        Set::Drop(args) => shared::remove(&args),
    }
}

fn write_set(out: &std::path::Path, set: &Samples) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
    let shape: Vec<usize> = std::iter::once(set.len()).chain(set.shape.iter().copied()).collect();
    write_npy(&out.join("images.npy"), &shape, &set.data)?;
    let labels: Vec<f32> = set.labels.iter().flatten().map(|l| *l as f32).collect();
    write_npy(&out.join("labels.npy"), &[labels.len()], &labels)?;
    Ok(())
}
