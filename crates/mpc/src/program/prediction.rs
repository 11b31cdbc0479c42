//! A prediction's program with what the gatekeeper found: checked once, run for every request.

use std::ops::Deref;

use super::{Program, ProgramError, ValueInfo};
use crate::error::MpcError;
use crate::limits;

/// A program that was found to be a prediction. It reads as the program, which cannot be changed any more.
#[derive(Debug, Clone)]
pub struct Prediction {
    program: Program,
    values: Vec<ValueInfo>,
    most: usize,
    hash: [u8; 32],
}

impl Prediction {
    /// Checks a program: see [`Program::check_prediction`].
    pub fn new(program: Program) -> Result<Self, ProgramError> {
        let values = program.check_prediction()?;
        let (most, hash) = (limits::largest_batch(&program, &values), program.hash());
        Ok(Self { program, values, most, hash })
    }

    /// The hash that all parties compare, as of [`Program::hash`].
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The largest batch that it may be run on.
    pub fn largest_batch(&self) -> usize {
        self.most
    }

    /// The program and its values, for a batch that it may be run on.
    pub(crate) fn checked(&self, batch: usize) -> Result<Checked<'_>, MpcError> {
        limits::check_batch(batch, self.most)?;
        Ok(Checked { program: &self.program, values: &self.values })
    }
}

impl Deref for Prediction {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

/// A program and the values that the gatekeeper found, for a batch that was checked as well.
#[derive(Clone, Copy)]
pub(crate) struct Checked<'a> {
    pub(crate) program: &'a Program,
    pub(crate) values: &'a [ValueInfo],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Op, Step};

    fn program(ops: Vec<Op>) -> Program {
        let steps = std::iter::once(Op::Input).chain(ops).map(|op| Step { layer: "l".into(), op }).collect();
        Program { fraction_bits: 16, input_shape: vec![4], weights: vec![], states: vec![], rates: 0, steps }
    }

    #[test]
    fn what_was_found_is_what_would_be_found_again() {
        let p = program(vec![Op::Open { x: 0 }, Op::Truncate { x: 1, shift: 8 }]);
        let checked = Prediction::new(p.clone()).unwrap();
        assert_eq!((checked.hash(), checked.largest_batch()), (p.hash(), p.largest_batch().unwrap()));
        assert_eq!(checked.checked(3).unwrap().values, p.infer().unwrap());
        assert!(checked.checked(0).is_err() && checked.checked(checked.largest_batch() + 1).is_err());
    }

    #[test]
    fn other_programs_are_refused() {
        assert!(Prediction::new(program(vec![Op::Open { x: 7 }])).is_err());
        let mut trains = program(vec![]);
        trains.rates = 1;
        assert!(Prediction::new(trains).is_err());
    }
}
