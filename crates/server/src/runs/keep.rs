//! Runs as a party keeps them: checked, staged, kept, taken up after a restart, finished, erased.

use std::sync::Arc;
use std::time::Duration;

use trefoil_mpc::program::Shown;
use trefoil_prg::{Party, Seed};
use trefoil_proto::Role;
use trefoil_proto::control::{MAX_BULK, Refusal};
use trefoil_proto::run::{Phase, Position, RunSpec};
use trefoil_ring::Words;

use super::open::memory;
use super::{Run, all_states};
use crate::budget::megabytes;
use crate::core::{Core, complete, lock};
use crate::error::Fault;
use crate::models::check_manifest;
use crate::probe::Point;
use crate::store::{Initial, Notes, Store, StoreError, StoredRun};

type Refused = (Refusal, String);

/// Bytes of a data set that a server reads, masks and sends in a second, at the least.
const PACE: u64 = 4 << 20;

/// Checks a run against itself, the cluster file and the data set.
pub(crate) fn check_run(core: &Core, spec: &RunSpec) -> Result<(), Refused> {
    let invalid = |reason: String| Err((Refusal::Invalid, reason));
    let Some(info) = core.sets.info(spec.set) else {
        return Err((Refusal::UnknownSet, format!("no data set of number {}", spec.set)));
    };
    spec.check(&info.declaration).or_else(|e| invalid(e.to_string()))?;
    let client = |name: &str| core.cluster.client(name);
    if !client(&spec.owner).is_some_and(|c| c.roles.contains(&Role::Owner)) {
        let reason = format!("{} may not train: the cluster file does not name it an owner", spec.owner);
        return Err((Refusal::Denied, reason));
    }
    let recipients = spec.reveals.iter().map(|d| d.recipient.as_str());
    if let Some(name) = recipients.chain([spec.coordinator.as_str()]).find(|n| client(n).is_none()) {
        return invalid(format!("the cluster file names no client {name:?}"));
    }
    if core.cluster.helper.is_none() && spec.shows_likelihoods_to().contains(&Shown::Helper) {
        return invalid("the run shows class likelihoods to the helper: the cluster file has no [helper]".into());
    }
    if all_states(spec).is_none() {
        return invalid(format!("more than {} elements in all states", MAX_BULK / 8));
    }
    let (needed, limit) = (memory(spec, &info.declaration), core.run_memory.limit());
    if needed > limit {
        let (needed, limit, party) = (megabytes(needed), megabytes(limit), core.party);
        return invalid(format!(
            "the run takes {needed} of memory for its rows and states, {party} allows runs {limit} (run_memory_mb under \
             [server] in the cluster file): raise it, take fewer rows, or features = \"steps\""
        ));
    }
    if let Some(publish) = &spec.publish {
        check_manifest(&publish.manifest).or_else(invalid)?;
    }
    Ok(())
}

impl Run {
    /// Writes something of the run, unless it was erased: a lane that still works on it must not bring it back.
    pub(super) fn on_disk<T>(&self, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let erased = lock(&self.erased);
        if *erased { Err(StoreError::Erased(self.number)) } else { write() }
    }

    /// Erases everything kept of the run; a lane at work on it finds no rows, can write nothing and drops the states.
    fn erase(&self, store: &Store) -> Result<(), StoreError> {
        self.release();
        let mut erased = lock(&self.erased);
        *erased = true;
        store.erase_run(self.number)
    }
}

impl Core {
    /// Reads every kept run. What alice had only staged is erased.
    pub(crate) fn load_runs(&self) -> Result<(), StoreError> {
        let (kept, staged) = self.store.stored_runs()?;
        if self.party == Party::Alice {
            staged.into_iter().try_for_each(|run| self.store.erase_run_staged(run))?;
        }
        self.store.sweep_runs()?;
        for run in kept {
            let stored = self.store.stored_run(run).and_then(|stored| self.store.sweep_states(run, stored));
            let loaded = stored.and_then(|stored| self.know(run, stored));
            if let Err(e) = loaded {
                tracing::error!(run, reason = %e, "a stored run cannot be used");
            }
        }
        Ok(())
    }

    fn know(&self, number: u64, stored: StoredRun) -> Result<(), StoreError> {
        let notes = self.store.notes(number)?;
        self.runs.known().entry(number).or_insert_with(|| Arc::new(Run::new(number, stored, notes)));
        Ok(())
    }

    /// Stages a run under a number that nothing has. The owner, who sent it, agrees.
    pub(crate) fn stage_run(&self, run: u64, spec: Box<RunSpec>, initial: Initial) -> Result<(), Fault> {
        if self.runs.get(run).is_some() {
            return Err(Fault::Refused(Refusal::Mismatch, format!("number {run} is taken")));
        }
        let seed = Seed::random().map_err(|e| Fault::Own(e.to_string()))?;
        let notes = Notes { agreed: vec![spec.owner.clone()], ..Notes::default() };
        self.store.stage_run(run, &StoredRun { spec, seed: seed.expose().to_vec().into(), initial })?;
        self.store.write_notes(run, &notes)?;
        self.reached(Point::Staged);
        Ok(())
    }

    /// Makes a staged run permanent and known.
    pub(crate) fn keep_run(&self, run: u64) -> Result<(), StoreError> {
        let stored = self.store.keep_run(run)?;
        self.know(run, stored)
    }

    /// Forgets a run and erases everything kept of it.
    pub(crate) fn erase_run(&self, run: u64) -> Result<(), StoreError> {
        match self.runs.known().remove(&run) {
            Some(run) => run.erase(&self.store),
            None => self.store.erase_run(run),
        }
    }

    /// The run is over: its states are erased, what was revealed stays.
    pub(crate) fn finish_run(&self, run: &Run, note: &str) -> Result<(), StoreError> {
        *lock(&run.live) = None;
        run.release();
        let at = run.position();
        let over = Position { phase: Phase::Done, index: 0, ..at };
        run.note(self, |n| (n.done, n.at) = (Some(note.into()), Some(over)))?;
        run.reached(over);
        run.on_disk(|| self.store.erase_states(run.number))?;
        tracing::info!(run = run.spec.name, note, "training is over");
        Ok(())
    }

    /// Follows alice's inventory of runs. Gives the numbers that this party lacks.
    pub(crate) fn reconcile_runs(&self, runs: &[u64], uploading: &[u64], below: u64) -> Result<Vec<u64>, Fault> {
        let _alone = lock(&self.reconciling);
        let known: Vec<u64> = self.runs.all().iter().map(|r| r.number).collect();
        complete("runs", &known, runs, uploading, below)?;
        let (_, staged) = self.store.stored_runs()?;
        for run in staged {
            if runs.contains(&run) {
                self.keep_run(run)?;
            } else if run < below && !uploading.contains(&run) {
                self.store.erase_run_staged(run)?;
            }
        }
        Ok(runs.iter().copied().filter(|r| self.runs.get(*r).is_none()).collect())
    }

    /// How long a server may be silent while it takes up a run: it reads and masks a whole data set in that time.
    pub(crate) fn patience(&self, run: &Run) -> Duration {
        let size = |d: &trefoil_proto::dataset::Declaration| 8 * u64::from(d.rows) * d.width() as u64;
        self.silence + Duration::from_secs(self.sets.info(run.spec.set).map_or(0, |i| size(&i.declaration) / PACE))
    }

    /// This evaluator's share of a run's data set.
    pub(crate) fn load_rows(&self, run: &Run) -> Result<Words, Fault> {
        let refuse = |reason: String| Fault::Refused(Refusal::UnknownSet, reason);
        let info = self.sets.info(run.spec.set);
        let info = info.ok_or_else(|| refuse(format!("the data set of run {} is gone", run.spec.name)))?;
        let shared = self.sets.load(&self.store, &info.declaration.name).map_err(|e| refuse(e.to_string()))?;
        match shared.epoch == run.spec.set {
            true => Ok(shared.words),
            false => Err(refuse(format!("the data set of run {} was declared anew", run.spec.name))),
        }
    }

    /// A run that alice commands about.
    pub(crate) fn run_of(&self, number: u64) -> Result<Arc<Run>, Fault> {
        let run = self.runs.get(number);
        run.ok_or_else(|| Fault::Refused(Refusal::UnknownRun, format!("{} knows no run {number}", self.party)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::runs::{Live, OpenRows};
    use crate::seal::StoreKey;
    use crate::store::Checkpoint;
    use trefoil_mpc::masked::rows::HeldRows;
    use trefoil_mpc::program::Program;
    use trefoil_proto::run::{Order, RowRange};

    pub(in crate::runs) fn stored() -> StoredRun {
        let step = Program {
            fraction_bits: 16,
            input_shape: vec![1],
            weights: vec![],
            states: vec![],
            rates: 0,
            steps: vec![],
        };
        let spec = Box::new(RunSpec {
            name: "prices".into(),
            owner: "owner".into(),
            coordinator: "owner".into(),
            set: 1,
            declaration: [0; 32],
            extraction: None,
            step,
            rates: vec![],
            training: RowRange { first: 0, end: 1 },
            epochs: 1,
            batch: 1,
            order: Order::Fixed(vec![]),
            shuffle: false,
            metrics: vec![],
            check: None,
            reveals: vec![],
            publish: None,
            checkpoint: 1,
        });
        StoredRun { spec, seed: vec![].into(), initial: Initial::Absent }
    }

    fn live() -> Option<Live> {
        let (seed, states) = (Seed::from_bytes([1; 32]), vec![Words::zeros(2)]);
        Some(Live { seed, extracting: None, states, at: Position::START, order: None })
    }

    #[test]
    fn a_lane_at_work_brings_nothing_back_of_a_run_that_was_erased() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Party::Bob, StoreKey::from_seed(Seed::from_bytes([1; 32]))).unwrap();
        store.stage_run(7, &stored()).unwrap();
        let run = Run::new(7, store.keep_run(7).unwrap(), Notes::default());
        let save = || store.save(7, &Checkpoint { at: Position::START, lot: 9, states: vec![vec![1; 8]] });
        run.on_disk(save).unwrap();
        let mut at_work = lock(&run.live);
        *at_work = live();
        run.erase(&store).unwrap();
        assert!(matches!(run.on_disk(save), Err(StoreError::Erased(7))));
        assert_eq!(store.stored_runs().unwrap(), (vec![], vec![]));
        assert!(!dir.path().join("runs/7").exists());
        run.leave(at_work, false);
        assert!(lock(&run.live).is_none());
    }

    #[test]
    fn states_stay_in_memory_while_the_rows_are_open_and_work_succeeds() {
        let run = Run::new(7, stored(), Notes::default());
        let open = || {
            let table = HeldRows { delta: Words::zeros(1), lambda: Words::zeros(1) };
            let rows = OpenRows::new(3, table, &run, Budget::new(1).hold(1).unwrap_or_else(|_| panic!("too little")));
            (*lock(&run.rows), *lock(&run.live)) = (Some(rows), live());
        };
        open();
        run.leave(lock(&run.live), false);
        assert!(lock(&run.live).is_some());
        run.leave(lock(&run.live), true);
        assert!(lock(&run.live).is_none());
        assert_eq!(run.rows_lot(), Some(3));
        open();
        let at_work = lock(&run.live);
        run.release();
        assert!(at_work.is_some());
        run.leave(at_work, false);
        assert!(lock(&run.live).is_none());
    }
}
