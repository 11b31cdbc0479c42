//! Bounds on gradients.

use super::spec::Clip;
use crate::tape::{Function, Tape, TapeError, ValueId};

/// Replaces gradients, summed over `batch` samples, by bounded ones.
pub(super) fn clip(tape: &mut Tape, gradients: &mut [ValueId], bound: Clip, batch: f64) -> Result<(), TapeError> {
    tape.enter("clip");
    match bound {
        Clip::Value(bound) => gradients.iter_mut().try_for_each(|g| {
            *g = within(tape, *g, bound * batch)?;
            Ok(())
        }),
        Clip::Norm(bound) => shorten(tape, gradients, bound * batch),
    }
}

/// min(max(x, -c), c) = relu(x + c) - relu(x - c) - c.
fn within(tape: &mut Tape, x: ValueId, c: f64) -> Result<ValueId, TapeError> {
    let raised = tape.offset(x, c)?;
    let raised = tape.relu(raised)?;
    let above = tape.offset(x, -c)?;
    let above = tape.relu(above)?;
    let y = tape.sub(raised, above)?;
    tape.offset(y, -c)
}

/// All gradients times 1 / sqrt(max(s, 1)), where s is the sum of the squares of gradient / c.
fn shorten(tape: &mut Tape, gradients: &mut [ValueId], c: f64) -> Result<(), TapeError> {
    let mut sum = None;
    for &g in gradients.iter() {
        let part = tape.scale(g, 1.0 / c)?;
        let squares = tape.mul(part, part)?;
        let s = tape.sum(squares, 0, false)?;
        sum = Some(match sum {
            None => s,
            Some(other) => tape.add(other, s)?,
        });
    }
    let Some(sum) = sum else { return Ok(()) };
    let above = tape.offset(sum, -1.0)?;
    let above = tape.relu(above)?;
    let length = tape.offset(above, 1.0)?;
    let factor = tape.function(length, Function::InverseSqrt)?;
    for g in gradients {
        let shape = tape.values[*g].shape.clone();
        let column = tape.reshape(*g, &[shape.iter().product(), 1])?;
        let shorter = tape.mul(column, factor)?;
        *g = tape.reshape(shorter, &shape)?;
    }
    Ok(())
}
