//! Weights written in the layout that `load_weights` of Keras 2 and 3 reads from a file named `.h5`: a group for each
//! layer, which lists its weights in `weight_names`; layers in order in `layer_names`.

use std::path::Path;

use hdf5_pure::{AttrValue, FileBuilder};
use trefoil_nn::graph::{Array, Graph, Layer};

use crate::ImportError;

/// What Keras takes the file to be written by: it rearranges what its version 1 wrote.
const VERSION: &str = "2.15.0";

/// The weights of one layer of Keras: names, shapes and values in its order.
struct Group<'a> {
    name: &'a str,
    trained: Vec<(String, Vec<u64>, &'a Array)>,
    moving: Vec<(String, Vec<u64>, &'a Array)>,
}

/// Writes the weights of `graph` to `path`, for `load_weights` of a Keras model of the same layers.
///
/// Keras matches layers by their order, or by their names if it is told so (`by_name=True`).
pub fn save_weights(graph: &Graph, path: impl AsRef<Path>) -> Result<(), ImportError> {
    let path = path.as_ref();
    let fail = |e| ImportError::Hdf5 { object: path.display().to_string(), source: Box::new(e) };
    let groups = groups(graph)?;
    let mut file = FileBuilder::new();
    let list = |names: Vec<String>| AttrValue::StringArray(names);
    file.set_attr("layer_names", list(groups.iter().map(|g| g.name.to_owned()).collect()));
    file.set_attr("backend", AttrValue::String("tensorflow".into()));
    file.set_attr("keras_version", AttrValue::String(VERSION.into()));
    for g in &groups {
        let mut group = file.create_group(g.name);
        let all = || g.trained.iter().chain(&g.moving);
        group.set_attr("weight_names", list(all().map(|w| w.0.clone()).collect()));
        for (name, shape, array) in all() {
            group.create_dataset(name).with_f32_data(&array.data).with_shape(shape);
        }
        file.add_group(group.finish());
    }
    let bytes = file.finish().map_err(fail)?;
    std::fs::write(path, bytes).map_err(|source| ImportError::Io { path: path.into(), source })
}

/// Layers of Keras: what comes before the first "/" of a name. Those of a nested model lie in its group.
fn groups(graph: &Graph) -> Result<Vec<Group<'_>>, ImportError> {
    let mut all: Vec<Group<'_>> = Vec::new();
    for node in &graph.nodes {
        let (layer, part) = node.name.split_once('/').unwrap_or((&node.name, ""));
        let unfit = |reason: &str| ImportError::Weight {
            layer: node.name.clone(),
            tensor: "kernel".into(),
            reason: format!("{reason}, and Keras has no such layer"),
        };
        let mut moving = Vec::new();
        let trained: Vec<(&str, &Array)> = match &node.layer {
            Layer::Dense { kernel, bias } | Layer::Conv2d { kernel, bias, .. } => {
                std::iter::once(("kernel", kernel)).chain(bias.iter().map(|b| ("bias", b))).collect()
            }
            Layer::BatchNorm(n) => {
                moving = vec![("moving_mean", &n.mean), ("moving_variance", &n.variance)];
                vec![("gamma", &n.gamma), ("beta", &n.beta)]
            }
            Layer::ChannelAffine { .. } => return Err(unfit("is a scale and a shift for each channel")),
            _ => continue,
        };
        let at = all.iter().position(|g| g.name == layer).unwrap_or(all.len());
        if at == all.len() {
            all.push(Group { name: layer, trained: Vec::new(), moving: Vec::new() });
        }
        let group = &mut all[at];
        let entry = |(what, array)| {
            let tensor = format!("{part}/{what}:0");
            (tensor.trim_start_matches('/').replace('/', "_"), stored(&node.layer, what, array), array)
        };
        let (trained, moving) = (trained.into_iter().map(entry), moving.into_iter().map(entry));
        let (trained, moving): (Vec<_>, Vec<_>) = (trained.collect(), moving.collect());
        if trained.iter().any(|t| group.trained.iter().any(|o| o.0 == t.0)) {
            return Err(unfit("has the name of another layer with weights"));
        }
        group.trained.extend(trained);
        group.moving.extend(moving);
    }
    Ok(all)
}

/// The shape that Keras gives a tensor: a depthwise kernel is `[h, w, channels, multiplier]` there.
fn stored(layer: &Layer, what: &str, array: &Array) -> Vec<u64> {
    let shape = match layer {
        Layer::Conv2d { geometry: g, .. } if what == "kernel" && g.groups > 1 && g.groups == g.in_channels => {
            vec![g.kernel.0, g.kernel.1, g.in_channels, g.out_channels / g.in_channels]
        }
        _ => array.shape.clone(),
    };
    shape.into_iter().map(|d| d as u64).collect()
}
