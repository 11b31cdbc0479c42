//! A model's configuration as a list of layers and their calls, the same for Sequential and Functional models.

use std::collections::HashMap;

use serde_json::Value;

use super::layers::has_weights;
use super::wiring::{self, Ref};
use crate::ImportError;

/// A layer as the file lists it.
pub(super) struct LayerEntry<'a> {
    /// Name, unique in its model.
    pub(super) name: String,
    /// Type.
    pub(super) class: &'a str,
    /// What files of numbered weights call it: its type in snake case, numbered among layers of that type. The second is
    /// Keras 2.12's, which counts layers with weights twice.
    pub(super) keys: [String; 2],
    /// Settings.
    pub(super) config: &'a Value,
    /// The inputs of each call.
    pub(super) calls: Vec<Vec<Ref>>,
    /// For an input: its shape, the batch first, if the file tells.
    pub(super) shape: Option<&'a Value>,
}

/// A model, or a model nested in another.
pub(super) struct Model<'a> {
    /// Name.
    pub(super) name: &'a str,
    /// Layers, in the file's order.
    pub(super) layers: Vec<LayerEntry<'a>>,
    /// The input layers, in order.
    pub(super) inputs: Vec<usize>,
    /// What it returns.
    pub(super) outputs: Vec<Ref>,
    /// How many layers were looked at, those of models inside counted.
    pub(super) looked: usize,
}

/// Longest name of a layer: every call of a layer keeps it.
const MAX_NAME: usize = 200;

/// Class of an input layer.
pub(super) const INPUT: &str = "InputLayer";

/// Whether a class is a model in itself.
pub(super) fn is_model(class: &str) -> bool {
    matches!(class, "Sequential" | "Functional" | "Model")
}

impl<'a> Model<'a> {
    /// Reads `{"class_name": ..., "config": ...}`.
    pub(super) fn parse(value: &'a Value) -> Result<Self, ImportError> {
        let fail = |reason: &str| ImportError::Model { model: "(top)".into(), reason: reason.into() };
        let class = value.get("class_name").and_then(Value::as_str).ok_or_else(|| fail("class_name is missing"))?;
        if !is_model(class) {
            return Err(fail(&format!("is a {class:?}, must be Sequential or Functional")));
        }
        Self::of(class, value.get("config").ok_or_else(|| fail("config is missing"))?)
    }

    /// Reads the `config` of a model of type `class`.
    pub(super) fn of(class: &str, config: &'a Value) -> Result<Self, ImportError> {
        let name = config.get("name").and_then(Value::as_str).unwrap_or("(unnamed)");
        let fail = |reason: String| ImportError::Model { model: name.into(), reason };
        // Sequential models of Keras 2.2.2 and older are a bare list.
        let list = config.as_array().or_else(|| config.get("layers").and_then(Value::as_array));
        let list = list.ok_or_else(|| fail("its list of layers is missing".into()))?;
        let (mut of_class, mut looked) = (HashMap::new(), 0);
        let mut layers = Vec::with_capacity(list.len());
        for value in list {
            let mut layer = entry(value).map_err(fail)?;
            let earlier: &mut [usize; 2] = of_class.entry(layer.class).or_default();
            for (key, n) in layer.keys.iter_mut().zip(&*earlier).filter(|(_, n)| **n > 0) {
                *key = format!("{key}_{n}");
            }
            earlier[0] += 1;
            earlier[1] += 1 + usize::from(is_weighted(layer.class, layer.config, &mut looked));
            layers.push(layer);
        }
        if layers.is_empty() {
            return Err(fail("it has no layers".into()));
        }
        if class == "Sequential" {
            return Self::chain((name, looked), layers, config, &list[0]);
        }
        let mut index = HashMap::new();
        for (i, layer) in layers.iter().enumerate() {
            if index.insert(layer.name.clone(), i).is_some() {
                return Err(fail(format!("two layers are called {}", layer.name)));
            }
        }
        for (layer, value) in layers.iter_mut().zip(list) {
            let nodes = value.get("inbound_nodes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            layer.calls = nodes
                .iter()
                .map(|n| wiring::inbound(n, &index))
                .collect::<Result<_, _>>()
                .map_err(|reason| fail(format!("layer {}: {reason}", layer.name)))?;
        }
        let ends = |key: &str| {
            let value = config.get(key).ok_or_else(|| fail(format!("{key} is missing")))?;
            wiring::ends(value, &index).map_err(|reason| fail(format!("{key}: {reason}")))
        };
        let inputs = ends("input_layers")?.into_iter().map(|r| r.layer).collect::<Vec<_>>();
        let mut outputs = ends("output_layers")?;
        if let Some(&i) = inputs.iter().find(|&&i| layers[i].class != INPUT) {
            return Err(fail(format!("its input {} is a {}, must be an {INPUT}", layers[i].name, layers[i].class)));
        }
        wiring::count_calls_from_zero(&mut layers, &mut outputs);
        Ok(Self { name, layers, inputs, outputs, looked })
    }

    /// A Sequential model, whose first layer may stand for its input as well. `first` is that layer in the file.
    fn chain(
        (name, looked): (&'a str, usize),
        mut layers: Vec<LayerEntry<'a>>,
        config: &'a Value,
        first: &'a Value,
    ) -> Result<Self, ImportError> {
        let own = &layers[0];
        if own.class != INPUT {
            let built = || first.get("build_config").and_then(|b| b.get("input_shape"));
            let mut shape = own.shape.or_else(|| config.get("build_input_shape")).or_else(built);
            if shape.is_none() && is_model(own.class) {
                let inner = Self::of(own.class, own.config)?;
                shape = inner.inputs.first().and_then(|&i| inner.layers[i].shape);
            }
            let name = format!("{}_input", own.name);
            layers.insert(
                0,
                LayerEntry { name, class: INPUT, keys: Default::default(), config: own.config, calls: vec![], shape },
            );
        }
        for (i, layer) in layers.iter_mut().enumerate().skip(1) {
            layer.calls = vec![vec![Ref { layer: i - 1, call: 0, tensor: 0 }]];
        }
        let outputs = vec![Ref { layer: layers.len() - 1, call: 0, tensor: 0 }];
        Ok(Self { name, layers, inputs: vec![0], outputs, looked })
    }
}

fn entry(value: &Value) -> Result<LayerEntry<'_>, String> {
    let class = value.get("class_name").and_then(Value::as_str).ok_or("a layer has no class_name")?;
    // A class registered by the author ("package>Name") shadows no class of Keras.
    let class = match value.get("registered_name").and_then(Value::as_str) {
        Some(registered) if registered.contains('>') => registered,
        _ => class,
    };
    let raw = value.get("config").unwrap_or(&Value::Null);
    let name = value.get("name").or_else(|| raw.get("name")).and_then(Value::as_str);
    let name = name.ok_or_else(|| format!("a layer of type {class} has no name"))?;
    if name.len() > MAX_NAME {
        return Err(format!("the name of a layer has {} bytes, may have {MAX_NAME}", name.len()));
    }
    // The settings of a nested Sequential of Keras 2.2.2 and older are its list of layers.
    if !(raw.is_object() || raw.is_array() && is_model(class)) {
        return Err(format!("layer {name} has no config"));
    }
    let shape = ["batch_input_shape", "batch_shape"].iter().find_map(|k| raw.get(*k)).filter(|v| !v.is_null());
    let keys = [snake_case(class), snake_case(class)];
    Ok(LayerEntry { name: name.into(), class, keys, config: raw, calls: Vec::new(), shape })
}

/// Whether a layer has weights; a model, whether any layer in it has. Counts the layers looked at.
fn is_weighted(class: &str, config: &Value, looked: &mut usize) -> bool {
    *looked += 1;
    let inner = || config.as_array().or_else(|| config.get("layers").and_then(Value::as_array));
    let mut weighted = |l: &Value| {
        let class = l.get("class_name").and_then(Value::as_str).unwrap_or_default();
        is_weighted(class, l.get("config").unwrap_or(&Value::Null), looked)
    };
    has_weights(class) || is_model(class) && inner().is_some_and(|layers| layers.iter().any(&mut weighted))
}

/// Keras' rule: a word begins at a capital that has small letters after it, or follows one.
fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut snake = String::new();
    for (i, c) in chars.iter().enumerate() {
        let small = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_ascii_lowercase());
        if i > 0 && c.is_ascii_uppercase() && (small(i.checked_sub(1)) || small(Some(i + 1))) {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::snake_case;

    #[test]
    fn snake_case_is_keras() {
        for (class, key) in [
            ("Dense", "dense"),
            ("Conv2D", "conv2d"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("BatchNormalization", "batch_normalization"),
            ("ReLU", "re_lu"),
            ("LeakyReLU", "leaky_re_lu"),
            ("LSTM", "lstm"),
        ] {
            assert_eq!(snake_case(class), key);
        }
    }
}
