//! Graph edits before compilation, each saying what it did: fewer values to open, fewer comparisons.

mod affine;
mod edit;
pub(crate) mod order;
mod tidy;

use crate::graph::{Graph, GraphError};

/// Runs every pass until none finds anything to do; gives a note for each edit.
///
/// The result computes the same function up to the rounding of folded weights, and holds no
/// [`crate::graph::Layer::ChannelAffine`].
pub fn run(graph: &mut Graph) -> Result<Vec<String>, GraphError> {
    let mut notes = Vec::new();
    graph.shapes()?;
    edit::sweep(graph);
    loop {
        let before = notes.len();
        tidy::settle_norms(graph, &mut notes);
        tidy::simplify_activations(graph, &mut notes);
        tidy::drop_no_ops(graph, &mut notes)?;
        tidy::merge_padding(graph, &mut notes)?;
        affine::fold(graph, &mut notes)?;
        order::pool_first(graph, &mut notes);
        if notes.len() == before {
            break;
        }
    }
    affine::make_diagonal(graph, &mut notes)?;
    graph.shapes()?;
    Ok(notes)
}
