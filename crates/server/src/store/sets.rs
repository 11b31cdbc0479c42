//! What a party keeps of data sets: one small sealed file for each declaration and each part.
//!
//! Declarations and parts are numbered like models, a part higher than its set. A part's own file says where its share
//! is: alice's is a seed in that very file, bob's lies in a file of pieces, carol has none. A file of pieces that no
//! kept or staged part names is what a crash left, and goes at the next start.

use serde::{Deserialize, Serialize};
use trefoil_proto::control::{RequestId, SecretSeed};
use trefoil_proto::dataset::Declaration;

use super::{Pieces, Store, StoreError};

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A data set.
    Set { coordinator: String, declaration: Box<Declaration> },
    /// One of its parts.
    Part { set: u64, part: u32, share: Share },
}

/// Where a party's share of a part is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Share {
    /// Alice's: the stream of this seed.
    Seed(SecretSeed),
    /// Bob's: in the pieces of this upload.
    Pieces(RequestId),
    /// Carol's: she knows only that the part is there.
    Absent,
}

impl Store {
    /// Keeps a declaration or a part until [`Store::keep`].
    pub(crate) fn stage_record(&self, epoch: u64, record: &Record) -> Result<(), StoreError> {
        self.sets.stage(&self.key, epoch, record)
    }

    /// Makes a staged declaration or part permanent, and reads it.
    pub(crate) fn keep(&self, epoch: u64) -> Result<Record, StoreError> {
        self.sets.commit(epoch)?;
        self.record(epoch)
    }

    /// Reads a permanent declaration or part.
    pub(crate) fn record(&self, epoch: u64) -> Result<Record, StoreError> {
        self.sets.load(&self.key, epoch, false)
    }

    /// The epochs of permanent and of staged declarations and parts, oldest first.
    pub(crate) fn records(&self) -> Result<(Vec<u64>, Vec<u64>), StoreError> {
        self.sets.epochs()
    }

    /// Erases a declaration or a part, staged or not; first what names the pieces, then they.
    pub(crate) fn erase_record(&self, epoch: u64) -> Result<(), StoreError> {
        // A record that cannot be read names nothing.
        let pieces = self.named_pieces(epoch).unwrap_or_default();
        self.sets.erase(epoch)?;
        pieces.iter().try_for_each(|id| self.erase_pieces(id))
    }

    /// Erases the files of pieces that no part names. Fails while a part cannot be read: it may name any of them.
    pub(crate) fn sweep_pieces(&self) -> Result<(), StoreError> {
        let (kept, staged) = self.records()?;
        let mut named = Vec::new();
        for epoch in kept.into_iter().chain(staged) {
            named.extend(self.named_pieces(epoch)?);
        }
        Pieces::others(&self.sets.dir, &named)?.iter().try_for_each(|path| super::erase_file(path))
    }

    fn named_pieces(&self, epoch: u64) -> Result<Vec<RequestId>, StoreError> {
        let mut named = Vec::new();
        for staged in [true, false] {
            if self.sets.has(epoch, staged)
                && let Record::Part { share: Share::Pieces(id), .. } = self.sets.load(&self.key, epoch, staged)?
            {
                named.push(id);
            }
        }
        Ok(named)
    }
}
