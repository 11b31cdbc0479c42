//! A chain of trainable layers: loss, gradients, and steps of stochastic gradient descent.

use trefoil_ring::geometry::{Conv2d, Pool2d};

use super::TrainError;
use super::backward;
use crate::graph::{Graph, Layer};
use crate::kernels;
use crate::real::{Real, convert};

/// A layer that can be trained or passed through.
#[derive(Debug)]
enum Kind {
    Dense { outputs: usize },
    Conv2d { geometry: Conv2d, out: (usize, usize) },
    MaxPool { pool: Pool2d, out: (usize, usize) },
    AveragePool { pool: Pool2d, out: (usize, usize) },
    Relu,
    Reshape,
}

/// A layer with its parameters, empty where it has none.
#[derive(Debug)]
struct Stage<T> {
    kind: Kind,
    kernel: Vec<T>,
    bias: Option<Vec<T>>,
}

/// Gradients of one stage's kernel and bias, summed over samples.
type StageGradient<T> = (Vec<T>, Vec<T>);

/// The outcome of some samples.
#[derive(Debug)]
pub(super) struct Outcome<T> {
    /// Sum of the cross-entropies.
    pub(super) loss: f64,
    /// Samples whose largest logit is the label's.
    pub(super) correct: usize,
    pub(super) gradients: Vec<StageGradient<T>>,
}

impl<T: Real> Outcome<T> {
    /// Adds another outcome to this one.
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.loss += other.loss;
        self.correct += other.correct;
        for ((k, b), (k2, b2)) in self.gradients.iter_mut().zip(other.gradients) {
            k.iter_mut().zip(k2).for_each(|(a, b)| *a += b);
            b.iter_mut().zip(b2).for_each(|(a, b)| *a += b);
        }
        self
    }
}

/// The chain.
#[derive(Debug)]
pub(super) struct Network<T> {
    stages: Vec<Stage<T>>,
    velocity: Vec<StageGradient<T>>,
    pub(super) inputs: usize,
    pub(super) classes: usize,
}

impl<T: Real> Network<T> {
    /// Takes the weights of `graph`, which must be a chain of layers that can be trained.
    pub(super) fn new(graph: &Graph) -> Result<Self, TrainError> {
        let shapes = graph.shapes()?;
        let mut stages = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate().skip(1) {
            let unsupported = |what: &'static str| TrainError::Unsupported { layer: node.name.clone(), what };
            if node.inputs != [i - 1] {
                return Err(unsupported("it does not read the layer before it alone"));
            }
            let out = || (shapes[i][0], shapes[i][1]);
            let mut stage = |kind, kernel: &[f32], bias: Option<&[f32]>| {
                stages.push(Stage { kind, kernel: convert(kernel), bias: bias.map(convert) });
            };
            match &node.layer {
                Layer::Dense { kernel, bias } => {
                    let kind = Kind::Dense { outputs: kernel.shape[1] };
                    stage(kind, &kernel.data, bias.as_ref().map(|b| &b.data[..]));
                }
                Layer::Conv2d { geometry, kernel, bias } if geometry.groups == 1 => {
                    let kind = Kind::Conv2d { geometry: *geometry, out: out() };
                    stage(kind, &kernel.data, bias.as_ref().map(|b| &b.data[..]));
                }
                Layer::Conv2d { .. } => return Err(unsupported("convolutions of several groups")),
                Layer::MaxPool(pool) => stage(Kind::MaxPool { pool: *pool, out: out() }, &[], None),
                Layer::AveragePool(pool) => stage(Kind::AveragePool { pool: *pool, out: out() }, &[], None),
                Layer::Relu => stage(Kind::Relu, &[], None),
                Layer::Reshape { .. } => stage(Kind::Reshape, &[], None),
                _ => return Err(unsupported("this kind of layer")),
            }
        }
        let size = |s: &[usize]| s.iter().product();
        let zeros = |s: &Stage<T>| (vec![T::ZERO; s.kernel.len()], vec![T::ZERO; s.bias.as_ref().map_or(0, Vec::len)]);
        let velocity = stages.iter().map(zeros).collect();
        Ok(Self { stages, velocity, inputs: size(&shapes[0]), classes: size(&shapes[shapes.len() - 1]) })
    }

    /// Puts the weights back where they came from.
    pub(super) fn store(&self, graph: &mut Graph) {
        let narrow = |from: &[T], to: &mut [f32]| to.iter_mut().zip(from).for_each(|(t, f)| *t = f.to_f64() as f32);
        for (node, stage) in graph.nodes[1..].iter_mut().zip(&self.stages) {
            if let Layer::Dense { kernel, bias } | Layer::Conv2d { kernel, bias, .. } = &mut node.layer {
                narrow(&stage.kernel, &mut kernel.data);
                if let (Some(to), Some(from)) = (bias, &stage.bias) {
                    narrow(from, &mut to.data);
                }
            }
        }
    }

    /// The outputs of every stage, the input first.
    fn forward(&self, x: &[T]) -> Vec<Vec<T>> {
        let mut values = vec![x.to_vec()];
        for stage in &self.stages {
            let x = &values[values.len() - 1];
            let (w, bias) = (&stage.kernel[..], stage.bias.as_deref());
            values.push(match &stage.kind {
                Kind::Dense { outputs } => kernels::dense(x, w, bias, w.len() / outputs, *outputs),
                Kind::Conv2d { geometry, out } => kernels::conv2d(geometry, x, w, bias, *out),
                Kind::MaxPool { pool, out } => kernels::max_pool(pool, x, *out),
                Kind::AveragePool { pool, out } => kernels::average_pool(pool, x, *out),
                Kind::Relu => x.iter().map(|v| v.larger(T::ZERO)).collect(),
                Kind::Reshape => x.clone(),
            });
        }
        values
    }

    /// Loss and gradients of softmax cross-entropy over some samples.
    pub(super) fn outcome(&self, x: &[T], labels: &[u8]) -> Outcome<T> {
        let values = self.forward(x);
        let (loss, correct, mut dy) = cross_entropy(&values[values.len() - 1], labels, self.classes);
        let mut gradients = vec![(Vec::new(), Vec::new()); self.stages.len()];
        for (i, stage) in self.stages.iter().enumerate().rev() {
            let (x, y, w) = (&values[i], &values[i + 1], &stage.kernel[..]);
            let linear = match &stage.kind {
                Kind::Dense { outputs } => backward::dense(x, w, &dy, *outputs, i > 0),
                Kind::Conv2d { geometry, out } => backward::conv2d(geometry, x, w, &dy, *out, i > 0),
                Kind::MaxPool { pool, out } => {
                    dy = backward::max_pool(pool, x, &dy, *out);
                    continue;
                }
                Kind::AveragePool { pool, out } => {
                    dy = backward::average_pool(pool, x.len(), &dy, *out);
                    continue;
                }
                Kind::Relu => {
                    dy.iter_mut().zip(y).filter(|(_, y)| **y <= T::ZERO).for_each(|(d, _)| *d = T::ZERO);
                    continue;
                }
                Kind::Reshape => continue,
            };
            dy = linear.input;
            gradients[i] = (linear.kernel, if stage.bias.is_some() { linear.bias } else { Vec::new() });
        }
        Outcome { loss, correct, gradients }
    }

    /// v = momentum v + g, w = w - rate v, with g the mean gradient of `samples`.
    pub(super) fn descend(&mut self, gradients: &[StageGradient<T>], samples: usize, rate: f64, momentum: f64) {
        let (rate, momentum, share) = (T::of(rate), T::of(momentum), T::of(1.0 / samples as f64));
        let update = |w: &mut [T], v: &mut [T], g: &[T]| {
            for ((w, v), &g) in w.iter_mut().zip(v).zip(g) {
                *v = momentum * *v + share * g;
                *w = *w - rate * *v;
            }
        };
        for ((stage, v), g) in self.stages.iter_mut().zip(&mut self.velocity).zip(gradients) {
            update(&mut stage.kernel, &mut v.0, &g.0);
            if let Some(b) = &mut stage.bias {
                update(b, &mut v.1, &g.1);
            }
        }
    }
}

/// The sum of -ln softmax(logits)[label], how many are right, and the gradient by the logits.
fn cross_entropy<T: Real>(logits: &[T], labels: &[u8], classes: usize) -> (f64, usize, Vec<T>) {
    let (mut loss, mut correct) = (0.0, 0);
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let label = usize::from(label);
        let row: Vec<f64> = row.iter().map(|v| v.to_f64()).collect();
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - top).exp()).sum();
        loss += sum.ln() + top - row[label];
        correct += usize::from(row[label] == top);
        gradient.extend(
            row.iter().enumerate().map(|(i, v)| T::of((v - top).exp() / sum - if i == label { 1.0 } else { 0.0 })),
        );
    }
    (loss, correct, gradient)
}

#[cfg(test)]
mod tests {
    use trefoil_ring::geometry::Pads;

    use super::*;
    use crate::graph::{Array, Node, Post};
    use crate::rng::SplitMix;
    use crate::train::init::{Init, initialise};

    /// Every kind of layer, with padding, strides and uneven windows.
    fn graph() -> Graph {
        let zeros = |shape: &[usize]| Array { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] };
        let conv = |input, in_channels, out_channels, stride, pads| {
            let geometry =
                Conv2d { input, in_channels, out_channels, kernel: (3, 2), stride, dilation: (1, 1), pads, groups: 1 };
            let bias = Some(zeros(&[out_channels]));
            Layer::Conv2d { geometry, kernel: zeros(&geometry.kernel_shape()), bias }
        };
        let pads = Pads { top: 1, bottom: 1, left: 0, right: 1 };
        let max = Pool2d { input: (7, 7), channels: 3, window: (3, 3), stride: (2, 2), pads: Pads::default() };
        let average = Pool2d {
            input: (3, 2),
            channels: 4,
            window: (2, 2),
            stride: (2, 2),
            pads: Pads { bottom: 1, ..Pads::default() },
        };
        let layers = vec![
            Layer::Input { shape: vec![7, 7, 2] },
            conv((7, 7), 2, 3, (1, 1), pads),
            Layer::MaxPool(max),
            Layer::Relu,
            conv((3, 3), 3, 4, (1, 1), Pads { top: 1, bottom: 1, ..Pads::default() }),
            Layer::AveragePool(average),
            Layer::Reshape { shape: vec![8] },
            Layer::Dense { kernel: zeros(&[8, 6]), bias: None },
            Layer::Relu,
            Layer::Dense { kernel: zeros(&[6, 4]), bias: Some(zeros(&[4])) },
        ];
        let node = |(i, layer): (usize, Layer)| Node {
            name: format!("n{i}"),
            layer,
            inputs: if i == 0 { vec![] } else { vec![i - 1] },
        };
        let mut graph = Graph { nodes: layers.into_iter().enumerate().map(node).collect(), post: Post::None };
        initialise(&mut graph, Init::He, 0.3, 5);
        graph
    }

    #[test]
    fn gradients_are_finite_differences() {
        let mut rng = SplitMix::new(11);
        let mut network = Network::<f64>::new(&graph()).unwrap();
        let x: Vec<f64> = (0..3 * 98).map(|_| rng.uniform(-1.0, 1.0)).collect();
        let labels = [0, 3, 1];
        let gradients = network.outcome(&x, &labels).gradients;
        let step = 1e-5;
        let mut compared = 0;
        for (stage, gradient) in gradients.iter().enumerate() {
            for (which, n) in [(0, gradient.0.len()), (1, gradient.1.len())] {
                for i in 0..n {
                    let mut loss = |by: f64| {
                        let s = &mut network.stages[stage];
                        let w = if which == 0 { &mut s.kernel[i] } else { &mut s.bias.as_mut().unwrap()[i] };
                        let old = *w;
                        *w += by;
                        let loss = network.outcome(&x, &labels).loss;
                        let s = &mut network.stages[stage];
                        let w = if which == 0 { &mut s.kernel[i] } else { &mut s.bias.as_mut().unwrap()[i] };
                        *w = old;
                        loss
                    };
                    let want = (loss(step) - loss(-step)) / (2.0 * step);
                    let got = if which == 0 { gradient.0[i] } else { gradient.1[i] };
                    assert!((got - want).abs() < 1e-6 * (1.0 + want.abs()), "stage {stage} {which} {i}: {got} {want}");
                    compared += usize::from(got != 0.0);
                }
            }
        }
        assert!(compared > 100, "only {compared} gradients are not zero");
    }

    #[test]
    fn momentum_accumulates() {
        let mut network = Network::<f64>::new(&graph()).unwrap();
        let old = network.stages[8].kernel[0];
        let mut g: Vec<StageGradient<f64>> = network.velocity.clone();
        g[8].0[0] = 2.0;
        network.descend(&g, 2, 0.1, 0.5);
        network.descend(&g, 2, 0.1, 0.5);
        assert!((old - network.stages[8].kernel[0] - (0.1 + 0.15)).abs() < 1e-12);
    }
}
