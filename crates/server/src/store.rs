//! What a party keeps on disk: its parts of the models, sealed, and the mark below which every lot is burnt.
//!
//! Files are written beside their place, flushed and renamed, so that a crash leaves the old state or the new one.

mod pieces;
mod runs;
mod sets;
mod shelf;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use trefoil_prg::Party;
use zeroize::Zeroize;

use crate::seal::{SealError, StoreKey};
pub(crate) use pieces::Pieces;
pub(crate) use runs::{Checkpoint, Initial, Notes, StoredRun};
pub(crate) use sets::{Record, Share};
use shelf::{Shelf, read_sealed, write_sealed};

/// Lots are marked as burnt this many ahead, so that few requests wait for the disk.
const RESERVE: u64 = 1 << 12;

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be unsealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A file holds something else than it should.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A file is of another form than this version's.
    #[error("{path}: written by another version of Trefoil; what it holds has to be shared anew")]
    Version {
        /// The file.
        path: String,
    },
    /// The store was made by another party or under another key.
    #[error(
        "{path}: does not open under this key: give the one that this party's store was made with, or, for a new store, \
         another folder"
    )]
    Key {
        /// The file that every store has.
        path: String,
    },
    /// Another server uses the store.
    #[error("{0}: in use by another server")]
    InUse(String),
    /// No number is left for another lot.
    #[error("lot {0}: no higher number is left")]
    Exhausted(u64),
    /// A run that was removed.
    #[error("run {0} was removed")]
    Erased(u64),
    /// A lot that is burnt.
    #[error("lot {lot} is burnt: the next is {next} or higher")]
    Burnt {
        /// The lot.
        lot: u64,
        /// The lowest that may be used.
        next: u64,
    },
}

/// One tensor of a model as a party keeps it; words are little-endian bytes.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct StoredTensor {
    pub(crate) share: Vec<u8>,
    pub(crate) delta: Option<Vec<u8>>,
}

impl Drop for StoredTensor {
    fn drop(&mut self) {
        self.share.zeroize();
        if let Some(d) = &mut self.delta {
            d.zeroize();
        }
    }
}

/// The run that a model comes of, by what its owners agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) run: u64,
    pub(crate) hash: [u8; 32],
}

/// A model as a party keeps it: `public` is the encoded public part, whose form depends on the party.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct StoredModel {
    pub(crate) epoch: u64,
    pub(crate) owner: String,
    /// Of a model that a run publishes.
    pub(crate) origin: Option<Origin>,
    pub(crate) public: Vec<u8>,
    pub(crate) tensors: Vec<StoredTensor>,
}

/// A party's store. Holds a lock on its folder while it lives.
pub struct Store {
    dir: PathBuf,
    party: Party,
    key: StoreKey,
    models: Shelf,
    sets: Shelf,
    runs: Shelf,
    mark: Mutex<Mark>,
    _lock: File,
}

struct Mark {
    /// Every lot below is burnt on disk.
    durable: u64,
    /// Every lot below is burnt in this process.
    next: u64,
}

impl Store {
    /// Opens or creates the store in `dir`.
    pub fn open(dir: &Path, party: Party, key: StoreKey) -> Result<Self, StoreError> {
        let models = Shelf::open(dir.join("models"), party.name().into())?;
        let sets = Shelf::open(dir.join("sets"), format!("{party}/sets"))?;
        let runs = Shelf::open(dir.join("runs"), format!("{party}/runs"))?;
        restrict(dir).map_err(io_error(dir))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io_error(&path))?;
        if lock.try_lock().is_err() {
            return Err(StoreError::InUse(dir.display().to_string()));
        }
        check_key(&dir.join("store.sealed"), party, &key, [&models, &sets, &runs])?;
        sweep_unfinished(dir, &runs)?;
        let durable = read_mark(&dir.join("mark"))?;
        let mark = Mutex::new(Mark { durable, next: durable });
        Ok(Self { dir: dir.into(), party, key, models, sets, runs, mark, _lock: lock })
    }

    /// The lowest lot that is not burnt.
    pub fn next_lot(&self) -> u64 {
        self.mark.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next
    }

    /// Takes the next lot: it is burnt, on disk, when this returns.
    pub fn take_lot(&self) -> Result<u64, StoreError> {
        self.take_lots(1)
    }

    /// Takes the next `count` lots and gives the first: all are burnt, on disk, when this returns.
    pub fn take_lots(&self, count: u32) -> Result<u64, StoreError> {
        let mut mark = self.locked()?;
        let lot = mark.next;
        self.burn_below(&mut mark, lot.checked_add(count.into()).ok_or(StoreError::Exhausted(lot))?)?;
        Ok(lot)
    }

    /// No lot below `next` will be taken any more.
    pub fn raise(&self, next: u64) -> Result<(), StoreError> {
        let mut mark = self.locked()?;
        if next > mark.next { self.burn_below(&mut mark, next) } else { Ok(()) }
    }

    /// Burns a lot that alice numbered, on disk, before this returns. `floor` is the caller's own lower bound; its next
    /// one is returned.
    pub fn burn(&self, lot: u64, floor: u64) -> Result<u64, StoreError> {
        let mut mark = self.locked()?;
        if lot < floor {
            return Err(StoreError::Burnt { lot, next: floor });
        }
        let floor = after(lot)?;
        let next = mark.next.max(floor);
        self.burn_below(&mut mark, next)?;
        Ok(floor)
    }

    fn locked(&self) -> Result<std::sync::MutexGuard<'_, Mark>, StoreError> {
        self.mark.lock().map_err(|_| StoreError::Damaged {
            path: self.dir.join("mark").display().to_string(),
            reason: "an earlier write did not finish".into(),
        })
    }

    fn burn_below(&self, mark: &mut Mark, next: u64) -> Result<(), StoreError> {
        if next > mark.durable {
            let durable = next.saturating_add(RESERVE);
            write_durably(&self.dir.join("mark"), format!("{durable}\n").as_bytes())?;
            mark.durable = durable;
        }
        mark.next = next;
        Ok(())
    }

    /// Keeps a model's parts, sealed, until [`Store::commit`] or a restart.
    pub(crate) fn stage(&self, model: &StoredModel) -> Result<(), StoreError> {
        self.models.stage(&self.key, model.epoch, model)
    }

    /// Makes a staged model permanent.
    pub(crate) fn commit(&self, epoch: u64) -> Result<(), StoreError> {
        self.models.commit(epoch)
    }

    /// Erases a model, staged or not: overwritten, then removed.
    pub(crate) fn erase(&self, epoch: u64) -> Result<(), StoreError> {
        self.models.erase(epoch)
    }

    /// The epochs of permanent and of staged models.
    pub(crate) fn epochs(&self) -> Result<(Vec<u64>, Vec<u64>), StoreError> {
        self.models.epochs()
    }

    /// Reads a model that is staged, or permanent already: its last commit may have failed after it took effect. None if
    /// there is none.
    pub(crate) fn find(&self, epoch: u64) -> Result<Option<StoredModel>, StoreError> {
        let staged = [true, false].into_iter().find(|staged| self.models.has(epoch, *staged));
        staged.map(|staged| self.models.load(&self.key, epoch, staged)).transpose()
    }

    /// Reads a permanent model.
    pub(crate) fn load(&self, epoch: u64) -> Result<StoredModel, StoreError> {
        self.models.load(&self.key, epoch, false)
    }
}

fn after(lot: u64) -> Result<u64, StoreError> {
    lot.checked_add(1).ok_or(StoreError::Exhausted(lot))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    move |source| StoreError::Io { path: path.display().to_string(), source }
}

fn read_mark(path: &Path) -> Result<u64, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| StoreError::Damaged {
            path: path.display().to_string(),
            reason: "is not a lot number; without it masks could be drawn twice".into(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(e) => Err(io_error(path)(e)),
    }
}

/// Whether `key` and party are those with which the store was made; a new one is marked.
fn check_key(path: &Path, party: Party, key: &StoreKey, shelves: [&Shelf; 3]) -> Result<(), StoreError> {
    let label = format!("{party}/store");
    let other = |e| match e {
        StoreError::Seal(_) => StoreError::Key { path: path.display().to_string() },
        other => other,
    };
    if path.exists() {
        return read_sealed(key, &label, path).map_err(other);
    }
    // A store of before there were marks.
    shelves.into_iter().try_for_each(|shelf| shelf.check_key(key)).map_err(other)?;
    write_sealed(key, &label, path, &())
}

/// Ending of a file that is being written.
const WRITING: &str = "writing";

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension(WRITING);
    let mut file = File::create(&temporary).map_err(io_error(&temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error(&temporary))?;
    fs::rename(&temporary, path).map_err(io_error(path))?;
    sync_folder(path)
}

/// Erases what a crash left half written in the store's own folders.
fn sweep_unfinished(dir: &Path, runs: &Shelf) -> Result<(), StoreError> {
    let own = ["", "models", "sets", "runs"].map(|name| dir.join(name));
    for folder in own.into_iter().chain(runs.folders()?) {
        for entry in fs::read_dir(&folder).map_err(io_error(&folder))? {
            let path = entry.map_err(io_error(&folder))?.path();
            if path.extension().is_some_and(|e| e == WRITING) && path.is_file() {
                erase_file(&path)?;
            }
        }
    }
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let Some(dir) = path.parent() else { return Ok(()) };
    File::open(dir).and_then(|d| d.sync_all()).map_err(io_error(dir))
}

/// Overwrites a file and removes it, if it is there.
fn erase_file(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        overwrite(path).map_err(io_error(path))?;
        fs::remove_file(path).map_err(io_error(path))?;
        sync_folder(path)?;
    }
    Ok(())
}

fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    let zeros = [0; 1 << 16];
    while left > 0 {
        let n = left.min(zeros.len() as u64);
        file.write_all(&zeros[..n as usize])?;
        left -= n;
    }
    file.sync_all()
}

#[cfg(unix)]
fn restrict(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_prg::Seed;

    fn open(dir: &Path) -> Result<Store, StoreError> {
        Store::open(dir, Party::Bob, StoreKey::from_seed(Seed::from_bytes([1; 32])))
    }

    fn model(epoch: u64) -> StoredModel {
        let tensors = vec![StoredTensor { share: vec![1, 2, 3], delta: Some(vec![4]) }];
        StoredModel { epoch, owner: "o".into(), origin: None, public: vec![9], tensors }
    }

    #[test]
    fn no_lot_comes_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        let first = store.take_lot().unwrap();
        assert_eq!(store.take_lot().unwrap(), first + 1);
        assert!(matches!(open(dir.path()), Err(StoreError::InUse(_))));
        drop(store);
        let store = open(dir.path()).unwrap();
        let after = store.take_lot().unwrap();
        assert!(after > first + 1);
        store.raise(after + 100_000).unwrap();
        assert_eq!(store.take_lot().unwrap(), after + 100_000);
        drop(store);
        let store = open(dir.path()).unwrap();
        let next = store.next_lot();
        assert!(next > after + 100_000);
        assert!(matches!(store.burn(5, next), Err(StoreError::Burnt { lot: 5, .. })));
        assert_eq!(store.burn(next + 5, next).unwrap(), next + 6);
        assert_eq!(store.next_lot(), next + 6);
        assert!(matches!(store.burn(u64::MAX, next), Err(StoreError::Exhausted(_))));
        store.raise(u64::MAX).unwrap();
        assert!(matches!(store.take_lot(), Err(StoreError::Exhausted(_))));
    }

    #[test]
    fn a_store_opens_for_its_party_and_under_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        let with = |party, key| Store::open(dir.path(), party, StoreKey::from_seed(Seed::from_bytes([key; 32])));
        assert!(matches!(with(Party::Bob, 2), Err(StoreError::Key { .. })));
        assert!(matches!(with(Party::Carol, 1), Err(StoreError::Key { .. })));
        let store = with(Party::Bob, 1).unwrap();
        store.stage(&model(3)).unwrap();
        store.commit(3).unwrap();
        drop(store);
        // One that was made before stores were marked.
        fs::remove_file(dir.path().join("store.sealed")).unwrap();
        assert!(matches!(with(Party::Bob, 2), Err(StoreError::Key { .. })));
        with(Party::Bob, 1).unwrap();
        assert!(matches!(with(Party::Bob, 2), Err(StoreError::Key { .. })));
    }

    #[test]
    fn what_a_crash_left_half_written_is_erased() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        fs::create_dir(dir.path().join("runs/3")).unwrap();
        fs::create_dir(dir.path().join("others")).unwrap();
        let torn = ["mark.writing", "models/3.writing", "runs/3.writing", "runs/3/notes.writing"];
        let kept = ["models/3.sealed", "runs/3/notes.sealed", "others/3.writing"];
        torn.iter().chain(&kept).for_each(|f| fs::write(dir.path().join(f), b"x").unwrap());
        drop(open(dir.path()).unwrap());
        let there = |f: &&str| dir.path().join(f).exists();
        assert!(!torn.iter().any(there) && kept.iter().all(there));
    }

    #[test]
    fn a_damaged_mark_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        fs::write(dir.path().join("mark"), "12x").unwrap();
        assert!(matches!(open(dir.path()), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn models_are_staged_committed_sealed_and_erased() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        store.stage(&model(3)).unwrap();
        assert_eq!(store.epochs().unwrap(), (vec![], vec![3]));
        store.commit(3).unwrap();
        store.commit(3).unwrap();
        assert_eq!(store.epochs().unwrap(), (vec![3], vec![]));
        let back = store.load(3).unwrap();
        assert_eq!((back.epoch, back.public.clone(), back.tensors[0].share.clone()), (3, vec![9], vec![1, 2, 3]));
        let path = dir.path().join("models/3.sealed");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(store.load(3), Err(StoreError::Seal(SealError::Opened { .. }))));
        // A record of before records had a form.
        let old = store.key.seal("bob/3", &postcard::to_stdvec(&model(3)).unwrap()).unwrap();
        fs::write(&path, old).unwrap();
        assert!(matches!(store.load(3), Err(StoreError::Version { .. })));
        store.erase(3).unwrap();
        assert_eq!(store.epochs().unwrap(), (vec![], vec![]));
        assert!(matches!(store.commit(4), Err(StoreError::Io { .. })));
    }
}
