//! A run at the servers, watched from its start to its end.

use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::ProgressBar;
use trefoil_client::{Client, ClientError, Contribution, Opened, Phase, RunSpec, RunStatus, Stage, When};
use trefoil_link::Network;
use trefoil_mpc::program::Op;
use trefoil_prg::Party;

use super::data::Records;
use super::description::Description;
use super::report::{EpochRow, Event, Private, Report, Shown};
use super::spec::{plan, words};
use crate::output;
use crate::trial::Trial;

/// How often the servers are asked how the run stands.
const PAUSE: Duration = Duration::from_millis(200);
/// How long servers may be away before this gives up watching. The run itself goes on when they are back.
const AWAY: Duration = Duration::from_secs(600);

/// What came of a run.
pub(crate) struct Finished {
    /// Its epochs, as far as they were revealed to this client.
    pub(crate) epochs: Vec<EpochRow>,
    /// The trained weights, if they were.
    pub(crate) weights: Vec<Opened>,
    /// What it took.
    pub(crate) report: Report,
}

/// How to watch.
pub(crate) struct Watch<'a> {
    /// Epochs without a lower validation loss before the run is stopped.
    pub(crate) patience: Option<u32>,
    /// Where progress is shown.
    pub(crate) bar: &'a ProgressBar,
    /// Whether each epoch is a line of JSON.
    pub(crate) json: bool,
}

/// Starts the run of `d` as `owner` on the set that the servers hold, unless they have this very run already.
pub(crate) fn start(client: &mut Client, d: &Description, owner: &str, network: &Network) -> anyhow::Result<RunSpec> {
    let set = client.set(&d.set)?;
    let planned = plan(d, (set.epoch, &set.declaration), owner, network)?;
    match client.runs()?.into_iter().find(|r| r.name == d.name) {
        None => client.train(&planned.spec, &planned.initial)?,
        Some(status) if status.hash == planned.spec.hash() => {}
        Some(_) => bail!("there is another run named {0} already: `trefoil runs --drop {0}` removes it", d.name),
    }
    Ok(planned.spec)
}

/// Declares and contributes the rows at the servers of a trial, starts the run and has every owner agree.
pub(crate) fn start_trial(
    trial: &Trial,
    d: &Description,
    records: &Records,
    network: &Network,
) -> anyhow::Result<(Client, RunSpec)> {
    let declaration = records.declaration(&d.set);
    let mut owner = trial.client("owner")?;
    trial.once_ready(|| owner.declare(&declaration))?;
    for name in records.owners() {
        let mut client = trial.client(&name)?;
        let set = client.set(&d.set)?;
        for (i, c) in records.columns.iter().enumerate().filter(|(_, c)| c.owner == name) {
            let own =
                if c.labels.is_empty() { Contribution::Values(&c.values) } else { Contribution::Labels(&c.labels) };
            client.contribute(&set, i as u32, own)?;
        }
    }
    let spec = start(&mut owner, d, "owner", network)?;
    for name in records.owners().into_iter().filter(|n| n != "owner") {
        let mut client = trial.client(&name)?;
        let status = client.run_status(&d.name)?;
        let read = client.run_spec(&status)?;
        client.agree(&status, &read)?;
    }
    Ok((owner, spec))
}

/// Waits for the end of a run, taking in what is revealed to this client.
pub(crate) fn watch(client: &mut Client, spec: &RunSpec, watch: &Watch) -> anyhow::Result<Finished> {
    let (mut epochs, mut weights): (Vec<EpochRow>, Vec<Opened>) = (Vec::new(), Vec::new());
    let mut seen = Vec::new();
    let (mut best, mut stopped, mut last) = ((f64::INFINITY, 0), false, Instant::now());
    watch.bar.set_length(spec.all_steps());
    let began = Instant::now();
    let status = loop {
        let status = match client.run_status(&spec.name) {
            Err(e) if away(&e) && last.elapsed() < AWAY => {
                watch.bar.set_message("a server is away");
                std::thread::sleep(PAUSE);
                continue;
            }
            status => status?,
        };
        last = Instant::now();
        for r in &status.revealed {
            let own = spec.reveals.get(r.index as usize).is_some_and(|d| d.recipient == client.name());
            if !own || seen.contains(&(r.index, r.epoch)) {
                continue;
            }
            let opened = match client.revealed(spec, &status, *r) {
                Err(e) if away(&e) => break,
                opened => opened?,
            };
            seen.push((r.index, r.epoch));
            if spec.reveals.get(r.index as usize).is_some_and(|d| d.when == When::AtEnd) {
                weights.push(opened);
                continue;
            }
            let row = row(spec, r.epoch as usize + 1, &opened.values());
            if watch.json {
                output::json(&Event::Epoch(&row))?;
            }
            if let Some(loss) = row.validation_loss.filter(|l| *l < best.0) {
                best = (loss, row.epoch);
            }
            epochs.push(row);
        }
        let waited = epochs.last().map_or(0, |e| e.epoch).saturating_sub(best.1);
        if !stopped && watch.patience.is_some_and(|p| best.1 > 0 && waited >= p as usize) {
            client.stop(&spec.name)?;
            stopped = true;
        }
        show(watch.bar, &status, epochs.last());
        if status.stage == Stage::Done {
            break status;
        }
        std::thread::sleep(PAUSE.min(Duration::from_millis(20) + began.elapsed() / 20));
    };
    watch.bar.finish_and_clear();
    epochs.sort_by_key(|e| e.epoch);
    weights.sort_by_key(|w| w.revealed.index);
    Ok(Finished { epochs, weights, report: report(spec, &status) })
}

fn away(e: &ClientError) -> bool {
    e.is_unavailable()
}

fn show(bar: &ProgressBar, status: &RunStatus, last: Option<&EpochRow>) {
    bar.set_position(status.done);
    let text = match (status.stage, &status.missing[..]) {
        (Stage::Waiting, []) => "waiting for the data".to_owned(),
        (Stage::Waiting, _) if !status.withdrawn.is_empty() => status.note.clone(),
        (Stage::Waiting, missing) => format!("waiting for {}", missing.join(", ")),
        _ if !status.note.is_empty() => status.note.clone(),
        _ => {
            let loss = last.and_then(|e| e.loss).map(|l| format!(", loss {l:.3}")).unwrap_or_default();
            let resumed = if status.alice.resumed > 0 { ", resumed" } else { "" };
            format!("epoch {}/{}{loss}{resumed}", (status.at.epoch + 1).min(status.epochs), status.epochs)
        }
    };
    bar.set_message(text);
}

/// The revealed sums as means.
fn row(spec: &RunSpec, epoch: usize, sums: &[f64]) -> EpochRow {
    let trained = f64::from(spec.steps()) * f64::from(spec.batch);
    let checked = spec.check.as_ref().map_or(0.0, |c| f64::from(spec.places(Phase::Check)) * f64::from(c.batch));
    let counts_right = spec.metrics.iter().filter(|m| right(spec, **m)).count() > 0;
    let each = if counts_right { 2 } else { 1 };
    let mean = |i: usize, of: f64| sums.get(i).map(|s| s / of);
    EpochRow {
        epoch,
        loss: mean(0, trained),
        accuracy: if counts_right { mean(1, trained) } else { None },
        validation_loss: mean(each, checked),
        validation_accuracy: if counts_right { mean(each + 1, checked) } else { None },
    }
}

fn right(spec: &RunSpec, slot: u32) -> bool {
    spec.step.states.get(slot as usize).is_some_and(|s| s.name == "metrics/right")
}

fn report(spec: &RunSpec, status: &RunStatus) -> Report {
    let (a, b) = (&status.alice, &status.bob);
    let steps = a.steps.max(1);
    let each = |nanos: u64| output::seconds(nanos) / steps as f64;
    Report {
        name: spec.name.clone(),
        mode: "private",
        steps: a.steps,
        seconds: output::seconds(a.nanos),
        seconds_per_step: each(a.nanos),
        private: Some(Private {
            online_s: each(a.online),
            offline_s: each(a.offline),
            rounds: a.rounds / steps,
            bytes_online: a.online_bytes / steps,
            bytes_offline: b.offline_bytes / b.steps.max(1),
            peak_rss_bytes: a.peak_rss.max(b.peak_rss),
            resumed: a.resumed,
            reveals: words(spec),
        }),
    }
}

/// Peak memory of the largest server of a trial.
pub(crate) fn peak(trial: &Trial) -> u64 {
    Party::ALL.into_iter().map(|p| trial.peak_rss(p)).max().unwrap_or(0)
}

/// The name of the state that was revealed.
pub(crate) fn name(spec: &RunSpec, opened: &Opened) -> String {
    let slot = spec.reveals.get(opened.revealed.index as usize).and_then(|d| {
        d.program.steps.iter().find_map(|s| if let Op::State { slot } = s.op { Some(slot) } else { None })
    });
    slot.and_then(|s| spec.step.states.get(s)).map_or_else(|| opened.purpose.clone(), |s| s.name.clone())
}

/// A revealed tensor as it is printed with --json.
pub(crate) fn shown(spec: &RunSpec, opened: &Opened) -> Shown {
    Shown { tensor: name(spec, opened), shape: opened.shape.clone(), values: opened.values() }
}
