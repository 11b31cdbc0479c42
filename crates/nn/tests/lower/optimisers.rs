//! Every optimiser on a small network.

use trefoil_nn::graph::{Graph, Layer};
use trefoil_nn::train::clear::first_states;
use trefoil_nn::train::{Clip, Loss, Optimiser, Schedule, Tapes, TrainSpec};

use crate::common::{Trial, chain, dense, numbers};

const BATCH: usize = 8;

fn net() -> Graph {
    chain(vec![Layer::Input { shape: vec![6] }, dense(1, 6, 8), Layer::Relu, dense(3, 8, 4)])
}

fn rows(seed: u64) -> Vec<f64> {
    let mut rows = Vec::new();
    for (i, x) in numbers(seed, 6 * BATCH, 1.0).chunks(6).enumerate() {
        rows.extend_from_slice(x);
        rows.extend((0..4).map(|c| f64::from(u8::from((i + seed as usize) % 4 == c))));
    }
    rows
}

fn spec(optimiser: Optimiser, rate: f64) -> TrainSpec {
    TrainSpec { optimiser, schedule: Schedule::constant(rate), batch: BATCH, ..TrainSpec::classifier() }
}

/// Five steps ideally, and the last one on shares too.
#[track_caller]
fn follows(spec: &TrainSpec, tolerance: f64) {
    let graph = net();
    let tapes = Tapes::new(&graph, spec).unwrap();
    let mut trial = Trial::new(&tapes.step, first_states(&graph, &tapes.step));
    for step in 0..5 {
        let (rows, rates) = (rows(step), tapes.rates(step, 5));
        let shared = (step == 4).then(|| trial.on_shares(BATCH, &rows, &rates));
        trial.step(BATCH, &rows, &rates);
        let bound = |name: &str| {
            let memory = ["square", "velocity", "largest", "mean"].iter().any(|m| name.ends_with(m));
            tolerance * if memory || name.starts_with("metrics") { 40.0 } else { 1.0 }
        };
        trial.within(&trial.decoded(), bound);
        if let Some(shared) = shared {
            trial.within(&shared, bound);
        }
    }
}

#[test]
fn sgd() {
    follows(&spec(Optimiser::Sgd, 0.1), 3e-4);
}

#[test]
fn momentum_and_nesterov() {
    follows(&spec(Optimiser::Momentum { momentum: 0.9 }, 0.05), 3e-4);
    follows(&spec(Optimiser::Nesterov { momentum: 0.9 }, 0.05), 3e-4);
}

#[test]
fn rms_prop() {
    follows(&spec(Optimiser::RmsProp { decay: 0.9, epsilon: 1e-2 }, 0.01), 2e-3);
}

#[test]
fn adam_and_amsgrad() {
    follows(&spec(Optimiser::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-2 }, 0.01), 2e-3);
    follows(&spec(Optimiser::AmsGrad { beta1: 0.9, beta2: 0.999, epsilon: 1e-2 }, 0.01), 2e-3);
}

#[test]
fn weight_decay_and_bounds_on_gradients() {
    let sgd = spec(Optimiser::Sgd, 0.1);
    follows(&TrainSpec { weight_decay: 0.01, ..sgd.clone() }, 3e-4);
    follows(&TrainSpec { weight_decay: 0.01, decoupled_decay: true, ..sgd.clone() }, 3e-4);
    follows(&TrainSpec { clip: Some(Clip::Value(0.05)), ..sgd.clone() }, 3e-4);
    follows(&TrainSpec { clip: Some(Clip::Norm(0.1)), ..sgd.clone() }, 3e-4);
    follows(&TrainSpec { loss: Loss::MeanSquaredError, ..sgd.clone() }, 3e-4);
    follows(&TrainSpec { loss: Loss::BinaryCrossEntropy, ..sgd }, 3e-4);
}
