//! Losses, gradients and optimiser steps are those of PyTorch (bench/gradients.py).

use serde_json::Value;
use trefoil_nn::tape::Role;
use trefoil_nn::tape::float::{Batch, run};
use trefoil_nn::train::clear::first_states;
use trefoil_nn::train::{Optimiser, Schedule, Tapes, TrainSpec};

use crate::networks::described;

/// Constants of a graph are f32: 0.01 and 0.001 are then off by 1e-8 of themselves.
const NARROW: f64 = 1e-7;
const EXACT: f64 = 1e-9;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/gradients.json")).unwrap()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

fn tensors(v: &Value) -> Vec<Vec<f64>> {
    v.as_array().unwrap().iter().map(numbers).collect()
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * w.abs().max(1.0), "{what}, element {i}: {g}, must be {w}");
    }
}

#[test]
fn losses_and_gradients() {
    for case in golden()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let graph = described(&case["shape"], &case["layers"]);
        let batch = case["samples"].as_u64().unwrap() as usize;
        let spec = TrainSpec {
            loss: serde_json::from_value(case["loss"].clone()).unwrap(),
            optimiser: Optimiser::Sgd,
            // The rate over the batch is one: a parameter falls by its gradient summed over the batch.
            schedule: Schedule::constant(batch as f64),
            batch,
            ..TrainSpec::classifier()
        };
        let tapes = Tapes::new(&graph, &spec).unwrap();
        let before = tensors(&case["tensors"]);
        let mut states = first_states::<f64>(&graph, &tapes.step);
        states[..before.len()].clone_from_slice(&before);
        let rows = numbers(&case["records"]);
        let rates = tapes.rates(0, 1);
        run(&tapes.step, &mut states, &Batch { rows: &rows, samples: batch, rates: &rates, seed: 0 }).unwrap();
        let exact = if case["layers"].to_string().contains("norm") { NARROW } else { EXACT };
        let loss: f64 = numbers(&case["losses"]).iter().sum();
        assert_close(&format!("{name}: loss"), &states[tapes.metrics.loss], &[loss], exact);
        let (gradients, moved) = (tensors(&case["gradients"]), tensors(&case["moved"]));
        for (i, old) in before.iter().enumerate() {
            let what = format!("{name}: {}", tapes.step.states[i].name);
            if tapes.step.states[i].role == Role::Fixed {
                assert_close(&what, &states[i], &moved[i], exact);
            } else {
                let fall: Vec<f64> = old.iter().zip(&states[i]).map(|(old, new)| old - new).collect();
                assert_close(&what, &fall, &gradients[i], exact);
            }
        }
    }
}

#[test]
fn optimisers() {
    for case in golden()["trajectories"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let graph = described(&case["shape"], &case["layers"]);
        let spec: TrainSpec = serde_json::from_value(case["spec"].clone()).unwrap();
        let tapes = Tapes::new(&graph, &spec).unwrap();
        let mut states = first_states::<f64>(&graph, &tapes.step);
        let first = tensors(&case["tensors"]);
        states[..first.len()].clone_from_slice(&first);
        let rows = numbers(&case["records"]);
        for (step, want) in case["steps"].as_array().unwrap().iter().enumerate() {
            let rates = tapes.rates(step as u64, 1);
            let batch = Batch { rows: &rows, samples: spec.batch, rates: &rates, seed: 0 };
            run(&tapes.step, &mut states, &batch).unwrap();
            for (i, want) in tensors(want).iter().enumerate() {
                assert_close(&format!("{name}, step {step}, tensor {i}"), &states[i], want, EXACT);
            }
        }
    }
}
