//! Networks built in code, with seeded weights: the demo's and those of the benchmarks.

mod chain;
mod deep;

use chain::Chain;

use crate::graph::{Graph, GraphError, Post};

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
/// average pools) and T (one wide hidden layer); or "vgg16" and "resnet18", for 32 x 32 x 3.
pub fn bench_net(name: &str, seed: u64) -> Result<Graph, GraphError> {
    let net = Chain::new(&[28, 28, 1]);
    let net = match name {
        "vgg16" => deep::vgg16(),
        "resnet18" => deep::resnet18(seed),
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
            let net = net.conv(10, 3, 1, false).average_pool(2).relu();
            let net = net.conv(32, 3, 1, false).average_pool(2).relu();
            net.conv(64, 3, 1, false).average_pool(2).relu().flatten().dense(10)
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
        sizes(&demo_cnn(3));
        assert!(bench_net("Z", 1).is_err());
    }
}
