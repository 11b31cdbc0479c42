//! The weights of a layer, in the two layouts of Keras.
//!
//! By name: a group per layer of the outermost model (under `model_weights`, or at the root of a file of weights) lists
//! its datasets in `weight_names`. Their names end in the weight's own name, after the layer's and any models' around
//! it, and with `:0` if TensorFlow wrote them. A nested model's weights are all in the group of the outermost one.
//!
//! By number, in the `.weights.h5` of Keras 3: `layers/KEY/vars/0`, `layers/KEY/vars/1`, ..., where the key is the
//! layer's type and number; layers of a nested model are in `layers/KEY/layers/KEY/...`.

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
    layout: Layout,
    names: RefCell<HashMap<String, Rc<Vec<String>>>>,
    left: Cell<u64>,
}

enum Layout {
    /// By name, in groups after this.
    Named(&'static str),
    /// By number.
    Numbered,
}

/// Where a layer is: in the model, and in either layout of its weights.
#[derive(Default)]
pub(super) struct Place {
    /// Names of the models around the layer, outermost first, then its own.
    names: Vec<String>,
    /// Its group in a file that numbers weights.
    group: String,
}

impl Place {
    /// The place of a layer of the model that is at this place.
    pub(super) fn of_layer(&self, name: &str, key: &str) -> Self {
        let mut names = self.names.clone();
        names.push(name.into());
        let parent = if self.group.is_empty() { String::new() } else { format!("{}/", self.group) };
        Self { names, group: format!("{parent}layers/{key}") }
    }

    /// The layer's name, after those of the models around it.
    pub(super) fn name(&self) -> String {
        self.names.join("/")
    }
}

impl Weights {
    /// The weights in an open file.
    pub(super) fn new(h5: H5) -> Result<Self, ImportError> {
        let root = if h5.has_group("model_weights") { "model_weights/" } else { "" };
        let layout = if h5.texts(root.trim_end_matches('/'), "layer_names")?.is_some() {
            Layout::Named(root)
        } else if h5.has_group("layers") {
            Layout::Numbered
        } else {
            let reason = "there are neither layer_names nor layers: Keras did not write this file".into();
            return Err(ImportError::Model { model: "(weights)".into(), reason });
        };
        Ok(Self { h5, layout, names: RefCell::default(), left: Cell::new(MAX_WEIGHTS) })
    }

    /// The weight of the shape `shape` that is called one of `tensors`, or is the layer's weight number `number`.
    pub(super) fn load(
        &self,
        place: &Place,
        tensors: &[&str],
        number: usize,
        shape: &[usize],
    ) -> Result<Array, ImportError> {
        let fail = |reason: String| ImportError::Weight { layer: place.name(), tensor: tensors.join(" or "), reason };
        let path = match &self.layout {
            Layout::Named(root) => {
                let group = format!("{root}{}", place.names.first().map_or("", String::as_str));
                let names =
                    self.names_in(&group)?.ok_or_else(|| fail("the file has no weights of this layer".into()))?;
                let found: Vec<_> = tensors.iter().map(|t| pick(&names, &place.names, t)).collect();
                let best = found.iter().position(Result::is_ok).unwrap_or(0);
                let name = found.into_iter().nth(best).unwrap_or_else(|| Err("has no name".into())).map_err(fail)?;
                format!("{group}/{name}")
            }
            Layout::Numbered => format!("{}/vars/{number}", place.group),
        };
        let elements = shape.iter().try_fold(1, |n: u64, &d| n.checked_mul(d as u64));
        match elements.and_then(|n| self.left.get().checked_sub(n)) {
            Some(left) => self.left.set(left),
            None => {
                let size = elements.unwrap_or(u64::MAX).saturating_add(MAX_WEIGHTS - self.left.get());
                return Err(ImportError::TooLarge { what: "the model's weights".into(), size, limit: MAX_WEIGHTS });
            }
        }
        self.h5.array(&path, shape).map_err(|e| match e {
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
