//! The weights of a layer by name.
//!
//! A group per layer of the outermost model (under `model_weights`, or at the root of a file of weights) lists its
//! datasets in `weight_names`. Their names end in the weight's own name, after the layer's and any models' around it,
//! and with `:0` if TensorFlow wrote them. A nested model's weights are all in the group of the outermost one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use trefoil_nn::graph::Array;

use super::h5::{ArrayError, H5};
use crate::ImportError;

/// Most weights of one model, all copies counted: 2 GiB of them.
const MAX_WEIGHTS: u64 = 1 << 29;

/// The weights of a model.
pub(super) struct Weights {
    h5: H5,
    root: &'static str,
    names: RefCell<HashMap<String, Rc<Vec<String>>>>,
    left: Cell<u64>,
}

impl Weights {
    /// The weights in an open file.
    pub(super) fn new(h5: H5) -> Result<Self, ImportError> {
        let root = if h5.has_group("model_weights") { "model_weights/" } else { "" };
        if h5.texts(root.trim_end_matches('/'), "layer_names")?.is_none() {
            let hint = if h5.has_group("layers") {
                "it looks like the newer .weights.h5 of Keras 3; save the whole model as .h5 instead"
            } else {
                "it is no Keras file"
            };
            return Err(ImportError::Model { model: "(weights)".into(), reason: format!("no layer_names: {hint}") });
        }
        Ok(Self { h5, root, names: RefCell::default(), left: Cell::new(MAX_WEIGHTS) })
    }

    /// The weight `tensor` of the layer at `path` (outermost model's layer first), of the shape `shape`.
    pub(super) fn load(&self, path: &[String], tensor: &str, shape: &[usize]) -> Result<Array, ImportError> {
        let fail = |reason: String| ImportError::Weight { layer: path.join("/"), tensor: tensor.into(), reason };
        let Some(outer) = path.first() else { return Err(fail("no layer".into())) };
        let group = format!("{}{outer}", self.root);
        let names = self.names_in(&group)?.ok_or_else(|| fail("the file has no weights of this layer".into()))?;
        let name = pick(&names, path, tensor).map_err(fail)?;
        let elements = shape.iter().try_fold(1, |n: u64, &d| n.checked_mul(d as u64));
        match elements.and_then(|n| self.left.get().checked_sub(n)) {
            Some(left) => self.left.set(left),
            None => {
                let size = elements.unwrap_or(u64::MAX).saturating_add(MAX_WEIGHTS - self.left.get());
                return Err(ImportError::TooLarge { what: "the model's weights".into(), size, limit: MAX_WEIGHTS });
            }
        }
        self.h5.array(&format!("{group}/{name}"), shape).map_err(|e| match e {
            ArrayError::Bad(reason) => fail(reason),
            ArrayError::File(e) => e,
        })
    }

    /// The datasets of a layer's group; `None` if there is no such group.
    fn names_in(&self, group: &str) -> Result<Option<Rc<Vec<String>>>, ImportError> {
        if let Some(names) = self.names.borrow().get(group) {
            return Ok(Some(names.clone()));
        }
        if !self.h5.has_group(group) {
            return Ok(None);
        }
        let names = Rc::new(self.h5.texts(group, "weight_names")?.unwrap_or_default());
        self.names.borrow_mut().insert(group.into(), names.clone());
        Ok(Some(names))
    }
}

/// The one of `names` that is the weight `tensor` of the layer at `path`.
fn pick<'a>(names: &'a [String], path: &[String], tensor: &str) -> Result<&'a str, String> {
    let mut suffix = tensor.to_string();
    let mut found: Vec<&String> = names.iter().filter(|n| ends_in(n, &suffix)).collect();
    for (depth, part) in path.iter().rev().enumerate() {
        suffix = format!("{part}/{suffix}");
        let closer: Vec<&String> = found.iter().copied().filter(|n| ends_in(n, &suffix)).collect();
        // Inside a nested model the layer's name must match; names of models around it only settle ties.
        if (depth == 0 && path.len() > 1) || !closer.is_empty() {
            found = closer;
        }
    }
    // Some versions leave out the names of the models around a layer: then its siblings' longer names end like its own.
    if found.len() > 1 {
        found.retain(|n| ends_in(&suffix, without_number(n)));
    }
    match found[..] {
        [name] => Ok(name),
        _ => {
            let held: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
            Err(format!("{} weights of this name, must be one; the file has [{}]", found.len(), held.join(", ")))
        }
    }
}

fn ends_in(name: &str, suffix: &str) -> bool {
    without_number(name).strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// The name without the `:0` that TensorFlow puts after it.
fn without_number(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((bare, number)) if number.bytes().all(|b| b.is_ascii_digit()) => bare,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn picks_weights_as_every_version_names_them() {
        for names in [["dense/kernel:0", "dense/bias:0"], ["m/dense/kernel", "m/dense/bias"], ["kernel", "bias"]] {
            assert_eq!(pick(&own(&names), &own(&["dense"]), "kernel"), Ok(names[0]));
            assert_eq!(pick(&own(&names), &own(&["dense"]), "bias"), Ok(names[1]));
        }
        let separable = own(&["s/depthwise_kernel:0", "s/pointwise_kernel:0", "s/bias:0"]);
        assert_eq!(pick(&separable, &own(&["s"]), "depthwise_kernel"), Ok("s/depthwise_kernel:0"));
        assert!(pick(&separable, &own(&["s"]), "kernel").is_err());
    }

    #[test]
    fn nested_layers_are_told_apart() {
        let names = own(&["left/d/kernel", "right/d/kernel", "right/e/kernel"]);
        assert_eq!(pick(&names, &own(&["outer", "right", "d"]), "kernel"), Ok("right/d/kernel"));
        assert_eq!(pick(&names, &own(&["outer", "e"]), "kernel"), Ok("right/e/kernel"));
        assert!(pick(&names, &own(&["outer", "d"]), "kernel").is_err());
        assert!(pick(&names, &own(&["outer", "f"]), "kernel").is_err());
        let names = own(&["inner/d/kernel:0", "d/kernel:0"]);
        assert_eq!(pick(&names, &own(&["outer", "d"]), "kernel"), Ok("d/kernel:0"));
        assert_eq!(pick(&names, &own(&["outer", "inner", "d"]), "kernel"), Ok("inner/d/kernel:0"));
    }
}
