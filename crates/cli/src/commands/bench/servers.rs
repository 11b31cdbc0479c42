//! Three server processes on loopback, asked as a client asks.

use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::ProgressBar;
use trefoil_client::{Client, ModelInfo, Prediction, Reveal};
use trefoil_prg::Party;
use trefoil_proto::Transport;

use super::case::Case;
use super::{Args, Measured, Split, Total};
use crate::output::seconds;
use crate::trial::{Trial, TrialOptions};

/// Lots kept ready: one in use, one behind it.
const READY: u32 = 2;
/// How long one lot may take to be prepared.
const PREPARED: Duration = Duration::from_secs(600);
/// Memory for material, in MB: what READY lots of any case take.
const POOL_MB: u64 = 65_536;

pub(super) fn measure(case: &Case, args: &Args, transport: Transport, bar: &ProgressBar) -> anyhow::Result<Measured> {
    // With one lane nothing is prepared while a request is timed.
    let trial = Trial::start(&TrialOptions {
        transport,
        lanes: 1,
        keep: None,
        pool_mb: POOL_MB,
        network: args.network,
        clients: Vec::new(),
        helper: false,
    })?;
    let mut owner = trial.client("owner")?;
    let live = case.manifest("live", 0);
    trial.once_ready(|| owner.share(&live, &case.weights))?;
    let mut client = trial.client("client")?;
    let mut m = Measured::default();
    let info = trial.once_ready(|| client.model("live"))?;
    let ask = |client: &mut Client, info: &ModelInfo| -> anyhow::Result<Prediction> {
        Ok(client.predict(info, Reveal::Logits, &case.samples, case.batch as usize)?)
    };
    for run in 0..=args.runs {
        let began = Instant::now();
        let p = ask(&mut client, &info)?;
        let client_s = began.elapsed().as_secs_f64();
        if p.alice.ahead {
            bail!("material was ready for a request that was to find none");
        }
        if run > 0 {
            bar.inc(1);
            m.totals.push(Total { total_s: seconds(p.alice.total.max(p.bob.total)), client_s });
        }
        let revealed = if case.counts_reveal() { p.revealed } else { 0 };
        m.rounds = p.alice.steps.iter().map(|s| s.rounds).sum();
        m.bytes_online = p.alice.steps.iter().map(|s| s.online).sum::<u64>() + revealed;
        m.bytes_offline = p.bob.steps.iter().map(|s| s.offline).sum();
        m.peak_rss_bytes = m.peak_rss_bytes.max(p.alice.peak_rss).max(p.bob.peak_rss);
    }
    m.peak_rss_bytes = m.peak_rss_bytes.max(trial.peak_rss(Party::Carol));
    owner.remove("live")?;
    owner.share(&case.manifest("ahead", READY), &case.weights)?;
    for run in 0..=args.runs {
        let info = ready(&mut client)?;
        let began = Instant::now();
        let p = ask(&mut client, &info)?;
        let client_s = began.elapsed().as_secs_f64();
        if !(p.alice.ahead && p.bob.ahead) {
            bail!("no material was ready for a request that was to find some");
        }
        if run > 0 {
            bar.inc(1);
            m.splits.push(Split {
                online_s: seconds(p.alice.online.max(p.bob.online)),
                offline_s: seconds(p.alice.offline.max(p.bob.offline)),
                client_s,
            });
        }
    }
    Ok(m)
}

/// Waits until all material is ready, so that nobody works on it while a request is timed.
fn ready(client: &mut Client) -> anyhow::Result<ModelInfo> {
    let until = Instant::now() + PREPARED;
    loop {
        let info = client.model("ahead")?;
        if info.ready >= READY {
            return Ok(info);
        }
        if Instant::now() > until {
            bail!("the servers prepared {} of {READY} lots within {PREPARED:?}", info.ready);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
