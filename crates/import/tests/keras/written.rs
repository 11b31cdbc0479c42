//! Model files written by the tests themselves.

use hdf5_pure::{AttrValue, FileBuilder};
use serde_json::{Value, json};
use trefoil_import::{ImportError, keras_h5};
use trefoil_nn::graph::Graph;

/// A weight: layer, name, shape, values.
pub(crate) type Weight<'a> = (&'a str, &'a str, &'a [u64], &'a [f32]);

/// A model file with this text as its architecture.
pub(crate) fn file(config: &str, weights: &[Weight<'_>]) -> Vec<u8> {
    let mut builder = FileBuilder::new();
    builder.set_attr("model_config", AttrValue::VarLenString(config.into()));
    let mut root = builder.create_group("model_weights");
    let mut layers: Vec<String> = weights.iter().map(|w| w.0.to_string()).collect();
    layers.dedup();
    for layer in &layers {
        let mut group = root.create_group(layer);
        let own: Vec<_> = weights.iter().filter(|w| w.0 == layer).collect();
        let names = own.iter().map(|w| w.1.to_string()).collect();
        group.set_attr("weight_names", AttrValue::StringArray(names));
        for (_, name, shape, values) in own {
            group.create_dataset(name).with_f32_data(values).with_shape(shape);
        }
        root.add_group(group.finish());
    }
    root.set_attr("layer_names", AttrValue::StringArray(if layers.is_empty() { vec!["-".into()] } else { layers }));
    builder.add_group(root.finish());
    builder.finish().unwrap()
}

/// A layer as files list it.
pub(crate) fn layer(class: &str, name: &str, mut config: Value) -> Value {
    config["name"] = name.into();
    json!({"class_name": class, "name": name, "config": config})
}

/// Imports a Sequential model with an input of `shape`.
pub(crate) fn sequential(shape: &[u64], layers: &[Value], weights: &[Weight<'_>]) -> Result<Graph, ImportError> {
    let mut all = vec![input("input", shape)];
    all.extend_from_slice(layers);
    let config = json!({"class_name": "Sequential", "config": {"name": "model", "layers": all}});
    keras_h5::load_bytes(&file(&config.to_string(), weights))
}

/// An input layer.
pub(crate) fn input(name: &str, shape: &[u64]) -> Value {
    let mut batch = vec![Value::Null];
    batch.extend(shape.iter().map(|&d| Value::from(d)));
    let mut entry = layer("InputLayer", name, json!({"batch_shape": batch}));
    entry["inbound_nodes"] = json!([]);
    entry
}

/// Imports a Functional model; each layer comes with its `inbound_nodes`.
pub(crate) fn functional(layers: &[Value], output: &str, weights: &[Weight<'_>]) -> Result<Graph, ImportError> {
    let config = json!({"name": "model", "layers": layers, "input_layers": [["input", 0, 0]],
        "output_layers": [[output, 0, 0]]});
    let config = json!({"class_name": "Functional", "config": config});
    keras_h5::load_bytes(&file(&config.to_string(), weights))
}

/// A layer of a Functional model called once, with the outputs of `from`.
pub(crate) fn called(class: &str, name: &str, config: Value, from: &[&str]) -> Value {
    let mut entry = layer(class, name, config);
    entry["inbound_nodes"] = json!([from.iter().map(|f| json!([f, 0, 0, {}])).collect::<Vec<_>>()]);
    entry
}
