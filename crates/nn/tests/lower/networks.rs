//! Whole networks: training on shares learns what training in the clear learns.

use std::time::Instant;

use trefoil_data::digits::generate;
use trefoil_nn::build::bench_net;
use trefoil_nn::lower::ranges::Ranges;
use trefoil_nn::tape::float::{Batch, run, run_watched};
use trefoil_nn::train::clear::{evaluate, first_states, labelled};
use trefoil_nn::train::order::batches;
use trefoil_nn::train::{Optimiser, Schedule, Tapes, TrainSpec};

use crate::common::Trial;

fn digits(count: usize, seed: u64) -> Vec<f32> {
    let set = generate(count, seed);
    let pixels: Vec<f32> = set.data.iter().map(|v| v / 255.0).collect();
    let labels: Vec<u8> = set.labels.unwrap().into_iter().map(|l| l as u8).collect();
    labelled(&pixels, &labels, 10).unwrap()
}

fn spec(batch: usize) -> TrainSpec {
    let optimiser = Optimiser::Momentum { momentum: 0.9 };
    TrainSpec { optimiser, schedule: Schedule::constant(0.02), batch, ..TrainSpec::classifier() }
}

/// Trains on `count` digits, ideally and in the clear, the first `shared` steps on shares too; gives both accuracies.
fn train(name: &str, count: usize, epochs: usize, shared: usize) -> (f64, f64) {
    let graph = bench_net(name, 3).unwrap();
    let spec = spec(32);
    let tapes = Tapes::new(&graph, &spec).unwrap();
    let (records, tested) = (digits(count, 1), digits(500, 2));
    let size = tapes.record();
    let mut trial = Trial::new(&tapes.step, first_states(&graph, &tapes.step));
    let mut ranges = Ranges::new(&tapes.step);
    let steps = (count / spec.batch) as u64;
    for epoch in 0..epochs {
        for (i, ids) in batches(1, epoch, count, spec.batch).into_iter().enumerate() {
            let number = epoch as u64 * steps + i as u64;
            let rates = tapes.rates(number, steps);
            let rows: Vec<f64> =
                ids.iter().flat_map(|&i| &records[i * size..][..size]).map(|&v| f64::from(v)).collect();
            let batch = Batch { rows: &rows, samples: ids.len(), rates: &rates, seed: number };
            if (number as usize) < shared {
                let got = trial.on_shares(ids.len(), &rows, &rates);
                trial.ideal(ids.len(), &rows, &rates);
                run_watched(&trial.tape, &mut trial.real, &batch, &mut |id, v| ranges.see(id, v.iter().copied()))
                    .unwrap();
                // A unit's sign may differ where it is nearly zero: a velocity, a sum over the batch, shows it.
                let kept = |name: &str| name.starts_with("metrics") || name.ends_with("velocity");
                trial.within(&got, |name| if kept(name) { 1.0 } else { 2e-2 });
            } else {
                trial.ideal(ids.len(), &rows, &rates);
                run(&trial.tape, &mut trial.real, &batch).unwrap();
            }
        }
    }
    assert_eq!(ranges.warnings(&tapes.step), []);
    let accuracy = |states: &[Vec<f64>]| evaluate(&tapes, states, &tested).unwrap().accuracy.unwrap();
    (accuracy(&trial.decoded()), accuracy(&trial.real))
}

#[test]
fn network_a_learns_the_digits() {
    let start = Instant::now();
    let (fixed, real) = train("A", 1600, 4, 2);
    println!("A after 200 steps: {fixed:.3}, in the clear {real:.3} ({:.1} s)", start.elapsed().as_secs_f64());
    assert!(real > 0.85 && (fixed - real).abs() < 0.03, "{fixed} and {real}");
}

#[test]
fn a_convolutional_network_learns_the_digits() {
    let (fixed, real) = train("D", 960, 2, 1);
    println!("D after 60 steps: {fixed:.3}, in the clear {real:.3}");
    assert!(real > 0.6 && (fixed - real).abs() < 0.05, "{fixed} and {real}");
}

#[test]
fn a_network_with_max_pools_learns_the_digits() {
    let (fixed, real) = train("B", 640, 2, 1);
    println!("B after 40 steps: {fixed:.3}, in the clear {real:.3}");
    assert!(real > 0.5 && (fixed - real).abs() < 0.06, "{fixed} and {real}");
}
