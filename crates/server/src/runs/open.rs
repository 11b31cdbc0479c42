//! The rows of a run while they are open: in one place, so that they can be let go at once, whoever works on the run.

use trefoil_mpc::masked::rows::{HeldRows, pick_rows};
use trefoil_proto::control::Refusal;
use trefoil_proto::dataset::Declaration;
use trefoil_proto::run::RunSpec;
use trefoil_ring::Words;

use super::live::PartError;
use super::{Run, state_sizes};
use crate::budget::{Reserved, megabytes};
use crate::core::{Core, lock};
use crate::error::Fault;

/// A data set opened under the masks of one lot.
pub(crate) struct OpenRows {
    lot: u64,
    /// Deltas, none at the producer; masks: whole at the producer, own part at an evaluator.
    table: HeldRows,
    /// The memory that they and the states take.
    _reserved: Reserved,
}

impl OpenRows {
    /// Rows that were opened under the masks of `lot`.
    pub(crate) fn new(lot: u64, table: HeldRows, reserved: Reserved) -> Self {
        Self { lot, table, _reserved: reserved }
    }
}

/// Bytes that a run takes at an evaluator while it is open: deltas and masks of the whole set, and the states.
pub(crate) fn memory(spec: &RunSpec, declaration: &Declaration) -> u64 {
    let elements = u64::from(declaration.rows) * declaration.width() as u64;
    16 * elements + 8 * state_sizes(spec).sum::<usize>() as u64
}

impl Run {
    /// The lot under which the rows are open, if they are.
    pub(crate) fn rows_lot(&self) -> Option<u64> {
        lock(&self.rows).as_ref().map(|o| o.lot)
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

    /// Lets go of the rows at once, and of the states unless somebody is at work on them, who will find no rows.
    pub(crate) fn release(&self) {
        *lock(&self.rows) = None;
        if let Ok(mut live) = self.live.try_lock() {
            *live = None;
        }
    }

    /// Deltas and masks of some rows.
    pub(super) fn pick(&self, width: usize, rows: &[usize]) -> Result<(Words, Words), PartError> {
        let open = lock(&self.rows);
        let table = &open.as_ref().ok_or_else(|| PartError::Halted("its rows are not open".into()))?.table;
        let pick = |table: &Words| if table.is_empty() { Ok(Words::default()) } else { pick_rows(table, width, rows) };
        Ok((pick(&table.delta)?, pick(&table.lambda)?))
    }
}

impl Core {
    /// Lets go of the rows of these runs.
    pub(crate) fn release_runs(&self, runs: &[u64]) {
        runs.iter().filter_map(|r| self.runs.get(*r)).for_each(|r| r.release());
    }
}
