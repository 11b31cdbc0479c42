//! A network under construction: layers in order, each reading the one before it unless told otherwise.

use super::layer::{Activation, LayerSpec, MOST_WEIGHTS, flatten, too_many};
use crate::graph::{Graph, GraphError, Layer, Node, NodeId, Post};
use crate::layers::tensors::tensors;
use crate::train::init::{Init, initialise};

/// Longest name of a layer.
const LONGEST: usize = 100;

/// A place in a network: what another path can start from, or be added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(NodeId);

/// A network that is built layer by layer, as Keras' `Sequential` is.
///
/// ```
/// use trefoil_nn::build::{Activation, Sequential, conv, dense, flatten, max_pool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let graph = Sequential::new(&[28, 28, 1])
///     .add(conv(8, 5).stride(2).same().activation(Activation::Relu))
///     .add(max_pool(2))
///     .add(flatten())
///     .add(dense(10).named("classes").activation(Activation::Softmax))
///     .build(1)?;
/// assert_eq!(graph.shapes()?.last(), Some(&vec![10]));
/// # Ok(())
/// # }
/// ```
///
/// The first mistake is kept and [`Sequential::build`] tells it.
#[derive(Debug, Clone)]
pub struct Sequential {
    nodes: Vec<Node>,
    shapes: Vec<Vec<usize>>,
    last: NodeId,
    /// Weights that may still be added.
    left: usize,
    post: Post,
    init: Option<Init>,
    fault: Option<GraphError>,
}

impl Sequential {
    /// A network on samples of `shape`: height, width and channels of an image, or the length of a vector.
    pub fn new(shape: &[usize]) -> Self {
        let (nodes, shapes) = (Vec::new(), Vec::new());
        let mut net = Self { nodes, shapes, last: 0, left: MOST_WEIGHTS, post: Post::None, init: None, fault: None };
        let input = net.append("input".into(), Layer::Input { shape: shape.to_vec() }, vec![]);
        let reason = || "a sample has one dimension at least".to_owned();
        let none = || GraphError { layer: "input".into(), reason: reason() };
        net.fault = input.err().or_else(|| shape.is_empty().then(none));
        net
    }

    /// Adds a layer.
    #[allow(clippy::should_implement_trait, reason = "what Keras calls it; no sum is meant")]
    pub fn add(self, layer: LayerSpec) -> Self {
        self.then(|net| net.push(layer))
    }

    /// Adds a layer, or says what is wrong with it.
    pub fn push(&mut self, layer: LayerSpec) -> Result<(), GraphError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let name = self.name(&layer)?;
        let wrong = |reason: String| GraphError { layer: name.clone(), reason };
        if self.post != Post::None {
            return Err(wrong("comes after a softmax, which can only be last".into()));
        }
        let (flattens, activation) = (layer.flattens(), layer.activation);
        let made = layer.on(&self.shapes[self.last], self.left).map_err(wrong)?;
        self.append(name, made, vec![self.last])?;
        if flattens {
            self.push(flatten())?;
        }
        if activation == Activation::Softmax {
            self.post = Post::Softmax;
        }
        activation.layer().map_or(Ok(()), |layer| self.push(layer))
    }

    /// Where the network stands.
    pub fn here(&self) -> Place {
        Place(self.last)
    }

    /// Goes on from `place`.
    pub fn from(self, place: Place) -> Self {
        self.then(|net| {
            net.known(place)?;
            net.last = place.0;
            Ok(())
        })
    }

    /// The sum of what is here and at `place`, of one shape.
    pub fn plus(self, place: Place) -> Self {
        self.then(|net| {
            net.known(place)?;
            net.append(net.free("add"), Layer::Add, vec![net.last, place.0])
        })
    }

    /// How large the first weights are. Without it: [`Init::He`] where there is a ReLU, else [`Init::Glorot`].
    pub fn init(self, init: Init) -> Self {
        Self { init: Some(init), ..self }
    }

    /// The network, its first weights drawn from `seed`, biases zero.
    pub fn build(self, seed: u64) -> Result<Graph, GraphError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let relu = |n: &Node| matches!(n.layer, Layer::Relu | Layer::ClippedRelu { .. } | Layer::LeakyRelu { .. });
        let init = self.init.unwrap_or(if self.nodes.iter().any(relu) { Init::He } else { Init::Glorot });
        let mut graph = Graph { nodes: self.nodes, post: self.post };
        initialise(&mut graph, init, 0.0, seed);
        graph.shapes()?;
        Ok(graph)
    }

    /// Adds a layer of the graph under a name of its kind.
    pub(super) fn layer(self, kind: &str, layer: impl FnOnce(&[usize]) -> Layer) -> Self {
        self.then(|net| {
            let layer = layer(&net.shapes[net.last]);
            net.append(net.free(kind), layer, vec![net.last])
        })
    }

    /// Shape of what the next layer reads.
    pub(super) fn shape(&self) -> &[usize] {
        self.shapes.get(self.last).map_or(&[], Vec::as_slice)
    }

    fn then(mut self, step: impl FnOnce(&mut Self) -> Result<(), GraphError>) -> Self {
        if self.fault.is_none() {
            self.fault = step(&mut self).err();
        }
        self
    }

    fn known(&self, place: Place) -> Result<(), GraphError> {
        let reason = || format!("there is no place {} in this network", place.0);
        let there = place.0 < self.nodes.len();
        if there { Ok(()) } else { Err(GraphError { layer: String::new(), reason: reason() }) }
    }

    /// The layer's own name, or one that nobody else has.
    fn name(&self, layer: &LayerSpec) -> Result<String, GraphError> {
        let Some(name) = &layer.name else { return Ok(self.free(layer.word())) };
        let wrong = |reason: &str| Err(GraphError { layer: name.clone(), reason: reason.into() });
        if name.is_empty() || name.len() > LONGEST || name.contains(|c: char| c == '/' || c.is_control()) {
            return wrong("a name has 1 to 100 bytes and no \"/\"");
        }
        if self.taken(name) {
            return wrong("another layer has this name");
        }
        Ok(name.clone())
    }

    fn taken(&self, name: &str) -> bool {
        self.nodes.iter().any(|n| n.name == name)
    }

    fn free(&self, kind: &str) -> String {
        let numbered = (2..).map(|i| format!("{kind}-{i}"));
        std::iter::once(kind.to_owned()).chain(numbered).find(|n| !self.taken(n)).unwrap_or_default()
    }

    fn append(&mut self, name: String, layer: Layer, inputs: Vec<NodeId>) -> Result<(), GraphError> {
        let node = Node { name, layer, inputs };
        let shape = node.shape(self.nodes.len(), &self.shapes)?;
        let weights: usize = tensors(&node.layer).iter().map(|(_, _, array)| array.data.len()).sum();
        let beyond =
            || GraphError { layer: node.name.clone(), reason: too_many(&format!("{weights} weights"), self.left) };
        self.left = self.left.checked_sub(weights).ok_or_else(beyond)?;
        self.nodes.push(node);
        self.shapes.push(shape);
        self.last = self.nodes.len() - 1;
        Ok(())
    }
}
