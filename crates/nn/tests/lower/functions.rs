//! Functions over their ranges, predictions, and what cannot be lowered.

use trefoil_mpc::ideal;
use trefoil_mpc::program::Op as Step;
use trefoil_nn::graph::Layer;
use trefoil_nn::lower::{LowerError, decode, encode, lower};
use trefoil_nn::tape::{Function, Op, Role, Tape, ValueId};
use trefoil_nn::train::clear::first_states;
use trefoil_nn::train::{Tapes, TrainSpec};
use trefoil_testkit::World;

use crate::common::{F, Trial, chain, dense, numbers};

/// A tape that stores `f` of the record's sum over the batch.
fn stored(n: usize, f: impl Fn(&mut Tape, ValueId) -> ValueId) -> Tape {
    let mut tape = Tape::new(n).unwrap();
    let slot = tape.declare("out".into(), vec![n], Role::Memory);
    let x = tape.sum(0, 1, true).unwrap();
    let x = f(&mut tape, x);
    tape.push(Op::Store { slot, x }).unwrap();
    tape
}

#[test]
fn inverse_square_roots_over_a_wide_range() {
    let values: Vec<f64> = (-10..=16).flat_map(|e| [1.0, 1.3, 1.9].map(|m| f64::from(e).exp2() * m)).collect();
    let tape = stored(values.len(), |tape, x| {
        let raised = tape.offset(x, 1.0 / 4096.0).unwrap();
        tape.function(raised, Function::InverseSqrt).unwrap()
    });
    let mut trial = Trial::new(&tape, vec![vec![0.0; values.len()]]);
    let shared = trial.on_shares(1, &values, &[]);
    trial.step(1, &values, &[]);
    for got in [&trial.decoded()[0], &shared[0]] {
        for ((x, got), want) in values.iter().zip(got).zip(&trial.real[0]) {
            assert!((got / want - 1.0).abs() < 2e-3, "1 / sqrt({x}): {got}, not {want}");
        }
    }
}

#[test]
fn reciprocals_over_a_wide_range() {
    let values: Vec<f64> = (0..=14).flat_map(|e| [1.0, 1.3, 1.9].map(|m| f64::from(e).exp2() * m)).collect();
    let tape = stored(values.len(), |tape, x| tape.function(x, Function::Reciprocal).unwrap());
    let mut trial = Trial::new(&tape, vec![vec![0.0; values.len()]]);
    trial.step(1, &values, &[]);
    trial.within(&trial.decoded(), |_| 1e-3);
}

#[test]
fn functions_of_every_number() {
    let values = numbers(4, 200, 20.0);
    let unit = [Function::Sigmoid, Function::Tanh, Function::GeluSlope];
    for f in unit.into_iter().chain([Function::Softplus, Function::Elu, Function::Silu, Function::Gelu]) {
        let tape = stored(values.len(), |tape, x| tape.function(x, f).unwrap());
        let mut trial = Trial::new(&tape, vec![vec![0.0; values.len()]]);
        let shared = trial.on_shares(1, &values, &[]);
        trial.step(1, &values, &[]);
        trial.within(&trial.decoded(), |_| 4e-4);
        trial.within(&shared, |_| 4e-4);
    }
}

#[test]
fn predictions_reveal_their_output() {
    let graph = chain(vec![Layer::Input { shape: vec![5] }, dense(1, 5, 6), Layer::Relu, dense(3, 6, 3)]);
    let tapes = Tapes::new(&graph, &TrainSpec::classifier()).unwrap();
    let program = lower(&tapes.predict).unwrap();
    assert!(matches!(program.steps.last().unwrap().op, Step::Reveal { .. }));
    let mut states: Vec<_> = first_states::<f64>(&graph, &tapes.predict)
        .iter()
        .zip(&program.states)
        .map(|(v, s)| encode(&s.name, v, s.scale).unwrap())
        .collect();
    let x = numbers(9, 10, 1.0);
    let rows = encode("rows", &x, F).unwrap();
    let common = World::new(1).last_common();
    let values = ideal::step(&program, 2, &rows, &[], &mut states, &[], &common).unwrap();
    let x: Vec<f32> = x.iter().map(|v| *v as f32).collect();
    let want = graph.forward(2, &x).unwrap();
    for (got, want) in decode(values.last().unwrap(), F).iter().zip(want) {
        assert!((got - f64::from(want)).abs() < 2e-4, "{got} and {want}");
    }
}

#[test]
fn what_cannot_be_lowered_is_named() {
    let refused = |tape: &Tape| lower(tape).unwrap_err();
    let log = stored(2, |tape, x| {
        tape.enter("odd");
        tape.function(x, Function::Log).unwrap()
    });
    let LowerError::Operation { layer, op, reason } = refused(&log) else { panic!() };
    assert_eq!((&layer[..], op), ("odd", "function"));
    assert!(reason.contains("logarithm"));
    let root = stored(2, |tape, x| tape.function(x, Function::InverseSqrt).unwrap());
    assert!(refused(&root).to_string().contains("no positive offset"));
    let scaled = stored(2, |tape, x| tape.scale(x, 1e12).unwrap());
    assert!(refused(&scaled).to_string().contains("below 2^31"));
    let mut two = stored(2, |_, x| x);
    two.outputs = vec![0, 1];
    assert_eq!(refused(&two), LowerError::Outputs(2));
}
