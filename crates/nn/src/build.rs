//! Networks built in code, with seeded weights: the demo's and those of the benchmarks.

use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

use crate::graph::{Array, Graph, GraphError, Layer, Node, Post};
use crate::train::init::{Init, initialise};

/// A chain of layers under construction, each reading the one before it, with weights of zero until the end.
#[derive(Debug)]
struct Chain {
    nodes: Vec<Node>,
    shape: Vec<usize>,
}

impl Chain {
    fn new(shape: &[usize]) -> Self {
        let input = Node { name: "input".into(), layer: Layer::Input { shape: shape.to_vec() }, inputs: Vec::new() };
        Self { nodes: vec![input], shape: shape.to_vec() }
    }

    fn push(&mut self, kind: &str, layer: Layer, shape: Vec<usize>) {
        let id = self.nodes.len();
        self.nodes.push(Node { name: format!("{kind}_{id}"), layer, inputs: vec![id - 1] });
        self.shape = shape;
    }

    fn conv(mut self, outputs: usize, size: usize, stride: usize, same: bool) -> Self {
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

    fn dense(mut self, outputs: usize) -> Self {
        let kernel = zeros(vec![self.shape[0], outputs]);
        let bias = Some(zeros(vec![outputs]));
        self.push("dense", Layer::Dense { kernel, bias }, vec![outputs]);
        self
    }

    fn relu(mut self) -> Self {
        let shape = self.shape.clone();
        self.push("relu", Layer::Relu, shape);
        self
    }

    fn pool(mut self, kind: &str, layer: fn(Pool2d) -> Layer) -> Self {
        let (h, w, channels) = (self.shape[0], self.shape[1], self.shape[2]);
        let pool = Pool2d { input: (h, w), channels, window: (2, 2), stride: (2, 2), pads: Pads::default() };
        self.push(kind, layer(pool), vec![h / 2, w / 2, channels]);
        self
    }

    fn max_pool(self) -> Self {
        self.pool("max_pool", Layer::MaxPool)
    }

    fn average_pool(self) -> Self {
        self.pool("average_pool", Layer::AveragePool)
    }

    fn flatten(mut self) -> Self {
        let n = self.shape.iter().product();
        self.push("flatten", Layer::Reshape { shape: vec![n] }, vec![n]);
        self
    }

    /// The network, He-uniform, its biases within +-`bias`.
    fn end(self, post: Post, bias: f64, seed: u64) -> Graph {
        let mut graph = Graph { nodes: self.nodes, post };
        initialise(&mut graph, Init::He, bias, seed);
        graph
    }
}

fn zeros(shape: Vec<usize>) -> Array {
    let n = shape.iter().product();
    Array { shape, data: vec![0.0; n] }
}

/// The demo's untrained network for 28 x 28 digits: two convolutions, two dense layers, softmax at the client.
pub fn demo_cnn(seed: u64) -> Graph {
    Chain::new(&[28, 28, 1])
        .conv(8, 5, 2, false)
        .relu()
        .max_pool()
        .conv(16, 3, 1, false)
        .relu()
        .flatten()
        .dense(64)
        .relu()
        .dense(10)
        .end(Post::Softmax, 0.0, seed)
}

/// A network of the benchmarks, by its letter: A to D of the SecureNN line of work, S (three convolutions with
/// average pools) and T (one wide hidden layer).
pub fn bench_net(name: &str, seed: u64) -> Result<Graph, GraphError> {
    let net = Chain::new(&[28, 28, 1]);
    let net = match name {
        "A" => net.flatten().dense(128).relu().dense(128).relu().dense(10),
        "B" => {
            let net = net.conv(16, 5, 1, false).relu().max_pool().conv(16, 5, 1, false).relu().max_pool();
            net.flatten().dense(100).relu().dense(10)
        }
        "C" => {
            let net = net.conv(20, 5, 1, false).relu().max_pool().conv(50, 5, 1, false).relu().max_pool();
            net.flatten().dense(500).relu().dense(10)
        }
        "D" => net.conv(5, 5, 2, true).relu().flatten().dense(100).relu().dense(10),
        "S" => {
            let net = net.conv(10, 3, 1, false).average_pool().relu();
            let net = net.conv(32, 3, 1, false).average_pool().relu();
            net.conv(64, 3, 1, false).average_pool().relu().flatten().dense(10)
        }
        "T" => net.flatten().dense(512).relu().dense(10),
        _ => return Err(GraphError { layer: "(none)".into(), reason: format!("no benchmark network {name:?}") }),
    };
    Ok(net.end(Post::None, 0.05, seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{CompileOptions, compile};

    #[test]
    fn every_network_makes_sense_and_compiles() {
        let sizes = |g: &Graph| -> usize {
            let shapes = g.shapes().unwrap();
            assert_eq!(shapes.last(), Some(&vec![10]));
            g.nodes
                .iter()
                .map(|n| match &n.layer {
                    Layer::Dense { kernel, .. } | Layer::Conv2d { kernel, .. } => kernel.data.len(),
                    _ => 0,
                })
                .sum()
        };
        let wanted = [
            ("A", 784 * 128 + 128 * 128 + 1280),
            ("B", 25 * 16 + 25 * 256 + 25600 + 1000),
            ("C", 500 + 25 * 1000 + 400_000 + 5000),
            ("D", 125 + 98_000 + 1000),
            ("S", 90 + 2880 + 18432 + 640),
            ("T", 784 * 512 + 5120),
        ];
        for (name, want) in wanted {
            let graph = bench_net(name, 1).unwrap();
            assert_eq!(sizes(&graph), want, "{name}");
            compile(&graph, &CompileOptions::default()).unwrap();
            assert_eq!(graph, bench_net(name, 1).unwrap());
            assert_ne!(graph, bench_net(name, 2).unwrap());
        }
        sizes(&demo_cnn(3));
        assert!(bench_net("Z", 1).is_err());
    }
}
