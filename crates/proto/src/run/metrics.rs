//! Metrics: sums over the rows of an epoch, and never over so few that one of them could be told.

use std::collections::{BTreeMap, BTreeSet};

use trefoil_mpc::program::{Op, Program, ProgramError};

use super::flow::{depends, reads};
use super::{Phase, RunError, RunSpec};
use crate::dataset::Declaration;

/// How a value has a metric's former value in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Former {
    /// Not at all.
    Absent,
    /// That of this metric once, with something added.
    Added(usize),
    /// In some other way, or those of several.
    Otherwise,
}

impl RunSpec {
    /// Checks that every metric that reads rows is its former value plus something in which no metric and no public
    /// number of the step has a part, that no other state is made of metrics, and that those which leave the servers are
    /// sums over as many rows as the data set demands.
    pub(super) fn check_metrics(&self, declaration: &Declaration) -> Result<(), RunError> {
        let (leaving, least) = (self.leaving(), declaration.metric_rows);
        let few = |(slot, rows): &(&usize, &u64)| leaving.contains(slot) && **rows < u64::from(least);
        match self.rows_summed()?.iter().find(few) {
            None => Ok(()),
            Some((slot, rows)) => {
                let metric = self.step.states.get(*slot).map_or_else(|| slot.to_string(), |s| s.name.clone());
                Err(RunError::FewRows { metric, rows: *rows, least })
            }
        }
    }

    /// How many rows are behind what a program reveals, if that is made of nothing but metrics that are sums over rows:
    /// the fewest of any. None where it shows other states.
    pub fn rows_behind(&self, program: &Program) -> Option<u64> {
        let summed = self.rows_summed().ok()?;
        reads(program).map(|slot| summed.get(&slot).copied()).min().flatten()
    }

    /// Over how many rows of an epoch each metric is a sum, at the least; those that read no rows are left out. To what
    /// steps and checks both add, the fewer count: the others may have no part in it.
    fn rows_summed(&self) -> Result<BTreeMap<usize, u64>, RunError> {
        let metrics: BTreeSet<usize> = self.metrics.iter().map(|m| *m as usize).collect();
        let trained = sums(&self.step, "a step", &metrics)?;
        let rows = u64::from(self.steps()) * u64::from(self.batch);
        let mut all: BTreeMap<usize, u64> = trained.into_iter().map(|slot| (slot, rows)).collect();
        if let Some(check) = &self.check {
            let checked = u64::from(self.places(Phase::Check)) * u64::from(check.batch);
            for slot in sums(&check.program, "the check", &metrics)? {
                let rows = all.entry(slot).or_insert(checked);
                *rows = checked.min(*rows);
            }
        }
        Ok(all)
    }
}

/// The metrics to which a program adds something of its rows; that it does nothing else with any.
fn sums(program: &Program, which: &str, metrics: &BTreeSet<usize>) -> Result<BTreeSet<usize>, RunError> {
    let unfit = |reason: String| Err(RunError::Unfit { which: which.into(), reason });
    let former = former(program, metrics).map_err(|source| RunError::Program { which: which.into(), source })?;
    let is_metric = |op: &Op| matches!(op, Op::State { slot } if metrics.contains(slot));
    let from_rows = depends(program, |op| matches!(op, Op::Rows));
    let weighted = depends(program, |op| matches!(op, Op::Rate { .. }));
    let read = depends(program, |op| matches!(op, Op::Rows) || is_metric(op));
    let of = |x: usize| former.get(x).copied().unwrap_or(Former::Otherwise);
    let holds = |of: &[bool], x: usize| of.get(x).copied().unwrap_or(true);
    let mut all = BTreeSet::new();
    for step in &program.steps {
        let Op::Store { slot, x } = step.op else { continue };
        if !metrics.contains(&slot) {
            if of(x) != Former::Absent {
                return unfit(format!("stores in state {slot}, which is no metric, what it makes of metrics"));
            }
        } else if holds(&read, x) {
            if of(x) != Former::Added(slot) {
                let what = "something else than its former value and a sum over rows";
                return unfit(format!("stores in metric {slot} {what}"));
            }
            if holds(&weighted, x) {
                return unfit(format!("weighs rows in metric {slot} by public numbers of the step"));
            }
            if holds(&from_rows, x) {
                all.insert(slot);
            }
        }
    }
    Ok(all)
}

/// How each value of a program has metrics' former values in it. Less bits than the metric has would cut it off, and many
/// more would push it out of the ring.
fn former(program: &Program, metrics: &BTreeSet<usize>) -> Result<Vec<Former>, ProgramError> {
    let mut known: Vec<Former> = Vec::with_capacity(program.steps.len());
    let most = program.fraction_bits.saturating_mul(2);
    for (step, info) in program.steps.iter().zip(program.infer()?) {
        let of = |x: &usize| known.get(*x).copied().unwrap_or(Former::Otherwise);
        let value = match &step.op {
            Op::State { slot } if metrics.contains(slot) => Former::Added(*slot),
            Op::Open { x } | Op::Truncate { x, .. } | Op::Reshape { x, .. } => of(x),
            Op::Scale { x, factor, extra } if 1_i64.checked_shl(*extra) == Some(*factor) => of(x),
            Op::Add { x, y } => match [of(x), of(y)] {
                [Former::Absent, other] | [other, Former::Absent] => other,
                _ => Former::Otherwise,
            },
            op if op.operands().iter().all(|x| of(x) == Former::Absent) => Former::Absent,
            _ => Former::Otherwise,
        };
        let more = |slot: usize| program.states.get(slot).and_then(|s| info.scale.checked_sub(s.scale));
        known.push(match value {
            Former::Added(slot) if more(slot).is_none_or(|more| more > most) => Former::Otherwise,
            value => value,
        });
    }
    Ok(known)
}
