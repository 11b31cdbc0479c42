//! The weights of a layer, in the two layouts of Keras.
//!
//! By name: a group per layer of the outermost model (under `model_weights`, or at the root of a file of weights) lists
//! its datasets in `weight_names`. Their names end in the weight's own name, after the layer's and any models' around
//! it, and with `:0` if TensorFlow wrote them. A nested model's weights are all in the group of the outermost one.
//!
//! By number, in archives and in the `.weights.h5` of Keras 3: `layers/KEY/vars/0`, `layers/KEY/vars/1`, ..., where the
//! key is the layer's type and number; layers of a nested model are in `layers/KEY/layers/KEY/...`. The groups of Keras
//! 2.12 are called `_layer_checkpoint_dependencies` instead of `layers`. Late versions of Keras 3 note a layer's name
//! beside its weights.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use trefoil_nn::graph::Array;

use super::h5::H5;
use crate::ImportError;

/// Most weights of one model, all copies counted: 2 GiB of them.
const MAX_WEIGHTS: u64 = 1 << 29;

/// What the groups of numbered weights are called.
const CONTAINERS: [&str; 2] = ["layers", "_layer_checkpoint_dependencies"];

/// Most weights of one layer, or of one nested model.
const MAX_NAMES: usize = 4096;

/// The weights of a model.
pub(super) struct Weights {
    h5: H5,
    apart: bool,
    layout: Layout,
    names: RefCell<HashMap<String, Rc<Vec<String>>>>,
    left: Cell<u64>,
}

enum Layout {
    /// By name.
    Named {
        /// Before the name of each group.
        root: &'static str,
        /// The names in the file of layers that are called otherwise in the architecture.
        aliases: HashMap<String, String>,
    },
    /// By number, in groups of which of [`CONTAINERS`].
    Numbered { container: usize },
}

/// Where a layer is: in the model, and in every layout of its weights.
#[derive(Default)]
pub(super) struct Place {
    /// Names of the models around the layer, outermost first, then its own.
    names: Vec<String>,
    /// Its group in a file that numbers weights, for each of [`CONTAINERS`].
    groups: [String; 2],
}

impl Place {
    /// The place of a layer of the model that is at this place.
    pub(super) fn of_layer(&self, name: &str, keys: &[String; 2]) -> Self {
        let mut names = self.names.clone();
        names.push(name.into());
        let mut groups = self.groups.clone();
        for ((group, container), key) in groups.iter_mut().zip(CONTAINERS).zip(keys) {
            let parent = if group.is_empty() { String::new() } else { format!("{group}/") };
            *group = format!("{parent}{container}/{key}");
        }
        Self { names, groups }
    }

    /// The layer's name, after those of the models around it.
    pub(super) fn name(&self) -> String {
        self.names.join("/")
    }
}

impl Weights {
    /// The weights in an open file. `apart`: the architecture is in another file.
    pub(super) fn new(h5: H5, apart: bool) -> Result<Self, ImportError> {
        let root = if h5.has_group("model_weights") { "model_weights/" } else { "" };
        let layout = if h5.texts(root.trim_end_matches('/'), "layer_names")?.is_some() {
            Layout::Named { root, aliases: HashMap::new() }
        } else if let Some(container) = CONTAINERS.iter().position(|c| h5.has_group(c)) {
            Layout::Numbered { container }
        } else {
            let reason =
                "there are neither layer_names nor layers that can be read: Keras did not write this file".into();
            return Err(ImportError::Model { model: "(weights)".into(), reason });
        };
        Ok(Self { h5, apart, layout, names: RefCell::default(), left: Cell::new(MAX_WEIGHTS) })
    }

    /// Prepares for a model whose layers with weights are called `layers`.
    ///
    /// Keras numbers layers within a session, so that names differ between a file of weights and an architecture of the
    /// same model. Where they do, Keras matches layers by their order, and so does this.
    pub(super) fn match_layers(&mut self, layers: &[&str]) -> Result<(), ImportError> {
        let Layout::Named { root, .. } = self.layout else { return Ok(()) };
        if !self.apart {
            return Ok(());
        }
        let mut stored = Vec::new();
        for name in self.h5.texts(root.trim_end_matches('/'), "layer_names")?.unwrap_or_default() {
            if self.names_in(&format!("{root}{name}"))?.is_some_and(|names| !names.is_empty()) {
                stored.push(name);
            }
        }
        let known: HashSet<&str> = stored.iter().map(String::as_str).collect();
        if stored.len() == layers.len() && layers.iter().any(|l| !known.contains(l)) {
            let aliases = layers.iter().map(|l| l.to_string()).zip(stored).collect();
            self.layout = Layout::Named { root, aliases };
        }
        Ok(())
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
            Layout::Named { root, aliases } => {
                let outer = place.names.first().map_or("", String::as_str);
                let group = format!("{root}{}", aliases.get(outer).map_or(outer, String::as_str));
                let names =
                    self.names_in(&group)?.ok_or_else(|| fail("the file has no weights of this layer".into()))?;
                let found = tensors.iter().map(|t| matching(&names, &place.names, t)).find(|f| f.len() == 1);
                let Some(name) = found.and_then(|f| f.first().copied()) else {
                    let held: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
                    return Err(fail(format!("none or several of this name; the file has [{}]", held.join(", "))));
                };
                format!("{group}/{name}")
            }
            Layout::Numbered { container } => {
                let vars = format!("{}/vars", place.groups[*container]);
                if number == 0 {
                    self.is_of(place, &vars).map_err(fail)?;
                }
                format!("{vars}/{number}")
            }
        };
        let elements = shape.iter().try_fold(1, |n: u64, &d| n.checked_mul(d as u64));
        match elements.and_then(|n| self.left.get().checked_sub(n)) {
            Some(left) => self.left.set(left),
            None => {
                let size = elements.unwrap_or(u64::MAX).saturating_add(MAX_WEIGHTS - self.left.get());
                return Err(ImportError::TooLarge { what: "the model's weights".into(), size, limit: MAX_WEIGHTS });
            }
        }
        self.h5.array(&path, shape).map_err(fail)
    }

    /// Refuses numbered weights that the file says belong to a layer of another name.
    fn is_of(&self, place: &Place, vars: &str) -> Result<(), String> {
        // Names differ between a file of weights and an architecture of another session.
        if self.apart || !self.h5.has_group(vars) {
            return Ok(());
        }
        match (self.h5.text(vars, "name").map_err(|e| e.to_string())?, place.names.last()) {
            (Some(noted), Some(name)) if noted != *name => {
                Err(format!("{vars} holds the weights of a layer called {noted:?}: save the model again"))
            }
            _ => Ok(()),
        }
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
        if names.len() > MAX_NAMES {
            let (size, limit) = (names.len() as u64, MAX_NAMES as u64);
            return Err(ImportError::TooLarge { what: format!("weight_names of {group}"), size, limit });
        }
        self.names.borrow_mut().insert(group.into(), names.clone());
        Ok(Some(names))
    }
}

/// Those of `names` that can be the weight `tensor` of the layer at `path`: one, if all is well.
fn matching<'a>(names: &'a [String], path: &[String], tensor: &str) -> Vec<&'a str> {
    let mut suffix = tensor.to_string();
    let mut found: Vec<&str> = names.iter().map(String::as_str).filter(|n| ends_in(n, &suffix)).collect();
    for (depth, part) in path.iter().rev().enumerate() {
        suffix = format!("{part}/{suffix}");
        let closer: Vec<&str> = found.iter().copied().filter(|n| ends_in(n, &suffix)).collect();
        // Inside a nested model the layer's name must match; names of models around it only settle ties.
        if (depth == 0 && path.len() > 1) || !closer.is_empty() {
            found = closer;
        }
    }
    // Some versions leave out the names of the models around a layer: then its siblings' longer names end like its own.
    if found.len() > 1 {
        found.retain(|n| ends_in(&suffix, without_number(n)));
    }
    found
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
            assert_eq!(matching(&own(&names), &own(&["dense"]), "kernel"), [names[0]]);
            assert_eq!(matching(&own(&names), &own(&["dense"]), "bias"), [names[1]]);
        }
        let separable = own(&["s/depthwise_kernel:0", "s/pointwise_kernel:0", "s/bias:0"]);
        assert_eq!(matching(&separable, &own(&["s"]), "depthwise_kernel"), ["s/depthwise_kernel:0"]);
        assert_ne!(matching(&separable, &own(&["s"]), "kernel").len(), 1);
    }

    #[test]
    fn nested_layers_are_told_apart() {
        let names = own(&["left/d/kernel", "right/d/kernel", "right/e/kernel"]);
        assert_eq!(matching(&names, &own(&["outer", "right", "d"]), "kernel"), ["right/d/kernel"]);
        assert_eq!(matching(&names, &own(&["outer", "e"]), "kernel"), ["right/e/kernel"]);
        assert_ne!(matching(&names, &own(&["outer", "d"]), "kernel").len(), 1);
        assert_ne!(matching(&names, &own(&["outer", "f"]), "kernel").len(), 1);
        let names = own(&["inner/d/kernel:0", "d/kernel:0"]);
        assert_eq!(matching(&names, &own(&["outer", "d"]), "kernel"), ["d/kernel:0"]);
        assert_eq!(matching(&names, &own(&["outer", "inner", "d"]), "kernel"), ["inner/d/kernel:0"]);
    }
}
