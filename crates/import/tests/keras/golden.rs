//! Imported models compute what Keras computes.

use crate::files::{data, shared};
use crate::forward::forward;
use trefoil_import::{ImportError, keras_h5};
use trefoil_nn::graph::{Graph, Layer, Post};

pub(crate) fn close(name: &str, graph: &Graph) {
    let text = std::fs::read(data(&format!("{name}.json"))).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let list = |key: &str| golden[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let (got, wanted) = (forward(graph, &list("input")), list("output"));
    assert_eq!(got.len(), wanted.len(), "{name}");
    for (g, w) in got.iter().zip(&wanted) {
        assert!((g - w).abs() < 1e-4 * w.abs().max(1.0), "{name}: {got:?} instead of {wanted:?}");
    }
}

fn check(name: &str) -> Graph {
    let graph = keras_h5::load(data(&format!("{name}.h5"))).unwrap();
    close(name, &graph);
    graph
}

#[test]
fn sequential_models() {
    for name in ["keras2_sequential", "keras3_sequential"] {
        let graph = check(name);
        assert_eq!(graph.post, Post::Softmax);
        let depthwise = graph.nodes.iter().find_map(|n| match &n.layer {
            Layer::Conv2d { geometry, .. } if geometry.groups > 1 => Some(*geometry),
            _ => None,
        });
        assert_eq!(depthwise.map(|g| (g.groups, g.in_channels, g.out_channels)), Some((3, 3, 6)));
        let kept = |n: &trefoil_nn::graph::Node| matches!(n.layer, Layer::Dropout { .. });
        assert!(graph.nodes.iter().all(|n| n.name.contains("dropout") == kept(n)));
    }
}

#[test]
fn functional_models() {
    for name in ["keras2_functional", "keras3_functional"] {
        let graph = check(name);
        assert_eq!(graph.post, Post::Sigmoid);
        assert!(graph.nodes.iter().all(|n| n.name != "unused"));
        // A layer that is shared is a node for each of its calls.
        assert_eq!(graph.nodes.iter().filter(|n| n.name == "shared").count(), 2);
    }
}

#[test]
fn nested_models() {
    for name in ["keras2_nested", "keras3_nested"] {
        let graph = check(name);
        assert_eq!(graph.nodes.iter().filter(|n| n.name == "tower/features/conv").count(), 2);
    }
    for name in ["keras2_transfer", "keras3_transfer"] {
        check(name);
    }
}

#[test]
fn hidden_sigmoid_and_tanh() {
    let graph = check("keras3_activations");
    let count = |layer: &Layer| graph.nodes.iter().filter(|n| n.layer == *layer).count();
    assert_eq!((count(&Layer::Sigmoid), count(&Layer::Tanh), graph.post), (1, 2, Post::Sigmoid));
}

#[test]
fn the_layout_of_keras_2_2() {
    check("keras22");
}

#[test]
fn deflated_double_precision_weights() {
    check("keras3_compressed");
}

#[test]
fn weights_and_architecture_apart() {
    for name in ["keras2_weights", "keras3_weights", "keras3_to_json"] {
        let architecture = data(&format!("{name}.architecture.json"));
        close(name, &keras_h5::load_with_architecture(data(&format!("{name}.h5")), architecture).unwrap());
    }
    for name in ["keras2_weights.h5", "keras3_weights.h5"] {
        let alone = keras_h5::load(data(name));
        assert!(matches!(alone, Err(ImportError::NoArchitecture)), "{alone:?}");
    }
}

/// Keras numbers layers within a session: the same model has other names in the next.
#[test]
fn layers_of_other_names_are_matched_by_order() {
    let text = std::fs::read_to_string(data("keras2_weights.architecture.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers = config["config"]["layers"].as_array_mut().unwrap();
    let load = |config: &serde_json::Value| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, config.to_string()).unwrap();
        keras_h5::load_with_architecture(data("keras2_weights.h5"), path)
    };
    let last = layers.len() - 1;
    layers[last]["config"]["name"] = layers[last - 1]["config"]["name"].clone();
    layers[last - 1]["config"]["name"] = "dense_77".into();
    close("keras2_weights", &load(&config).unwrap());

    config["config"]["layers"].as_array_mut().unwrap().pop();
    let text = load(&config).unwrap_err().to_string();
    assert!(text.contains("dense_77") && text.contains("no weights of this layer"), "{text}");
}

#[test]
fn a_published_model() {
    let Some(path) = shared("data/models/short-conv-mnist.h5") else { return };
    let graph = keras_h5::load(path).unwrap();
    let shapes = graph.shapes().unwrap();
    assert_eq!((shapes[0].clone(), shapes.last().unwrap().clone()), (vec![28, 28, 1], vec![10]));
    assert_eq!(graph.post, Post::Softmax);
    // What Keras 2 computes for this input.
    let input: Vec<f64> = (0..28 * 28).map(|i| f64::from(i * 37 % 101) / 101.0).collect();
    let wanted = [
        0.0900745,
        0.000349867,
        0.0177778,
        0.11879,
        0.0327587,
        0.00139732,
        0.408241,
        2.24041e-5,
        0.329991,
        0.000597237,
    ];
    for (got, wanted) in forward(&graph, &input).iter().zip(wanted) {
        assert!((got - wanted).abs() < 1e-5, "{got} instead of {wanted}");
    }
}
