//! Clear forward evaluation of a graph, and what the client applies to its logits.

use rayon::prelude::*;

use crate::graph::{Array, Graph, GraphError, Layer, Node, NodeId, Post};
use crate::kernels;
use crate::real::{Real, convert};
use crate::tape::Function;

/// Samples that one thread takes through the whole network together.
const CHUNK: usize = 16;

impl Graph {
    /// The logits of `batch` samples lying one after the other in `x`. [`Graph::post`] is left to the caller.
    pub fn forward(&self, batch: usize, x: &[f32]) -> Result<Vec<f32>, GraphError> {
        self.forward_in(batch, x)
    }

    /// [`Graph::forward`] in another type of number: `f64` gives a reference.
    pub fn forward_in<T: Real>(&self, batch: usize, x: &[T]) -> Result<Vec<T>, GraphError> {
        let shapes = self.shapes()?;
        let sizes: Vec<usize> = shapes.iter().map(|s| s.iter().product()).collect();
        if batch.checked_mul(sizes[0]) != Some(x.len()) {
            let reason = format!("{batch} samples of {} elements are not the {} given", sizes[0], x.len());
            return Err(GraphError { layer: self.nodes[0].name.clone(), reason });
        }
        let weights: Vec<Weights<T>> = self.nodes.iter().map(|n| Weights::of(&n.layer)).collect();
        let last = last_uses(self);
        let results: Vec<Vec<T>> = x
            .par_chunks(CHUNK.saturating_mul(sizes[0]))
            .map(|x| {
                let mut values: Vec<Vec<T>> = Vec::with_capacity(self.nodes.len());
                for (i, node) in self.nodes.iter().enumerate() {
                    let y = if i == 0 {
                        x.to_vec()
                    } else {
                        let inputs: Vec<&[T]> = node.inputs.iter().map(|&id| values[id].as_slice()).collect();
                        eval(node, &weights[i], &inputs, &shapes, i)
                    };
                    values.push(y);
                    for &id in &node.inputs {
                        if last[id] == i {
                            values[id] = Vec::new();
                        }
                    }
                }
                values.pop().unwrap_or_default()
            })
            .collect();
        Ok(results.concat())
    }

    /// What private prediction gives for `batch` samples: the logits, or squared distances of pairs where
    /// [`Post::Distance`] asks for them.
    pub fn answers(&self, batch: usize, x: &[f32]) -> Result<Vec<f32>, GraphError> {
        let logits = self.forward(batch.saturating_mul(self.towers()), x)?;
        if self.towers() == 1 {
            return Ok(logits);
        }
        let distance = |pair: &[f32]| {
            let (a, b) = pair.split_at(pair.len() / 2);
            a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        Ok(logits.chunks_exact(logits.len().checked_div(batch).unwrap_or(0).max(1)).map(distance).collect())
    }
}

/// For every node the last node that reads it.
fn last_uses(graph: &Graph) -> Vec<NodeId> {
    let mut last = vec![usize::MAX; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for &id in &node.inputs {
            last[id] = i;
        }
    }
    last
}

/// A layer's two tensors as numbers of the type computed in.
struct Weights<T> {
    first: Vec<T>,
    second: Option<Vec<T>>,
}

impl<T: Real> Weights<T> {
    fn of(layer: &Layer) -> Self {
        let own = |a: &Array| convert(&a.data);
        match layer {
            Layer::Dense { kernel, bias } | Layer::Conv2d { kernel, bias, .. } => {
                Self { first: own(kernel), second: bias.as_ref().map(own) }
            }
            Layer::ChannelAffine { scale, shift } => Self { first: own(scale), second: Some(own(shift)) },
            Layer::BatchNorm(norm) => {
                let (scale, shift) = norm.affine();
                Self { first: own(&scale), second: Some(own(&shift)) }
            }
            _ => Self { first: Vec::new(), second: None },
        }
    }
}

fn eval<T: Real>(node: &Node, w: &Weights<T>, inputs: &[&[T]], shapes: &[Vec<usize>], id: NodeId) -> Vec<T> {
    let x = inputs[0];
    let bias = w.second.as_deref();
    let out = || (shapes[id][0], shapes[id][1]);
    let each = |f: &dyn Fn(T) -> T| x.iter().map(|&v| f(v)).collect();
    match &node.layer {
        Layer::Input { .. } | Layer::Reshape { .. } | Layer::Dropout { .. } => x.to_vec(),
        Layer::Dense { kernel, .. } => kernels::dense(x, &w.first, bias, kernel.shape[0], kernel.shape[1]),
        Layer::Conv2d { geometry, .. } => kernels::conv2d(geometry, x, &w.first, bias, out()),
        Layer::ChannelAffine { .. } | Layer::BatchNorm(_) => {
            let coefficients = w.first.iter().zip(bias.unwrap_or_default());
            x.iter().zip(coefficients.cycle()).map(|(&x, (&s, &t))| x * s + t).collect()
        }
        Layer::MaxPool(p) => kernels::max_pool(p, x, out()),
        Layer::AveragePool(p) => kernels::average_pool(p, x, out()),
        Layer::Relu => each(&|v| v.larger(T::ZERO)),
        Layer::ClippedRelu { ceiling } => {
            let c = T::of(f64::from(*ceiling));
            each(&|v| if v > c { c } else { v.larger(T::ZERO) })
        }
        Layer::LeakyRelu { slope } => {
            let s = T::of(f64::from(*slope));
            each(&|v| if v < T::ZERO { s * v } else { v })
        }
        Layer::Sigmoid => each(&|v| T::of(Function::Sigmoid.of(v.to_f64()))),
        Layer::Tanh => each(&|v| T::of(v.to_f64().tanh())),
        Layer::HardSigmoid { slope } => {
            let (slope, half, one) = (T::of(f64::from(*slope)), T::of(0.5), T::of(1.0));
            each(&|v| {
                let y = (slope * v + half).larger(T::ZERO);
                if y > one { one } else { y }
            })
        }
        Layer::Softplus => each(&|v| T::of(Function::Softplus.of(v.to_f64()))),
        Layer::Elu { alpha } => {
            let alpha = f64::from(*alpha);
            each(&|v| if v < T::ZERO { T::of(alpha * Function::Elu.of(v.to_f64())) } else { v })
        }
        Layer::Silu => each(&|v| T::of(Function::Silu.of(v.to_f64()))),
        Layer::Gelu => each(&|v| T::of(Function::Gelu.of(v.to_f64()))),
        Layer::Softmax => x.chunks(shapes[id][0]).flat_map(softmax).collect(),
        Layer::Add => {
            let mut y = x.to_vec();
            for x in &inputs[1..] {
                for (y, &x) in y.iter_mut().zip(*x) {
                    *y += x;
                }
            }
            y
        }
        Layer::Concat { axis } => {
            let per_sample: usize = shapes[node.inputs[0]].iter().product();
            let parts: Vec<(&[T], usize)> =
                inputs.iter().zip(&node.inputs).map(|(x, &id)| (*x, shapes[id][*axis..].iter().product())).collect();
            kernels::concat(&parts, x.len() / per_sample * shapes[id][..*axis].iter().product::<usize>())
        }
        Layer::ZeroPad(pads) => {
            let s = &shapes[node.inputs[0]];
            kernels::zero_pad(x, (s[0], s[1], s[2]), *pads)
        }
    }
}

impl Post {
    /// Turns logits, `per_sample` outputs a sample, into what the model file promised.
    pub fn apply(&self, logits: &mut [f32], per_sample: usize) {
        match self {
            Post::None => {}
            Post::Distance { .. } => logits.iter_mut().for_each(|v| *v = v.max(0.0).sqrt()),
            Post::Sigmoid => logits.iter_mut().for_each(|v| *v = 1.0 / (1.0 + (-*v).exp())),
            Post::Softmax => logits.chunks_mut(per_sample.max(1)).for_each(|row| row.copy_from_slice(&softmax(row))),
        }
    }
}

fn softmax<T: Real>(row: &[T]) -> Vec<T> {
    let top = row.iter().copied().fold(T::of(f64::NEG_INFINITY), T::larger);
    let powers: Vec<T> = row.iter().map(|&v| T::of((v - top).to_f64().exp())).collect();
    let sum = powers.iter().fold(T::ZERO, |a, &b| a + b);
    powers.into_iter().map(|v| v / sum).collect()
}

#[cfg(test)]
mod tests {
    use trefoil_ring::geometry::{Pads, Pool2d};

    use super::*;

    fn node(name: &str, layer: Layer, inputs: &[NodeId]) -> Node {
        Node { name: name.into(), layer, inputs: inputs.to_vec() }
    }

    fn vector(v: &[f32]) -> Array {
        Array { shape: vec![v.len()], data: v.to_vec() }
    }

    #[test]
    fn every_branching_layer() {
        let pool = Pool2d {
            input: (2, 2),
            channels: 1,
            window: (2, 2),
            stride: (2, 2),
            pads: Pads { top: 0, bottom: 1, left: 0, right: 1 },
        };
        let graph = Graph {
            nodes: vec![
                node("in", Layer::Input { shape: vec![2, 2, 1] }, &[]),
                node("clip", Layer::ClippedRelu { ceiling: 2.0 }, &[0]),
                node("leak", Layer::LeakyRelu { slope: 0.5 }, &[0]),
                node("sum", Layer::Add, &[1, 2]),
                node("affine", Layer::ChannelAffine { scale: vector(&[2.0]), shift: vector(&[1.0]) }, &[0]),
                node("join", Layer::Concat { axis: 2 }, &[3, 4]),
                node("avg", Layer::AveragePool(pool), &[0]),
                node("flat", Layer::Reshape { shape: vec![8] }, &[5]),
                node("flat2", Layer::Reshape { shape: vec![1] }, &[6]),
                node("out", Layer::Concat { axis: 0 }, &[7, 8]),
            ],
            post: Post::None,
        };
        let x = [-2.0, 1.0, 3.0, 6.0, 0.0, 0.0, 0.0, 4.0];
        let y = graph.forward(2, &x).unwrap();
        assert_eq!(y[..9], [-1.0, -3.0, 2.0, 3.0, 5.0, 7.0, 8.0, 13.0, 2.0]);
        assert_eq!(y[9..], [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 6.0, 9.0, 1.0]);
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let z = graph.forward_in(2, &wide).unwrap();
        assert!(y.iter().zip(z).all(|(&a, b)| f64::from(a) == b));
        assert_eq!(graph.forward(3, &x).unwrap_err().layer, "in");
    }

    #[test]
    fn a_batch_larger_than_a_chunk_keeps_its_order() {
        let graph = Graph {
            nodes: vec![
                node("in", Layer::Input { shape: vec![1] }, &[]),
                node(
                    "dense",
                    Layer::Dense {
                        kernel: Array { shape: vec![1, 2], data: vec![1.0, -1.0] },
                        bias: Some(vector(&[0.0, 1.0])),
                    },
                    &[0],
                ),
            ],
            post: Post::None,
        };
        let x: Vec<f32> = (0..50).map(|i| i as f32).collect();
        let want: Vec<f32> = x.iter().flat_map(|&v| [v, 1.0 - v]).collect();
        assert_eq!(graph.forward(50, &x).unwrap(), want);
    }

    #[test]
    fn post_processing() {
        let mut v = [1000.0, 1000.0, 0.0, 0.0];
        Post::Softmax.apply(&mut v, 2);
        assert_eq!(v, [0.5; 4]);
        let mut v = [0.0, 100.0];
        Post::Sigmoid.apply(&mut v, 2);
        assert_eq!(v, [0.5, 1.0]);
        let (mut v, near) = ([0.04, 4.0, -0.01], Post::distance(0.5));
        assert_eq!(v.map(|d| near.is_similar(d)), [Some(true), Some(false), Some(true)]);
        near.apply(&mut v, 1);
        assert_eq!(v, [0.2, 2.0, 0.0]);
        assert_eq!((near.is_similar(0.25), Post::None.is_similar(0.0)), (Some(false), None));
        assert_eq!(Post::distance(0.0).is_similar(0.0), None);
    }
}
