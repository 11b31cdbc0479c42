//! Building a graph layer by layer.

use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

use crate::graph::{Array, Graph, Layer, Node, NodeId, Post};
use crate::rng::SplitMix;
use crate::train::init::{Init, initialise};

/// A place in a network.
#[derive(Debug, Clone)]
pub(super) struct Fork {
    node: NodeId,
    shape: Vec<usize>,
}

/// A network under construction, each layer reading the one before it unless told otherwise, with weights of zero
/// until the end.
#[derive(Debug)]
pub(super) struct Chain {
    nodes: Vec<Node>,
    /// What the next layer reads, and its shape.
    last: NodeId,
    pub(super) shape: Vec<usize>,
}

impl Chain {
    pub(super) fn new(shape: &[usize]) -> Self {
        let input = Node { name: "input".into(), layer: Layer::Input { shape: shape.to_vec() }, inputs: Vec::new() };
        Self { nodes: vec![input], last: 0, shape: shape.to_vec() }
    }

    fn push(&mut self, kind: &str, layer: Layer, shape: Vec<usize>) {
        self.push_on(kind, layer, shape, vec![self.last]);
    }

    fn push_on(&mut self, kind: &str, layer: Layer, shape: Vec<usize>, inputs: Vec<NodeId>) {
        let id = self.nodes.len();
        self.nodes.push(Node { name: format!("{kind}_{id}"), layer, inputs });
        (self.last, self.shape) = (id, shape);
    }

    /// Where the chain stands: what another path can start from, or be added to.
    pub(super) fn here(&self) -> Fork {
        Fork { node: self.last, shape: self.shape.clone() }
    }

    /// Goes on from `fork`.
    pub(super) fn from(mut self, fork: Fork) -> Self {
        (self.last, self.shape) = (fork.node, fork.shape);
        self
    }

    /// The sum of this path and another one, of the same shape.
    pub(super) fn add(mut self, other: &Fork) -> Self {
        let shape = self.shape.clone();
        self.push_on("add", Layer::Add, shape, vec![self.last, other.node]);
        self
    }

    /// A batch normalisation at inference, its scales about `scale`.
    pub(super) fn norm(mut self, rng: &mut SplitMix, scale: f64) -> Self {
        let shape = self.shape.clone();
        let channels = shape[shape.len() - 1];
        let mut near = |middle: f64, radius: f64| Array {
            shape: vec![channels],
            data: (0..channels).map(|_| rng.uniform(middle - radius, middle + radius) as f32).collect(),
        };
        let layer = Layer::ChannelAffine { scale: near(scale, scale / 4.0), shift: near(0.0, 0.05) };
        self.push("batch_norm", layer, shape);
        self
    }

    pub(super) fn conv(mut self, outputs: usize, size: usize, stride: usize, same: bool) -> Self {
        let (h, w, c) = (self.shape[0], self.shape[1], self.shape[2]);
        let (kernel, stride) = ((size, size), (stride, stride));
        let pads = if same { Pads::same((h, w), kernel, stride, (1, 1)) } else { Pads::default() };
        let geometry = Conv2d {
            input: (h, w),
            in_channels: c,
            out_channels: outputs,
            kernel,
            stride,
            dilation: (1, 1),
            pads,
            groups: 1,
        };
        let along = |n: usize, before: usize, after: usize| (n + before + after - size) / stride.0 + 1;
        let shape = vec![along(h, pads.top, pads.bottom), along(w, pads.left, pads.right), outputs];
        let kernel = zeros(geometry.kernel_shape());
        let bias = Some(zeros(vec![outputs]));
        self.push("conv2d", Layer::Conv2d { geometry, kernel, bias }, shape);
        self
    }

    pub(super) fn dense(mut self, outputs: usize) -> Self {
        let kernel = zeros(vec![self.shape[0], outputs]);
        let bias = Some(zeros(vec![outputs]));
        self.push("dense", Layer::Dense { kernel, bias }, vec![outputs]);
        self
    }

    pub(super) fn relu(mut self) -> Self {
        let shape = self.shape.clone();
        self.push("relu", Layer::Relu, shape);
        self
    }

    fn pool(mut self, kind: &str, layer: fn(Pool2d) -> Layer, size: usize) -> Self {
        let (h, w, channels) = (self.shape[0], self.shape[1], self.shape[2]);
        let pool =
            Pool2d { input: (h, w), channels, window: (size, size), stride: (size, size), pads: Pads::default() };
        self.push(kind, layer(pool), vec![h / size, w / size, channels]);
        self
    }

    pub(super) fn max_pool(self) -> Self {
        self.pool("max_pool", Layer::MaxPool, 2)
    }

    pub(super) fn average_pool(self, size: usize) -> Self {
        self.pool("average_pool", Layer::AveragePool, size)
    }

    pub(super) fn flatten(mut self) -> Self {
        let n = self.shape.iter().product();
        self.push("flatten", Layer::Reshape { shape: vec![n] }, vec![n]);
        self
    }

    /// The network, He-uniform, its biases within +-`bias`.
    pub(super) fn end(self, post: Post, bias: f64, seed: u64) -> Graph {
        let mut graph = Graph { nodes: self.nodes, post };
        initialise(&mut graph, Init::He, bias, seed);
        graph
    }
}

fn zeros(shape: Vec<usize>) -> Array {
    let n = shape.iter().product();
    Array { shape, data: vec![0.0; n] }
}
