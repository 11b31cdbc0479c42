//! Settings of layers: forms that versions differ in, and what is refused.

use crate::written::{called, file, functional, input, layer, sequential};
use serde_json::{Value, json};
use trefoil_import::{ImportError, keras_h5};
use trefoil_nn::graph::{Layer, Post};

const IMAGE: &[u64] = &[4, 4, 2];

/// The layer that one Keras layer on a small image becomes.
fn one(class: &str, config: Value) -> Result<Layer, ImportError> {
    sequential(IMAGE, &[layer(class, "it", config)], &[]).map(|g| g.nodes.last().unwrap().layer.clone())
}

fn message(class: &str, config: Value) -> String {
    let text = one(class, config).expect_err(class).to_string();
    assert!(text.contains("it") && text.contains(class), "{text}");
    text
}

#[test]
fn what_cannot_be_run_is_named_with_what_can() {
    for class in ["LSTM", "Lambda", "Conv2DTranspose", "author>Dense", "TFOpLambda"] {
        let text = message(class, json!({"function": ["4wEAAAAA", null, null]}));
        assert!(text.contains("BatchNormalization, Concatenate, Conv2D, Dense"), "{text}");
    }
    let mut custom = layer("Dense", "it", json!({"units": 2}));
    custom["registered_name"] = "author>Dense".into();
    assert!(matches!(sequential(&[2], &[custom], &[]), Err(ImportError::UnsupportedLayer { .. })));
}

#[test]
fn refused_settings() {
    for class in ["MaxPooling2D", "GlobalAveragePooling2D", "Flatten", "ZeroPadding2D", "Conv2D"] {
        let text = message(class, json!({"data_format": "channels_first", "padding": 1, "filters": 2}));
        assert!(text.contains("channels_last"), "{text}");
    }
    for (class, config) in [
        ("ReLU", json!({"threshold": 0.5})),
        ("ReLU", json!({"max_value": 6.0, "negative_slope": 0.1})),
        ("ReLU", json!({"max_value": -1.0})),
        ("ReLU", json!({"max_value": "six"})),
        ("LeakyReLU", json!({"alpha": 1e300})),
        ("Activation", json!({"activation": "selu"})),
        ("Activation", json!({"activation": {"class_name": "PReLU", "config": {}}})),
        ("Activation", json!({"activation": 3})),
        ("Softmax", json!({"axis": 1})),
        ("Softmax", json!({"axis": [1, 2, 3]})),
        ("BatchNormalization", json!({"axis": 1})),
        ("BatchNormalization", json!({"axis": 9})),
        ("BatchNormalization", json!({"axis": -9})),
        ("BatchNormalization", json!({"renorm": true})),
        ("Concatenate", json!({"axis": 0})),
        ("Reshape", json!({"target_shape": [-1, -1]})),
        ("Reshape", json!({"target_shape": [-1, 5]})),
        ("Reshape", json!({"target_shape": [-1, 0]})),
        ("Reshape", json!({"target_shape": [-2]})),
        ("Reshape", json!({"target_shape": [2147483647, 2147483647, 2147483647]})),
        ("MaxPooling2D", json!({"padding": "causal"})),
        ("MaxPooling2D", json!({"strides": [1, 2, 3]})),
        ("MaxPooling2D", json!({"pool_size": -1})),
        ("MaxPooling2D", json!({"pool_size": 1.5})),
        ("AveragePooling2D", json!({"pool_size": 18446744073709551615u64})),
        ("Conv2D", json!({"kernel_size": 3})),
        ("Conv2D", json!({"filters": 3, "kernel_size": 3, "groups": 2})),
        ("Conv2D", json!({"filters": 2, "kernel_size": 0})),
        ("Conv2D", json!({"filters": 2, "kernel_size": 3, "strides": 0})),
        ("Conv2D", json!({"filters": 2, "kernel_size": 5})),
        ("Conv2D", json!({"filters": 2, "kernel_size": 3, "dilation_rate": 2147483647})),
        ("DepthwiseConv2D", json!({"kernel_size": 3, "depth_multiplier": 0})),
        ("ZeroPadding2D", json!({"padding": [[1, 2], [3]]})),
        ("ZeroPadding2D", json!({"padding": true})),
    ] {
        message(class, config);
    }
    for (class, config) in [
        ("ZeroPadding2D", json!({"padding": 2147483647})),
        ("MaxPooling2D", json!({"pool_size": 5})),
        ("Add", json!({})),
    ] {
        assert!(matches!(one(class, config), Err(ImportError::Graph(_))), "{class}");
    }
}

#[test]
fn forms_of_one_setting() {
    let slope = |config| match one("LeakyReLU", config) {
        Ok(Layer::LeakyRelu { slope }) => slope,
        other => panic!("{other:?}"),
    };
    assert_eq!(slope(json!({})), 0.3);
    assert_eq!(slope(json!({"alpha": 0.25})), 0.25);
    assert_eq!(slope(json!({"negative_slope": 0.5})), 0.5);
    assert_eq!(slope(json!({"alpha": {"class_name": "__ndarray__", "value": 0.125}})), 0.125);

    let function = json!({"module": "builtins", "class_name": "function", "config": "relu6"});
    assert_eq!(one("Activation", json!({"activation": function})).unwrap(), Layer::ClippedRelu { ceiling: 6.0 });
    assert_eq!(one("Activation", json!({"activation": "leaky_relu"})).unwrap(), Layer::LeakyRelu { slope: 0.2 });
    assert_eq!(
        one("ReLU", json!({"negative_slope": 0.5, "max_value": null})).unwrap(),
        Layer::LeakyRelu { slope: 0.5 }
    );

    let pads = |padding: Value| match one("ZeroPadding2D", json!({"padding": padding})) {
        Ok(Layer::ZeroPad(p)) => [p.top, p.bottom, p.left, p.right],
        other => panic!("{other:?}"),
    };
    assert_eq!(pads(json!(2)), [2, 2, 2, 2]);
    assert_eq!(pads(json!([1, 2])), [1, 1, 2, 2]);
    assert_eq!(pads(json!([[1, 2], [3, 4]])), [1, 2, 3, 4]);
    assert_eq!(pads(json!({"class_name": "__tuple__", "items": [1, 2]})), [1, 1, 2, 2]);

    let Layer::Reshape { shape } = one("Reshape", json!({"target_shape": [8, -1]})).unwrap() else { panic!() };
    assert_eq!(shape, [8, 4]);
}

#[test]
fn the_last_softmax_or_sigmoid_is_left_to_the_client() {
    let softmax = layer("Softmax", "s", json!({}));
    let dropout = layer("Dropout", "d", json!({"rate": 0.5}));
    let relu = layer("ReLU", "r", json!({}));
    let graph = sequential(&[3], &[relu.clone(), softmax.clone(), dropout.clone()], &[]).unwrap();
    assert_eq!((graph.post, graph.nodes.len()), (Post::Softmax, 2));
    let sigmoid = layer("Activation", "s", json!({"activation": "sigmoid"}));
    let graph = sequential(&[3], &[relu.clone(), sigmoid.clone(), dropout.clone()], &[]).unwrap();
    assert_eq!((graph.post, graph.nodes.len()), (Post::Sigmoid, 2));
    for after in [relu.clone(), softmax.clone(), sigmoid.clone()] {
        let text = sequential(&[3], &[softmax.clone(), dropout.clone(), after], &[]).unwrap_err().to_string();
        assert!(text.contains("softmax, which can only be last") || text.contains("two layers"), "{text}");
    }
    // Between layers sigmoid and tanh are layers.
    for (name, kept) in [("sigmoid", Layer::Sigmoid), ("tanh", Layer::Tanh)] {
        let hidden = layer("Activation", "h", json!({"activation": name}));
        let graph = sequential(&[3], &[hidden, dropout.clone(), relu.clone()], &[]).unwrap();
        assert_eq!((graph.post, &graph.nodes[1].layer, graph.nodes.len()), (Post::None, &kept, 4));
    }
    let tanh = layer("Activation", "t", json!({"activation": "tanh"}));
    let graph = sequential(&[3], &[sigmoid, tanh, softmax], &[]).unwrap();
    assert_eq!((graph.post, graph.nodes.len()), (Post::Softmax, 3));
    assert_eq!((&graph.nodes[1].layer, &graph.nodes[2].layer), (&Layer::Sigmoid, &Layer::Tanh));
}

#[test]
fn the_input_of_a_sequential_model() {
    let load = |config: Value| {
        keras_h5::load_bytes(&file(&json!({"class_name": "Sequential", "config": config}).to_string(), &[]))
    };
    let flat = layer("Flatten", "flat", json!({}));
    let mut first = flat.clone();
    first["config"]["batch_input_shape"] = json!([null, 2, 3]);
    let mut built = flat.clone();
    built["build_config"] = json!({"input_shape": [null, 2, 3]});
    for config in [
        json!([first]),
        json!({"layers": [first]}),
        json!({"layers": [built]}),
        json!({"layers": [flat], "build_input_shape": [null, 2, 3]}),
        json!({"layers": [input("i", &[2, 3]), flat]}),
    ] {
        assert_eq!(load(config.clone()).unwrap().shapes().unwrap(), [vec![2, 3], vec![6]], "{config}");
    }
    for shape in [json!(null), json!([null, null, 3]), json!([]), json!([null]), json!("x"), json!([null, -1])] {
        let text = load(json!({"layers": [flat], "build_input_shape": shape})).unwrap_err().to_string();
        assert!(text.contains("input"), "{text}");
    }
}

#[test]
fn calls_that_change_what_a_layer_computes() {
    let mut dropout = called("Dropout", "d", json!({"rate": 0.5}), &["input"]);
    assert!(functional(&[input("input", &[2]), dropout.clone()], "d", &[]).is_ok());
    dropout["inbound_nodes"][0][0][3] = json!({"training": true});
    let text = functional(&[input("input", &[2]), dropout], "d", &[]).unwrap_err().to_string();
    assert!(text.contains("training = true"), "{text}");
}
