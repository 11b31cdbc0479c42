//! What depends on states alone, computed once.

use std::collections::HashMap;

use super::float::{Batch, run};
use super::{Kind, Op, Role, Rows, State, Tape, TapeError};

impl Tape {
    /// The same tape for states that do not change: everything that depends on them alone is computed. Its states are
    /// what is left of that, with their values.
    pub fn folded(&self, states: &[Vec<f64>]) -> Result<(Tape, Vec<Vec<f64>>), TapeError> {
        self.folded_where(states, |_| true)
    }

    /// The same where only states of these slots do not change. The others follow as they are, if anything reads them.
    pub fn folded_where(
        &self,
        states: &[Vec<f64>],
        still: impl Fn(usize) -> bool,
    ) -> Result<(Tape, Vec<Vec<f64>>), TapeError> {
        let mut fixed = vec![false; self.values.len()];
        for (id, v) in self.values.iter().enumerate() {
            let operands = v.op.operands();
            let known = match v.op {
                Op::State { slot } => still(slot),
                _ => !operands.is_empty() && operands.iter().all(|x| fixed[*x]),
            };
            fixed[id] = known && v.rows == Rows::One && v.kind == Kind::Number && !matches!(v.op, Op::Store { .. });
        }
        let mut wanted = vec![false; self.values.len()];
        let readers = self.values.iter().enumerate().filter(|(id, _)| !fixed[*id]);
        readers.for_each(|(_, v)| v.op.operands().into_iter().for_each(|x| wanted[x] = true));
        self.outputs.iter().for_each(|x| wanted[*x] = true);
        let left: Vec<usize> = (0..self.values.len()).filter(|id| fixed[*id] && wanted[*id]).collect();

        let known = Tape { outputs: left.clone(), ..self.clone() };
        let rows = vec![0.0; self.record()];
        let rates = vec![0.0; self.rates];
        let mut values =
            run(&known.swept(), &mut states.to_vec(), &Batch { rows: &rows, samples: 1, rates: &rates, seed: 0 })?;

        let mut folded = Tape { states: Vec::new(), ..self.clone() };
        let changing = (0..self.values.len()).filter(|id| !fixed[*id]);
        for (slot, id) in left.into_iter().enumerate() {
            let value = &mut folded.values[id];
            let name = match value.op {
                Op::State { slot } => self.states[slot].name.clone(),
                _ => format!("{}/folded-{slot}", value.layer),
            };
            value.op = Op::State { slot };
            folded.states.push(State { name, shape: value.shape.clone(), role: Role::Fixed });
        }
        let mut moved = HashMap::new();
        for id in changing {
            let Op::State { slot } = self.values[id].op else { continue };
            let at = *moved.entry(slot).or_insert_with(|| {
                folded.states.push(self.states[slot].clone());
                values.push(states[slot].clone());
                values.len() - 1
            });
            folded.values[id].op = Op::State { slot: at };
        }
        Ok((folded.swept(), values))
    }
}
