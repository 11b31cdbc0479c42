//! Who is shown class likelihoods.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Op, Program};

/// The server that computes softmax in the clear, and so learns likelihoods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// Alice: she learns the likelihood of every class for every row.
    Alice,
    /// Carol: she learns every row's likelihoods in an order of the classes that only alice and bob know.
    Carol,
    /// A fourth server, the helper: it learns every row's likelihoods in such an order, and nothing else of a run.
    Helper,
}

impl Program {
    /// The servers that learn likelihoods of the rows it reads.
    pub fn shown(&self) -> BTreeSet<Shown> {
        let shown = |op: &Op| if let Op::Likelihoods { shown, .. } = op { Some(*shown) } else { None };
        self.steps.iter().filter_map(|s| shown(&s.op)).collect()
    }
}
