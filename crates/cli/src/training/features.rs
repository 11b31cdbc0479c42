//! Features of frozen layers: who computes them, when, and what the servers are given for it.

use anyhow::bail;
use serde::Serialize;
use trefoil_client::training::Features;
use trefoil_client::{Content, Phase, RunSpec};
use trefoil_link::Network;
use trefoil_mpc::cost::{opening_rows, opening_weights};
use trefoil_nn::graph::Graph;

use super::data::{Columns, Records, numbers};
use super::description::Description;
use super::explain::{Cost, opened, total};

/// Where owners extract the features: leaves of the description what is trained on them, and puts them in the place of
/// the rows. Gives what the owners are to do.
pub(crate) fn by_owners(d: &mut Description, records: Option<&mut Records>) -> anyhow::Result<Option<String>> {
    if d.training.features != Features::Owners {
        return Ok(None);
    }
    let Some(cut) = d.training.cut()? else {
        bail!("[model] features = \"owners\": no layer with weights is frozen before the first that is trained");
    };
    if let Some(records) = records {
        let towers = d.training.spec.loss.towers();
        extract(&cut.frozen, &mut records.columns, towers)?;
    }
    let named = |n: &&trefoil_nn::graph::Node| d.training.spec.frozen.contains(&n.name);
    let last = cut.frozen.nodes.iter().rev().find(named).map_or("", |n| n.name.as_str());
    let note = format!(
        "The owners extract the features, {} numbers a row: trefoil data contribute --through MODEL --layer {last}",
        cut.width()?
    );
    (d.training.graph, d.training.spec) = (cut.rest, cut.spec);
    Ok(Some(note))
}

/// Puts the features of `frozen` in the place of each tower's column.
fn extract(frozen: &Graph, columns: &mut [Columns], towers: usize) -> anyhow::Result<()> {
    let size: usize = frozen.shapes()?.first().map_or(0, |s| s.iter().product());
    for c in columns.iter_mut().take(towers) {
        let width = c.block.width as usize;
        let encoding = match c.block.content {
            Content::Values(e) if width == size => e,
            _ => bail!(
                "[model] features = \"owners\": column {} holds {width} of the {size} numbers that the frozen layers \
                 take: its owner cannot extract features alone",
                c.block.name
            ),
        };
        let scaled = |v: &f32| (f64::from(*v) * encoding.scale + encoding.offset) as f32;
        let samples: Vec<f32> = c.values.iter().map(scaled).collect();
        let rows = samples.len() / size.max(1);
        let features = frozen.forward(rows, &samples)?;
        let name = format!("{}-features", c.block.name);
        *c = numbers(c.owner.clone(), &name, features.len() / rows.max(1), features);
    }
    Ok(())
}

/// What the extraction of a run takes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExtractionCost {
    rows: u32,
    batches: u32,
    numbers: usize,
    features: usize,
    #[serde(flatten)]
    pub(super) cost: Cost,
}

/// The cost of a run's extraction over `network`, exact in rounds and bytes.
pub(super) fn predicted(spec: &RunSpec, network: &Network) -> anyhow::Result<Option<ExtractionCost>> {
    let Some(e) = &spec.extraction else { return Ok(None) };
    let (batches, features) = (spec.places(Phase::Extract), e.width());
    let mut cost = opened(&opening_weights(&e.program), network);
    // All batches are alike but the last.
    let last = spec.extracted_rows(batches.saturating_sub(1)).rows();
    for (size, times) in [(e.batch, batches.saturating_sub(1)), (last, 1)] {
        if times > 0 {
            let mut each = total(&e.program, size, network)?;
            each.add(&opened(&opening_rows(size as usize * features), network));
            (0..times).for_each(|_| cost.add(&each));
        }
    }
    let numbers = e.program.input_shape.iter().product();
    Ok(Some(ExtractionCost { rows: spec.used().rows(), batches, numbers, features, cost }))
}

/// What the extraction does, in words.
pub(crate) fn words(spec: &RunSpec) -> Option<String> {
    let e = spec.extraction.as_ref()?;
    let mut layers: Vec<&str> = e.program.steps.iter().map(|s| s.layer.as_str()).collect();
    let mut seen = std::collections::BTreeSet::new();
    layers.retain(|l| !["input", "label", "features"].contains(l) && seen.insert(*l));
    Some(format!(
        "{} rows become features on shares before the first step, in batches of {}: {} numbers each instead of {}, by \
         {}. They stay shared",
        spec.used().rows(),
        e.batch,
        e.width(),
        e.program.input_shape.iter().product::<usize>(),
        layers.join(", ")
    ))
}
