//! Training in the clear.

use super::frozen::cut;
use super::order::batches;
use super::{Metrics, Patience, Tapes, TrainError, TrainSpec};
use crate::graph::Graph;
use crate::layers::{initial, restore};
use crate::lower::ranges::{Ranges, Warning};
use crate::real::Real;
use crate::tape::float::{Batch, run, run_watched};
use crate::tape::{Role, Tape, ValueId};

/// Samples evaluated at once.
const EVALUATED: usize = 256;

/// Where training stands after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Step within the epoch, from 0.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// The step's samples.
    pub score: Score,
}

/// The outcome over some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Mean loss.
    pub loss: f64,
    /// Part of the answers that are right, where the loss tells.
    pub accuracy: Option<f64>,
}

/// An epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Over the samples seen, as the network was when it saw them.
    pub trained: Score,
    /// Over the samples kept for validation, at the end.
    pub validated: Option<Score>,
    /// The learning rate of the last step.
    pub rate: f64,
}

/// Records of a classifier: features, then the label as a one-hot vector.
pub fn labelled(features: &[f32], labels: &[u8], classes: usize) -> Result<Vec<f32>, TrainError> {
    let size = features.len() / labels.len().max(1);
    if labels.is_empty() || size * labels.len() != features.len() || size == 0 {
        return Err(TrainError::Labels { elements: features.len(), labels: labels.len() });
    }
    if let Some(sample) = labels.iter().position(|&l| usize::from(l) >= classes) {
        return Err(TrainError::Label { sample, label: labels[sample], classes });
    }
    let mut records = Vec::with_capacity(features.len() + labels.len() * classes);
    for (x, &label) in features.chunks_exact(size).zip(labels) {
        records.extend_from_slice(x);
        records.extend((0..classes).map(|c| f32::from(u8::from(c == usize::from(label)))));
    }
    Ok(records)
}

/// Trains `graph` on records lying one after the other, in numbers of type `T`; gives the epochs.
///
/// Starts from the weights in `graph` and stores the trained ones there at the end; `progress` is called after
/// every step. Results do not depend on the number of threads. What [`cut`] finds frozen is computed once for each
/// record and kept in memory.
pub fn fit<T: Real>(
    graph: &mut Graph,
    records: &[f32],
    spec: &TrainSpec,
    progress: impl FnMut(&Progress),
) -> Result<Vec<Epoch>, TrainError> {
    fit_until::<T>(graph, records, spec, None, progress)
}

/// [`fit`], over as soon as `patience` is.
pub fn fit_until<T: Real>(
    graph: &mut Graph,
    records: &[f32],
    spec: &TrainSpec,
    patience: Option<Patience>,
    progress: impl FnMut(&Progress),
) -> Result<Vec<Epoch>, TrainError> {
    spec.check()?;
    let Some(cut) = cut(graph, spec)? else { return fit_all::<T, f32>(graph, records, spec, patience, progress) };
    let features: Vec<T> = cut.features(records)?;
    let mut rest = cut.rest.clone();
    let epochs = fit_all::<T, T>(&mut rest, &features, &cut.spec, patience, progress)?;
    cut.join(&rest, graph);
    Ok(epochs)
}

/// The same in numbers of type `T` on records of type `R`, whatever is frozen.
pub fn fit_all<T: Real, R: Real>(
    graph: &mut Graph,
    records: &[R],
    spec: &TrainSpec,
    patience: Option<Patience>,
    progress: impl FnMut(&Progress),
) -> Result<Vec<Epoch>, TrainError> {
    watched::<T, R>(&Tapes::new(graph, spec)?, graph, records, spec, patience, progress, &mut |_, _| {})
}

/// [`fit_until`], or [`fit_all`] if `all`, with what came near the bounds of fixed point in the steps.
pub fn fit_measured<T: Real>(
    graph: &mut Graph,
    records: &[f32],
    spec: &TrainSpec,
    patience: Option<Patience>,
    all: bool,
    progress: impl FnMut(&Progress),
) -> Result<(Vec<Epoch>, Vec<Warning>), TrainError> {
    spec.check()?;
    let cut = if all { None } else { cut(graph, spec)? };
    let Some(cut) = cut else { return measured::<T, f32>(graph, records, spec, patience, progress) };
    let features: Vec<T> = cut.features(records)?;
    let mut rest = cut.rest.clone();
    let done = measured::<T, T>(&mut rest, &features, &cut.spec, patience, progress)?;
    cut.join(&rest, graph);
    Ok(done)
}

fn measured<T: Real, R: Real>(
    graph: &mut Graph,
    records: &[R],
    spec: &TrainSpec,
    patience: Option<Patience>,
    progress: impl FnMut(&Progress),
) -> Result<(Vec<Epoch>, Vec<Warning>), TrainError> {
    let tapes = Tapes::new(graph, spec)?;
    let mut ranges = Ranges::new(&tapes.step);
    let mut see = |id, values: &[T]| ranges.see(id, values.iter().map(|v| v.to_f64()));
    let epochs = watched(&tapes, graph, records, spec, patience, progress, &mut see)?;
    Ok((epochs, ranges.warnings(&tapes.step)))
}

/// Trains, showing every value of every step to `see`.
fn watched<T: Real, R: Real>(
    tapes: &Tapes,
    graph: &mut Graph,
    records: &[R],
    spec: &TrainSpec,
    mut patience: Option<Patience>,
    mut progress: impl FnMut(&Progress),
    see: &mut dyn FnMut(ValueId, &[T]),
) -> Result<Vec<Epoch>, TrainError> {
    let size = tapes.record();
    if !records.len().is_multiple_of(size) {
        return Err(TrainError::Records { elements: records.len(), size });
    }
    let count = spec.trained(records.len() / size);
    if count < spec.batch {
        return Err(TrainError::TooFew { samples: count, batch: spec.batch });
    }
    let (trained, kept) = records.split_at(count * size);
    if patience.is_some() && kept.is_empty() {
        return Err(TrainError::Patience);
    }
    if let Some(i) = records.iter().position(|v| !v.to_f64().is_finite()) {
        let value = records[i].to_f64() as f32;
        return Err(TrainError::Number { row: i / size, column: i % size, value });
    }
    let mut states = first_states::<T>(graph, &tapes.step);
    let steps = (count / spec.batch) as u64;
    let mut epochs = Vec::with_capacity(spec.epochs);
    for epoch in 0..spec.epochs {
        reset(&tapes.step, &mut states);
        let (mut before, mut rate) = (sums(&tapes.metrics, &states), 0.0);
        for (step, ids) in batches(spec.seed, epoch, count, spec.batch).into_iter().enumerate() {
            let number = epoch as u64 * steps + step as u64;
            rate = spec.schedule.at(number, steps);
            let rows: Vec<T> =
                ids.iter().flat_map(|&i| &trained[i * size..][..size]).map(|v| T::of(v.to_f64())).collect();
            let rates = tapes.rates(number, steps);
            let seed = spec.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95);
            run_watched(
                &tapes.step,
                &mut states,
                &Batch { rows: &rows, samples: ids.len(), rates: &rates, seed },
                see,
            )?;
            let after = sums(&tapes.metrics, &states);
            let score = score(before, after, ids.len());
            if !score.loss.is_finite() {
                return Err(TrainError::Diverged { epoch, step, learning_rate: rate });
            }
            before = after;
            progress(&Progress { epoch, step, steps: steps as usize, score });
        }
        let seen = steps as usize * spec.batch;
        let zero = (0.0, tapes.metrics.right.map(|_| 0.0));
        let trained = score(zero, sums(&tapes.metrics, &states), seen);
        let validated = if kept.is_empty() { None } else { Some(evaluate(tapes, &states, kept)?) };
        epochs.push(Epoch { trained, validated, rate });
        if validated.zip(patience.as_mut()).is_some_and(|(v, p)| p.is_over(epoch, v.loss)) {
            break;
        }
    }
    restore(graph, &states);
    Ok(epochs)
}

/// The states of a step tape before the first step.
pub fn first_states<T: Real>(graph: &Graph, step: &Tape) -> Vec<Vec<T>> {
    let mut states = initial(graph);
    let rest = step.states.iter().skip(states.len());
    states.extend(rest.map(|s| vec![T::ZERO; s.shape.iter().product()]).collect::<Vec<_>>());
    states
}

/// Metrics of the network whose states are given, over some records.
pub fn evaluate<T: Real, R: Real>(tapes: &Tapes, states: &[Vec<T>], records: &[R]) -> Result<Score, TrainError> {
    let size = tapes.record();
    if records.is_empty() || !records.len().is_multiple_of(size) {
        return Err(TrainError::Records { elements: records.len(), size });
    }
    let mut states = states[..tapes.eval.states.len()].to_vec();
    reset(&tapes.eval, &mut states);
    for part in records.chunks(EVALUATED * size) {
        let rows: Vec<T> = part.iter().map(|v| T::of(v.to_f64())).collect();
        run(&tapes.eval, &mut states, &Batch { rows: &rows, samples: rows.len() / size, rates: &[], seed: 0 })?;
    }
    let zero = (0.0, tapes.metrics.right.map(|_| 0.0));
    Ok(score(zero, sums(&tapes.metrics, &states), records.len() / size))
}

fn reset<T: Real>(tape: &Tape, states: &mut [Vec<T>]) {
    let metrics = tape.states.iter().zip(states).filter(|(s, _)| s.role == Role::Metric);
    metrics.for_each(|(_, state)| state.fill(T::ZERO));
}

type Sums = (f64, Option<f64>);

fn sums<T: Real>(metrics: &Metrics, states: &[Vec<T>]) -> Sums {
    (states[metrics.loss][0].to_f64(), metrics.right.map(|r| states[r][0].to_f64()))
}

fn score(before: Sums, after: Sums, samples: usize) -> Score {
    let n = samples as f64;
    Score {
        loss: (after.0 - before.0) / n,
        accuracy: before.1.zip(after.1).map(|(before, after)| (after - before) / n),
    }
}
