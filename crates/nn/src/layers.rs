//! A graph on a tape: its tensors as states, its layers as operations, as often as it is applied.

pub(crate) mod apply;
pub(crate) mod tensors;

use std::collections::{HashMap, HashSet};

use crate::graph::{Array, Graph, GraphError};
use crate::pass::order::pool_first;
use crate::real::{Real, convert};
use crate::tape::{Op, Role, Tape, TapeError, ValueId};
use tensors::{Part, tensors, tensors_mut};

/// Whether batch statistics are used and elements dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A training step.
    Train,
    /// Evaluation and prediction.
    Infer,
}

/// A trained tensor on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its state.
    pub slot: usize,
    /// Its value before the step.
    pub value: ValueId,
    /// Whether weight decay applies: kernels only.
    pub decays: bool,
}

/// A graph whose tensors are states of a tape. Applied twice, it is two towers that share their weights.
#[derive(Debug)]
pub struct Layers {
    graph: Graph,
    shapes: Vec<Vec<usize>>,
    frozen: Vec<bool>,
    /// Value of each tensor of each node; of a moving average the newest.
    values: Vec<Vec<ValueId>>,
    slots: Vec<Vec<usize>>,
    parameters: Vec<Parameter>,
    /// Moving averages that have changed: node and tensor.
    moved: Vec<(usize, usize)>,
    /// Samples of a training step.
    batch: usize,
}

impl Layers {
    /// Declares the tensors of `graph` as the next states. Layers named in `frozen` keep theirs, and compute as in
    /// prediction. Training steps are of `batch` samples.
    pub fn declare(tape: &mut Tape, graph: &Graph, frozen: &[String], batch: usize) -> Result<Self, TapeError> {
        let own = |e: GraphError| TapeError { layer: e.layer, reason: e.reason };
        graph.shapes().map_err(own)?;
        if let Some(name) = frozen.iter().find(|f| graph.nodes.iter().all(|n| n.name != **f)) {
            return Err(TapeError { layer: name.clone(), reason: "to be frozen, but there is no such layer".into() });
        }
        let weighted = graph.nodes.iter().filter(|n| !tensors(&n.layer).is_empty());
        let mut names = HashSet::new();
        if let Some(twice) = weighted.map(|n| &n.name).find(|n| !names.insert(n.as_str())) {
            let reason = "is called twice with the same weights, or two layers have this name: it cannot be trained";
            return Err(TapeError { layer: twice.clone(), reason: reason.into() });
        }
        let is_frozen = |name: &String| frozen.contains(name);
        let (mut values, mut slots, mut parameters) = (Vec::new(), Vec::new(), Vec::new());
        for node in &graph.nodes {
            tape.enter(&node.name);
            let (mut of_node, mut slots_of_node) = (Vec::new(), Vec::new());
            for (what, part, array) in tensors(&node.layer) {
                let trained = part != Part::Moving && !is_frozen(&node.name);
                let role = if trained { Role::Parameter } else { Role::Fixed };
                let slot = tape.declare(format!("{}/{what}", node.name), array.shape.clone(), role);
                let value = tape.push(Op::State { slot })?;
                if trained {
                    parameters.push(Parameter { slot, value, decays: part == Part::Kernel });
                }
                of_node.push(value);
                slots_of_node.push(slot);
            }
            values.push(of_node);
            slots.push(slots_of_node);
        }
        let mut graph = graph.clone();
        pool_first(&mut graph, &mut Vec::new());
        let shapes = graph.shapes().map_err(own)?;
        let frozen = graph.nodes.iter().map(|n| is_frozen(&n.name)).collect();
        Ok(Self { graph, shapes, frozen, values, slots, parameters, moved: Vec::new(), batch })
    }

    /// The tensors that are trained.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The network's value for the input `x`, and that of the layer before the last one.
    pub fn apply(&mut self, tape: &mut Tape, x: ValueId, mode: Mode) -> Result<(ValueId, ValueId), TapeError> {
        let mut outputs = Vec::with_capacity(self.graph.nodes.len());
        for id in 0..self.graph.nodes.len() {
            tape.enter(&self.graph.nodes[id].name);
            let y = if id == 0 { tape.reshape(x, &self.shapes[0])? } else { self.layer(tape, id, &outputs, mode)? };
            outputs.push(y);
        }
        let last = outputs.len() - 1;
        let before = self.graph.nodes[last].inputs.first().map_or(x, |&i| outputs[i]);
        Ok((outputs[last], before))
    }

    /// Stores the moving averages.
    pub fn settle(&mut self, tape: &mut Tape) -> Result<(), TapeError> {
        for (node, tensor) in std::mem::take(&mut self.moved) {
            tape.enter(&self.graph.nodes[node].name);
            tape.push(Op::Store { slot: self.slots[node][tensor], x: self.values[node][tensor] })?;
        }
        Ok(())
    }
}

/// The tensors of a graph in the order in which [`Layers::declare`] declares them.
pub fn initial<T: Real>(graph: &Graph) -> Vec<Vec<T>> {
    graph.nodes.iter().flat_map(|n| tensors(&n.layer)).map(|(_, _, array)| convert(&array.data)).collect()
}

/// The same tensors with their names: `layer/tensor`.
pub fn named(graph: &Graph) -> impl Iterator<Item = (String, &Array)> {
    let all = graph.nodes.iter().flat_map(|n| tensors(&n.layer).into_iter().map(move |t| (n, t)));
    all.map(|(n, (what, _, array))| (format!("{}/{what}", n.name), array))
}

/// Sets tensors by the names of [`named`]; those that are not given stay.
pub fn set_tensors<'a>(
    graph: &mut Graph,
    given: impl IntoIterator<Item = (&'a str, &'a [usize], Vec<f64>)>,
) -> Result<(), GraphError> {
    let names: HashMap<String, usize> = named(graph).enumerate().map(|(i, (name, _))| (name, i)).collect();
    let mut arrays: Vec<&mut Array> = graph.nodes.iter_mut().flat_map(|n| tensors_mut(&mut n.layer)).collect();
    for (name, shape, values) in given {
        let fail = |reason: String| GraphError { layer: name.into(), reason };
        let at = *names.get(name).ok_or_else(|| fail("the network has no such tensor".into()))?;
        let array = &mut arrays[at];
        if array.shape != shape || array.data.len() != values.len() {
            return Err(fail(format!("has shape {shape:?}, must have {:?}", array.shape)));
        }
        if let Some(i) = values.iter().position(|v| !(*v as f32).is_finite()) {
            return Err(fail(format!("holds {} at position {i}", values[i])));
        }
        array.data.iter_mut().zip(values).for_each(|(a, v)| *a = v as f32);
    }
    Ok(())
}

/// Puts states back to where [`initial`] takes them from.
pub fn restore<T: Real>(graph: &mut Graph, states: &[Vec<T>]) {
    let all = graph.nodes.iter_mut().flat_map(|n| tensors_mut(&mut n.layer));
    for (array, state) in all.zip(states) {
        array.data.iter_mut().zip(state).for_each(|(a, s)| *a = s.to_f64() as f32);
    }
}
