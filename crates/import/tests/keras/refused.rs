//! Models that must not be run, or not be read to the end: clear errors in bounded time.

use crate::files::data;
use crate::written::{Weight, called, file, functional, input, layer, sequential};
use serde_json::{Value, json};
use trefoil_import::{ImportError, keras_h5};

fn dense(weights: &[Weight<'_>]) -> String {
    sequential(&[2], &[layer("Dense", "d", json!({"units": 3}))], weights).unwrap_err().to_string()
}

#[test]
fn weights_that_are_wrong() {
    let kernel: Weight<'_> = ("d", "kernel", &[2, 3], &[0.5; 6]);
    let bias: Weight<'_> = ("d", "bias", &[3], &[0.5; 3]);
    assert!(sequential(&[2], &[layer("Dense", "d", json!({"units": 3}))], &[kernel, bias]).is_ok());
    for (weights, said) in [
        (vec![], "no weights of this layer"),
        (vec![kernel], "weight bias"),
        (vec![("d", "kernel", &[3, 2][..], &[0.5; 6][..]), bias], "must have [2, 3]"),
        (vec![("d", "kernel", &[6][..], &[0.5; 6][..]), bias], "must have [2, 3]"),
        (vec![("d", "kernel", &[2, 3][..], &[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0][..]), bias], "NaN at position 2"),
        (vec![kernel, ("d", "bias", &[3][..], &[0.0, f32::INFINITY, 0.0][..])], "inf at position 1"),
    ] {
        let text = dense(&weights);
        assert!(text.contains("layer d") && text.contains(said), "{text}");
    }
}

#[test]
fn batch_normalisation_without_a_finite_scale() {
    let norm = layer("BatchNormalization", "n", json!({"scale": false, "center": false}));
    for variance in [-1.0, -1e-3] {
        let weights: [Weight<'_>; 2] =
            [("n", "moving_mean", &[1], &[0.0]), ("n", "moving_variance", &[1], &[variance])];
        let text = sequential(&[1], std::slice::from_ref(&norm), &weights).unwrap_err().to_string();
        assert!(text.contains("layer n") && text.contains("no finite scale"), "{text}");
    }
}

#[test]
fn a_file_that_declares_more_than_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = folder.path().join("a.json");
    for (name, side, said) in [("gigabyte", 1 << 14, "more than the file can hold"), ("terabytes", 1 << 20, "weights")]
    {
        let layers = [input("i", &[side]), layer("Dense", name, json!({"units": side, "use_bias": false}))];
        let config = json!({"class_name": "Sequential", "config": {"layers": layers}});
        std::fs::write(&architecture, config.to_string()).unwrap();
        let text = keras_h5::load_with_architecture(data("hostile_sparse.h5"), &architecture).unwrap_err().to_string();
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn architectures_that_are_wrong() {
    let flat = called("Flatten", "f", json!({}), &["input"]);
    let circle =
        [input("input", &[2]), called("Add", "a", json!({}), &["input", "b"]), called("ReLU", "b", json!({}), &["a"])];
    for (layers, output, said) in [
        (circle.to_vec(), "b", "circle"),
        (vec![input("input", &[2]), flat.clone(), flat.clone()], "f", "two layers are called f"),
        (vec![input("input", &[2]), called("ReLU", "r", json!({}), &["x"])], "r", "no layer of the model"),
        (vec![input("input", &[2]), flat.clone()], "g", "no layer of the model"),
        (vec![input("input", &[2]), called("ReLU", "r", json!({}), &[])], "r", "cannot be computed"),
        (vec![layer("ReLU", "input", json!({})), flat], "f", "must be an InputLayer"),
    ] {
        let text = functional(&layers, output, &[]).unwrap_err().to_string();
        assert!(text.contains(said), "{text}");
    }
    for config in [
        json!(null),
        json!([]),
        json!({"class_name": "Sequential"}),
        json!({"class_name": "MyModel", "config": {}}),
        json!({"class_name": "Sequential", "config": {"layers": []}}),
        json!({"class_name": "Sequential", "config": {"layers": [3]}}),
        json!({"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense"}]}}),
        json!({"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}}),
        json!({"class_name": "Functional", "config": {"layers": [input("i", &[2])]}}),
        json!({"class_name": "Functional", "config": {"layers": [input("i", &[2]), input("j", &[2])],
            "input_layers": [["i", 0, 0], ["j", 0, 0]], "output_layers": [["i", 0, 0]]}}),
        json!({"class_name": "Functional", "config": {"layers": [input("i", &[2])],
            "input_layers": [["i", 0, 0]], "output_layers": [["i", 0, 0], ["i", 0, 0]]}}),
        json!({"class_name": "Functional", "config": {"layers": [input("i", &[2])],
            "input_layers": [["i", 0, 0]], "output_layers": [["i", 0, 7]]}}),
    ] {
        let result = keras_h5::load_bytes(&file(&config.to_string(), &[]));
        assert!(matches!(result, Err(ImportError::Model { .. })), "{config}: {result:?}");
    }
}

#[test]
fn deep_json() {
    let deep = "[".repeat(100_000);
    assert!(matches!(keras_h5::load_bytes(&file(&deep, &[])), Err(ImportError::Json(_))));
}

/// Models in models, each calling the next twice: 2^40 calls from a file of a few kB.
#[test]
fn nesting_that_doubles() {
    let ends = |layers: Vec<Value>, output: &str| json!({"name": "m", "layers": layers, "input_layers": [["i", 0, 0]], "output_layers": [[output, 0, 0]]});
    let mut model = ends(vec![input("i", &[2]), called("ReLU", "o", json!({}), &["i"])], "o");
    for _ in 0..20 {
        let mut inner = called("Functional", "n", model, &["i"]);
        inner["inbound_nodes"] = json!([[["i", 0, 0, {}]], [["n", 0, 0, {}]]]);
        model = ends(vec![input("i", &[2]), inner, called("ReLU", "o", json!({}), &["n"])], "o");
        model["layers"][2]["inbound_nodes"][0][0][1] = json!(1);
    }
    let config = json!({"class_name": "Functional", "config": model});
    let result = keras_h5::load_bytes(&file(&config.to_string(), &[]));
    assert!(matches!(&result, Err(ImportError::TooLarge { .. })), "{result:?}");
}

/// A large model that is never called, in one that is called often.
#[test]
fn models_that_are_only_looked_at() {
    let idle = |n: usize| {
        let layers: Vec<Value> = (0..n).map(|i| called("ReLU", &format!("r{i}"), json!({}), &[])).collect();
        let mut model = called("Functional", "idle", json!({"layers": layers}), &[]);
        model["inbound_nodes"] = json!([]);
        model
    };
    let outer = |inside: usize| {
        let config = json!({"layers": [input("input", &[2]), idle(inside)], "input_layers": [["input", 0, 0]],
            "output_layers": [["input", 0, 0]]});
        let mut all = vec![input("input", &[2])];
        for i in 0..300 {
            let before = if i == 0 { "input".into() } else { format!("m{}", i - 1) };
            all.push(called("Functional", &format!("m{i}"), config.clone(), &[&before]));
        }
        functional(&all, "m299", &[])
    };
    assert!(outer(2).is_ok());
    assert!(outer(100).unwrap_err().to_string().contains("calls of layers"));
}

#[test]
fn shapes_that_double() {
    let mut layers = vec![input("input", &[2])];
    let mut last = "input".to_string();
    for i in 0..80 {
        let name = format!("c{i}");
        layers.push(called("Concatenate", &name, json!({"axis": -1}), &[&last, &last]));
        last = name;
    }
    let text = functional(&layers, &last, &[]).unwrap_err().to_string();
    assert!(text.contains("too large"), "{text}");
    let huge = sequential(&[2147483647, 2147483647, 2147483647], &[layer("Flatten", "f", json!({}))], &[]);
    assert!(huge.unwrap_err().to_string().contains("too large"));
}

#[test]
fn a_file_of_another_program() {
    let mut builder = hdf5_pure::FileBuilder::new();
    builder.create_dataset("data").with_f32_data(&[1.0]);
    let bytes = builder.finish().unwrap();
    assert!(matches!(keras_h5::load_bytes(&bytes), Err(ImportError::NoArchitecture)));

    let folder = tempfile::tempdir().unwrap();
    let (weights, architecture) = (folder.path().join("w.h5"), folder.path().join("a.json"));
    std::fs::write(&weights, bytes).unwrap();
    std::fs::write(&architecture, "{}").unwrap();
    let text = keras_h5::load_with_architecture(&weights, &architecture).unwrap_err().to_string();
    assert!(text.contains("layer_names"), "{text}");
    std::fs::write(&architecture, "{").unwrap();
    assert!(keras_h5::load_with_architecture(&weights, &architecture).is_err());
}
