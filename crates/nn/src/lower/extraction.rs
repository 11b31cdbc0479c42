//! Features by layers that do not change: a program on rows and fixed weights, whose last value is a row of features.

use trefoil_mpc::program::{Op as Step, Program, Step as ProgramStep, WeightSpec};

use super::schedule::side_by_side;
use super::visit::Visitor;
use super::{FRACTION_BITS, LowerError, MEMORY_BITS};
use crate::tape::{Op, Tape};

/// The program of a tape that reads rows and states and stores nothing. Its states become fixed weights, opened once for
/// all rows; its outputs, joined, are the last value, additive, at f fraction bits.
///
/// What enters products is best computed beforehand ([`Tape::folded`]): it is taken at the scale it is used at.
pub fn extraction(tape: &Tape) -> Result<Program, LowerError> {
    let scales = scales(tape);
    let mut visitor = Visitor::new(tape, scales.iter().copied().enumerate().collect());
    visitor.fix();
    let steps = visitor.joined(FRACTION_BITS)?;
    let weight = |(s, scale): (&crate::tape::State, &u32)| WeightSpec {
        name: s.name.clone(),
        shape: s.shape.clone(),
        scale: *scale,
    };
    let program = Program {
        fraction_bits: FRACTION_BITS,
        input_shape: vec![tape.record()],
        weights: tape.states.iter().zip(&scales).map(weight).collect(),
        states: Vec::new(),
        rates: 0,
        steps: side_by_side(needed(steps)),
    };
    program.infer()?;
    Ok(program)
}

/// Fraction bits of each state: f where it is multiplied, else those of a product, which it is added to.
fn scales(tape: &Tape) -> Vec<u32> {
    let mut scales = vec![MEMORY_BITS; tape.states.len()];
    for v in &tape.values {
        if let Op::Product { x, y, .. } = v.op {
            for operand in [x, y] {
                if let Op::State { slot } = tape.values[operand].op {
                    scales[slot] = FRACTION_BITS;
                }
            }
        }
    }
    scales
}

/// The steps that the last one depends on, and the rows.
fn needed(steps: Vec<ProgramStep>) -> Vec<ProgramStep> {
    let mut live = vec![false; steps.len()];
    live.first_mut().into_iter().for_each(|l| *l = true);
    live.last_mut().into_iter().for_each(|l| *l = true);
    for i in (0..steps.len()).rev() {
        if live[i] {
            steps[i].op.operands().into_iter().for_each(|x| live[x] = true);
        }
    }
    let mut names = vec![0; steps.len()];
    let mut kept: Vec<ProgramStep> = Vec::new();
    for (i, step) in steps.into_iter().enumerate() {
        names[i] = kept.len();
        if live[i] {
            let op: Step = step.op.renamed(|x| names[x]);
            kept.push(ProgramStep { op, ..step });
        }
    }
    kept
}
