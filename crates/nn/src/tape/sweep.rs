//! Takes out what neither a state nor an output depends on.

use super::{Op, Tape};

impl Tape {
    /// The tape without values that nobody reads.
    pub fn swept(mut self) -> Self {
        let n = self.values.len();
        let mut live = vec![false; n];
        live[0] = true;
        self.outputs.iter().for_each(|&o| live[o] = true);
        for i in (0..n).rev() {
            live[i] |= matches!(self.values[i].op, Op::Store { .. });
            if live[i] {
                self.values[i].op.operands().into_iter().for_each(|o| live[o] = true);
            }
        }
        let mut names = vec![0; n];
        let mut kept = Vec::new();
        for (i, mut value) in std::mem::take(&mut self.values).into_iter().enumerate() {
            names[i] = kept.len();
            if live[i] {
                value.op = value.op.renamed(|v| names[v]);
                kept.push(value);
            }
        }
        self.values = kept;
        self.outputs.iter_mut().for_each(|o| *o = names[*o]);
        self.rules.clear();
        self
    }
}
