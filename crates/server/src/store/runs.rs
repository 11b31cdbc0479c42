//! What a party keeps of training runs: what was agreed, the last two checkpoints, what was revealed.
//!
//! A run is staged and kept like a model, in a file that does not change. What changes lies in a folder of its own:
//! each file is replaced as a whole, so that a crash leaves the old one or the new one.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trefoil_proto::control::SecretSeed;
use trefoil_proto::run::{Measured, Phase, Position, Revealed, RunSpec, Saved};
use trefoil_ring::Words;
use zeroize::{Zeroize, Zeroizing};

use super::shelf::{read_sealed, write_sealed};
use super::{Store, StoreError, erase_file, io_error, restrict};

/// What does not change of a run.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct StoredRun {
    pub(crate) spec: Box<RunSpec>,
    /// This party's contribution to the run's seed.
    pub(crate) seed: SecretSeed,
    pub(crate) initial: Initial,
}

/// A party's share of the states' first values.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Initial {
    /// Alice's: the stream of this seed.
    Seed(SecretSeed),
    /// Bob's, all states one after the other; words are little-endian bytes.
    Values(Vec<u8>),
    /// Carol's; and everybody's once the run is over.
    Absent,
}

impl Drop for Initial {
    fn drop(&mut self) {
        if let Initial::Values(v) = self {
            v.zeroize();
        }
    }
}

/// What changes of a run, its states apart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// The clients who told this party that they agree.
    pub(crate) agreed: Vec<String>,
    /// The clients who agreed once and took it back.
    pub(crate) withdrawn: Vec<String>,
    /// Whether the run was ever taken up.
    pub(crate) begun: bool,
    /// Whether the run is to end with its epoch.
    pub(crate) stopped: bool,
    /// How it ended, once it has.
    pub(crate) done: Option<String>,
    /// What this party has revealed.
    pub(crate) revealed: Vec<Revealed>,
    pub(crate) measured: Measured,
    /// Where the run stood when these were last written.
    pub(crate) at: Option<Position>,
}

/// A party's share of the states at a place of the run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) at: Position,
    /// The last lot before it: the other half of the same attempt has the same.
    pub(crate) lot: u64,
    /// Words as little-endian bytes.
    pub(crate) states: Vec<Vec<u8>>,
}

impl Checkpoint {
    /// Which one it is.
    pub(crate) fn saved(&self) -> Saved {
        Saved { at: self.at, lot: self.lot }
    }

    /// The states.
    pub(crate) fn words(&self) -> Vec<Words> {
        let words = |bytes: &Vec<u8>| {
            let mut words = Words::zeros(bytes.len() / 8);
            words.iter_mut().zip(bytes.as_chunks::<8>().0).for_each(|(w, b)| *w = u64::from_le_bytes(*b));
            words
        };
        self.states.iter().map(words).collect()
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.states.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// How many checkpoints are kept.
const CHECKPOINTS: usize = 2;

/// A checkpoint's file: named by its place, so that none must be opened to know which there are.
fn file_name(at: Position) -> String {
    format!("checkpoint-{}-{}-{}", at.epoch, at.phase as u8, at.index)
}

fn place(name: &str) -> Option<Position> {
    let mut parts = name.strip_prefix("checkpoint-")?.strip_suffix(".sealed")?.split('-');
    let epoch = parts.next()?.parse().ok()?;
    let number: u8 = parts.next()?.parse().ok()?;
    let index = parts.next()?.parse().ok()?;
    let phase = Phase::ALL.into_iter().find(|p| *p as u8 == number)?;
    Some(Position { epoch, phase, index })
}

impl Store {
    fn run_file(&self, run: u64, name: &str) -> (PathBuf, String) {
        (
            self.runs.dir.join(run.to_string()).join(format!("{name}.sealed")),
            format!("{}/{run}/{name}", self.runs.label),
        )
    }

    fn write_run_file<T: Serialize>(&self, run: u64, name: &str, value: &T) -> Result<(), StoreError> {
        let (path, label) = self.run_file(run, name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).and_then(|()| restrict(dir)).map_err(io_error(dir))?;
        }
        write_sealed(&self.key, &label, &path, value)
    }

    /// Keeps a run until [`Store::keep_run`] or a restart.
    pub(crate) fn stage_run(&self, run: u64, stored: &StoredRun) -> Result<(), StoreError> {
        self.runs.stage(&self.key, run, stored)
    }

    /// Makes a staged run permanent, and reads it.
    pub(crate) fn keep_run(&self, run: u64) -> Result<StoredRun, StoreError> {
        self.runs.commit(run)?;
        self.stored_run(run)
    }

    /// Reads a permanent run.
    pub(crate) fn stored_run(&self, run: u64) -> Result<StoredRun, StoreError> {
        self.runs.load(&self.key, run, false)
    }

    /// The numbers of permanent and of staged runs, oldest first.
    pub(crate) fn stored_runs(&self) -> Result<(Vec<u64>, Vec<u64>), StoreError> {
        self.runs.epochs()
    }

    /// Forgets the states of a run that is over: its first values and its checkpoints.
    pub(crate) fn erase_states(&self, run: u64) -> Result<(), StoreError> {
        let mut stored = self.stored_run(run)?;
        stored.initial = Initial::Absent;
        self.stage_run(run, &stored)?;
        self.runs.commit(run)?;
        self.places(run)?.into_iter().try_for_each(|at| self.erase_checkpoint(run, at))
    }

    /// The same for a kept run that is over, where a crash came between its end and this.
    pub(crate) fn sweep_states(&self, run: u64, mut stored: StoredRun) -> Result<StoredRun, StoreError> {
        let left = !matches!(stored.initial, Initial::Absent) || !self.places(run)?.is_empty();
        if left && self.notes(run)?.done.is_some() {
            self.erase_states(run)?;
            stored.initial = Initial::Absent;
        }
        Ok(stored)
    }

    /// Erases a run, staged or not, and everything kept of it.
    pub(crate) fn erase_run(&self, run: u64) -> Result<(), StoreError> {
        self.runs.erase(run)?;
        self.erase_run_folder(run)
    }

    /// Erases folders whose run is gone: a crash came in between.
    pub(crate) fn sweep_runs(&self) -> Result<(), StoreError> {
        let dir = &self.runs.dir;
        for entry in fs::read_dir(dir).map_err(io_error(dir))? {
            let name = entry.map_err(io_error(dir))?.file_name();
            let Some(run) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
            if !self.runs.has(run, false) && !self.runs.has(run, true) {
                self.erase_run_folder(run)?;
            }
        }
        Ok(())
    }

    fn erase_run_folder(&self, run: u64) -> Result<(), StoreError> {
        let dir = self.runs.dir.join(run.to_string());
        match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io_error(&dir)(e)),
            Ok(entries) => {
                for entry in entries {
                    erase_file(&entry.map_err(io_error(&dir))?.path())?;
                }
            }
        }
        fs::remove_dir(&dir).map_err(io_error(&dir))
    }

    /// Erases a run that is only staged.
    pub(crate) fn erase_run_staged(&self, run: u64) -> Result<(), StoreError> {
        if self.runs.has(run, false) { self.runs.erase_staged(run) } else { self.erase_run(run) }
    }

    /// The notes of a run; a run without any is new.
    pub(crate) fn notes(&self, run: u64) -> Result<Notes, StoreError> {
        let (path, label) = self.run_file(run, "notes");
        if path.exists() { read_sealed(&self.key, &label, &path) } else { Ok(Notes::default()) }
    }

    /// Replaces the notes of a run.
    pub(crate) fn write_notes(&self, run: u64, notes: &Notes) -> Result<(), StoreError> {
        self.write_run_file(run, "notes", notes)
    }

    /// The places of a run's checkpoints, the latest first.
    fn places(&self, run: u64) -> Result<Vec<Position>, StoreError> {
        let dir = self.runs.dir.join(run.to_string());
        if !dir.exists() {
            return Ok(vec![]);
        }
        let mut places = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io_error(&dir))? {
            let name = entry.map_err(io_error(&dir))?.file_name();
            places.extend(name.to_str().and_then(place));
        }
        places.sort_unstable_by(|a, b| b.cmp(a));
        Ok(places)
    }

    fn erase_checkpoint(&self, run: u64, at: Position) -> Result<(), StoreError> {
        erase_file(&self.run_file(run, &file_name(at)).0)
    }

    /// The checkpoints of a run, the latest first. One that cannot be read counts as none.
    pub(crate) fn checkpoints(&self, run: u64) -> Result<Vec<Checkpoint>, StoreError> {
        let mut all = Vec::new();
        for at in self.places(run)? {
            let (path, label) = self.run_file(run, &file_name(at));
            match read_sealed(&self.key, &label, &path) {
                Ok(checkpoint) => all.push(checkpoint),
                Err(e) => tracing::error!(run, reason = %e, "a checkpoint cannot be used"),
            }
        }
        Ok(all)
    }

    /// Writes a checkpoint; of those there were, the latest stays.
    pub(crate) fn save(&self, run: u64, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.write_run_file(run, &file_name(checkpoint.at), checkpoint)?;
        self.places(run)?.into_iter().skip(CHECKPOINTS).try_for_each(|at| self.erase_checkpoint(run, at))
    }

    /// Erases the checkpoints after `at`: what they hold will be computed again.
    pub(crate) fn erase_checkpoints_after(&self, run: u64, at: Position) -> Result<(), StoreError> {
        let mut later = self.places(run)?.into_iter().filter(|c| *c > at);
        later.try_for_each(|at| self.erase_checkpoint(run, at))
    }

    /// Keeps this party's part of a value that was revealed.
    pub(crate) fn write_part(
        &self,
        run: u64,
        (index, epoch): (u32, u32),
        part: (u64, &[u8]),
    ) -> Result<(), StoreError> {
        self.write_run_file(run, &format!("reveal-{index}-{epoch}"), &part)
    }

    /// This party's part of a value that was revealed, and its lot.
    pub(crate) fn part(&self, run: u64, (index, epoch): (u32, u32)) -> Result<(u64, Zeroizing<Vec<u8>>), StoreError> {
        let (path, label) = self.run_file(run, &format!("reveal-{index}-{epoch}"));
        let (lot, part) = read_sealed(&self.key, &label, &path)?;
        Ok((lot, Zeroizing::new(part)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::StoreKey;
    use trefoil_prg::{Party, Seed};

    fn at(index: u32) -> Position {
        Position { epoch: 0, phase: Phase::Train, index }
    }

    #[test]
    fn the_last_two_checkpoints_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Party::Bob, StoreKey::from_seed(Seed::from_bytes([1; 32]))).unwrap();
        let places = |store: &Store| store.checkpoints(7).unwrap().iter().map(|c| c.at.index).collect::<Vec<_>>();
        assert!(places(&store).is_empty());
        for i in 9..=11 {
            store.save(7, &Checkpoint { at: at(i), lot: 1, states: vec![vec![i as u8; 9]] }).unwrap();
        }
        assert_eq!(places(&store), [11, 10]);
        store.save(7, &Checkpoint { at: at(11), lot: 2, states: vec![vec![1; 9]] }).unwrap();
        assert_eq!(places(&store), [11, 10]);
        assert_eq!(store.checkpoints(7).unwrap()[0].states, [[1; 9]]);
        // A damaged one leaves the other.
        fs::write(dir.path().join("runs/7/checkpoint-0-1-11.sealed"), b"torn").unwrap();
        assert_eq!(places(&store), [10]);
        store.save(7, &Checkpoint { at: at(12), lot: 3, states: vec![] }).unwrap();
        store.erase_checkpoints_after(7, at(11)).unwrap();
        assert!(places(&store).is_empty());
        store.write_notes(7, &Notes { stopped: true, ..Notes::default() }).unwrap();
        assert!(store.notes(7).unwrap().stopped);
        store.write_part(7, (1, 2), (5, &[1, 2])).unwrap();
        assert_eq!(store.part(7, (1, 2)).unwrap(), (5, vec![1, 2].into()));
        assert!(store.part(8, (1, 2)).is_err());
        store.erase_run(7).unwrap();
        assert_eq!((store.notes(7).unwrap(), places(&store)), (Notes::default(), vec![]));
    }
}
