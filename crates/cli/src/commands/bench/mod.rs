//! `bench`: the benchmark networks and single operations, timed as the peers are.

mod case;
mod memory;
mod servers;
mod training;
mod training_memory;

use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;
use trefoil_link::Network;
use trefoil_proto::Transport;

use crate::output;
use crate::table::Table;
use case::Case;

/// Arguments of `bench`.
#[derive(clap::Args)]
#[command(after_help = "Example: network A, one image, three processes over TCP\n  \
    trefoil bench --net A --batch 1 --link tcp --runs 7 --json\n\n\
    Example: a million ReLUs in one process\n  trefoil bench --op relu --size 1000000 --link memory\n\n\
    Example: training of network A, three processes through a real training run\n  \
    trefoil bench --task train --net A --batch 128 --link tcp --json\n\n\
    Example: the same network over a wide-area link\n  trefoil bench --net A --batch 1 --network wan\n\n\
    Total: dealing and evaluation with no material ready. Online: evaluation with material ready; offline: what made it\n\
    ready. Over tcp and tls an operation's result is revealed to the client too: those bytes are not counted.\n\n\
    With --network, links between the parties are slowed down in user space; the client's are not.")]
pub(crate) struct Args {
    /// Networks A, B, C, D, S, T; vgg16, resnet18
    #[arg(long, value_name = "A,B,..", value_delimiter = ',', default_value = "A,B,C,D,S,T", conflicts_with = "op")]
    net: Vec<String>,
    /// Samples at once
    #[arg(long, value_name = "1,128", value_delimiter = ',', default_value = "1,128", conflicts_with = "op")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    batch: Vec<u32>,
    /// What is timed
    #[arg(long, default_value = "predict", conflicts_with = "op")]
    task: Task,
    /// A single operation instead of networks
    #[arg(long, requires = "size")]
    op: Option<Operation>,
    /// Values (relu), or rows and columns (matmul)
    #[arg(long, value_name = "N", requires = "op", value_parser = clap::value_parser!(u32).range(1..))]
    size: Option<u32>,
    /// Threads of one process, or three processes
    #[arg(long, default_value = "tcp")]
    link: Link,
    /// Delay and limit the links between the parties: lan, wan, or round trip and bandwidth such as 40ms,352mbit
    #[arg(long, value_name = "NET")]
    network: Option<Network>,
    /// Runs of each; medians are printed
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What is done with a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// Predictions
    Predict,
    /// Steps of training: SGD at .1, softmax cross-entropy
    Train,
}

/// A single operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// max(x, 0) of N values, from additive shares to additive shares, not truncated
    Relu,
    /// N x N x N, both operands secret, truncated
    Matmul,
}

/// How the parties are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Link {
    /// Three threads of this process
    Memory,
    /// Three processes, plain TCP on loopback
    Tcp,
    /// Three processes, TLS 1.3
    Tls,
}

/// One run with no material ready.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    /// Dealing and evaluation.
    total_s: f64,
    /// What a client waits.
    client_s: f64,
}

/// One run with material ready.
#[derive(Debug, Clone, Copy, Default)]
struct Split {
    /// Evaluation.
    online_s: f64,
    /// Dealing and local preparation.
    offline_s: f64,
    /// What a client waits.
    client_s: f64,
}

/// What all runs of a case gave.
#[derive(Debug, Default)]
struct Measured {
    totals: Vec<Total>,
    splits: Vec<Split>,
    rounds: u64,
    bytes_online: u64,
    bytes_offline: u64,
    peak_rss_bytes: u64,
}

#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    net: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<Operation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
    batch: u32,
    link: Link,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    runs: u32,
    total_s: f64,
    online_s: f64,
    offline_s: f64,
    client_s: f64,
    client_ahead_s: f64,
    total_min_s: f64,
    rounds: u64,
    bytes_online: u64,
    bytes_offline: u64,
    peak_rss_bytes: u64,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if args.task == Task::Train {
        return training::run(&args);
    }
    let cases = match (args.op, args.size) {
        (Some(op), Some(size)) => vec![Case::operation(op, size)?],
        _ => {
            let pairs = args.net.iter().flat_map(|n| args.batch.iter().map(move |b| (n, *b)));
            let planned = |(net, batch): (&String, u32)| Case::network(net, batch)?.for_link(args.network.as_ref());
            pairs.map(planned).collect::<anyhow::Result<_>>()?
        }
    };
    let mut table = Table::new(&[
        "case", ">batch", ">total", ">best", ">online", ">offline", ">client", ">ahead", ">rounds", ">online",
        ">offline", ">memory",
    ]);
    for case in &cases {
        let bar = output::progress(&case.name(), u64::from(2 * args.runs));
        let measured = match args.link {
            Link::Memory => memory::measure(case, &args, &bar),
            Link::Tcp => servers::measure(case, &args, Transport::Tcp, &bar),
            Link::Tls => servers::measure(case, &args, Transport::Tls, &bar),
        }?;
        bar.finish_and_clear();
        let row = row(case, &args, &measured)?;
        if args.json {
            output::json(&row)?;
            continue;
        }
        let times = [row.total_s, row.total_min_s, row.online_s, row.offline_s, row.client_s, row.client_ahead_s]
            .map(output::time);
        let bytes = [row.bytes_online, row.bytes_offline, row.peak_rss_bytes].map(output::bytes);
        let first = [case.name(), row.batch.to_string()].into_iter().chain(times);
        table.row(first.chain([row.rounds.to_string()]).chain(bytes).collect());
    }
    if !args.json {
        output::line(table.text())?;
        output::line(format!("Medians of {} runs; bytes of all parties for one batch.", args.runs))?;
        output::line("client: what it waits where nothing is prepared; ahead: where everything was dealt ahead.")?;
    }
    Ok(())
}

fn row(case: &Case, args: &Args, m: &Measured) -> anyhow::Result<Row> {
    let due = case.due()?;
    let planned = (due.rounds, due.online + due.revealed, due.offline);
    let metered = (m.rounds, m.bytes_online, m.bytes_offline);
    if metered != planned {
        bail!(
            "{}: rounds and bytes {metered:?} differ from those predicted, {planned:?}: please report this",
            case.name()
        );
    }
    let totals = |f: fn(&Total) -> f64| m.totals.iter().map(f).collect::<Vec<_>>();
    let splits = |f: fn(&Split) -> f64| m.splits.iter().map(f).collect::<Vec<_>>();
    Ok(Row {
        net: case.net.clone(),
        op: case.op.map(|o| o.0),
        size: case.op.map(|o| o.1),
        batch: case.batch,
        link: args.link,
        network: args.network,
        runs: args.runs,
        total_s: median(totals(|t| t.total_s)),
        online_s: median(splits(|s| s.online_s)),
        offline_s: median(splits(|s| s.offline_s)),
        client_s: median(totals(|t| t.client_s)),
        client_ahead_s: median(splits(|s| s.client_s)),
        total_min_s: totals(|t| t.total_s).into_iter().fold(f64::INFINITY, f64::min),
        rounds: m.rounds,
        bytes_online: m.bytes_online,
        bytes_offline: m.bytes_offline + due.forwarded,
        peak_rss_bytes: m.peak_rss_bytes,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (n, half) if n.is_multiple_of(2) => f64::midpoint(values[half - 1], values[half]),
        (_, half) => values[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }
}
