//! What a run's programs let through from the rows, as far as their form tells.
//!
//! This finds what is written plainly: rows, or parts of them, stored as they are. It does not judge what programs mean:
//! whoever multiplies a row by a state that holds ones has it in a state, and is not found.

use std::collections::BTreeSet;

use trefoil_mpc::program::{Op, Program, ValueId};

use super::check::unfit;
use super::{RunError, RunSpec};

/// What a value may have of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Flow {
    /// Nothing.
    Nothing,
    /// What came of them with a weight in between, or a sum of many.
    Mixed,
    /// Rows as they are, or linear functions of them.
    Rows,
    /// The same of rows that were chosen by what is in them or at random: a sum of many may be one of them.
    Chosen,
}

impl Flow {
    /// Of a sum: an unknown number hides what it is added to.
    fn plus(self, other: Self) -> Self {
        if self.min(other) == Flow::Mixed { Flow::Mixed } else { self.max(other) }
    }

    /// Of a product: a state that is multiplied with a row is taken for a weight.
    fn times(self, other: Self) -> Self {
        match (self.min(other), self.max(other)) {
            (Flow::Rows | Flow::Chosen, _) => Flow::Chosen,
            (_, Flow::Nothing) => Flow::Nothing,
            _ => Flow::Mixed,
        }
    }

    /// Of a function that is not linear, or a choice.
    fn chosen(self) -> Self {
        if self == Flow::Rows { Flow::Chosen } else { self }
    }
}

/// The flow into each value of a program, where the states in `kept` hold rows. `few`: whether a sum over its batch is
/// one of less rows than a metric must have.
fn flows(program: &Program, kept: &BTreeSet<usize>, few: bool) -> Vec<Flow> {
    let mut known: Vec<Flow> = Vec::with_capacity(program.steps.len());
    for step in &program.steps {
        let of = |x: &ValueId| known.get(*x).copied().unwrap_or(Flow::Chosen);
        let flow = match &step.op {
            Op::Rows => Flow::Rows,
            Op::State { slot } if kept.contains(slot) => Flow::Chosen,
            Op::Add { x, y } => of(x).plus(of(y)),
            Op::Product { x, y, .. } | Op::Select { bit: y, x, .. } => of(x).times(of(y)),
            Op::Linear { x, .. } => of(x).times(Flow::Nothing),
            Op::Sum { x, batch: true, .. } if !few && of(x) == Flow::Rows => Flow::Mixed,
            Op::Drop { x, .. }
            | Op::Relu { x, .. }
            | Op::MaxPool { x, .. }
            | Op::Sign { x, .. }
            | Op::Piecewise { x, .. }
            | Op::Argmax { x, .. }
            | Op::Likelihoods { x, .. } => of(x).chosen(),
            op => op.operands().iter().map(of).max().unwrap_or(Flow::Nothing),
        };
        known.push(flow);
    }
    known
}

/// The states that a program reads.
pub(super) fn reads(program: &Program) -> impl Iterator<Item = usize> + '_ {
    program.steps.iter().filter_map(|s| if let Op::State { slot } = s.op { Some(slot) } else { None })
}

/// For each value of a program whether it depends on what `begins` says.
pub(super) fn depends(program: &Program, begins: impl Fn(&Op) -> bool) -> Vec<bool> {
    let mut known: Vec<bool> = Vec::with_capacity(program.steps.len());
    for step in &program.steps {
        let inherited = step.op.operands().iter().any(|x| known.get(*x).copied().unwrap_or(true));
        known.push(begins(&step.op) || inherited);
    }
    known
}

impl RunSpec {
    /// The states that leave the servers: a reveal reads them, or the published model is made of them.
    pub(super) fn leaving(&self) -> BTreeSet<usize> {
        let mut all: BTreeSet<usize> = self.reveals.iter().flat_map(|d| reads(&d.program)).collect();
        if let Some(p) = &self.publish {
            all.extend(p.weights.iter().map(|w| *w as usize));
            all.extend(p.finish.iter().flat_map(reads));
        }
        all
    }

    /// The states that may contain rows as they are, and leave the servers: a step stores there what comes of rows
    /// without a weight in between, or a sum over less than `least` rows.
    pub fn may_contain_rows(&self, least: u32) -> Vec<u32> {
        self.leaving().intersection(&self.holding(least)).map(|s| *s as u32).collect()
    }

    /// Checks that steps and checks show likelihoods of one value at most, and not of rows as they are.
    pub(super) fn check_likelihoods(&self, least: u32) -> Result<(), RunError> {
        let kept = self.holding(least);
        let check = self.check.iter().map(|c| ("the check", &c.program, c.batch));
        for (which, program, batch) in [("a step", &self.step, self.batch)].into_iter().chain(check) {
            let shown = |op: &Op| if let Op::Likelihoods { x, .. } = op { Some(*x) } else { None };
            let shown: Vec<ValueId> = program.steps.iter().filter_map(|s| shown(&s.op)).collect();
            if shown.len() > 1 {
                return Err(unfit(which, format!("shows likelihoods of {} values: one at most may be", shown.len())));
            }
            let known = flows(program, &kept, batch < least);
            if shown.iter().any(|x| known.get(*x).is_none_or(|f| *f >= Flow::Rows)) {
                return Err(unfit(which, "shows a server rows as they are, as if they were logits"));
            }
        }
        Ok(())
    }

    /// All states that may contain rows as they are.
    fn holding(&self, least: u32) -> BTreeSet<usize> {
        let check = self.check.iter().map(|c| (&c.program, c.batch));
        let finish = self.publish.iter().filter_map(|p| p.finish.as_ref()).map(|f| (f, 1));
        let programs: Vec<(&Program, u32)> =
            [(&self.step, self.batch)].into_iter().chain(check).chain(finish).collect();
        let mut kept = BTreeSet::new();
        loop {
            let before = kept.len();
            for (program, batch) in &programs {
                let known = flows(program, &kept, *batch < least);
                let stored = program.steps.iter().filter_map(|s| match s.op {
                    Op::Store { slot, x } if known.get(x).is_none_or(|f| *f >= Flow::Rows) => Some(slot),
                    _ => None,
                });
                kept.extend(stored);
            }
            if kept.len() == before {
                return kept;
            }
        }
    }
}
