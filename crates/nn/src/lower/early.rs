//! Which selections truncate: those whose results enter products without another comparison on the way.
//!
//! A selection truncates for free. In a tournament that is left to the ReLU behind it; in the backward pass the first
//! selection does it, so that those after it, of the same gradient, need no further opening.

use crate::tape::{Op, Tape, ValueId};

/// For each value whether it is a selection that had better truncate.
pub(super) fn truncating_selections(tape: &Tape) -> Vec<bool> {
    let mut multiplied = vec![false; tape.values.len()];
    let mut compared = vec![false; tape.values.len()];
    for id in (0..tape.values.len()).rev() {
        let op = &tape.values[id].op;
        let passes = |x: ValueId, multiplied: &mut [bool], compared: &mut [bool]| {
            multiplied[x] |= multiplied[id];
            compared[x] |= compared[id];
        };
        match op {
            Op::Product { x, y, .. } => (multiplied[*x], multiplied[*y]) = (true, true),
            Op::Sign { x } => compared[*x] = true,
            // What a selection selects from is compared where the bit comes from, not by what follows.
            Op::Select { x, .. } => multiplied[*x] |= multiplied[id],
            Op::Add { .. }
            | Op::Scale { .. }
            | Op::Window { .. }
            | Op::Unwindow { .. }
            | Op::Spread { .. }
            | Op::Reshape { .. }
            | Op::Pad { .. }
            | Op::Crop { .. }
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Drop { .. } => op.operands().into_iter().for_each(|x| passes(x, &mut multiplied, &mut compared)),
            _ => {}
        }
    }
    let selects = |id: ValueId| matches!(tape.values[id].op, Op::Select { .. });
    (0..tape.values.len()).map(|id| selects(id) && multiplied[id] && !compared[id]).collect()
}
