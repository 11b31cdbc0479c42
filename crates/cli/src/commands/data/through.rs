//! Features at the owner's: rows go through public layers in the clear before they are shared.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use trefoil_client::{Block, Content};
use trefoil_import::ImportError;
use trefoil_nn::graph::Graph;
use trefoil_nn::train::TrainSpec;
use trefoil_nn::train::frozen::cut;

use crate::model;

/// Which layers rows go through first.
#[derive(clap::Args)]
pub(super) struct Through {
    /// Share what this model's layers make of the rows, computed here: a Keras file (.keras or .h5)
    #[arg(long, value_name = "MODEL", conflicts_with = "labels")]
    through: Option<PathBuf>,
    /// The last of its layers with weights that is used; those without weights behind it are used too, up to dropout
    /// [default: the model's last layer]
    #[arg(long, value_name = "NAME", requires = "through")]
    layer: Option<String>,
    /// Factor on every value that goes into the model
    #[arg(long, value_name = "X", default_value = "1/255", value_parser = model::factor, allow_hyphen_values = true, requires = "through")]
    scale: f64,
    /// Added after the factor
    #[arg(long, value_name = "X", default_value = "0", value_parser = model::number, allow_hyphen_values = true, requires = "through")]
    offset: f64,
}

/// Layers that make features.
pub(super) struct Layers {
    graph: Graph,
    /// Shape of a row.
    pub(super) input: Vec<usize>,
    scale: f64,
    offset: f64,
}

impl Through {
    /// The layers, if there are any: what they give must be as wide as `block` of the set.
    pub(super) fn load(&self, set: &str, block: &Block) -> anyhow::Result<Option<Layers>> {
        let Some(path) = &self.through else { return Ok(None) };
        ensure!(block.content != Content::OneHot, "column {} of {set} holds labels, not features", block.name);
        let whole = model::load(path, None).map_err(|e| match e.downcast::<ImportError>() {
            Ok(e) => model::whole(path, e),
            Err(e) => e,
        })?;
        let graph = match &self.layer {
            None => whole,
            Some(layer) => up_to(&whole, layer)?,
        };
        let shapes = graph.shapes()?;
        let width: usize = shapes.last().map_or(0, |s| s.iter().product());
        if width != block.width as usize {
            let last = graph.nodes.last().map_or("", |n| n.name.as_str());
            bail!(
                "{} gives {width} numbers a row behind layer {last}: column {} of {set} takes {}",
                path.display(),
                block.name,
                block.width
            );
        }
        let input = shapes.into_iter().next().unwrap_or_default();
        Ok(Some(Layers { graph, input, scale: self.scale, offset: self.offset }))
    }
}

/// The part of `graph` that a run with everything up to `layer` frozen leaves to the owners.
fn up_to(graph: &Graph, layer: &str) -> anyhow::Result<Graph> {
    let Some(last) = graph.nodes.iter().rposition(|n| n.name == layer) else {
        let known: Vec<&str> = graph.nodes.iter().skip(1).map(|n| n.name.as_str()).collect();
        bail!("--layer: there is no layer {layer:?}: {}", known.join(", "));
    };
    let frozen = graph.nodes[..=last].iter().map(|n| n.name.clone()).collect();
    let spec = TrainSpec { frozen, ..TrainSpec::classifier() };
    match cut(graph, &spec)? {
        Some(cut) if cut.frozen.nodes.len() > last => Ok(cut.frozen),
        _ if last + 1 == graph.nodes.len() => Ok(graph.clone()),
        _ => bail!("--layer {layer}: layers behind it read earlier ones too, or none before it has weights"),
    }
}

impl Layers {
    /// What they make of `rows` rows.
    pub(super) fn features(&self, rows: usize, mut values: Vec<f32>) -> anyhow::Result<Vec<f32>> {
        values.iter_mut().for_each(|v| *v = (f64::from(*v) * self.scale + self.offset) as f32);
        Ok(self.graph.forward(rows, &values)?)
    }
}
