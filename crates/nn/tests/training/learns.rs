//! Training makes networks right, repeats itself, and leaves frozen layers alone.

use trefoil_data::digits;
use trefoil_nn::build::demo_cnn;
use trefoil_nn::graph::{Array, BatchNorm, Graph, Layer};
use trefoil_nn::layers::initial;
use trefoil_nn::tape::float::{Batch, run};
use trefoil_nn::train::clear::{Progress, fit, fit_until, labelled};
use trefoil_nn::train::init::{Init, initialise};
use trefoil_nn::train::{Clip, Loss, Optimiser, Patience, Schedule, Tapes, TrainSpec};

use crate::networks::{chain, zeros};

fn dense(inputs: usize, outputs: usize) -> Layer {
    Layer::Dense { kernel: zeros(&[inputs, outputs]), bias: Some(zeros(&[outputs])) }
}

fn started(layers: Vec<Layer>, seed: u64) -> Graph {
    let mut graph = chain(layers);
    initialise(&mut graph, Init::Glorot, 0.1, seed);
    graph
}

#[test]
fn exclusive_or() {
    let data = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let records = labelled(&data, &[0, 1, 1, 0], 2).unwrap();
    let make = || started(vec![Layer::Input { shape: vec![2] }, dense(2, 8), Layer::Relu, dense(8, 2)], 3);
    let spec = TrainSpec { epochs: 400, batch: 2, schedule: Schedule::constant(0.1), ..TrainSpec::classifier() };
    let (mut one, mut two) = (make(), make());
    let mut seen: Vec<Progress> = Vec::new();
    let epochs = fit::<f32>(&mut one, &records, &spec, |p| seen.push(*p)).unwrap();
    fit::<f32>(&mut two, &records, &spec, |_| {}).unwrap();
    assert_eq!(one, two);
    assert_eq!((seen.len(), seen[799].epoch, seen[799].step, seen[799].steps), (800, 399, 1, 2));
    assert!(epochs[399].trained.loss < 0.05 && epochs[0].trained.loss > 0.3);
    assert_eq!(epochs[399].trained.accuracy, Some(1.0));
    let logits = one.forward(4, &data).unwrap();
    for (row, label) in logits.chunks(2).zip([0, 1, 1, 0]) {
        assert_eq!(u8::from(row[1] > row[0]), label);
    }
}

fn pixels(count: usize, seed: u64) -> (Vec<f32>, Vec<u8>) {
    let set = digits::generate(count, seed);
    let labels = set.labels.iter().flatten().map(|l| *l as u8).collect();
    (set.data.iter().map(|v| v / 255.0).collect(), labels)
}

#[test]
fn digits_by_a_convolutional_network() {
    let (x, labels) = pixels(2000, 1);
    let records = labelled(&x, &labels, 10).unwrap();
    let mut graph = demo_cnn(1).unwrap();
    let spec = TrainSpec { epochs: 3, validation: 0.2, ..TrainSpec::classifier() };
    let epochs = fit::<f32>(&mut graph, &records, &spec, |_| {}).unwrap();
    let validated = epochs[2].validated.unwrap();
    println!("{epochs:?}");
    assert!(validated.accuracy.unwrap() > 0.9);
    let logits = graph.forward(400, &x[1600 * 784..]).unwrap();
    let best = |row: &[f32]| (0..10u8).max_by(|&a, &b| row[usize::from(a)].total_cmp(&row[usize::from(b)]));
    let right = logits.chunks(10).zip(&labels[1600..]).filter(|(row, l)| best(row) == Some(**l)).count();
    assert!((right as f64 / 400.0 - validated.accuracy.unwrap()).abs() < 0.01, "{right}");
}

/// Noise is learnt by heart: the validation loss rises, and waiting for a lower one ends.
#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let x: Vec<f32> = (0..60 * 8).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect();
    let labels: Vec<u8> = (0..60).map(|i| (i * 31 % 7 % 2) as u8).collect();
    let records = labelled(&x, &labels, 2).unwrap();
    let spec = TrainSpec {
        epochs: 60,
        batch: 4,
        validation: 0.3,
        schedule: Schedule::constant(0.1),
        ..TrainSpec::classifier()
    };
    let make = || started(vec![Layer::Input { shape: vec![8] }, dense(8, 16), Layer::Relu, dense(16, 2)], 3);
    let (mut one, mut two) = (make(), make());
    let all = fit::<f32>(&mut one, &records, &spec, |_| {}).unwrap();
    let some = fit_until::<f32>(&mut two, &records, &spec, Some(Patience::new(3)), |_| {}).unwrap();
    assert_eq!(some[..], all[..some.len()]);
    let losses: Vec<f64> = all.iter().map(|e| e.validated.unwrap().loss).collect();
    let best = (0..some.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
    assert_eq!(some.len(), best + 4, "{losses:?}");
    assert!(some.len() < 60 && one != two);
}

fn norm(channels: usize) -> Layer {
    let filled = |v: f32| Array::new(vec![channels], vec![v; channels]).unwrap();
    let (gamma, beta, mean, variance) = (filled(1.0), filled(0.0), filled(0.0), filled(1.0));
    Layer::BatchNorm(BatchNorm { gamma, beta, mean, variance, epsilon: 1e-3, momentum: 0.9 })
}

#[test]
fn digits_with_normalisation_and_dropout() {
    let (x, labels) = pixels(1000, 3);
    let records = labelled(&x, &labels, 10).unwrap();
    let layers = vec![
        Layer::Input { shape: vec![784] },
        dense(784, 32),
        norm(32),
        Layer::Tanh,
        Layer::Dropout { rate: 0.2 },
        dense(32, 10),
        Layer::Softmax,
    ];
    let mut graph = started(layers, 4);
    let spec = TrainSpec {
        epochs: 8,
        validation: 0.2,
        optimiser: Optimiser::Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-4 },
        schedule: Schedule::constant(0.01),
        clip: Some(Clip::Norm(5.0)),
        ..TrainSpec::classifier()
    };
    let epochs = fit::<f32>(&mut graph, &records, &spec, |_| {}).unwrap();
    assert!(epochs[7].validated.unwrap().accuracy.unwrap() > 0.85, "{epochs:?}");
    let Layer::BatchNorm(norm) = &graph.nodes[2].layer else { panic!() };
    assert!(norm.mean.data.iter().any(|m| m.abs() > 0.05));
    // The tape predicts what the graph itself predicts; its head takes the logits.
    let tapes = Tapes::new(&graph, &spec).unwrap();
    let wide: Vec<f64> = x[..10 * 784].iter().map(|&v| f64::from(v)).collect();
    let batch = Batch { rows: &wide, samples: 10, rates: &[], seed: 0 };
    let mut logits = run(&tapes.predict, &mut initial::<f64>(&graph), &batch).unwrap().remove(0);
    for (row, want) in logits.chunks_mut(10).zip(graph.forward_in(10, &wide).unwrap().chunks(10)) {
        let sum: f64 = row.iter().map(|z| z.exp()).sum();
        assert!(row.iter().zip(want).all(|(z, p)| (z.exp() / sum - p).abs() < 1e-5), "{row:?} {want:?}");
    }
}

#[test]
fn towers_learn_what_is_similar() {
    let (x, labels) = pixels(400, 5);
    let mut records = Vec::new();
    for i in 0..399 {
        let j = if i % 2 == 0 { (i + 1..400).find(|&j| labels[j] == labels[i]).unwrap_or(i) } else { i + 1 };
        records.extend_from_slice(&x[i * 784..][..784]);
        records.extend_from_slice(&x[j * 784..][..784]);
        records.push(f32::from(u8::from(labels[i] == labels[j])));
    }
    let layers = vec![Layer::Input { shape: vec![784] }, dense(784, 32), Layer::Relu, dense(32, 8)];
    let mut graph = started(layers, 6);
    let spec = TrainSpec {
        loss: Loss::Contrastive { margin: 1.0 },
        optimiser: Optimiser::RmsProp { decay: 0.9, epsilon: 1e-4 },
        schedule: Schedule::constant(0.002),
        epochs: 10,
        ..TrainSpec::classifier()
    };
    let epochs = fit::<f32>(&mut graph, &records, &spec, |_| {}).unwrap();
    assert!(epochs[9].trained.loss < 0.5 * epochs[0].trained.loss, "{epochs:?}");
    assert!(epochs[9].trained.accuracy.unwrap() > 0.85, "{epochs:?}");
}

#[test]
fn frozen_layers_stay() {
    let layers = vec![Layer::Input { shape: vec![784] }, dense(784, 16), norm(16), Layer::Relu, dense(16, 10)];
    let mut graph = started(layers, 7);
    let before = graph.clone();
    let (x, labels) = pixels(64, 8);
    let records = labelled(&x, &labels, 10).unwrap();
    let frozen = vec!["n1".to_owned(), "n2".to_owned()];
    let spec = TrainSpec { epochs: 1, frozen, ..TrainSpec::classifier() };
    fit::<f32>(&mut graph, &records, &spec, |_| {}).unwrap();
    assert_eq!(graph.nodes[..4], before.nodes[..4]);
    assert_ne!(graph.nodes[4], before.nodes[4]);
    // Nothing is differentiated through what is frozen.
    let tapes = Tapes::new(&before, &spec).unwrap();
    let backward = |t: &trefoil_nn::tape::Value| {
        use trefoil_nn::tape::{Map, Op};
        matches!(t.op, Op::Product { map: Map::DenseInput | Map::DenseWeights, .. })
    };
    assert_eq!(tapes.step.values.iter().filter(|v| backward(v)).count(), 1);
}
