//! Training learns, repeats itself, and refuses what it cannot do.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::path::{Path, PathBuf};

use trefoil_nn::build::demo_cnn;
use trefoil_nn::graph::{Array, Graph, Layer, Node, Post};
use trefoil_nn::train::{TrainError, TrainOptions, train};

fn chain(layers: Vec<Layer>) -> Graph {
    let node = |(i, layer): (usize, Layer)| Node {
        name: format!("n{i}"),
        layer,
        inputs: if i == 0 { vec![] } else { vec![i - 1] },
    };
    Graph { nodes: layers.into_iter().enumerate().map(node).collect(), post: Post::None }
}

fn dense(inputs: usize, outputs: usize) -> Layer {
    let data = (0..inputs * outputs).map(|i| ((i * 7 + 3) % 11) as f32 / 11.0 - 0.5).collect();
    let kernel = Array::new(vec![inputs, outputs], data).unwrap();
    Layer::Dense { kernel, bias: Array::new(vec![outputs], vec![0.0; outputs]) }
}

#[test]
fn learns_exclusive_or() {
    let data = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let labels = [0, 1, 1, 0];
    let make = || chain(vec![Layer::Input { shape: vec![2] }, dense(2, 8), Layer::Relu, dense(8, 2)]);
    let options = TrainOptions { epochs: 400, batch: 3, learning_rate: 0.1, ..TrainOptions::default() };
    let (mut one, mut two) = (make(), make());
    let mut steps = Vec::new();
    train(&mut one, &data, &labels, &options, |p| steps.push(*p)).unwrap();
    train(&mut two, &data, &labels, &options, |_| {}).unwrap();
    assert_eq!(one, two);
    assert_eq!((steps.len(), steps[799].epoch, steps[799].step, steps[799].steps), (800, 399, 1, 2));
    assert!(steps[799].loss < 0.05 && steps[0].loss > 0.3);
    let logits = one.forward(4, &data).unwrap();
    for (row, label) in logits.chunks(2).zip(labels) {
        assert_eq!(u8::from(row[1] > row[0]), label);
    }
}

#[test]
fn refuses_what_it_cannot_do() {
    let make = || chain(vec![Layer::Input { shape: vec![2] }, dense(2, 2)]);
    let options = TrainOptions::default();
    let run = |mut g: Graph, data: &[f32], labels: &[u8], o: &TrainOptions| train(&mut g, data, labels, o, |_| {});
    assert!(matches!(run(make(), &[0.0; 3], &[0], &options), Err(TrainError::Data { .. })));
    assert!(matches!(run(make(), &[], &[], &options), Err(TrainError::Data { .. })));
    assert!(matches!(run(make(), &[0.0; 4], &[0, 2], &options), Err(TrainError::Label { sample: 1, .. })));
    let mut leaky = make();
    leaky.nodes.push(Node { name: "leaky".into(), layer: Layer::LeakyRelu { slope: 0.1 }, inputs: vec![1] });
    let e = run(leaky, &[0.0; 2], &[0], &options).unwrap_err();
    assert!(e.to_string().contains("leaky"), "{e}");
    for o in [
        TrainOptions { batch: 0, ..options },
        TrainOptions { learning_rate: f64::NAN, ..options },
        TrainOptions { momentum: 1.0, ..options },
    ] {
        assert!(matches!(run(make(), &[0.0; 2], &[0], &o), Err(TrainError::Option { .. })));
    }
    let o = TrainOptions { learning_rate: 1e30, epochs: 50, ..options };
    let far = [1e20, -1e20, -1e20, 1e20];
    assert!(matches!(run(make(), &far, &[0, 0], &o), Err(TrainError::Diverged { .. })));
}

fn shared() -> PathBuf {
    std::env::var_os("TREFOIL_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

/// The bytes of a gzipped IDX file behind its header.
fn idx(name: &str, header: usize) -> Option<Vec<u8>> {
    let file = std::fs::File::open(shared().join("data/mnist").join(name)).ok()?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).ok()?;
    Some(bytes.split_off(header))
}

#[test]
fn learns_digits() {
    let files = (
        idx("train-images-idx3-ubyte.gz", 16),
        idx("train-labels-idx1-ubyte.gz", 8),
        idx("t10k-images-idx3-ubyte.gz", 16),
        idx("t10k-labels-idx1-ubyte.gz", 8),
    );
    let (Some(images), Some(labels), Some(test), Some(answers)) = files else {
        println!("skipped: no MNIST under {}", shared().display());
        return;
    };
    let pixels = |b: &[u8]| -> Vec<f32> { b.iter().map(|&v| f32::from(v) / 255.0).collect() };
    let mut graph = demo_cnn(1);
    let options = TrainOptions::default();
    let start = std::time::Instant::now();
    train(&mut graph, &pixels(&images[..3000 * 784]), &labels[..3000], &options, |_| {}).unwrap();
    let trained = start.elapsed();
    let logits = graph.forward(answers.len(), &pixels(&test)).unwrap();
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i as u8);
    let right = logits.chunks(10).zip(&answers).filter(|(row, a)| best(row) == Some(**a)).count();
    println!("{right} of {} right; trained in {trained:?}, tested in {:?}", answers.len(), start.elapsed() - trained);
    assert!(right * 100 > 90 * answers.len(), "{right} of {} right", answers.len());
}
