//! What depends on states alone, computed once.

use super::float::{Batch, run};
use super::{Kind, Op, Role, Rows, State, Tape, TapeError};

impl Tape {
    /// The same tape for states that do not change: everything that depends on them alone is computed. Its states are
    /// what is left of that, with their values.
    pub fn folded(&self, states: &[Vec<f64>]) -> Result<(Tape, Vec<Vec<f64>>), TapeError> {
        let mut fixed = vec![false; self.values.len()];
        for (id, v) in self.values.iter().enumerate() {
            let operands = v.op.operands();
            let known = matches!(v.op, Op::State { .. }) || !operands.is_empty() && operands.iter().all(|x| fixed[*x]);
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
        let values =
            run(&known.swept(), &mut states.to_vec(), &Batch { rows: &rows, samples: 1, rates: &rates, seed: 0 })?;

        let mut folded = Tape { states: Vec::new(), ..self.clone() };
        for (slot, id) in left.into_iter().enumerate() {
            let value = &mut folded.values[id];
            let name = match value.op {
                Op::State { slot } => self.states[slot].name.clone(),
                _ => format!("{}/folded-{slot}", value.layer),
            };
            value.op = Op::State { slot };
            folded.states.push(State { name, shape: value.shape.clone(), role: Role::Fixed });
        }
        Ok((folded.swept(), values))
    }
}
