//! The training runs a party knows: what was agreed, where each stands, and what is in memory while it goes on.
//!
//! A run is known by its number, which alice takes like a lot. Alice owns its progress: one of her lanes at a time
//! holds it. Bob and carol follow, and check each command against the specification that they hold themselves. What is
//! in memory is lost with any failure: all then go back to the latest checkpoint that alice and bob both have.

mod extract;
mod keep;
mod live;
mod open;
mod order;
mod pair;
mod publish;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use trefoil_mpc::masked::input::alice_share;
use trefoil_prg::{Party, Seed};
use trefoil_proto::control::{MAX_BULK, Refusal, SecretSeed};
use trefoil_proto::dataset::SetInfo;
use trefoil_proto::run::{Phase, Position, Resumed, Revealed, RunInfo, RunSpec, Stage};
use trefoil_ring::Words;

use crate::core::{Core, lock};
use crate::error::Fault;
use crate::store::{Checkpoint, Initial, Notes, StoreError, StoredRun};
pub(crate) use extract::Extracting;
pub(crate) use keep::check_run;
use live::PartError;
pub(crate) use live::{Live, Lot, account, joint_seed, shuffled, weights};
pub(crate) use open::OpenRows;
pub(crate) use pair::pair;

/// Places of a run that alice may agree on at once.
pub(crate) const MOST: u32 = 1024;

/// After a failure, a run is taken up again this much later; after each more without success, twice as much.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest of these pauses.
const LONGEST: Duration = Duration::from_secs(8);

/// A run at this party.
pub(crate) struct Run {
    pub(crate) number: u64,
    pub(crate) spec: RunSpec,
    pub(crate) hash: [u8; 32],
    /// This party's contribution to the run's seed.
    pub(crate) seed: SecretSeed,
    notes: Mutex<Notes>,
    progress: Mutex<Progress>,
    /// The states in memory; whoever works on the run holds the lock.
    pub(crate) live: Mutex<Option<Live>>,
    /// The opened rows; nobody holds the lock for longer than it takes to copy a batch.
    rows: Mutex<Option<OpenRows>>,
    /// Whether the run was erased; whoever writes to its folder holds the lock.
    erased: Mutex<bool>,
    held: AtomicBool,
    removed: AtomicBool,
}

/// What clients are told of a run that is under way.
struct Progress {
    at: Position,
    note: String,
    /// No lane takes the run before.
    not_before: Instant,
    /// How long the next failure keeps lanes away.
    pause: Duration,
}

/// A run that one of alice's lanes works on.
pub(crate) struct Held {
    pub(crate) run: Arc<Run>,
    /// What bob had revealed when the run was taken up; none before.
    pub(crate) resumed: Option<Vec<Revealed>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.run.held.store(false, Ordering::SeqCst);
    }
}

impl Run {
    fn new(number: u64, stored: StoredRun, notes: Notes) -> Self {
        let StoredRun { spec, seed, .. } = stored;
        let at = notes.at.unwrap_or(Position::START);
        let progress = Progress { at, note: String::new(), not_before: Instant::now(), pause: PAUSE };
        Self {
            number,
            hash: spec.hash(),
            spec: *spec,
            seed,
            notes: Mutex::new(notes),
            progress: Mutex::new(progress),
            live: Mutex::default(),
            rows: Mutex::default(),
            erased: Mutex::default(),
            held: AtomicBool::new(false),
            removed: AtomicBool::new(false),
        }
    }

    /// A copy of the notes.
    pub(crate) fn notes(&self) -> Notes {
        lock(&self.notes).clone()
    }

    /// Changes the notes in memory; they are on disk with the next checkpoint at the latest.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut lock(&self.notes));
    }

    /// Changes the notes, on disk when this returns.
    pub(crate) fn note(&self, core: &Core, change: impl FnOnce(&mut Notes)) -> Result<(), StoreError> {
        self.write(core, &mut lock(&self.notes), change)
    }

    fn write(&self, core: &Core, notes: &mut Notes, change: impl FnOnce(&mut Notes)) -> Result<(), StoreError> {
        let mut changed = notes.clone();
        change(&mut changed);
        self.on_disk(|| core.store.write_notes(self.number, &changed))?;
        *notes = changed;
        Ok(())
    }

    /// Does `act` unless the run lacks an agreement or its data by now: an owner who withdraws waits for it.
    pub(crate) fn while_agreed<T>(&self, core: &Core, act: impl FnOnce() -> T) -> Result<T, String> {
        let notes = lock(&self.notes);
        self.obstacle_in(core, &notes).map_or_else(|| Ok(act()), Err)
    }

    /// Keeps this party's part of a revealed value and notes that it is there, unless the run lacks an agreement by now:
    /// an owner who withdraws waits for this.
    pub(crate) fn keep_revealed(&self, core: &Core, r: Revealed, payload: &[u8]) -> Result<(), PartError> {
        let mut notes = lock(&self.notes);
        if let Some(reason) = self.obstacle_in(core, &notes) {
            return Err(PartError::Halted(reason));
        }
        self.on_disk(|| core.store.write_part(self.number, (r.index, r.epoch), (r.lot, payload)))?;
        Ok(self.write(core, &mut notes, |n| {
            n.revealed.retain(|o| (o.index, o.epoch) != (r.index, r.epoch));
            n.revealed.push(r);
        })?)
    }

    /// Keeps that a client takes its agreement back, or gives it, on disk when this returns.
    pub(crate) fn note_agreement(&self, core: &Core, client: &str, agrees: bool) -> Result<(), StoreError> {
        self.note(core, |n| {
            n.agreed.retain(|a| a != client);
            n.withdrawn.retain(|w| w != client);
            if agrees { n.agreed.push(client.into()) } else { n.withdrawn.push(client.into()) }
        })?;
        if agrees {
            // Whatever stopped the run before: it is tried anew, and says so if that goes on.
            lock(&self.progress).note.clear();
        }
        Ok(())
    }

    /// Counts that the run is taken up, again unless it has just begun.
    pub(crate) fn taken_up(&self, core: &Core) -> Result<(), StoreError> {
        self.note(core, |n| {
            n.measured.resumed += u32::from(n.begun);
            n.begun = true;
        })
    }

    /// Tells clients where the run stands.
    pub(crate) fn reached(&self, at: Position) {
        let mut progress = lock(&self.progress);
        progress.at = at;
        progress.note.clear();
        progress.pause = PAUSE;
    }

    /// Tells clients what keeps the run from going on; no lane takes it at once.
    pub(crate) fn failed(&self, reason: &str) {
        let mut progress = lock(&self.progress);
        progress.note = reason.chars().take(300).collect();
        progress.not_before = Instant::now() + progress.pause;
        progress.pause = (2 * progress.pause).min(LONGEST);
    }

    /// Where the run stands.
    pub(crate) fn position(&self) -> Position {
        lock(&self.progress).at
    }

    /// Whether alice was told to remove the run.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    /// At alice: no lane takes the run any more, or again. Whether none works on it now.
    pub(crate) fn withdraw(&self, withdrawn: bool) -> bool {
        self.removed.store(withdrawn, Ordering::SeqCst);
        !self.held.load(Ordering::SeqCst)
    }

    /// Refuses to go on with a run that lacks an agreement or its data; nothing of it stays in memory then.
    pub(crate) fn unobstructed(&self, core: &Core) -> Result<(), Fault> {
        let Some(reason) = self.obstacle(core) else { return Ok(()) };
        self.release();
        Err(Fault::Refused(Refusal::Denied, format!("{}: {reason}", core.party)))
    }

    /// Its data set as its owners know it: not another that alice declared under the same number.
    fn set(&self, core: &Core) -> Option<SetInfo> {
        core.sets.info(self.spec.set).filter(|i| i.declaration.hash() == self.spec.declaration)
    }

    /// Whether `client` may know of this run: the owners of its data and model, its coordinator, who is shown something,
    /// and, where the data set was removed, who has ever agreed.
    pub(crate) fn concerns(&self, core: &Core, client: &str) -> bool {
        let owners = self.set(core).is_some_and(|i| i.declaration.names(client));
        let notes = lock(&self.notes);
        let agreed = [&notes.agreed, &notes.withdrawn].into_iter().flatten().any(|c| c == client);
        owners || agreed || self.spec.owner == client || self.spec.coordinator == client || self.spec.reveals_to(client)
    }

    /// Who has not told this party that it agrees. Without the data set nobody knows whom to ask.
    pub(crate) fn missing(&self, core: &Core) -> Vec<String> {
        self.missing_in(core, &lock(&self.notes))
    }

    fn missing_in(&self, core: &Core, notes: &Notes) -> Vec<String> {
        self.parties(core).into_iter().filter(|p| !notes.agreed.contains(p)).collect()
    }

    /// Whose agreement the run needs.
    pub(crate) fn parties(&self, core: &Core) -> Vec<String> {
        match self.set(core) {
            Some(info) => self.spec.parties(&info.declaration),
            None => vec![self.spec.owner.clone(), self.spec.coordinator.clone()],
        }
    }

    /// Why the run cannot go on, if it cannot: owners who have not agreed, data that is not there.
    pub(crate) fn obstacle(&self, core: &Core) -> Option<String> {
        self.obstacle_in(core, &lock(&self.notes))
    }

    fn obstacle_in(&self, core: &Core, notes: &Notes) -> Option<String> {
        match self.set(core) {
            None => return Some(format!("the data set of run {} is gone", self.spec.name)),
            Some(info) if !info.is_complete() => {
                return Some(format!("parts of data set {} are missing", info.declaration.name));
            }
            Some(_) => {}
        }
        if core.party == Party::Carol {
            // She is not asked.
            return None;
        }
        let missing = self.missing_in(core, notes);
        let name = |p: &String| if notes.withdrawn.contains(p) { format!("{p}, who withdrew it") } else { p.clone() };
        let names: Vec<String> = missing.iter().map(name).collect();
        (!names.is_empty()).then(|| format!("without the agreement of {}", names.join(", ")))
    }

    /// What everyone concerned hears of the run.
    pub(crate) fn info(&self, core: &Core) -> RunInfo {
        let missing = self.missing(core);
        let obstacle = self.obstacle(core);
        let notes = lock(&self.notes);
        let progress = lock(&self.progress);
        let stage = match (&notes.done, &obstacle) {
            (Some(_), _) => Stage::Done,
            (None, Some(_)) => Stage::Waiting,
            (None, None) => Stage::Running,
        };
        RunInfo {
            run: self.number,
            name: self.spec.name.clone(),
            hash: self.hash,
            owner: self.spec.owner.clone(),
            coordinator: self.spec.coordinator.clone(),
            stage,
            missing,
            withdrawn: notes.withdrawn.clone(),
            stopped: notes.stopped,
            epochs: self.spec.epochs,
            steps: self.spec.steps(),
            done: self.spec.steps_before(progress.at),
            at: progress.at,
            note: notes.done.clone().or(obstacle).unwrap_or_else(|| progress.note.clone()),
            measured: notes.measured,
            revealed: notes.revealed.clone(),
        }
    }

    /// Whether `at` may follow `from`: what this party has revealed, or published, is not done again; and only a run that
    /// it was told to stop ends early.
    pub(crate) fn may_follow(&self, core: &Core, from: Position, at: Position) -> bool {
        self.reach(core, from, |p| *p == at).is_some()
    }

    /// The place that `is` asks for, if it may follow `from`: it can be epochs later where all between is revealed.
    pub(crate) fn reach(&self, core: &Core, from: Position, is: impl Fn(&Position) -> bool) -> Option<Position> {
        let notes = lock(&self.notes);
        let mut here = from;
        loop {
            let due = [self.spec.due(here, false), self.spec.due(here, notes.stopped)];
            if let Some(found) = due.iter().find(|p| is(p)) {
                return Some(*found);
            }
            let done =
                |p: &&Position| revealed_at(&self.spec, &notes.revealed, **p).is_some() || self.is_served(core, **p);
            match due.iter().find(done) {
                Some(p) => here = self.spec.after(*p, 1),
                None => return None,
            }
        }
    }

    /// Whether the model that is to be published at `at` is there.
    pub(crate) fn is_served(&self, core: &Core, at: Position) -> bool {
        at.phase == Phase::Publish && self.published(core).is_some()
    }

    /// What this party says when the run is taken up.
    pub(crate) fn resumed(&self, core: &Core) -> Result<Resumed, StoreError> {
        let rows = self.rows_lot();
        let checkpoints = match core.party {
            Party::Carol => vec![],
            _ => core.store.checkpoints(self.number)?.iter().map(Checkpoint::saved).collect(),
        };
        let notes = lock(&self.notes);
        let (revealed, done) = (notes.revealed.clone(), notes.done.clone());
        Ok(Resumed { seed: self.seed.clone(), rows, checkpoints, revealed, done })
    }

    /// This evaluator's shares of the states' first values.
    pub(crate) fn first_states(&self, core: &Core) -> Result<Vec<Words>, String> {
        let stored = core.store.stored_run(self.number).map_err(|e| e.to_string())?;
        let sizes: Vec<usize> = state_sizes(&self.spec).collect();
        let total = sizes.iter().sum();
        let damaged = || format!("the first states of run {} are damaged", self.spec.name);
        let all = match &stored.initial {
            Initial::Seed(seed) => {
                let bytes = <[u8; 32]>::try_from(seed.expose()).map_err(|_| damaged())?;
                alice_share(&Seed::from_bytes(bytes), total)
            }
            Initial::Values(bytes) if bytes.len() == 8 * total => {
                let mut words = Words::zeros(total);
                words.bytes_mut().copy_from_slice(bytes);
                words
            }
            Initial::Values(_) | Initial::Absent => return Err(damaged()),
        };
        let mut left = &all[..];
        let split = |n: usize| {
            let (state, more) = left.split_at(n);
            left = more;
            state.to_vec().into()
        };
        Ok(sizes.into_iter().map(split).collect())
    }
}

/// Elements of each state.
fn state_sizes(spec: &RunSpec) -> impl Iterator<Item = usize> + '_ {
    spec.step.states.iter().map(|s| s.shape.iter().product())
}

/// Elements of all states, unless they are more than one request carries.
pub(crate) fn all_states(spec: &RunSpec) -> Option<usize> {
    let sizes = spec.step.states.iter().map(|s| trefoil_ring::tensor::elements(&s.shape).ok());
    sizes.into_iter().try_fold(0_usize, |sum, n| sum.checked_add(n?)).filter(|n| *n <= MAX_BULK / 8)
}

/// What was revealed at a place.
pub(crate) fn revealed_at(spec: &RunSpec, all: &[Revealed], at: Position) -> Option<Revealed> {
    let (index, _) = spec.disclosure(at)?;
    all.iter().find(|r| (r.index, r.epoch) == (index, at.epoch)).copied()
}

/// All runs at this party, by number.
#[derive(Default)]
pub(crate) struct Runs(Mutex<BTreeMap<u64, Arc<Run>>>);

impl Runs {
    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Run>>> {
        lock(&self.0)
    }

    /// A run by its number.
    pub(crate) fn get(&self, run: u64) -> Option<Arc<Run>> {
        lock(&self.0).get(&run).cloned()
    }

    /// A run by its name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Run>> {
        lock(&self.0).values().find(|r| r.spec.name == name).cloned()
    }

    /// All runs, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Run>> {
        lock(&self.0).values().cloned().collect()
    }

    /// Takes a run that can go on and that no lane holds.
    pub(crate) fn claim(&self, core: &Core) -> Option<Held> {
        let free = |r: &Arc<Run>| {
            lock(&r.notes).done.is_none()
                && !r.is_removed()
                && lock(&r.progress).not_before <= Instant::now()
                && r.obstacle(core).is_none()
                && !r.held.swap(true, Ordering::SeqCst)
        };
        self.all().into_iter().find(free).map(|run| Held { run, resumed: None })
    }

    /// How many runs are held by a lane.
    pub(crate) fn held(&self) -> usize {
        self.all().iter().filter(|r| r.held.load(Ordering::SeqCst)).count()
    }
}
