//! What cannot be trained is refused, naming it.

use trefoil_nn::graph::{Graph, Layer};
use trefoil_nn::train::clear::{fit, fit_until, labelled};
use trefoil_nn::train::{Clip, Decay, Optimiser, Patience, Schedule, TrainError, TrainSpec};

use crate::networks::{chain, zeros};

fn network() -> Graph {
    chain(vec![Layer::Input { shape: vec![2] }, Layer::Dense { kernel: zeros(&[2, 2]), bias: None }])
}

#[test]
fn records_and_labels() {
    let spec = TrainSpec { batch: 2, ..TrainSpec::classifier() };
    let run = |records: &[f32]| fit::<f32>(&mut network(), records, &spec, |_| {});
    assert!(matches!(run(&[0.0; 7]), Err(TrainError::Records { elements: 7, size: 4 })));
    assert!(matches!(run(&[0.0; 4]), Err(TrainError::TooFew { samples: 1, batch: 2 })));
    assert!(matches!(labelled(&[0.0; 3], &[0, 1], 2), Err(TrainError::Labels { .. })));
    assert!(matches!(labelled(&[0.0; 4], &[0, 2], 2), Err(TrainError::Label { sample: 1, .. })));
}

#[test]
fn settings() {
    let ok = TrainSpec { batch: 1, ..TrainSpec::classifier() };
    let schedule = |decay| Schedule { rate: 0.1, decay, warm_up: 0 };
    for (what, spec) in [
        ("batch", TrainSpec { batch: 0, ..ok.clone() }),
        ("learning rate", TrainSpec { schedule: Schedule::constant(f64::NAN), ..ok.clone() }),
        ("momentum", TrainSpec { optimiser: Optimiser::Nesterov { momentum: 1.0 }, ..ok.clone() }),
        ("epsilon", TrainSpec { optimiser: Optimiser::RmsProp { decay: 0.9, epsilon: 0.0 }, ..ok.clone() }),
        ("rates", TrainSpec { schedule: schedule(Decay::Table { rates: vec![] }), ..ok.clone() }),
        ("gradient", TrainSpec { clip: Some(Clip::Norm(-1.0)), ..ok.clone() }),
        ("validation", TrainSpec { validation: 1.0, ..ok.clone() }),
    ] {
        let e = fit::<f32>(&mut network(), &[0.0; 4], &spec, |_| {}).unwrap_err();
        assert!(matches!(e, TrainError::Option { .. }) && e.to_string().contains(what), "{e}");
    }
    let spec = TrainSpec { frozen: vec!["nobody".into()], ..ok.clone() };
    let e = fit::<f32>(&mut network(), &[0.0; 4], &spec, |_| {}).unwrap_err();
    assert!(e.to_string().contains("nobody"), "{e}");
    let spec = TrainSpec { schedule: Schedule::constant(1e30), epochs: 50, ..ok };
    let far = [1e20, -1e20, 1.0, 0.0, -1e20, 1e20, 1.0, 0.0];
    assert!(matches!(fit::<f32>(&mut network(), &far, &spec, |_| {}), Err(TrainError::Diverged { .. })));
}

#[test]
fn patience_and_numbers() {
    let spec = TrainSpec { batch: 1, ..TrainSpec::classifier() };
    let e = fit_until::<f32>(&mut network(), &[0.0; 4], &spec, Some(Patience::new(1)), |_| {}).unwrap_err();
    assert_eq!(e.to_string(), "patience needs rows kept for validation");
    let e = fit::<f32>(&mut network(), &[0.0, 1.0, 1.0, 0.0, 0.0, f32::NAN, 1.0, 0.0], &spec, |_| {}).unwrap_err();
    assert_eq!(e.to_string(), "row 1, column 1 is NaN");
}

#[test]
fn a_spec_survives_a_file() {
    let text = r#"{"loss":{"triplet":{"margin":0.5}},"optimiser":{"adam":{"beta1":0.9,"beta2":0.999,"epsilon":1e-4}},
        "schedule":{"rate":0.01,"decay":{"step":{"every":2,"factor":0.5}}},"epochs":3,"batch":8}"#;
    let spec: TrainSpec = serde_json::from_str(text).unwrap();
    spec.check().unwrap();
    assert_eq!(serde_json::from_str::<TrainSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
    assert!(serde_json::from_str::<TrainSpec>(&text.replace("epochs", "epoch")).is_err());
}

#[test]
fn prediction_on_shares_of_layers_that_train() {
    use trefoil_nn::compile::{CompileOptions, compile};
    use trefoil_nn::graph::{Array, BatchNorm};
    let vector = |v: [f32; 2]| Array::new(vec![2], v.to_vec()).unwrap();
    let norm = BatchNorm {
        gamma: vector([1.5, -0.5]),
        beta: vector([0.25, 1.0]),
        mean: vector([0.5, -1.0]),
        variance: vector([2.0, 0.5]),
        epsilon: 0.01,
        momentum: 0.9,
    };
    let kernel = Array::new(vec![2, 2], vec![1.0, -2.0, 0.5, 3.0]).unwrap();
    let with = |last: Layer| {
        let dense = Layer::Dense { kernel: kernel.clone(), bias: None };
        let dropout = Layer::Dropout { rate: 0.5 };
        chain(vec![Layer::Input { shape: vec![2] }, dense, Layer::BatchNorm(norm.clone()), dropout, last])
    };
    let graph = with(Layer::Relu);
    let compiled = compile(&graph, &CompileOptions::default()).unwrap();
    assert_eq!(compiled.graph.nodes.len(), 3);
    let x = [0.3, -0.7, 1.0, 2.0];
    let (before, after) = (graph.forward(2, &x).unwrap(), compiled.graph.forward(2, &x).unwrap());
    assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5), "{before:?} {after:?}");
    let e = compile(&with(Layer::Softmax), &CompileOptions::default()).unwrap_err();
    assert!(e.to_string().starts_with("layer n4: private prediction computes no softmax"), "{e}");
}
