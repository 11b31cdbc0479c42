//! Sealed files by number: staged first, then kept for good, in the end erased.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use trefoil_proto::control::encode_after;
use zeroize::Zeroize;

use super::{StoreError, erase_file, io_error, sync_folder, write_durably};
use crate::seal::StoreKey;

/// What every sealed record begins with. Its last byte counts the forms that records have had.
const FORM: &[u8; 4] = b"trf\x02";

/// A folder of files that are sealed under a label of their own.
pub(super) struct Shelf {
    pub(super) dir: PathBuf,
    pub(super) label: String,
}

impl Shelf {
    pub(super) fn open(dir: PathBuf, label: String) -> Result<Self, StoreError> {
        fs::create_dir_all(&dir).map_err(io_error(&dir))?;
        Ok(Self { dir, label })
    }

    fn path(&self, epoch: u64, staged: bool) -> PathBuf {
        self.dir.join(format!("{epoch}.{}", if staged { "staged" } else { "sealed" }))
    }

    fn label(&self, epoch: u64) -> String {
        format!("{}/{epoch}", self.label)
    }

    pub(super) fn has(&self, epoch: u64, staged: bool) -> bool {
        self.path(epoch, staged).exists()
    }

    pub(super) fn stage<T: Serialize>(&self, key: &StoreKey, epoch: u64, value: &T) -> Result<(), StoreError> {
        write_sealed(key, &self.label(epoch), &self.path(epoch, true), value)
    }

    pub(super) fn commit(&self, epoch: u64) -> Result<(), StoreError> {
        let (from, to) = (self.path(epoch, true), self.path(epoch, false));
        match fs::rename(&from, &to) {
            // Another lane was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound && to.exists() => {}
            other => other.map_err(io_error(&from))?,
        }
        sync_folder(&to)
    }

    pub(super) fn erase(&self, epoch: u64) -> Result<(), StoreError> {
        [true, false].into_iter().try_for_each(|staged| erase_file(&self.path(epoch, staged)))
    }

    pub(super) fn erase_staged(&self, epoch: u64) -> Result<(), StoreError> {
        erase_file(&self.path(epoch, true))
    }

    /// The epochs of kept and of staged files, oldest first.
    pub(super) fn epochs(&self) -> Result<(Vec<u64>, Vec<u64>), StoreError> {
        let (mut sealed, mut staged) = (vec![], vec![]);
        for entry in fs::read_dir(&self.dir).map_err(io_error(&self.dir))? {
            let name = entry.map_err(io_error(&self.dir))?.file_name();
            let Some((epoch, kind)) = name.to_str().and_then(|n| n.split_once('.')) else { continue };
            let Ok(epoch) = epoch.parse() else { continue };
            match kind {
                "sealed" => sealed.push(epoch),
                "staged" => staged.push(epoch),
                _ => {}
            }
        }
        sealed.sort_unstable();
        staged.sort_unstable();
        Ok((sealed, staged))
    }

    /// Refuses a key that does not open the first kept file.
    pub(super) fn check_key(&self, key: &StoreKey) -> Result<(), StoreError> {
        let (kept, _) = self.epochs()?;
        let Some(epoch) = kept.first() else { return Ok(()) };
        let path = self.path(*epoch, false);
        let sealed = fs::read(&path).map_err(io_error(&path))?;
        key.open(&self.label(*epoch), &path, &sealed)?.zeroize();
        Ok(())
    }

    /// The folders that belong to a number.
    pub(super) fn folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error(&self.dir))? {
            let path = entry.map_err(io_error(&self.dir))?.path();
            let number = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.parse::<u64>().is_ok());
            if number && path.is_dir() {
                all.push(path);
            }
        }
        Ok(all)
    }

    pub(super) fn load<T: DeserializeOwned>(&self, key: &StoreKey, epoch: u64, staged: bool) -> Result<T, StoreError> {
        read_sealed(key, &self.label(epoch), &self.path(epoch, staged))
    }
}

/// Seals `value` under `label` and writes it, all of it or nothing.
pub(super) fn write_sealed<T: Serialize>(
    key: &StoreKey,
    label: &str,
    path: &Path,
    value: &T,
) -> Result<(), StoreError> {
    let damaged = |e: postcard::Error| StoreError::Damaged { path: path.display().to_string(), reason: e.to_string() };
    let mut plain = encode_after(FORM, value).map_err(damaged)?;
    let sealed = key.seal(label, &plain);
    plain.zeroize();
    write_durably(path, &sealed?)
}

/// Reads what was sealed under `label`.
pub(super) fn read_sealed<T: DeserializeOwned>(key: &StoreKey, label: &str, path: &Path) -> Result<T, StoreError> {
    let sealed = fs::read(path).map_err(io_error(path))?;
    let mut plain = key.open(label, path, &sealed)?;
    let name = || path.display().to_string();
    let value = match plain.strip_prefix(FORM) {
        Some(record) => {
            postcard::from_bytes(record).map_err(|e| StoreError::Damaged { path: name(), reason: e.to_string() })
        }
        None => Err(StoreError::Version { path: name() }),
    };
    plain.zeroize();
    value
}
