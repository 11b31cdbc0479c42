//! Weights that were written are read back: in the layout of Keras, with its names and shapes.

use serde_json::{Value, json};
use trefoil_import::{ImportError, keras_h5};
use trefoil_nn::build::{Activation, Sequential, batch_norm, conv, dense, depthwise_conv, flatten};
use trefoil_nn::graph::{Array, Graph, Layer};
use trefoil_nn::layers::named;

use crate::written::{input, layer};

fn network() -> Graph {
    let mut graph = Sequential::new(&[6, 6, 2])
        .add(conv(3, 3).same().activation(Activation::Relu))
        .add(batch_norm())
        .add(depthwise_conv(2).without_bias())
        .add(flatten())
        .add(dense(4).named("classes").activation(Activation::Softmax))
        .build(9)
        .unwrap();
    let Layer::BatchNorm(n) = &mut graph.nodes[3].layer else { panic!() };
    (n.mean.data, n.variance.data) = (vec![0.5, -0.25, 1.0], vec![2.0, 0.75, 1.5]);
    (n.gamma.data, n.beta.data) = (vec![1.5, 0.5, -1.0], vec![0.125, 0.0, 3.0]);
    graph
}

/// The same network as Keras describes it.
fn architecture() -> Value {
    let layers = json!([
        input("input", &[6, 6, 2]),
        layer("Conv2D", "conv", json!({"filters": 3, "kernel_size": 3, "padding": "same", "activation": "relu"})),
        layer("BatchNormalization", "batch_norm", json!({})),
        layer("DepthwiseConv2D", "depthwise_conv", json!({"kernel_size": 2, "use_bias": false})),
        layer("Flatten", "flatten", json!({})),
        layer("Dense", "classes", json!({"units": 4, "activation": "softmax"})),
    ]);
    json!({"class_name": "Sequential", "config": {"name": "model", "layers": layers}})
}

#[test]
fn what_is_saved_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, text) = (dir.path().join("w.h5"), dir.path().join("a.json"));
    let graph = network();
    keras_h5::save_weights(&graph, &weights).unwrap();
    std::fs::write(&text, architecture().to_string()).unwrap();
    let read = keras_h5::load_with_architecture(&weights, &text).unwrap();
    let tensors = |g: &Graph| named(g).map(|(n, a)| (n, a.shape.clone(), a.data.clone())).collect::<Vec<_>>();
    assert_eq!(tensors(&read), tensors(&graph));
    assert_eq!(tensors(&graph).len(), 9);
    let x: Vec<f32> = (0..72).map(|i| (i % 11) as f32 / 11.0).collect();
    assert_eq!(read.forward(1, &x).unwrap(), graph.forward(1, &x).unwrap());
}

#[test]
fn what_keras_has_no_layer_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.h5");
    let one = || Array::new(vec![2], vec![1.0; 2]).unwrap();
    let mut graph = network();
    graph.nodes[1].layer = Layer::ChannelAffine { scale: one(), shift: one() };
    let e = keras_h5::save_weights(&graph, &path).unwrap_err().to_string();
    assert!(e.starts_with("layer conv, weight kernel: is a scale and a shift for each channel"), "{e}");
    let mut graph = network();
    graph.nodes[6].name = "conv".into();
    let e = keras_h5::save_weights(&graph, &path).unwrap_err().to_string();
    assert!(e.contains("has the name of another layer"), "{e}");
    let e = keras_h5::save_weights(&network(), dir.path().join("no/w.h5")).unwrap_err();
    assert!(matches!(e, ImportError::Io { .. }) && !path.exists());
}
