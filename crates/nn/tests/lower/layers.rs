//! Every layer and loss: steps of SGD on shares beside floating point.

use trefoil_nn::graph::{BatchNorm, Graph, Layer, Node, Post};
use trefoil_nn::train::clear::first_states;
use trefoil_nn::train::{Loss, Optimiser, Schedule, Tapes, TrainSpec};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

use crate::common::{Trial, array, chain, dense, numbers};

const BATCH: usize = 6;

fn spec(loss: Loss) -> TrainSpec {
    let (optimiser, schedule) = (Optimiser::Sgd, Schedule::constant(0.1));
    TrainSpec { loss, optimiser, schedule, batch: BATCH, ..TrainSpec::classifier() }
}

/// Three steps ideally, the last one on shares too, all parameters within `tolerance`.
#[track_caller]
fn follows(graph: &Graph, spec: &TrainSpec, tolerance: f64) {
    let tapes = Tapes::new(graph, spec).unwrap();
    let mut trial = Trial::new(&tapes.step, first_states(graph, &tapes.step));
    let outputs = graph.shapes().unwrap().last().unwrap().iter().product();
    let labels = spec.loss.labels(outputs);
    let features = tapes.record() - labels;
    for step in 0..3 {
        let mut rows = Vec::new();
        for (i, x) in numbers(step + 20, features * BATCH, 1.0).chunks(features).enumerate() {
            rows.extend_from_slice(x);
            rows.extend((0..labels).map(|c| f64::from(u8::from((i + step as usize) % labels.max(2) == c))));
        }
        let rates = tapes.rates(step, 3);
        let shared = (step == 2).then(|| trial.on_shares(BATCH, &rows, &rates));
        trial.step(BATCH, &rows, &rates);
        let bound = |name: &str| if name.starts_with("metrics") { 40.0 * tolerance } else { tolerance };
        trial.within(&trial.decoded(), bound);
        if let Some(shared) = shared {
            trial.within(&shared, bound);
        }
    }
}

pub(crate) fn conv(seed: u64, input: (usize, usize), channels: (usize, usize), same: bool) -> Layer {
    let pads = if same { Pads { top: 1, bottom: 1, left: 1, right: 1 } } else { Pads::default() };
    let geometry = Conv2d {
        input,
        in_channels: channels.0,
        out_channels: channels.1,
        kernel: (3, 3),
        stride: (1, 1),
        dilation: (1, 1),
        pads,
        groups: 1,
    };
    let kernel = array(seed, &geometry.kernel_shape(), 0.5);
    Layer::Conv2d { geometry, kernel, bias: Some(array(seed + 1, &[channels.1], 0.1)) }
}

pub(crate) fn pool(input: (usize, usize), channels: usize, window: usize) -> Pool2d {
    Pool2d { input, channels, window: (window, window), stride: (window, window), pads: Pads::default() }
}

fn image(side: usize) -> Layer {
    Layer::Input { shape: vec![side, side, 1] }
}

fn flat(n: usize) -> Layer {
    Layer::Reshape { shape: vec![n] }
}

#[test]
fn convolutions_and_pools() {
    let max = Layer::MaxPool(pool((6, 6), 3, 2));
    let layers =
        vec![image(8), conv(1, (8, 8), (1, 3), false), Layer::Relu, max, conv(3, (3, 3), (3, 2), true), Layer::Relu];
    follows(&chain([layers, vec![flat(18), dense(5, 18, 4)]].concat()), &spec(Loss::SoftmaxCrossEntropy), 4e-4);
    for window in [2, 3] {
        let side = 6 / window;
        let average = Layer::AveragePool(pool((6, 6), 3, window));
        let max = Layer::MaxPool(pool((6, 6), 3, window));
        for p in [average, max] {
            let n = 3 * side * side;
            let layers = vec![image(8), conv(1, (8, 8), (1, 3), false), p, flat(n), dense(5, n, 4)];
            follows(&chain(layers), &spec(Loss::SoftmaxCrossEntropy), 4e-4);
        }
    }
}

#[test]
fn padded_pools() {
    let padded = |input, channels, stride| {
        let (window, stride) = ((2, 2), (stride, stride));
        Pool2d { input, channels, window, stride, pads: Pads::same(input, window, stride, (1, 1)) }
    };
    for (stride, n) in [(2, 9), (1, 25)] {
        for p in [Layer::MaxPool(padded((5, 5), 3, stride)), Layer::AveragePool(padded((5, 5), 3, stride))] {
            let layers = vec![image(7), conv(1, (7, 7), (1, 3), false), p, flat(3 * n), dense(5, 3 * n, 4)];
            follows(&chain(layers), &spec(Loss::SoftmaxCrossEntropy), 4e-4);
        }
    }
}

#[test]
fn activations() {
    let kinds = [
        Layer::Sigmoid,
        Layer::Tanh,
        Layer::LeakyRelu { slope: 0.1 },
        Layer::ClippedRelu { ceiling: 0.5 },
        Layer::HardSigmoid { slope: 0.2 },
        Layer::Softplus,
        Layer::Elu { alpha: 1.0 },
        Layer::Elu { alpha: 0.5 },
        Layer::Silu,
        Layer::Gelu,
        Layer::Softmax,
    ];
    for layer in kinds {
        let layers = vec![Layer::Input { shape: vec![5] }, dense(1, 5, 6), layer, dense(3, 6, 3)];
        follows(&chain(layers), &spec(Loss::SoftmaxCrossEntropy), 4e-4);
    }
}

#[test]
fn batch_normalisation() {
    let norm = |c: usize| {
        let mut variance = array(9, &[c], 0.5);
        variance.data.iter_mut().for_each(|v| *v = v.abs() + 0.25);
        Layer::BatchNorm(BatchNorm {
            gamma: array(7, &[c], 1.0),
            beta: array(8, &[c], 0.2),
            mean: array(9, &[c], 0.0),
            variance,
            epsilon: 1e-3,
            momentum: 0.9,
        })
    };
    let layers = vec![Layer::Input { shape: vec![5] }, dense(1, 5, 6), norm(6), Layer::Relu, dense(3, 6, 3)];
    follows(&chain(layers), &spec(Loss::SoftmaxCrossEntropy), 2e-3);
    let layers = vec![image(6), conv(1, (6, 6), (1, 2), false), norm(2), Layer::Relu, flat(32), dense(3, 32, 3)];
    follows(&chain(layers), &spec(Loss::SoftmaxCrossEntropy), 2e-3);
}

#[test]
fn sums_and_joins() {
    let node = |name: &str, layer, inputs: Vec<usize>| Node { name: name.into(), layer, inputs };
    let nodes = vec![
        node("in", Layer::Input { shape: vec![5] }, vec![]),
        node("a", dense(1, 5, 6), vec![0]),
        node("relu", Layer::Relu, vec![1]),
        node("b", dense(3, 6, 6), vec![2]),
        node("sum", Layer::Add, vec![3, 2]),
        node("join", Layer::Concat { axis: 0 }, vec![4, 1]),
        node("c", dense(5, 12, 3), vec![5]),
    ];
    follows(&Graph { nodes, post: Post::None }, &spec(Loss::SoftmaxCrossEntropy), 4e-4);
}

#[test]
fn losses() {
    let net = |n| chain(vec![Layer::Input { shape: vec![5] }, dense(1, 5, 6), Layer::Relu, dense(3, 6, n)]);
    for loss in [Loss::SoftmaxCrossEntropy, Loss::BinaryCrossEntropy, Loss::MeanSquaredError] {
        follows(&net(3), &spec(loss), 4e-4);
        follows(&net(2), &spec(loss), 4e-4);
    }
    follows(&net(20), &spec(Loss::SoftmaxCrossEntropy), 4e-4);
    for loss in [Loss::Contrastive { margin: 1.0 }, Loss::Triplet { margin: 0.5 }] {
        follows(&net(3), &spec(loss), 2e-3);
    }
}

#[test]
fn dropout_learns_and_keeps_its_scale() {
    let layers = vec![
        Layer::Input { shape: vec![5] },
        dense(1, 5, 64),
        Layer::Relu,
        Layer::Dropout { rate: 0.5 },
        dense(3, 64, 3),
    ];
    let graph = chain(layers);
    let tapes = Tapes::new(&graph, &spec(Loss::SoftmaxCrossEntropy)).unwrap();
    let mut trial = Trial::new(&tapes.step, first_states(&graph, &tapes.step));
    let mut rows = Vec::new();
    for (i, x) in numbers(2, 5 * BATCH, 1.0).chunks(5).enumerate() {
        rows.extend_from_slice(x);
        rows.extend((0..3).map(|c| f64::from(u8::from(i % 3 == c))));
    }
    let mut losses = Vec::new();
    for step in 0..40 {
        let before = trial.decoded()[tapes.metrics.loss][0];
        trial.ideal(BATCH, &rows, &tapes.rates(step, 40));
        losses.push(trial.decoded()[tapes.metrics.loss][0] - before);
    }
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    assert!(mean(&losses[..5]) > 2.0 * mean(&losses[35..]), "{losses:?}");
    let rates = tapes.rates(40, 41);
    let shared = trial.on_shares(BATCH, &rows, &rates);
    trial.ideal(BATCH, &rows, &rates);
    trial.real = trial.decoded();
    trial.within(&shared, |_| 1.0);
}

#[test]
fn frozen_layers_stay() {
    let graph = chain(vec![Layer::Input { shape: vec![5] }, dense(1, 5, 6), Layer::Relu, dense(3, 6, 3)]);
    follows(&graph, &TrainSpec { frozen: vec!["n1".into()], ..spec(Loss::SoftmaxCrossEntropy) }, 4e-4);
}
