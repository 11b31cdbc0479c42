//! How layers are connected: Keras 2 lists `[layer, call, tensor, kwargs]`, Keras 3 tensors with their history.

use std::collections::HashMap;

use serde_json::Value;

use super::json::{brief, size};
use super::model::{LayerEntry, is_model};

/// One tensor: an output of a call of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ref {
    /// Index of the layer in its model.
    pub(super) layer: usize,
    /// Which of the layer's calls.
    pub(super) call: usize,
    /// Which of the call's outputs.
    pub(super) tensor: usize,
}

type Index = HashMap<String, usize>;

/// The tensors that one call takes: an entry of `inbound_nodes`.
pub(super) fn inbound(node: &Value, index: &Index) -> Result<Vec<Ref>, String> {
    let Some(args) = node.get("args") else {
        return keras2(node, index);
    };
    if let Some(kwargs) = node.get("kwargs").and_then(Value::as_object) {
        for (key, value) in kwargs {
            harmless(key, value)?;
        }
    }
    let args = args.as_array().ok_or("args is no list")?;
    let mut refs = Vec::new();
    for arg in args {
        match arg {
            Value::Array(list) => {
                for tensor in list {
                    refs.push(history(tensor, index)?);
                }
            }
            tensor => refs.push(history(tensor, index)?),
        }
    }
    Ok(refs)
}

/// `input_layers` or `output_layers`: one tensor, or a list or object of tensors.
pub(super) fn ends(value: &Value, index: &Index) -> Result<Vec<Ref>, String> {
    match value {
        Value::Array(a) if a.first().is_some_and(Value::is_string) => Ok(vec![triple(a, index)?]),
        Value::Array(a) => a.iter().map(|v| triple(v.as_array().ok_or("no list of tensors")?, index)).collect(),
        Value::Object(o) => o.values().map(|v| triple(v.as_array().ok_or("no list of tensors")?, index)).collect(),
        other => Err(format!("{} is no list of tensors", brief(other))),
    }
}

fn keras2(node: &Value, index: &Index) -> Result<Vec<Ref>, String> {
    let tensors = node.as_array().ok_or_else(|| format!("{} is no list of inputs", brief(node)))?;
    tensors
        .iter()
        .map(|t| {
            let t = t.as_array().ok_or_else(|| format!("{} is no input", brief(t)))?;
            if let Some(kwargs) = t.get(3).and_then(Value::as_object) {
                for (key, value) in kwargs {
                    harmless(key, value)?;
                }
            }
            triple(t, index)
        })
        .collect()
}

fn history(tensor: &Value, index: &Index) -> Result<Ref, String> {
    let found = tensor.get("config").and_then(|c| c.get("keras_history")).and_then(Value::as_array);
    triple(found.ok_or_else(|| format!("its argument {} is no tensor of the model", brief(tensor)))?, index)
}

fn triple(t: &[Value], index: &Index) -> Result<Ref, String> {
    let (Some(name), Some(call), Some(tensor)) =
        (t.first().and_then(Value::as_str), t.get(1).and_then(size), t.get(2).and_then(size))
    else {
        return Err("an input is no [layer, call, tensor]".into());
    };
    let layer = *index.get(name).ok_or_else(|| format!("an input is {name:?}, which is no layer of the model"))?;
    Ok(Ref { layer, call, tensor })
}

/// Refuses arguments of a call that change what it computes.
fn harmless(key: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::Bool(false) if key == "training" => Ok(()),
        Value::String(_) if key == "name" => Ok(()),
        _ => Err(format!("it is called with {key} = {}, which cannot be run", brief(value))),
    }
}

/// Some versions count a nested model's own construction as its call 0, so that the calls listed begin at 1.
/// A model keeps only calls that are used: the largest number tells.
pub(super) fn count_calls_from_zero(layers: &mut [LayerEntry<'_>], outputs: &mut [Ref]) {
    let mut largest = vec![0; layers.len()];
    for r in layers.iter().flat_map(|l| l.calls.iter().flatten()).chain(outputs.iter()) {
        largest[r.layer] = largest[r.layer].max(r.call);
    }
    let shifted: Vec<bool> = layers
        .iter()
        .zip(&largest)
        .map(|(l, &n)| is_model(l.class) && !l.calls.is_empty() && n == l.calls.len())
        .collect();
    for r in layers.iter_mut().flat_map(|l| l.calls.iter_mut().flatten()).chain(outputs) {
        if shifted[r.layer] {
            r.call = r.call.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index() -> Index {
        [("a".to_string(), 0), ("b".to_string(), 1)].into()
    }

    #[test]
    fn both_forms_of_inbound_nodes() {
        let two = json!([["a", 0, 0, {}], ["b", 2, 1, {"training": false, "mask": null}]]);
        let wanted = vec![Ref { layer: 0, call: 0, tensor: 0 }, Ref { layer: 1, call: 2, tensor: 1 }];
        assert_eq!(inbound(&two, &index()), Ok(wanted.clone()));
        let t = |name: &str, call: u32, tensor: u32| json!({"class_name": "__keras_tensor__", "config": {"keras_history": [name, call, tensor]}});
        let list = json!({"args": [[t("a", 0, 0), t("b", 2, 1)]], "kwargs": {"mask": null}});
        assert_eq!(inbound(&list, &index()), Ok(wanted.clone()));
        let flat = json!({"args": [t("a", 0, 0), t("b", 2, 1)], "kwargs": {}});
        assert_eq!(inbound(&flat, &index()), Ok(wanted));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for bad in [
            json!([["a", 0, 0, {"training": true}]]),
            json!([["c", 0, 0]]),
            json!([["a", -1, 0]]),
            json!("a"),
            json!(["a", 0, 0, {"y": 1.0}]),
            json!({"args": [1.0], "kwargs": {}}),
            json!({"args": [[[]]], "kwargs": {}}),
        ] {
            assert!(inbound(&bad, &index()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ends_in_every_form() {
        let r = Ref { layer: 1, call: 1, tensor: 0 };
        assert_eq!(ends(&json!(["b", 1, 0]), &index()), Ok(vec![r]));
        assert_eq!(ends(&json!([["b", 1, 0]]), &index()), Ok(vec![r]));
        assert_eq!(ends(&json!({"out": ["b", 1, 0]}), &index()), Ok(vec![r]));
        assert!(ends(&json!(3), &index()).is_err());
    }
}
