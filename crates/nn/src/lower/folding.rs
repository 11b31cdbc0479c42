//! Weights of a published model, computed on shares of what training leaves: once, and more precisely than in training.

use trefoil_mpc::program::Program;

use super::schedule::side_by_side;
use super::visit::Visitor;
use super::{FRACTION_BITS, LowerError};
use crate::tape::Tape;

/// Fraction bits of what enters a product of factors and kernels: a weight loses nothing beside its own last bit. These are
/// assumed to stay below 2^10.
pub(super) const WEIGHT_BITS: u32 = 26;
/// Fraction bits of what enters a product of a bias, a mean times a factor for one. A bias and what it is the sum of are
/// assumed to stay below 2^18: for a column that is constant the factor is large, whatever its mean. By each product a bias
/// is off by 2^-22 of its two operands.
pub(super) const BIAS_BITS: u32 = 22;
/// Fraction bits of what is left of a wide range.
pub(super) const UNIT_ARGUMENT_BITS: u32 = 22;

/// The program of a tape that reads and stores states of `of`, and no rows: `slots` names the state that each of the
/// tape's is.
pub fn folding(tape: &Tape, of: &Program, slots: &[usize]) -> Result<Program, LowerError> {
    let missing = |slot: &usize| LowerError::Operation {
        layer: "publish".into(),
        op: "state",
        reason: format!("there is no state {slot}"),
    };
    let place = |slot: &usize| Ok((*slot, of.states.get(*slot).ok_or_else(|| missing(slot))?.scale));
    let places: Vec<(usize, u32)> = slots.iter().map(place).collect::<Result<_, LowerError>>()?;
    if places.len() != tape.states.len() {
        return Err(missing(&places.len()));
    }
    let mut visitor = Visitor::new(tape, places);
    visitor.refine();
    let (steps, _) = visitor.steps()?;
    let program = Program {
        fraction_bits: FRACTION_BITS,
        input_shape: of.input_shape.clone(),
        weights: Vec::new(),
        states: of.states.clone(),
        rates: 0,
        steps: side_by_side(steps),
    };
    program.infer()?;
    Ok(program)
}
