//! From a tape to a program for the servers: the same training step, in fixed point on shares.
//!
//! Values enter products at f = 16 fraction bits and leave them at 2f; comparisons and selections truncate for free.
//! Parameters are kept at [`PARAMETER_BITS`], so that a public learning rate of [`RATE_BITS`] times a gradient at 2f is
//! added to them exactly and without traffic: however small a step is, nothing of it is lost.
//!
//! What the ring can hold is assumed, not proved: parameters stay below 2^9 in absolute value, what an optimiser
//! remembers below 2^11, everything that is compared below 2^15, and everything else below 2^12. [`ranges`] measures
//! all of it on clear training.

mod arithmetic;
mod early;
mod encode;
mod extraction;
mod folding;
mod functions;
pub mod ranges;
mod schedule;
mod softmax;
mod summands;
mod visit;
mod wires;

use thiserror::Error;
use trefoil_mpc::program::{Op, Program, ProgramError, Step, WeightSpec};

use crate::tape::{Role, Tape};
pub use encode::{EncodeError, decode, encode, encode_rates};
pub use extraction::extraction;
pub use folding::folding;

/// Fraction bits f of what enters a product.
pub const FRACTION_BITS: u32 = 16;
/// Fraction bits of a public number of a step.
pub const RATE_BITS: u32 = 20;
/// Fraction bits of a parameter between steps.
pub const PARAMETER_BITS: u32 = 2 * FRACTION_BITS + RATE_BITS;
/// Fraction bits of everything else that is kept, but metrics.
pub const MEMORY_BITS: u32 = 2 * FRACTION_BITS;

/// A tape that the servers cannot run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LowerError {
    /// An operation that has no protocol.
    #[error("layer {layer}: {op}: {reason}")]
    Operation {
        /// The layer.
        layer: String,
        /// The operation.
        op: &'static str,
        /// Why it cannot be lowered.
        reason: String,
    },
    /// More than one output: a program reveals one value at most.
    #[error("{0} outputs: at most one is revealed")]
    Outputs(usize),
    /// The program is none that the servers would run.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// The program of a tape: it reads rows of a data set, and reveals the tape's output if it has one.
///
/// States keep their order, at the scales that the program names; public numbers keep theirs.
pub fn lower(tape: &Tape) -> Result<Program, LowerError> {
    let states: Vec<WeightSpec> = tape
        .states
        .iter()
        .map(|s| WeightSpec { name: s.name.clone(), shape: s.shape.clone(), scale: bits(s.role) })
        .collect();
    let places = states.iter().enumerate().map(|(slot, s)| (slot, s.scale)).collect();
    let mut visitor = visit::Visitor::new(tape, places);
    let (mut steps, output) = visitor.steps()?;
    if let Some((x, scale)) = output {
        let shift = scale.saturating_sub(FRACTION_BITS);
        steps.push(Step { layer: "output".into(), op: Op::Reveal { x, shift } });
    }
    let program = Program {
        fraction_bits: FRACTION_BITS,
        input_shape: vec![tape.record()],
        weights: Vec::new(),
        states,
        rates: tape.rates,
        steps: schedule::side_by_side(steps),
    };
    program.infer()?;
    Ok(program)
}

/// Fraction bits of a state.
fn bits(role: Role) -> u32 {
    match role {
        Role::Parameter => PARAMETER_BITS,
        Role::Fixed | Role::Memory => MEMORY_BITS,
        Role::Metric => FRACTION_BITS,
    }
}
