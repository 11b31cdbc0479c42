//! The rows of a run while they are open: in one place, so that they can be let go at once, whoever works on the run.

use std::sync::MutexGuard;

use trefoil_mpc::masked::rows::{HeldRows, pick_rows};
use trefoil_proto::control::Refusal;
use trefoil_proto::dataset::Declaration;
use trefoil_proto::run::RunSpec;
use trefoil_ring::Words;

use super::live::{Live, PartError};
use super::{Run, state_sizes};
use crate::budget::{Reserved, megabytes};
use crate::core::{Core, lock};
use crate::error::Fault;

/// A data set opened under the masks of one lot; features that are made of it are under lots of their own.
pub(crate) struct OpenRows {
    lot: u64,
    /// Deltas, none at the producer; masks: whole at the producer, own part at an evaluator.
    table: HeldRows,
    /// The row of the data set that the table begins with: another than the first where it holds features.
    first: usize,
    /// Features so far, in their places, while they are being made.
    features: Option<HeldRows>,
    /// The memory that they and the states take.
    _reserved: Reserved,
}

impl OpenRows {
    /// Rows of `run` that were opened under the masks of `lot`.
    pub(crate) fn new(lot: u64, table: HeldRows, run: &Run, reserved: Reserved) -> Self {
        let features = run.spec.extraction.is_some().then(|| {
            let n = features(&run.spec);
            let delta = if table.delta.is_empty() { Words::default() } else { Words::zeros(n) };
            HeldRows { delta, lambda: Words::zeros(n) }
        });
        Self { lot, table, first: 0, features, _reserved: reserved }
    }
}

/// Numbers of all features that a run makes.
fn features(spec: &RunSpec) -> usize {
    spec.extraction.as_ref().map_or(0, |e| spec.used().rows() as usize * e.width())
}

/// Bytes that a run takes at an evaluator while it is open: deltas and masks of the whole set and of the features made of
/// it, and the states.
pub(crate) fn memory(spec: &RunSpec, declaration: &Declaration) -> u64 {
    let elements = u64::from(declaration.rows) * declaration.width() as u64 + features(spec) as u64;
    16 * elements + 8 * state_sizes(spec).sum::<usize>() as u64
}

impl Run {
    /// The lot under which the rows are open, if steps can read them or their features.
    pub(crate) fn rows_lot(&self) -> Option<u64> {
        lock(&self.rows).as_ref().filter(|o| o.features.is_none()).map(|o| o.lot)
    }

    /// Reserves memory for the rows that are about to be opened, in place of those that may be open.
    pub(crate) fn reserve(&self, core: &Core) -> Result<Reserved, Fault> {
        *lock(&self.rows) = None;
        let refuse = |why, reason| Fault::Refused(why, reason);
        let info = core.sets.info(self.spec.set);
        let info = info.ok_or_else(|| refuse(Refusal::UnknownSet, format!("{} has no such data set", core.party)))?;
        let needed = memory(&self.spec, &info.declaration);
        core.run_memory.hold(needed).map_err(|free| {
            let (name, party) = (&self.spec.name, core.party);
            let (needed, free) = (megabytes(needed), megabytes(free));
            refuse(
                Refusal::Busy,
                format!("run {name} waits: it takes {needed} of memory, {party} has {free} left for runs"),
            )
        })
    }

    /// Keeps the rows open, unless the run lost an agreement or its data in the meantime.
    pub(crate) fn keep_open(&self, core: &Core, rows: OpenRows) -> Result<(), Fault> {
        let mut open = lock(&self.rows);
        match self.obstacle(core) {
            None => *open = Some(rows),
            Some(reason) => return Err(Fault::Own(reason)),
        }
        Ok(())
    }

    /// Lets go of the rows at once, and of the states unless somebody is at work on them, who will find no rows and let go
    /// of the states with [`Run::leave`].
    pub(crate) fn release(&self) {
        *lock(&self.rows) = None;
        if let Ok(mut live) = self.live.try_lock() {
            *live = None;
        }
    }

    /// After work on the states: nothing goes on from them if it failed, or if the rows were let go meanwhile.
    pub(crate) fn leave(&self, mut live: MutexGuard<'_, Option<Live>>, failed: bool) {
        if failed {
            *live = None;
        }
        drop(live);
        if lock(&self.rows).is_none() {
            self.release();
        }
    }

    /// Deltas and masks of some rows.
    pub(super) fn pick(&self, width: usize, rows: &[usize]) -> Result<(Words, Words), PartError> {
        let open = lock(&self.rows);
        let OpenRows { table, first, .. } = open.as_ref().ok_or_else(closed)?;
        let rows: Vec<usize> = rows.iter().map(|r| r.wrapping_sub(*first)).collect();
        let pick = |table: &Words| if table.is_empty() { Ok(Words::default()) } else { pick_rows(table, width, &rows) };
        Ok((pick(&table.delta)?, pick(&table.lambda)?))
    }

    /// Puts batch number `index` of the features in its place. After the last one they are what is read, and the rows are
    /// dropped.
    pub(super) fn keep_features(&self, index: u32, made: &HeldRows, last: bool) -> Result<(), PartError> {
        let mut open = lock(&self.rows);
        let open = open.as_mut().ok_or_else(closed)?;
        let Some(features) = &mut open.features else { return Err(closed()) };
        let (used, rows) = (self.spec.used(), self.spec.extracted_rows(index));
        let from = made.lambda.len() / rows.rows().max(1) as usize * (rows.first - used.first) as usize;
        for (table, new) in [(&mut features.delta, &made.delta), (&mut features.lambda, &made.lambda)] {
            if !new.is_empty() {
                table[from..from + new.len()].copy_from_slice(new);
            }
        }
        if last && let Some(features) = open.features.take() {
            (open.table, open.first) = (features, used.first as usize);
        }
        Ok(())
    }
}

/// Rows that were let go.
fn closed() -> PartError {
    PartError::Halted("its rows are not open".into())
}

impl Core {
    /// Lets go of the rows of these runs.
    pub(crate) fn release_runs(&self, runs: &[u64]) {
        runs.iter().filter_map(|r| self.runs.get(*r)).for_each(|r| r.release());
    }
}
