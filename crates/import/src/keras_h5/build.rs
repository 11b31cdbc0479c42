//! From a model's configuration to the graph: layers are called in the order of their connections.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;
use trefoil_nn::graph::{Graph, GraphError, Layer, Node, NodeId, Post};
use trefoil_nn::pass::leave_answer;

use super::json::{Settings, brief, size};
use super::layers::{self, Call};
use super::model::{INPUT, LayerEntry, Model, is_model};
use super::weights::{Place, Weights};
use super::wiring::Ref;
use crate::ImportError;

/// Most layers and calls looked at, each call of a nested model counted with its layers.
const MAX_STEPS: usize = 20_000;
/// Most elements of one layer's output for one sample.
const MAX_OUTPUT: usize = 1 << 31;

/// What flows between layers: a node's output, and an activation that is left to the client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flow {
    /// The node.
    pub(super) node: NodeId,
    /// Still to be applied.
    pub(super) post: Post,
}

/// The graph while it grows.
pub(super) struct Builder<'w> {
    /// Where weights come from.
    pub(super) weights: &'w Weights,
    /// Whether Keras 2, or an older one, wrote the model.
    pub(super) keras2: bool,
    /// The first thing that the model does in training only, and Trefoil does not.
    pub(super) only_predicts: Option<ImportError>,
    /// Layers that are not to be trained.
    frozen: Vec<String>,
    nodes: Vec<Node>,
    shapes: Vec<Vec<usize>>,
    steps: usize,
}

/// A model and what its file says about training it.
pub(super) struct Imported {
    /// The network with its weights.
    pub(super) graph: Graph,
    /// Layers that are not to be trained.
    pub(super) frozen: Vec<String>,
    /// Why it cannot be trained as the file says.
    pub(super) only_predicts: Option<ImportError>,
}

/// The model `config`, with its weights; `version` of Keras, where it is known from elsewhere.
pub(super) fn model(config: Value, version: Option<String>, mut weights: Weights) -> Result<Imported, ImportError> {
    let config = with_plain_lists(config);
    let version = config.get("keras_version").and_then(Value::as_str).or(version.as_deref());
    // What Keras 3 gives as JSON tells no version, but modules.
    let old = |v: &str| v.starts_with("1.") || v.starts_with("2.");
    let keras2 = version.map_or(config.get("module").is_none(), old);
    let model = Model::parse(&config)?;
    let fail = |reason: String| ImportError::Model { model: model.name.into(), reason };
    let [input] = model.inputs[..] else {
        return Err(fail(format!("it has {} inputs, must have one", model.inputs.len())));
    };
    let shape = input_shape(&model.layers[input]).map_err(fail)?;
    let weighted = model.layers.iter().filter(|l| is_model(l.class) || layers::has_weights(l.class));
    weights.match_layers(&weighted.map(|l| l.name.as_str()).collect::<Vec<_>>())?;
    let (nodes, shapes, frozen) = (Vec::new(), Vec::new(), Vec::new());
    let mut builder = Builder { weights: &weights, keras2, only_predicts: None, frozen, nodes, shapes, steps: 0 };
    let node = builder.push(model.layers[input].name.clone(), Layer::Input { shape }, vec![])?;
    let outputs = builder.run(&model, &Place::default(), &[Flow { node, post: Post::None }])?;
    let [output] = outputs[..] else {
        return Err(fail(format!("it has {} outputs, must have one", outputs.len())));
    };
    let mut graph = Graph { nodes: leading_to(std::mem::take(&mut builder.nodes), output.node), post: output.post };
    leave_answer(&mut graph);
    graph.shapes()?;
    let Builder { mut frozen, only_predicts, .. } = builder;
    frozen.retain(|name| graph.nodes.iter().any(|n| n.name == *name));
    Ok(Imported { graph, frozen, only_predicts })
}

impl Builder<'_> {
    /// Appends a node, with its shape checked.
    pub(super) fn push(&mut self, name: String, layer: Layer, inputs: Vec<NodeId>) -> Result<NodeId, ImportError> {
        let shapes: Vec<&Vec<usize>> = inputs.iter().filter_map(|&i| self.shapes.get(i)).collect();
        let fail = |reason: String| GraphError { layer: name.clone(), reason };
        let shape = layer.output_shape(&shapes).map_err(fail)?;
        match shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) {
            Some(0) => return Err(fail(format!("output of shape {shape:?} is empty")).into()),
            Some(n) if n <= MAX_OUTPUT => {}
            _ => return Err(fail(format!("output of shape {shape:?} is too large")).into()),
        }
        self.shapes.push(shape);
        self.nodes.push(Node { name, layer, inputs });
        Ok(self.nodes.len() - 1)
    }

    /// Shape of a node's output.
    pub(super) fn shape(&self, node: NodeId) -> &[usize] {
        &self.shapes[node]
    }

    fn spend(&mut self, steps: usize) -> Result<(), ImportError> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps <= MAX_STEPS {
            return Ok(());
        }
        let (size, limit) = (self.steps as u64, MAX_STEPS as u64);
        Err(ImportError::TooLarge { what: "calls of layers".into(), size, limit })
    }

    /// Calls every layer of a model and gives what the model returns.
    fn run(&mut self, model: &Model<'_>, place: &Place, inputs: &[Flow]) -> Result<Vec<Flow>, ImportError> {
        let fail = |reason: String| ImportError::Model { model: model.name.into(), reason };
        if inputs.len() != model.inputs.len() {
            return Err(fail(format!("it is called with {} inputs, has {}", inputs.len(), model.inputs.len())));
        }
        let calls = model.layers.iter().map(|l| l.calls.iter().map(|c| 1 + c.len()).sum::<usize>());
        self.spend(model.looked + calls.sum::<usize>())?;
        let mut done: HashMap<(usize, usize), Vec<Flow>> = HashMap::new();
        let mut waiting: HashMap<(usize, usize), Vec<(usize, usize)>> = HashMap::new();
        let mut missing: HashMap<(usize, usize), usize> = HashMap::new();
        let mut ready = VecDeque::new();
        for (&layer, &flow) in model.inputs.iter().zip(inputs) {
            done.insert((layer, 0), vec![flow]);
            ready.push_back((layer, 0));
        }
        for (l, layer) in model.layers.iter().enumerate().filter(|(_, l)| l.class != INPUT) {
            for (c, refs) in layer.calls.iter().enumerate() {
                missing.insert((l, c), refs.len());
                for r in refs {
                    waiting.entry((r.layer, r.call)).or_default().push((l, c));
                }
            }
        }
        while let Some(at) = ready.pop_front() {
            let layer = &model.layers[at.0];
            if layer.class != INPUT {
                let args = layer.calls[at.1].iter().map(|r| pick(&done, r)).collect::<Option<Vec<_>>>();
                let args = args.ok_or_else(|| fail(format!("layer {}: an input has no such output", layer.name)))?;
                let outputs = self.call(layer, place, &args)?;
                done.insert(at, outputs);
            }
            for next in waiting.remove(&at).unwrap_or_default() {
                if let Some(left) = missing.get_mut(&next) {
                    *left -= 1;
                    if *left == 0 {
                        ready.push_back(next);
                    }
                }
            }
        }
        let outputs = model.outputs.iter().map(|r| {
            pick(&done, r).ok_or_else(|| {
                let name = &model.layers[r.layer].name;
                fail(format!("its output {name} cannot be computed: its inputs are missing or go round in a circle"))
            })
        });
        outputs.collect()
    }

    fn call(&mut self, layer: &LayerEntry<'_>, place: &Place, inputs: &[Flow]) -> Result<Vec<Flow>, ImportError> {
        let place = place.of_layer(&layer.name, &layer.keys);
        if is_model(layer.class) {
            return self.run(&Model::of(layer.class, layer.config)?, &place, inputs);
        }
        let name = place.name();
        let settings = Settings::new(&name, layer.class, layer.config);
        let before = self.nodes.len();
        let flow = layers::apply(&mut Call { builder: self, settings, place: &place, inputs, weights_taken: 0 })?;
        if layers::has_weights(layer.class) && !settings.flag("trainable", true)? {
            self.frozen.extend(self.nodes[before..].iter().map(|n| n.name.clone()));
        }
        Ok(vec![flow])
    }
}

fn pick(done: &HashMap<(usize, usize), Vec<Flow>>, r: &Ref) -> Option<Flow> {
    done.get(&(r.layer, r.call))?.get(r.tensor).copied()
}

/// The shape of one sample.
fn input_shape(layer: &LayerEntry<'_>) -> Result<Vec<usize>, String> {
    let name = &layer.name;
    let value = layer.shape.ok_or_else(|| format!("the shape of its input {name} is not in the file"))?;
    let dims = value.as_array().filter(|a| a.len() > 1 && a.len() <= 8);
    let dims = dims.ok_or_else(|| format!("its input {name} has shape {}", brief(value)))?;
    let dims = dims[1..].iter().map(size).collect::<Option<Vec<_>>>();
    dims.ok_or_else(|| format!("its input {name} has shape {}, only the batch may be left open", brief(value)))
}

/// The nodes that `output` needs, `output` last.
fn leading_to(nodes: Vec<Node>, output: NodeId) -> Vec<Node> {
    let mut needed = vec![false; nodes.len()];
    needed[0] = true;
    needed[output] = true;
    for id in (0..nodes.len()).rev().filter(|&id| id <= output) {
        if needed[id] {
            nodes[id].inputs.iter().for_each(|&i| needed[i] = true);
        }
    }
    let mut renamed = vec![0; nodes.len()];
    let mut kept = Vec::new();
    for (id, mut node) in nodes.into_iter().enumerate().filter(|(id, _)| needed[*id]) {
        renamed[id] = kept.len();
        node.inputs.iter_mut().for_each(|i| *i = renamed[*i]);
        kept.push(node);
    }
    kept
}

/// Some versions write a list as `{"class_name": "__tuple__", "items": [...]}`: makes it a list again.
fn with_plain_lists(value: Value) -> Value {
    match value {
        Value::Object(mut o) => {
            let class = o.get("class_name").and_then(Value::as_str);
            if matches!(class, Some("__tuple__" | "ListWrapper" | "TensorShape")) {
                return with_plain_lists(o.remove("items").unwrap_or_default());
            }
            o.values_mut().for_each(|v| *v = with_plain_lists(v.take()));
            Value::Object(o)
        }
        Value::Array(a) => Value::Array(a.into_iter().map(with_plain_lists).collect()),
        other => other,
    }
}
