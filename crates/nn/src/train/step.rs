//! The tapes of training: one step, the metrics alone, and prediction.

use super::clip::clip;
use super::loss::{Head, squared_distance};
use super::optimiser::Turn;
use super::{Loss, TrainError, TrainSpec};
use crate::graph::{Graph, Layer};
use crate::layers::{Layers, Mode};
use crate::tape::grad::gradients;
use crate::tape::{Op, Role, Tape, TapeError, ValueId};

/// Slots of the sums over the samples seen in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// Sum of the losses, `[1]`.
    pub loss: usize,
    /// Right answers, `[1]`, where the loss tells them.
    pub right: Option<usize>,
}

/// The tapes of a network in training. Their states begin alike: the tensors of the graph, then the metrics.
#[derive(Debug, Clone)]
pub struct Tapes {
    /// Forward, backward, clipping, update and metrics for one batch of exactly `spec.batch` samples.
    pub step: Tape,
    /// The metrics alone, for a batch of any size.
    pub eval: Tape,
    /// The network's outputs for features alone; with several towers, the squared distance of a pair.
    pub predict: Tape,
    /// Where the metrics are.
    pub metrics: Metrics,
    spec: TrainSpec,
}

impl Tapes {
    /// Describes training of `graph` by `spec`.
    pub fn new(graph: &Graph, spec: &TrainSpec) -> Result<Self, TrainError> {
        spec.check()?;
        let (step, metrics) = step(graph, spec)?;
        let (eval, _) = eval(graph, spec)?;
        Ok(Self { step, eval, predict: predict(graph, spec)?, metrics, spec: spec.clone() })
    }

    /// The public numbers of step `step`, counted from 0 over all epochs of `steps` steps.
    pub fn rates(&self, step: u64, steps: u64) -> Vec<f64> {
        let rate = self.spec.schedule.at(step, steps);
        let factor = self.spec.optimiser.factor(rate, step, self.spec.batch as f64);
        let decay = rate * self.spec.weight_decay;
        [factor, decay].into_iter().take(self.step.rates).collect()
    }

    /// Size of a record: the features of every tower, then the label.
    pub fn record(&self) -> usize {
        self.step.record()
    }
}

/// Features of one tower, and the length of the label.
fn sizes(graph: &Graph, loss: &Loss) -> Result<(usize, usize), TrainError> {
    let shapes = graph.shapes()?;
    let size = |i: usize| shapes[i].iter().product::<usize>();
    Ok((size(0), loss.labels(size(shapes.len() - 1))))
}

/// The network's output for every tower, as vectors, and the record's label.
fn towers(
    tape: &mut Tape,
    layers: &mut Layers,
    graph: &Graph,
    loss: &Loss,
    count: usize,
    features: usize,
    mode: Mode,
) -> Result<Vec<ValueId>, TapeError> {
    let last = graph.nodes.last().map(|n| &n.layer);
    let from_logits = matches!(
        (loss, last),
        (Loss::SoftmaxCrossEntropy, Some(Layer::Softmax)) | (Loss::BinaryCrossEntropy, Some(Layer::Sigmoid))
    );
    let mut outputs = Vec::with_capacity(count);
    for tower in 0..count {
        tape.enter("input");
        let x = tape.slice(0, 0, tower * features, features)?;
        let (output, before) = layers.apply(tape, x, mode)?;
        let y = if from_logits { before } else { output };
        let n = tape.values[y].elements();
        outputs.push(tape.reshape(y, &[n])?);
    }
    Ok(outputs)
}

/// Loss and metrics of a record.
fn head(
    tape: &mut Tape,
    layers: &mut Layers,
    graph: &Graph,
    spec: &TrainSpec,
    mode: Mode,
) -> Result<(Head, Metrics), TrainError> {
    let (features, labels) = sizes(graph, &spec.loss)?;
    tape.enter("metrics");
    let loss_slot = tape.declare("metrics/loss".into(), vec![1], Role::Metric);
    let right_slot = spec.loss.counts_right().then(|| tape.declare("metrics/right".into(), vec![1], Role::Metric));
    let count = spec.loss.towers();
    let outputs = towers(tape, layers, graph, &spec.loss, count, features, mode)?;
    tape.enter("loss");
    let label = if labels > 0 { tape.slice(0, 0, count * features, labels)? } else { 0 };
    let head = spec.loss.head(tape, &outputs, label, spec.likelihoods)?;
    let mut accumulate = |slot, x| {
        let old = tape.push(Op::State { slot })?;
        let sum = tape.sum(x, 1, true)?;
        let x = tape.add(old, sum)?;
        tape.push(Op::Store { slot, x })
    };
    accumulate(loss_slot, head.loss)?;
    if let (Some(slot), Some(right)) = (right_slot, head.right) {
        accumulate(slot, right)?;
    }
    Ok((head, Metrics { loss: loss_slot, right: right_slot }))
}

fn record(graph: &Graph, loss: &Loss) -> Result<usize, TrainError> {
    let (features, labels) = sizes(graph, loss)?;
    let all = features.checked_mul(loss.towers()).and_then(|n| n.checked_add(labels));
    Ok(all.unwrap_or(usize::MAX))
}

fn step(graph: &Graph, spec: &TrainSpec) -> Result<(Tape, Metrics), TrainError> {
    let mut tape = Tape::new(record(graph, &spec.loss)?)?;
    let rate = tape.rate();
    let decay = (spec.decoupled_decay && spec.weight_decay > 0.0).then(|| tape.rate());
    let mut layers = Layers::declare(&mut tape, graph, &spec.frozen, spec.batch)?;
    let (head, metrics) = head(&mut tape, &mut layers, graph, spec, Mode::Train)?;
    layers.settle(&mut tape)?;
    let parameters = layers.parameters().to_vec();
    let values: Vec<ValueId> = parameters.iter().map(|p| p.value).collect();
    let found = gradients(&mut tape, &head.seeds, &values)?;
    let mut trained: Vec<_> = parameters.into_iter().zip(found).filter_map(|(p, g)| Some((p, g?))).collect();
    let batch = spec.batch as f64;
    if spec.weight_decay > 0.0 && !spec.decoupled_decay {
        for (p, g) in trained.iter_mut().filter(|(p, _)| p.decays) {
            let more = tape.scale(p.value, batch * spec.weight_decay)?;
            *g = tape.add(*g, more)?;
        }
    }
    if let Some(bound) = spec.clip {
        let mut found: Vec<ValueId> = trained.iter().map(|t| t.1).collect();
        clip(&mut tape, &mut found, bound, batch)?;
        trained.iter_mut().zip(found).for_each(|(t, g)| t.1 = g);
    }
    for (p, gradient) in trained {
        let name = tape.states[p.slot].name.clone();
        tape.enter(name.split('/').next().unwrap_or_default());
        let turn = Turn { name: &name, gradient, batch, rate };
        let fall = spec.optimiser.direction(&mut tape, &turn)?;
        let fall = tape.push(Op::Rate { x: fall, rate: turn.rate })?;
        let mut x = tape.sub(p.value, fall)?;
        if let Some(rate) = decay.filter(|_| p.decays) {
            let less = tape.push(Op::Rate { x: p.value, rate })?;
            x = tape.sub(x, less)?;
        }
        tape.push(Op::Store { slot: p.slot, x })?;
    }
    Ok((tape.swept(), metrics))
}

fn eval(graph: &Graph, spec: &TrainSpec) -> Result<(Tape, Metrics), TrainError> {
    let mut tape = Tape::new(record(graph, &spec.loss)?)?;
    let mut layers = Layers::declare(&mut tape, graph, &spec.frozen, spec.batch)?;
    let (_, metrics) = head(&mut tape, &mut layers, graph, spec, Mode::Infer)?;
    Ok((tape.swept(), metrics))
}

fn predict(graph: &Graph, spec: &TrainSpec) -> Result<Tape, TrainError> {
    let (features, _) = sizes(graph, &spec.loss)?;
    let count = spec.loss.towers().min(2);
    let mut tape = Tape::new(features.saturating_mul(count))?;
    let mut layers = Layers::declare(&mut tape, graph, &spec.frozen, spec.batch)?;
    let outputs = towers(&mut tape, &mut layers, graph, &spec.loss, count, features, Mode::Infer)?;
    let output = if let [a, b] = outputs[..] { squared_distance(&mut tape, a, b)? } else { outputs[0] };
    tape.outputs.push(output);
    Ok(tape.swept())
}
