//! Bob's share of one part on disk: sealed piece by piece as it arrives, so that neither side of the disk needs the
//! whole of it in memory.
//!
//! Every piece is sealed under the upload's label and its own number. A part's declaration says how many there are and
//! how long each is: a missing, moved or foreign piece does not open.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use trefoil_proto::control::RequestId;
use trefoil_ring::Words;
use zeroize::Zeroizing;

use super::{Store, StoreError, erase_file, io_error, sync_folder};
use crate::seal::{OVERHEAD, SealError};

/// Ending of these files.
const ENDING: &str = "pieces";

/// The pieces of an upload that is not kept yet. What arrived is erased when this is dropped.
pub(crate) struct Pieces {
    id: RequestId,
    path: PathBuf,
    file: File,
    count: usize,
    kept: bool,
}

impl Pieces {
    /// Which upload's.
    pub(crate) fn id(&self) -> RequestId {
        self.id
    }

    /// A staged part names them now: they stay.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// The files of pieces in `dir` that belong to no upload of `named`.
    pub(super) fn others(dir: &Path, named: &[RequestId]) -> Result<Vec<PathBuf>, StoreError> {
        let mut others = Vec::new();
        for entry in fs::read_dir(dir).map_err(io_error(dir))? {
            let path = entry.map_err(io_error(dir))?.path();
            if path.extension().is_some_and(|e| e == ENDING) && !named.iter().any(|id| path == place(dir, id)) {
                others.push(path);
            }
        }
        Ok(others)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.kept
            && let Err(e) = erase_file(&self.path)
        {
            tracing::error!(reason = %e, "an upload that was given up is not erased yet: the next start tries again");
        }
    }
}

fn place(dir: &Path, id: &RequestId) -> PathBuf {
    dir.join(format!("{}.{ENDING}", hex(id)))
}

fn hex(id: &RequestId) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

impl Store {
    fn piece_label(&self, id: &RequestId, number: usize) -> String {
        format!("{}/pieces/{}/{number}", self.party, hex(id))
    }

    /// A new file for an upload's pieces; an upload of this name must not be there.
    pub(crate) fn begin_pieces(&self, id: RequestId) -> Result<Pieces, StoreError> {
        let path = place(&self.sets.dir, &id);
        let file = File::create_new(&path).map_err(io_error(&path))?;
        sync_folder(&path)?;
        Ok(Pieces { id, path, file, count: 0, kept: false })
    }

    /// Seals one more piece. It is on the disk when this returns.
    pub(crate) fn add_piece(&self, pieces: &mut Pieces, words: &Words) -> Result<(), StoreError> {
        let sealed = self.key.seal(&self.piece_label(&pieces.id, pieces.count), words.bytes())?;
        pieces.file.write_all(&sealed).and_then(|()| pieces.file.sync_data()).map_err(io_error(&pieces.path))?;
        pieces.count += 1;
        Ok(())
    }

    /// Reads an upload's pieces of these lengths, one after the other, and nothing else.
    pub(crate) fn read_pieces(
        &self,
        id: &RequestId,
        lengths: impl Iterator<Item = usize>,
        mut each: impl FnMut(usize, &[u64]),
    ) -> Result<(), StoreError> {
        let path = place(&self.sets.dir, id);
        let mut file = File::open(&path).map_err(io_error(&path))?;
        let (mut sealed, mut words) = (Vec::new(), Words::default());
        for (number, length) in lengths.enumerate() {
            sealed.resize(8 * length + OVERHEAD, 0);
            file.read_exact(&mut sealed).map_err(io_error(&path))?;
            let plain = Zeroizing::new(self.key.open(&self.piece_label(id, number), &path, &sealed)?);
            if words.len() != length {
                words = Words::zeros(length);
            }
            words.bytes_mut().copy_from_slice(&plain);
            each(number, &words);
        }
        match file.read(&mut [0]).map_err(io_error(&path))? {
            0 => Ok(()),
            _ => Err(SealError::Opened { path: path.display().to_string() }.into()),
        }
    }

    pub(super) fn erase_pieces(&self, id: &RequestId) -> Result<(), StoreError> {
        erase_file(&place(&self.sets.dir, id))
    }
}

#[cfg(test)]
mod tests {
    use trefoil_prg::{Party, Seed};

    use super::super::{Record, Share};
    use super::*;
    use crate::seal::StoreKey;

    fn open(dir: &Path) -> Store {
        Store::open(dir, Party::Bob, StoreKey::from_seed(Seed::from_bytes([1; 32]))).unwrap()
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir.join("sets")).unwrap().count()
    }

    #[test]
    fn pieces_come_back_in_order_and_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut pieces = store.begin_pieces([1; 16]).unwrap();
        assert!(store.begin_pieces([1; 16]).is_err(), "a second upload of one name");
        for n in [3_u64, 2] {
            store.add_piece(&mut pieces, &Words::from((0..n).collect::<Vec<_>>())).unwrap();
        }
        pieces.keep();
        let read = |lengths: &[usize]| {
            let mut all = Vec::new();
            store.read_pieces(&[1; 16], lengths.iter().copied(), |_, w| all.extend_from_slice(w)).map(|()| all)
        };
        assert_eq!(read(&[3, 2]).unwrap(), [0, 1, 2, 0, 1]);
        for wrong in [&[3][..], &[3, 2, 1], &[2, 3], &[5]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        // The two pieces in another order.
        let path = place(&dir.path().join("sets"), &[1; 16]);
        let bytes = fs::read(&path).unwrap();
        let first = 3 * 8 + OVERHEAD;
        fs::write(&path, [&bytes[first..], &bytes[..first]].concat()).unwrap();
        assert!(read(&[2, 3]).is_err());
    }

    #[test]
    fn what_was_given_up_or_left_by_a_crash_is_erased() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let arrive = |id: u8| {
            let mut pieces = store.begin_pieces([id; 16]).unwrap();
            store.add_piece(&mut pieces, &Words::from(vec![7])).unwrap();
            pieces
        };
        drop(arrive(1));
        assert_eq!(files(dir.path()), 0);
        arrive(2).keep();
        arrive(3).keep();
        let record = Record::Part { set: 1, part: 0, share: Share::Pieces([3; 16]) };
        store.stage_record(5, &record).unwrap();
        drop(store);
        let other = Store::open(dir.path(), Party::Bob, StoreKey::from_seed(Seed::from_bytes([2; 32])));
        assert!(other.is_err() && files(dir.path()) == 3, "a wrong key costs nothing");
        let store = open(dir.path());
        store.sweep_pieces().unwrap();
        assert_eq!(files(dir.path()), 2, "the staged part and its pieces");
        assert_eq!(store.keep(5).unwrap(), record);
        assert_eq!(store.records().unwrap(), (vec![5], vec![]));
        store.erase_record(5).unwrap();
        assert_eq!(files(dir.path()), 0);
    }
}
