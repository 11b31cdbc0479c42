//! Networks from short descriptions.

use serde_json::Value;
use trefoil_nn::graph::{Array, BatchNorm, Graph, Layer, Node, Post};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

pub(crate) fn zeros(shape: &[usize]) -> Array {
    Array::new(shape.to_vec(), vec![0.0; shape.iter().product()]).unwrap()
}

pub(crate) fn chain(layers: Vec<Layer>) -> Graph {
    let node = |(i, layer): (usize, Layer)| Node {
        name: format!("n{i}"),
        layer,
        inputs: if i == 0 { vec![] } else { vec![i - 1] },
    };
    Graph { nodes: layers.into_iter().enumerate().map(node).collect(), post: Post::None }
}

fn numbers(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn pads(v: &Value) -> Pads {
    let p = numbers(v);
    Pads { top: p[0], bottom: p[1], left: p[2], right: p[3] }
}

/// The graph of a golden case, its tensors zero.
pub(crate) fn described(shape: &Value, layers: &Value) -> Graph {
    let mut graph = vec![Layer::Input { shape: numbers(shape) }];
    for l in layers.as_array().unwrap() {
        let shape = chain(graph.clone()).shapes().unwrap().pop().unwrap();
        let channels = *shape.last().unwrap();
        let float = |i: usize| l[i].as_f64().unwrap() as f32;
        let pair = |i: usize| (numbers(&l[i])[0], numbers(&l[i])[1]);
        let pool =
            || Pool2d { input: (shape[0], shape[1]), channels, window: pair(1), stride: pair(2), pads: pads(&l[3]) };
        let per_channel = || zeros(&[channels]);
        graph.push(match l[0].as_str().unwrap() {
            "dense" => {
                let n = l[1].as_u64().unwrap() as usize;
                Layer::Dense { kernel: zeros(&[channels, n]), bias: Some(zeros(&[n])) }
            }
            "conv" => {
                let geometry = Conv2d {
                    input: (shape[0], shape[1]),
                    in_channels: channels,
                    out_channels: l[1].as_u64().unwrap() as usize,
                    kernel: pair(2),
                    stride: pair(3),
                    pads: pads(&l[4]),
                    groups: l[5].as_u64().unwrap() as usize,
                    dilation: pair(6),
                };
                let kernel = zeros(&geometry.kernel_shape());
                Layer::Conv2d { geometry, kernel, bias: Some(zeros(&[geometry.out_channels])) }
            }
            "max" => Layer::MaxPool(pool()),
            "average" => Layer::AveragePool(pool()),
            "relu" => Layer::Relu,
            "clipped" => Layer::ClippedRelu { ceiling: float(1) },
            "leaky" => Layer::LeakyRelu { slope: float(1) },
            "sigmoid" => Layer::Sigmoid,
            "tanh" => Layer::Tanh,
            "softmax" => Layer::Softmax,
            "flatten" => Layer::Reshape { shape: vec![shape.iter().product()] },
            "affine" => Layer::ChannelAffine { scale: per_channel(), shift: per_channel() },
            "norm" => Layer::BatchNorm(BatchNorm {
                gamma: per_channel(),
                beta: per_channel(),
                mean: per_channel(),
                variance: per_channel(),
                epsilon: float(1),
                momentum: float(2),
            }),
            other => panic!("layer {other}"),
        });
    }
    chain(graph)
}
