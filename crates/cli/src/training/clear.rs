//! The same run in the clear: f32, the same batches in the same order.

use std::time::Instant;

use anyhow::bail;
use indicatif::ProgressBar;
use trefoil_client::training::EpochScore;
use trefoil_nn::graph::Graph;
use trefoil_nn::train::Loss;
use trefoil_nn::train::clear::{Epoch, fit};

use super::data::Records;
use super::description::{Description, Pretrain};
use super::ranges;
use super::report::{EpochRow, Report};
use crate::output;

/// What came of it.
pub(crate) struct Trained {
    /// The network with its trained weights.
    pub(crate) graph: Graph,
    /// Its epochs.
    pub(crate) epochs: Vec<EpochRow>,
    /// What it took.
    pub(crate) report: Report,
    /// Values that came near what fixed point holds.
    pub(crate) ranges: Vec<String>,
}

/// Trains as the description says, in the clear.
pub(crate) fn train(d: &Description, records: &Records, bar: &ProgressBar) -> anyhow::Result<Trained> {
    let mut training = d.training.clone();
    fits(&training.graph, &training.spec.loss, records, "[data]")?;
    let began = Instant::now();
    let mut steps = 0;
    let epochs = training.spec.epochs;
    let (done, warnings) = training.fit_measured(&records.matrix(), |p| {
        steps += 1;
        bar.set_length((epochs * p.steps) as u64);
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    let epochs = done.iter().enumerate().map(|(i, e)| row(i + 1, e)).collect();
    let seconds_per_step = seconds / steps.max(1) as f64;
    let report = Report { name: training.name.clone(), mode: "clear", steps, seconds, seconds_per_step, private: None };
    Ok(Trained { graph: training.graph, epochs, report, ranges: ranges::words(&warnings) })
}

fn row(epoch: usize, e: &Epoch) -> EpochRow {
    EpochScore { epoch, trained: e.trained, validated: e.validated }.into()
}

/// Refuses rows that are not as wide as what the network and its loss take: cut otherwise, they would train nonsense.
fn fits(graph: &Graph, loss: &Loss, records: &Records, section: &str) -> anyhow::Result<()> {
    let shapes = graph.shapes()?;
    let size = |shape: Option<&Vec<usize>>| shape.map_or(0, |s| s.iter().product::<usize>());
    let (features, label) = (size(shapes.first()).saturating_mul(loss.towers()), loss.labels(size(shapes.last())));
    let (width, due) = (records.width(), features.saturating_add(label));
    if width != due {
        bail!(
            "{section} has rows of {width} numbers, [model] and [loss] take {due} ({features} features, {label} for the \
             label): change [model] input or the last layer"
        );
    }
    Ok(())
}

/// Trains the network on its owner's own rows first, if the description says so. Gives what was said of the rows.
pub(crate) fn pretrain(d: &mut Description, quiet: bool) -> anyhow::Result<()> {
    let Some(Pretrain { spec, source, renew }) = &d.pretrain else { return Ok(()) };
    let records = source.load()?;
    let fresh = d.training.graph.clone();
    fits(&fresh, &spec.loss, &records, "[pretrain.data]")?;
    let bar = if quiet { ProgressBar::hidden() } else { output::progress("pre-training", 0) };
    let done = fit::<f32>(&mut d.training.graph, &records.matrix(), spec, |p| {
        bar.set_length((spec.epochs * p.steps) as u64);
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    for node in &mut d.training.graph.nodes {
        if let Some(f) = fresh.nodes.iter().find(|f| f.name == node.name && renew.contains(&f.name)) {
            node.layer = f.layer.clone();
        }
    }
    if let (false, Some(last)) = (quiet, done.last()) {
        let right = last.trained.accuracy.map(|a| format!(", {:.1} % right", 100.0 * a)).unwrap_or_default();
        output::line(format!(
            "The model's owner trained it in the clear on {} rows of its own first: loss {:.3}{right}",
            records.rows, last.trained.loss
        ))?;
        if let Some(note) = records.note {
            output::line(format!("note: {note}"))?;
        }
    }
    Ok(())
}
