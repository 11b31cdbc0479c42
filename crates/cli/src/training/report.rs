//! What a training run shows: a row for each epoch, and what it took.

use serde::Serialize;
use trefoil_client::training::EpochScore;

use crate::accuracy::Accuracy;
use crate::output;
use crate::table::Table;

/// An epoch, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct EpochRow {
    /// Its number, from 1.
    pub(crate) epoch: usize,
    /// Mean loss over the rows trained on, as the network was when it saw them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loss: Option<f64>,
    /// Part of them that were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accuracy: Option<f64>,
    /// Mean loss over the validation rows at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation_loss: Option<f64>,
    /// Part of them that were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation_accuracy: Option<f64>,
}

impl From<EpochScore> for EpochRow {
    fn from(e: EpochScore) -> Self {
        Self {
            epoch: e.epoch,
            loss: Some(e.trained.loss),
            accuracy: e.trained.accuracy,
            validation_loss: e.validated.map(|v| v.loss),
            validation_accuracy: e.validated.and_then(|v| v.accuracy),
        }
    }
}

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event<'a> {
    /// An epoch is over.
    Epoch(&'a EpochRow),
    /// The run is over.
    Report(&'a Report),
    /// What was revealed.
    Revealed(&'a Shown),
    /// What the trained model, which is served, answered privately.
    Predictions(&'a Accuracy),
    /// What may go wrong on shares.
    Warning(Warned<'a>),
}

/// A warning.
#[derive(Debug, Serialize)]
pub(crate) struct Warned<'a> {
    /// In words.
    pub(crate) text: &'a str,
}

/// A tensor that was revealed to the one who runs this.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// Its name: layer and tensor.
    pub(crate) tensor: String,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// Its values.
    pub(crate) values: Vec<f64>,
}

/// What a run took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// The run.
    pub(crate) name: String,
    /// "private" or "clear".
    pub(crate) mode: &'static str,
    /// Steps.
    pub(crate) steps: u64,
    /// Wall time of all of them.
    pub(crate) seconds: f64,
    /// Wall time of one.
    pub(crate) seconds_per_step: f64,
    /// What only a private run has.
    #[serde(flatten)]
    pub(crate) private: Option<Private>,
}

/// What the servers measured, per step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Private {
    /// Evaluating.
    pub(crate) online_s: f64,
    /// Preparing material.
    pub(crate) offline_s: f64,
    /// Rounds between the evaluators.
    pub(crate) rounds: u64,
    /// Bytes between the evaluators.
    pub(crate) bytes_online: u64,
    /// Bytes from the producer.
    pub(crate) bytes_offline: u64,
    /// Peak memory of the evaluator that was asked; of the largest server in a trial.
    pub(crate) peak_rss_bytes: u64,
    /// How often the run was taken up again, after a failure or a withdrawal.
    pub(crate) resumed: u32,
    /// What the features took, all rows together; none where steps read the rows themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) extraction: Option<Features>,
    /// What publication took, once; none where nothing is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) publication: Option<Published>,
    /// What was revealed: to whom, what and why.
    pub(crate) reveals: Vec<String>,
}

/// What the servers measured of the extraction.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Features {
    /// Rows, those that a failure undid included.
    pub(crate) rows: u64,
    /// Wall time.
    pub(crate) seconds: f64,
    /// Rounds between the evaluators.
    pub(crate) rounds: u64,
    /// Bytes between the evaluators.
    pub(crate) bytes_online: u64,
    /// Bytes from the producer.
    pub(crate) bytes_offline: u64,
}

/// What the servers measured of the publication.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Published {
    /// Rounds between the evaluators.
    pub(crate) rounds: u64,
    /// Bytes between the evaluators.
    pub(crate) bytes_online: u64,
    /// Bytes from the producer.
    pub(crate) bytes_offline: u64,
}

/// Prints the epochs as a table.
pub(crate) fn epochs(rows: &[EpochRow]) -> anyhow::Result<()> {
    if rows.iter().all(|r| r.loss.is_none()) {
        return output::line("loss and accuracy stay secret: their reveal was not agreed");
    }
    let mut t = Table::new(&[">epoch", ">loss", ">right", ">validation loss", ">right"]);
    let percent = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{:.2} %", 100.0 * v));
    let number = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
    for r in rows {
        let losses = [number(r.loss), percent(r.accuracy), number(r.validation_loss), percent(r.validation_accuracy)];
        t.row(std::iter::once(r.epoch.to_string()).chain(losses).collect());
    }
    output::line(t.text())
}

impl Report {
    /// Prints it.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let each = output::time(self.seconds_per_step);
        output::line(format!("{} steps in {}, {each} each", self.steps, output::time(self.seconds)))?;
        let Some(p) = &self.private else { return output::line("trained in the clear, in f32") };
        output::line(format!(
            "a step: {} online, {} offline; {} rounds, {} online, {} offline; peak memory {}",
            output::time(p.online_s),
            output::time(p.offline_s),
            p.rounds,
            output::bytes(p.bytes_online),
            output::bytes(p.bytes_offline),
            output::bytes(p.peak_rss_bytes)
        ))?;
        if let Some(f) = &p.extraction {
            output::line(format!(
                "features of {} rows before: {}; {} rounds, {} online, {} offline",
                f.rows,
                output::time(f.seconds),
                f.rounds,
                output::bytes(f.bytes_online),
                output::bytes(f.bytes_offline)
            ))?;
        }
        if let Some(f) = &p.publication {
            let [online, offline] = [f.bytes_online, f.bytes_offline].map(output::bytes);
            output::line(format!("publication: {} rounds, {online} online, {offline} offline", f.rounds))?;
        }
        if p.resumed > 0 {
            let times = output::times(p.resumed);
            output::line(format!("taken up again {times}, after a failure or a withdrawal"))?;
        }
        Ok(())
    }
}
