//! Steps of training of the benchmark networks: SGD at .1 on softmax cross-entropy, the loss under the protocol.

use indicatif::ProgressBar;
use serde::Serialize;
use trefoil_client::training::Features;
use trefoil_client::{Block, Content, InputEncoding, Training};
use trefoil_link::Network;
use trefoil_nn::build::bench_net;
use trefoil_nn::rng::SplitMix;
use trefoil_nn::train::{Loss, Optimiser, Schedule, TrainSpec};
use trefoil_proto::Transport;

use super::{Args, Link, median, training_memory};
use crate::output;
use crate::table::Table;
use crate::training::data::{Columns, Records};
use crate::training::description::Description;
use crate::training::private::{Watch, peak, start_trial, watch};
use crate::trial::{Trial, TrialOptions};

/// Steps of each run over servers: dealing works ahead as it does in long runs.
const STEPS: usize = 3;
/// Classes of the benchmark networks.
const CLASSES: u32 = 10;

/// What the steps of one run took, each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) seconds: f64,
    pub(super) online_s: f64,
    pub(super) offline_s: f64,
    pub(super) rounds: u64,
    pub(super) bytes_online: u64,
    pub(super) bytes_offline: u64,
}

#[derive(Serialize)]
struct Row<'a> {
    task: &'static str,
    net: &'a str,
    batch: u32,
    link: Link,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    runs: u32,
    seconds_per_batch: f64,
    seconds_per_batch_min: f64,
    online_s: f64,
    offline_s: f64,
    rounds: u64,
    bytes_online: u64,
    bytes_offline: u64,
    peak_rss_bytes: u64,
}

/// Times training of every network at every batch size.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "net", ">batch", ">a step", ">best", ">online", ">offline", ">rounds", ">online", ">offline", ">memory",
    ]);
    for net in &args.net {
        for &batch in &args.batch {
            let bar = output::progress(&format!("training {net}"), u64::from(args.runs));
            let (steps, peak_rss_bytes) = match args.link {
                Link::Memory => training_memory::measure(net, batch, args, &bar)?,
                Link::Tcp => servers(net, batch, args, Transport::Tcp, &bar)?,
                Link::Tls => servers(net, batch, args, Transport::Tls, &bar)?,
            };
            bar.finish_and_clear();
            let of = |f: fn(&Step) -> f64| steps.iter().map(f).collect::<Vec<_>>();
            let last = steps.last().copied().unwrap_or_default();
            let row = Row {
                task: "train",
                net,
                batch,
                link: args.link,
                network: args.network,
                runs: args.runs,
                seconds_per_batch: median(of(|s| s.seconds)),
                seconds_per_batch_min: of(|s| s.seconds).into_iter().fold(f64::INFINITY, f64::min),
                online_s: median(of(|s| s.online_s)),
                offline_s: median(of(|s| s.offline_s)),
                rounds: last.rounds,
                bytes_online: last.bytes_online,
                bytes_offline: last.bytes_offline,
                peak_rss_bytes,
            };
            if args.json {
                output::json(&row)?;
                continue;
            }
            let times = [row.seconds_per_batch, row.seconds_per_batch_min, row.online_s, row.offline_s];
            let bytes = [row.bytes_online, row.bytes_offline, row.peak_rss_bytes].map(output::bytes);
            let first = [net.clone(), batch.to_string()].into_iter().chain(times.map(output::time));
            table.row(first.chain([row.rounds.to_string()]).chain(bytes).collect());
        }
    }
    if args.json {
        return Ok(());
    }
    output::line(table.text())?;
    output::line(format!("Medians of {} runs; rounds and bytes of one step.", args.runs))
}

/// The run that is timed: `rows` rows, once, nothing revealed.
pub(super) fn description(net: &str, batch: u32, name: String) -> anyhow::Result<Description> {
    let spec = TrainSpec {
        loss: Loss::SoftmaxCrossEntropy,
        optimiser: Optimiser::Sgd,
        schedule: Schedule::constant(0.1),
        epochs: 1,
        batch: batch as usize,
        ..TrainSpec::classifier()
    };
    let training =
        Training { checkpoint: u32::MAX, features: Features::Steps, ..Training::new(name, bench_net(net, 1)?, spec) };
    Ok(Description { training, source: None, rows: None, pretrain: None, reads: Vec::new() })
}

/// Pixels and labels without meaning.
pub(super) fn records(net: &str, rows: usize) -> anyhow::Result<Records> {
    let shapes = bench_net(net, 1)?.shapes()?;
    let width: usize = shapes[0].iter().product();
    let mut rng = SplitMix::new(1);
    let values = (0..rows * width).map(|_| rng.below(256) as f32).collect();
    let labels = (0..rows).map(|_| rng.below(CLASSES as usize) as u32).collect();
    let owner = || "client".to_owned();
    let pixels = Content::Values(InputEncoding::default());
    let block = Block { name: "pixels".into(), width: width as u32, content: pixels };
    let label = Block { name: "label".into(), width: CLASSES, content: Content::OneHot };
    let columns = vec![
        Columns { owner: owner(), block, values, labels: vec![] },
        Columns { owner: owner(), block: label, values: vec![], labels },
    ];
    Ok(Records { columns, rows, note: None })
}

fn servers(
    net: &str,
    batch: u32,
    args: &Args,
    transport: Transport,
    bar: &ProgressBar,
) -> anyhow::Result<(Vec<Step>, u64)> {
    let (pool_mb, network) = (256, args.network);
    let options =
        TrialOptions { transport, lanes: 1, keep: None, pool_mb, network, clients: Vec::new(), helper: false };
    let trial = Trial::start(&options)?;
    let link = network.unwrap_or(Network::LOOPBACK);
    let records = records(net, STEPS * batch as usize)?;
    let mut steps = Vec::new();
    for run in 0..=args.runs {
        let d = description(net, batch, format!("bench-{run}"))?;
        let (mut client, spec) = start_trial(&trial, &d, &records, &link)?;
        let hidden = ProgressBar::hidden();
        let report = watch(&mut client, &spec, &Watch { patience: None, bar: &hidden, json: false })?.report;
        client.drop_run(&spec.name)?;
        client.remove_set(&d.training.set)?;
        let Some(p) = report.private.filter(|_| run > 0) else { continue };
        bar.inc(1);
        steps.push(Step {
            seconds: report.seconds_per_step,
            online_s: p.online_s,
            offline_s: p.offline_s,
            rounds: p.rounds,
            bytes_online: p.bytes_online,
            bytes_offline: p.bytes_offline,
        });
    }
    Ok((steps, peak(&trial)))
}
