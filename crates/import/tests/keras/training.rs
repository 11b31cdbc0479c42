//! Models to go on training: batch normalisation and dropout stay layers, and prediction folds them as before.

use serde_json::{Value, json};
use trefoil_import::keras_h5;
use trefoil_nn::compile::{CompileOptions, compile};
use trefoil_nn::graph::Layer;

use crate::files::data;
use crate::forward::forward;
use crate::written::{Weight, file, input, layer};

const KERNEL: &[f32] = &[1.0, -2.0, 0.5, 3.0];
const NORM: [&[f32]; 4] = [&[1.5, -0.5], &[0.25, 1.0], &[0.5, -1.0], &[2.0, 0.5]];

fn read(layers: &[Value], weights: &[Weight<'_>]) -> Result<keras_h5::ToTrain, trefoil_import::ImportError> {
    let mut all = vec![input("input", &[2])];
    all.extend_from_slice(layers);
    let config = json!({"class_name": "Sequential", "config": {"name": "model", "layers": all}});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.h5");
    std::fs::write(&path, file(&config.to_string(), weights)).unwrap();
    keras_h5::load_to_train(path)
}

fn weights() -> Vec<Weight<'static>> {
    let names = ["gamma", "beta", "moving_mean", "moving_variance"];
    let norm = names.into_iter().zip(NORM).map(|(n, v)| ("norm", n, &[2][..], v));
    std::iter::once(("dense", "kernel", &[2, 2][..], KERNEL)).chain(norm).collect()
}

fn layers(norm: Value) -> [Value; 3] {
    let dense = json!({"units": 2, "use_bias": false, "trainable": false});
    [
        layer("Dense", "dense", dense),
        layer("BatchNormalization", "norm", norm),
        layer("Dropout", "drop", json!({"rate": 0.25})),
    ]
}

#[test]
fn norms_and_dropout_stay_and_frozen_layers_are_named() {
    let model = read(&layers(json!({"epsilon": 0.01, "momentum": 0.9})), &weights()).unwrap();
    assert_eq!(model.frozen, ["dense"]);
    let Layer::BatchNorm(n) = &model.graph.nodes[2].layer else { panic!("{:?}", model.graph) };
    let tensors = [&n.gamma, &n.beta, &n.mean, &n.variance].map(|a| &a.data[..]);
    assert_eq!((tensors, n.epsilon, n.momentum), (NORM, 0.01, 0.9));
    assert_eq!(model.graph.nodes[3].layer, Layer::Dropout { rate: 0.25 });
}

#[test]
fn prediction_folds_what_training_keeps() {
    for name in ["keras2_sequential", "keras3_sequential"] {
        let graph = keras_h5::load(data(&format!("{name}.h5"))).unwrap();
        assert!(graph.nodes.iter().any(|n| matches!(n.layer, Layer::BatchNorm(_))));
        let folded = compile(&graph, &CompileOptions::default()).unwrap().graph;
        assert!(folded.nodes.iter().all(|n| !matches!(n.layer, Layer::BatchNorm(_) | Layer::Dropout { .. })));
        let x: Vec<f64> =
            (0..graph.shapes().unwrap()[0].iter().product()).map(|i| (i % 13) as f64 / 6.5 - 1.0).collect();
        for (a, b) in forward(&graph, &x).iter().zip(forward(&folded, &x)) {
            assert!((a - b).abs() < 1e-5, "{name}: {a} {b}");
        }
    }
}

#[test]
fn what_would_be_trained_otherwise_is_refused() {
    let said = |layers: &[Value], weights: &[Weight<'_>]| read(layers, weights).unwrap_err().to_string();
    let no_scale: Vec<Weight<'_>> = weights().into_iter().filter(|w| w.1 != "gamma").collect();
    let text = said(&layers(json!({"scale": false})), &no_scale);
    assert!(text.starts_with("layer norm (BatchNormalization): has no scale"), "{text}");
    for class in ["GaussianNoise", "GaussianDropout", "SpatialDropout2D"] {
        let text = said(&[layer(class, "noise", json!({"stddev": 0.1}))], &[]);
        assert!(text.ends_with("the model can predict, but not be trained") && text.contains(class), "{text}");
    }
    let text = said(&[layer("Dropout", "d", json!({"rate": 1.5}))], &[]);
    assert!(text.contains("rate 1.5: must be 0 to below 1"), "{text}");
    let text = said(&[layer("BatchNormalization", "norm", json!({"momentum": 7}))], &weights());
    assert!(text.contains("momentum 7"), "{text}");
    // A layer that is called twice has one set of weights in Keras.
    let shared = keras_h5::load_to_train(data("keras3_functional.h5"));
    let spec = trefoil_nn::train::TrainSpec::classifier();
    match shared {
        Ok(model) => {
            let e = trefoil_nn::train::Tapes::new(&model.graph, &spec).unwrap_err().to_string();
            assert!(e.contains("called twice") && e.lines().count() == 1, "{e}");
        }
        Err(e) => assert!(e.to_string().contains("not be trained"), "{e}"),
    }
}
