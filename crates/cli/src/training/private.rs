//! A run at the servers, watched from its start to its end.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use indicatif::ProgressBar;
use trefoil_client::training::{Update, words};
use trefoil_client::{Client, Contribution, Opened, Phase, RunSpec, RunStatus, Stage};
use trefoil_link::Network;
use trefoil_prg::Party;

use super::data::Records;
use super::description::Description;
use super::report::{EpochRow, Event, Features, Private, Published, Report, Shown};
use crate::output;
use crate::trial::Trial;

/// What came of a run.
pub(crate) struct Finished {
    /// Its epochs, as far as they were revealed to this client.
    pub(crate) epochs: Vec<EpochRow>,
    /// The trained weights by name, if they were.
    pub(crate) weights: Vec<(String, Opened)>,
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

/// Declares and contributes the rows at the servers of a trial, starts the run and has every owner agree.
pub(crate) fn start_trial(
    trial: &Trial,
    d: &Description,
    records: &Records,
    network: &Network,
) -> anyhow::Result<(Client, RunSpec)> {
    let declaration = records.declaration(&d.training.set);
    let mut owner = trial.client("owner")?;
    trial.once_ready(|| owner.declare(&declaration))?;
    for name in records.owners() {
        let mut client = trial.client(&name)?;
        let set = client.set(&d.training.set)?;
        for (i, c) in records.columns.iter().enumerate().filter(|(_, c)| c.owner == name) {
            let own =
                if c.labels.is_empty() { Contribution::Values(&c.values) } else { Contribution::Labels(&c.labels) };
            client.contribute(&set, i as u32, own)?;
        }
    }
    let spec = owner.begin(&d.training, network)?;
    for name in records.owners().into_iter().filter(|n| n != "owner") {
        let mut client = trial.client(&name)?;
        let status = client.run_status(&d.training.name)?;
        let read = client.run_spec(&status)?;
        client.agree(&status, &read)?;
    }
    Ok((owner, spec))
}

/// Waits for the end of a run, taking in what is revealed to this client.
pub(crate) fn watch(client: &mut Client, spec: &RunSpec, watch: &Watch) -> anyhow::Result<Finished> {
    let (mut epochs, mut written): (Vec<EpochRow>, _) = (Vec::new(), Ok(()));
    watch.bar.set_length(spec.all_steps());
    let lines = !std::io::stderr().is_terminal();
    let mut progress = Progress { bar: watch.bar, lines, last: String::new() };
    let trained = client.follow(spec, watch.patience, |update| {
        match update {
            Update::Away => {
                watch.bar.set_message("a server is away");
                progress.state("a server is away".into());
            }
            Update::Status(status) => progress.status(status, epochs.last()),
            Update::Epoch(score) => {
                let row = EpochRow::from(*score);
                progress.epoch(&row, spec.epochs);
                if watch.json {
                    written = output::json(&Event::Epoch(&row));
                }
                epochs.push(row);
            }
        }
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    watch.bar.finish_and_clear();
    written?;
    let epochs = trained.epochs.into_iter().map(EpochRow::from).collect();
    Ok(Finished { epochs, weights: trained.weights, report: report(spec, &trained.status) })
}

/// What is shown while a run is watched: a bar on a terminal, elsewhere a line on standard error for each change.
struct Progress<'a> {
    bar: &'a ProgressBar,
    /// Whether nobody looks on.
    lines: bool,
    last: String,
}

impl Progress<'_> {
    /// How the run stands, where that is something else than before.
    fn state(&mut self, text: String) {
        if self.lines && text != self.last {
            output::note(&text);
            self.last = text;
        }
    }

    fn status(&mut self, status: &RunStatus, last: Option<&EpochRow>) {
        self.state(standing(status));
        self.bar.set_position(status.done);
        let extracting = status.at.phase == Phase::Extract;
        self.bar.set_message(match (status.stage, &*status.note) {
            (Stage::Waiting, _) => standing(status),
            (_, "") if extracting => format!("features, batch {}", status.at.index + 1),
            (_, "") => {
                let loss = last.and_then(|e| e.loss).map(|l| format!(", loss {l:.3}")).unwrap_or_default();
                let resumed = if status.alice.resumed > 0 { ", resumed" } else { "" };
                format!("epoch {}/{}{loss}{resumed}", (status.at.epoch + 1).min(status.epochs), status.epochs)
            }
            (_, note) => note.to_owned(),
        });
    }

    fn epoch(&mut self, e: &EpochRow, epochs: u32) {
        if self.lines {
            let percent = |p: Option<f64>| p.map(|p| format!(", {:.2} % right", 100.0 * p)).unwrap_or_default();
            let score = |what: &str, loss: Option<f64>, right| {
                loss.map(|l| format!("{what} {l:.4}{}", percent(right))).unwrap_or_default()
            };
            let trained = score("loss", e.loss, e.accuracy);
            let validated = score("; validation loss", e.validation_loss, e.validation_accuracy);
            output::note(&format!("epoch {}/{epochs}: {trained}{validated}", e.epoch));
        }
    }
}

/// How a run stands, in words that change as seldom as that.
fn standing(status: &RunStatus) -> String {
    match (status.stage, &*status.note) {
        (Stage::Waiting, "") => "waiting".to_owned(),
        (Stage::Waiting, note) => format!("waiting: {note}"),
        (Stage::Done, "") => "the run is over".to_owned(),
        (Stage::Done, note) => format!("the run is over: {note}"),
        (Stage::Running, note) if !note.is_empty() => note.to_owned(),
        (Stage::Running, _) if status.stopped => "stopped: the run ends with its epoch".to_owned(),
        (Stage::Running, _) if status.at.phase == Phase::Extract => "the servers compute features".to_owned(),
        (Stage::Running, _) => {
            let of = format!("{} of {} steps", output::count(status.epochs, "epoch"), status.steps);
            match status.alice.resumed {
                0 => format!("the servers train: {of}"),
                n => format!("the servers train: {of}, taken up again {}", output::times(n)),
            }
        }
    }
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
            rounds: b.rounds / b.steps.max(1),
            bytes_online: b.online_bytes / b.steps.max(1),
            bytes_offline: b.offline_bytes / b.steps.max(1),
            peak_rss_bytes: a.peak_rss.max(b.peak_rss),
            resumed: a.resumed,
            extraction: spec.extraction.as_ref().map(|_| Features {
                rows: a.extracted.rows,
                seconds: output::seconds(a.extracted.nanos),
                rounds: a.extracted.rounds,
                bytes_online: a.extracted.online_bytes,
                bytes_offline: b.extracted.offline_bytes,
            }),
            publication: spec.publish.as_ref().map(|_| Published {
                rounds: b.publication.rounds,
                bytes_online: b.publication.online_bytes,
                bytes_offline: b.publication.offline_bytes,
            }),
            reveals: words(spec),
        }),
    }
}

/// Peak memory of the largest server of a trial.
pub(crate) fn peak(trial: &Trial) -> u64 {
    Party::ALL.into_iter().map(|p| trial.peak_rss(p)).max().unwrap_or(0)
}

/// A revealed tensor as it is printed with --json.
pub(crate) fn shown((tensor, opened): &(String, Opened)) -> Shown {
    Shown { tensor: tensor.clone(), shape: opened.shape.clone(), values: opened.values() }
}
