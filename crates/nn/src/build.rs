//! Networks built in code, with seeded weights: layer by layer, or the demo's and those of the benchmarks.

mod deep;
mod layer;
mod sequential;

use crate::graph::{Graph, GraphError};
use crate::train::init::{Init, initialise};

pub use layer::{
    Activation, LayerSpec, Sides, average_pool, batch_norm, batch_norm_with, clipped_relu, conv, dense, depthwise_conv,
    dropout, elu, flatten, gelu, global_average_pool, hard_sigmoid, leaky_relu, max_pool, relu, reshape, sigmoid, silu,
    softplus, tanh,
};
pub use sequential::{Place, Sequential};

/// The demo's untrained network for 28 x 28 digits: two convolutions, two dense layers, softmax at the client.
pub fn demo_cnn(seed: u64) -> Result<Graph, GraphError> {
    Sequential::new(&[28, 28, 1])
        .add(rectified(conv(8, 5).stride(2)))
        .add(max_pool(2))
        .add(rectified(conv(16, 3)))
        .add(flatten())
        .add(rectified(dense(64)))
        .add(dense(10).activation(Activation::Softmax))
        .build(seed)
}

fn rectified(layer: LayerSpec) -> LayerSpec {
    layer.activation(Activation::Relu)
}

/// The names of the benchmarks' networks.
pub const BENCH_NETS: [&str; 8] = ["A", "B", "C", "D", "S", "T", "vgg16", "resnet18"];

/// A network of the benchmarks, by its letter: A to D of the SecureNN line of work, S (three convolutions with
/// average pools) and T (one wide hidden layer); or "vgg16" and "resnet18", for 32 x 32 x 3.
pub fn bench_net(name: &str, seed: u64) -> Result<Graph, GraphError> {
    let net = Sequential::new(&[28, 28, 1]);
    let net = match name {
        "vgg16" => deep::vgg16(),
        "resnet18" => deep::resnet18(seed),
        "A" => net.add(flatten()).add(rectified(dense(128))).add(rectified(dense(128))).add(dense(10)),
        "B" => {
            let net = net.add(rectified(conv(16, 5))).add(max_pool(2)).add(rectified(conv(16, 5))).add(max_pool(2));
            net.add(flatten()).add(rectified(dense(100))).add(dense(10))
        }
        "C" => {
            let net = net.add(rectified(conv(20, 5))).add(max_pool(2)).add(rectified(conv(50, 5))).add(max_pool(2));
            net.add(flatten()).add(rectified(dense(500))).add(dense(10))
        }
        "D" => {
            let net = net.add(rectified(conv(5, 5).stride(2).same())).add(flatten());
            net.add(rectified(dense(100))).add(dense(10))
        }
        "S" => {
            let block = |net: Sequential, filters| net.add(conv(filters, 3)).add(average_pool(2)).add(relu());
            [10, 32, 64].into_iter().fold(net, block).add(flatten()).add(dense(10))
        }
        "T" => net.add(flatten()).add(rectified(dense(512))).add(dense(10)),
        _ => {
            let reason = format!("no benchmark network {name:?}: there are {}", BENCH_NETS.join(", "));
            return Err(GraphError { layer: String::new(), reason });
        }
    };
    let mut graph = net.build(seed)?;
    initialise(&mut graph, Init::He, 0.05, seed);
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{CompileOptions, compile};
    use crate::graph::Layer;

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
        sizes(&demo_cnn(3).unwrap());
        let all = "no benchmark network \"Z\": there are A, B, C, D, S, T, vgg16, resnet18";
        assert_eq!(bench_net("Z", 1).unwrap_err().to_string(), all);
    }
}
