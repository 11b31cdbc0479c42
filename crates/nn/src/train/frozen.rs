//! Layers that training leaves as they are, cut off: their outputs are computed once for each row, as features.

use super::{TrainError, TrainSpec};
use crate::graph::{Graph, GraphError, Layer, Node, Post};
use crate::layers::tensors::tensors;
use crate::layers::{Layers, Mode};
use crate::real::Real;
use crate::tape::Tape;

/// Records whose features are computed at once.
const TOGETHER: usize = 256;

/// A network in two parts: what makes features of a sample, and what is trained on them.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The frozen layers, and those without weights among and behind them.
    pub frozen: Graph,
    /// The others: their input is a sample's features.
    pub rest: Graph,
    /// Training of the rest.
    pub spec: TrainSpec,
    /// Towers of a record, and the numbers behind their features.
    record: (usize, usize),
}

/// Cuts `graph` behind the longest prefix of layers that are all frozen or without weights, and without randomness.
/// None if no weights are frozen before the first that are trained, or before dropout.
pub fn cut(graph: &Graph, spec: &TrainSpec) -> Result<Option<Cut>, GraphError> {
    let shapes = graph.shapes()?;
    let still = |n: &&Node| {
        let plain = tensors(&n.layer).is_empty() && !matches!(n.layer, Layer::Dropout { .. });
        plain || spec.frozen.contains(&n.name)
    };
    let most = graph.nodes.iter().take_while(still).count().min(graph.nodes.len().saturating_sub(1));
    // Nothing but the last of them is read by what is trained.
    let alone = |at: &usize| graph.nodes[*at..].iter().all(|n| n.inputs.iter().all(|i| i + 1 >= *at));
    let Some(at) = (2..=most).rev().find(alone) else { return Ok(None) };
    let (before, behind) = graph.nodes.split_at(at);
    if before.iter().all(|n| tensors(&n.layer).is_empty()) {
        return Ok(None);
    }
    let input = Node { layer: Layer::Input { shape: shapes[at - 1].clone() }, ..graph.nodes[0].clone() };
    let moved = |n: &Node| Node { inputs: n.inputs.iter().map(|i| i + 1 - at).collect(), ..n.clone() };
    let nodes = std::iter::once(input).chain(behind.iter().map(moved)).collect();
    let rest = Graph { nodes, post: graph.post };
    let frozen = spec.frozen.iter().filter(|f| behind.iter().any(|n| n.name == **f)).cloned().collect();
    let labels = spec.loss.labels(shapes.last().map_or(0, |s| s.iter().product()));
    Ok(Some(Cut {
        frozen: Graph { nodes: before.to_vec(), post: Post::None },
        rest,
        spec: TrainSpec { frozen, ..spec.clone() },
        record: (spec.loss.towers(), labels),
    }))
}

impl Cut {
    /// The features of a record as a tape: those of every tower, then the label as it is, as outputs in this order. Its
    /// states are the tensors of the frozen layers.
    pub fn tape(&self) -> Result<Tape, TrainError> {
        let (towers, labels) = self.record;
        let features: usize = self.frozen.shapes()?.first().map_or(0, |s| s.iter().product());
        let record = features.checked_mul(towers).and_then(|n| n.checked_add(labels)).unwrap_or(usize::MAX);
        let mut tape = Tape::new(record)?;
        let names: Vec<String> = self.frozen.nodes.iter().map(|n| n.name.clone()).collect();
        let mut layers = Layers::declare(&mut tape, &self.frozen, &names, 1)?;
        for tower in 0..towers {
            tape.enter("input");
            let x = tape.slice(0, 0, tower * features, features)?;
            let (y, _) = layers.apply(&mut tape, x, Mode::Infer)?;
            let n = tape.values[y].elements();
            let y = tape.reshape(y, &[n])?;
            tape.outputs.push(y);
        }
        if labels > 0 {
            tape.enter("label");
            let label = tape.slice(0, 0, towers * features, labels)?;
            tape.outputs.push(label);
        }
        Ok(tape.swept())
    }

    /// The records that the rest is trained on, of whole records that the network is trained on.
    pub fn features<R: Real, T: Real>(&self, records: &[R]) -> Result<Vec<T>, TrainError> {
        let (towers, labels) = self.record;
        let size: usize = self.frozen.shapes()?.first().map_or(0, |s| s.iter().product());
        let record = (towers * size + labels).max(1);
        if !records.len().is_multiple_of(record) {
            return Err(TrainError::Records { elements: records.len(), size: record });
        }
        let mut all = Vec::new();
        for part in records.chunks(TOGETHER * record) {
            let part: Vec<T> = part.iter().map(|v| T::of(v.to_f64())).collect();
            let samples: Vec<T> = part.chunks(record).flat_map(|r| &r[..towers * size]).copied().collect();
            let rows = part.len() / record;
            let features = self.frozen.forward_in(rows * towers, &samples)?;
            for (row, features) in part.chunks(record).zip(features.chunks(features.len() / rows)) {
                all.extend_from_slice(features);
                all.extend_from_slice(&row[towers * size..]);
            }
        }
        Ok(all)
    }

    /// Gives `graph`, which was cut, the weights of the rest.
    pub fn join(&self, rest: &Graph, graph: &mut Graph) {
        let behind = graph.nodes.iter_mut().skip(self.frozen.nodes.len());
        behind.zip(rest.nodes.iter().skip(1)).for_each(|(n, r)| n.layer = r.layer.clone());
    }

    /// Features of a record, those of every tower.
    pub fn width(&self) -> Result<usize, TrainError> {
        Ok(self.record.0 * self.rest.shapes()?.first().map_or(0, |s| s.iter().product()))
    }
}
