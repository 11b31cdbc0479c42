//! Pools with padding, as Keras has them: a maximum sees real pixels only, an average counts them only.

use trefoil_nn::build::{Activation, LayerSpec, Sequential, average_pool, conv, dense, flatten, max_pool};
use trefoil_nn::tape::float::{Batch, run};
use trefoil_nn::train::clear::first_states;
use trefoil_nn::train::{Loss, Optimiser, Schedule, Tapes, TrainSpec};

/// All below zero, so that a padding of zeros would win.
const IMAGE: [f32; 9] = [-9.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -1.0];

fn outputs(pool: LayerSpec) -> [Vec<f64>; 2] {
    let graph = Sequential::new(&[3, 3, 1]).add(pool).add(flatten()).build(1).unwrap();
    let spec = TrainSpec { loss: Loss::MeanSquaredError, ..TrainSpec::classifier() };
    let tapes = Tapes::new(&graph, &spec).unwrap();
    let mut states = first_states::<f64>(&graph, &tapes.predict);
    let rows: Vec<f64> = IMAGE.iter().map(|&v| v.into()).collect();
    let on_tape = run(&tapes.predict, &mut states, &Batch { rows: &rows, samples: 1, rates: &[], seed: 0 }).unwrap();
    let forward = graph.forward(1, &IMAGE).unwrap().into_iter().map(f64::from).collect();
    [on_tape[0].clone(), forward]
}

#[test]
fn by_hand() {
    let max = [-2.0, -3.0, -7.0, -1.0]; // windows of 4, 2, 2 and 1 real pixels
    let average = [-5.0, -4.5, -7.5, -1.0];
    for got in outputs(max_pool(2).same()) {
        assert_eq!(got, max);
    }
    for got in outputs(average_pool(2).same()) {
        assert_eq!(got, average);
    }
    // Stride 1: padded on every side.
    let max = [-2.0, -2.0, -2.0, -2.0, -1.0, -1.0, -4.0, -1.0, -1.0];
    for got in outputs(max_pool(3).stride(1).same()) {
        assert_eq!(got, max);
    }
}

/// A pixel's gradient is that of the windows that it is the largest of, counted once each.
#[test]
fn gradients_by_hand() {
    let gradients = |pool: LayerSpec| {
        // A 1 x 1 convolution without bias: its weight's gradient is the sum of what the pool hands on, times the pixel.
        let net = Sequential::new(&[3, 3, 1]).add(conv(1, 1).without_bias()).add(pool).add(flatten());
        let mut graph = net.build(1).unwrap();
        let trefoil_nn::graph::Layer::Conv2d { kernel, .. } = &mut graph.nodes[1].layer else { panic!() };
        kernel.data = vec![1.0];
        let (loss, optimiser) = (Loss::MeanSquaredError, Optimiser::Sgd);
        let spec =
            TrainSpec { loss, optimiser, schedule: Schedule::constant(1.0), batch: 1, ..TrainSpec::classifier() };
        let tapes = Tapes::new(&graph, &spec).unwrap();
        let mut states = first_states::<f64>(&graph, &tapes.step);
        let mut rows: Vec<f64> = IMAGE.iter().map(|&v| v.into()).collect();
        rows.extend([0.0; 4]);
        let rates = tapes.rates(0, 1);
        run(&tapes.step, &mut states, &Batch { rows: &rows, samples: 1, rates: &rates, seed: 0 }).unwrap();
        1.0 - states[0][0]
    };
    // d/dw of the mean of (w m)^2 over the windows' values m: half the sum of m^2.
    assert!((gradients(max_pool(2).same()) - (4.0 + 9.0 + 49.0 + 1.0) / 2.0).abs() < 1e-9);
    assert!((gradients(average_pool(2).same()) - (25.0 + 20.25 + 56.25 + 1.0) / 2.0).abs() < 1e-9);
}

/// Beside an activation or not, a padded pool learns as its unpadded neighbour does: the tape and the graph agree after.
#[test]
fn networks_with_padded_pools_are_trained() {
    for activation in [Activation::Relu, Activation::Tanh] {
        let mut graph = Sequential::new(&[5, 5, 1])
            .add(conv(3, 3).same().activation(activation))
            .add(max_pool(2).same())
            .add(average_pool(2).same())
            .add(flatten())
            .add(dense(2))
            .build(4)
            .unwrap();
        let records: Vec<f32> = (0..40)
            .flat_map(|i| {
                let class = i % 2;
                let pixel = move |p: usize| if (p % 5 < 2) == (class == 0) { -0.9 } else { 0.1 * (p % 3) as f32 };
                (0..25).map(pixel).chain([(1 - class) as f32, class as f32]).collect::<Vec<_>>()
            })
            .collect();
        let spec = TrainSpec { epochs: 40, batch: 8, ..TrainSpec::classifier() };
        let epochs = trefoil_nn::train::clear::fit::<f32>(&mut graph, &records, &spec, |_| {}).unwrap();
        assert_eq!(epochs[39].trained.accuracy, Some(1.0), "{activation:?}: {:?}", epochs[39]);
        let right = records.chunks(27).filter(|r| {
            let y = graph.forward(1, &r[..25]).unwrap();
            (y[1] > y[0]) == (r[26] == 1.0)
        });
        assert_eq!(right.count(), 40);
    }
}
