//! Metrics: sums over the rows of an epoch, and never over so few that one of them could be told.

use std::collections::BTreeSet;

use trefoil_mpc::program::{Op, Program};

use super::flow::{depends, reads};
use super::{Order, Phase, RunError, RunSpec};
use crate::dataset::Declaration;

/// How a value has a metric's former value in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Former {
    /// Not at all.
    Absent,
    /// Once, with something added.
    Added,
    /// In some other way, or another metric's.
    Otherwise,
}

impl RunSpec {
    /// Checks that every metric that reads rows is its former value plus something in which no metric and no public
    /// number of the step has a part, that no other state is made of metrics, and that those which leave the servers are
    /// sums over as many rows as the data set demands.
    pub(super) fn check_metrics(&self, declaration: &Declaration) -> Result<(), RunError> {
        let (leaving, least) = (self.leaving(), declaration.metric_rows);
        for slot in self.metrics.iter().map(|m| *m as usize) {
            if let Some(rows) = self.rows_summed(slot)?.filter(|r| leaving.contains(&slot) && *r < u64::from(least)) {
                let metric = self.step.states.get(slot).map_or_else(|| slot.to_string(), |s| s.name.clone());
                return Err(RunError::FewRows { metric, rows, least });
            }
        }
        Ok(())
    }

    /// How many rows are behind what a program reveals, if that is made of nothing but metrics that are sums over rows:
    /// the fewest of any. None where it shows other states.
    pub fn rows_behind(&self, program: &Program) -> Option<u64> {
        let rows = |slot| if self.is_metric(slot) { self.rows_summed(slot).ok().flatten() } else { None };
        reads(program).map(rows).min().flatten()
    }

    /// Over how many rows of an epoch a metric is a sum; none where it reads no rows.
    fn rows_summed(&self, slot: usize) -> Result<Option<u64>, RunError> {
        let trained = self.sums(&self.step, "a step", slot)?.then(|| self.rows_of_an_epoch());
        let checked = match &self.check {
            Some(c) if self.sums(&c.program, "the check", slot)? => {
                Some(u64::from(self.places(Phase::Check)) * u64::from(c.batch))
            }
            _ => None,
        };
        Ok(trained.max(checked))
    }

    /// Whether a program adds something of its rows to a metric, and does nothing else with it.
    fn sums(&self, program: &Program, which: &str, slot: usize) -> Result<bool, RunError> {
        let unfit = |reason: String| Err(RunError::Unfit { which: which.into(), reason });
        let former = self.former(program, slot);
        let mut stored = None;
        for step in &program.steps {
            match step.op {
                Op::Store { slot: to, x } if to == slot => stored = Some(x),
                Op::Store { slot: to, x } if !self.is_metric(to) && former[x] != Former::Absent => {
                    return unfit(format!("stores in state {to}, which is no metric, what it makes of metrics"));
                }
                _ => {}
            }
        }
        let read = |op: &Op| matches!(op, Op::Rows) || matches!(op, Op::State { slot } if self.is_metric(*slot));
        let Some(x) = stored.filter(|x| depends(program, read)[*x]) else { return Ok(false) };
        if former[x] != Former::Added {
            return unfit(format!("stores in metric {slot} something else than its former value and a sum over rows"));
        }
        if depends(program, |op| matches!(op, Op::Rate { .. }))[x] {
            return unfit(format!("weighs rows in metric {slot} by public numbers of the step"));
        }
        Ok(depends(program, |op| matches!(op, Op::Rows))[x])
    }

    fn is_metric(&self, slot: usize) -> bool {
        self.metrics.contains(&(slot as u32))
    }

    /// How each value of a program has the former value of metric `own` in it.
    fn former(&self, program: &Program, own: usize) -> Vec<Former> {
        let mut known: Vec<Former> = Vec::with_capacity(program.steps.len());
        for step in &program.steps {
            let of = |x: &usize| known.get(*x).copied().unwrap_or(Former::Otherwise);
            let value = match &step.op {
                Op::State { slot } if *slot == own => Former::Added,
                Op::State { slot } if self.is_metric(*slot) => Former::Otherwise,
                Op::Open { x } | Op::Truncate { x, .. } | Op::Reshape { x, .. } => of(x),
                Op::Scale { x, factor, extra } if 1_i64.checked_shl(*extra) == Some(*factor) => of(x),
                Op::Add { x, y } => match [of(x), of(y)] {
                    [Former::Absent, other] | [other, Former::Absent] => other,
                    _ => Former::Otherwise,
                },
                op if op.operands().iter().all(|x| of(x) == Former::Absent) => Former::Absent,
                _ => Former::Otherwise,
            };
            known.push(value);
        }
        known
    }

    /// The fewest different rows that an epoch trains on.
    fn rows_of_an_epoch(&self) -> u64 {
        let each = u64::from(self.steps()) * u64::from(self.batch);
        match &self.order {
            Order::Drawn => each,
            Order::Fixed(list) => {
                let epochs = list.chunks(usize::try_from(each).unwrap_or(usize::MAX).max(1));
                epochs.map(|e| e.iter().collect::<BTreeSet<_>>().len() as u64).min().unwrap_or(0)
            }
        }
    }
}
