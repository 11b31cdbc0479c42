//! The data sets a party holds: declarations, which parts are there, and the share of a complete set.
//!
//! A set is known by the number of its declaration, never by its name: a set declared anew under an old name is
//! another set. Alice decides what exists; bob and carol follow her inventory, as with models.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use thiserror::Error;
use trefoil_mpc::masked::input::alice_stream;
use trefoil_prg::Seed;
use trefoil_proto::Cluster;
use trefoil_proto::control::{Command, MAX_CONTROL, Refusal, Status, encode};
use trefoil_proto::dataset::{Declaration, SetInfo, pieces};
use trefoil_ring::Words;

use crate::core::{Core, complete, lock};
use crate::error::Fault;
use crate::probe::Point;
use crate::store::{Record, Share, Store, StoreError};

/// Why a data set cannot be used.
#[derive(Debug, Error)]
pub enum SetError {
    /// No such set.
    #[error("no data set {0}")]
    Unknown(String),
    /// Parts are missing.
    #[error("data set {name} is not complete: {missing:?} of its {parts} parts are missing")]
    Incomplete {
        /// The set.
        name: String,
        /// The parts that are missing, by their place in the declaration.
        missing: Vec<u32>,
        /// How many parts it has.
        parts: usize,
    },
    /// This party holds no shares: it is the producer.
    #[error("this party holds no share of data set {0}")]
    NoShare(String),
    /// A seed of another length.
    #[error("part {part} of data set {name} is damaged")]
    Damaged {
        /// The set.
        name: String,
        /// The part.
        part: u32,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One evaluator's additive share of a complete data set: what training begins with.
#[derive(Debug)]
pub struct SharedSet {
    /// Number of the declaration.
    pub epoch: u64,
    /// Who declared it.
    pub coordinator: String,
    /// Its public description.
    pub declaration: Declaration,
    /// The share of the whole table, row-major: `[rows, width]`.
    pub words: Words,
}

/// A set at this party.
#[derive(Clone)]
struct Held {
    coordinator: String,
    declaration: Arc<Declaration>,
    /// The parts that are there: their numbers and where their shares are.
    parts: BTreeMap<u32, (u64, Share)>,
}

impl Held {
    fn info(&self, epoch: u64) -> SetInfo {
        let arrived = (0..self.declaration.parts.len() as u32).map(|i| self.parts.contains_key(&i)).collect();
        let (coordinator, declaration) = (self.coordinator.clone(), (*self.declaration).clone());
        SetInfo { epoch, coordinator, declaration, arrived }
    }
}

/// All sets at this party, by number.
#[derive(Default)]
pub(crate) struct DataSets(Mutex<BTreeMap<u64, Held>>);

impl DataSets {
    /// Adds a declaration or a part. A part of a set that is not there is an error.
    pub(crate) fn insert(&self, epoch: u64, record: Record) -> Result<(), String> {
        let mut all = lock(&self.0);
        match record {
            Record::Set { coordinator, declaration } => {
                let held = Held { coordinator, declaration: Arc::from(declaration), parts: BTreeMap::new() };
                all.entry(epoch).or_insert(held);
            }
            Record::Part { set, part, share } => {
                let held = all.get_mut(&set).ok_or_else(|| format!("part {part} of a set {set} that is not here"))?;
                held.parts.insert(part, (epoch, share));
            }
        }
        Ok(())
    }

    /// Forgets a set; its number and those of its parts.
    fn remove(&self, set: u64) -> Vec<u64> {
        let held = lock(&self.0).remove(&set);
        held.map(|h| std::iter::once(set).chain(h.parts.values().map(|(e, _)| *e)).collect()).unwrap_or_default()
    }

    /// The numbers of all sets and parts.
    pub(crate) fn epochs(&self) -> Vec<u64> {
        let all = lock(&self.0);
        all.iter().flat_map(|(set, h)| std::iter::once(*set).chain(h.parts.values().map(|(e, _)| *e))).collect()
    }

    /// A set by its number.
    pub(crate) fn info(&self, set: u64) -> Option<SetInfo> {
        lock(&self.0).get(&set).map(|h| h.info(set))
    }

    /// All sets, oldest first.
    pub(crate) fn all(&self) -> Vec<SetInfo> {
        lock(&self.0).iter().map(|(set, h)| h.info(*set)).collect()
    }

    /// A set by its name.
    pub(crate) fn named(&self, name: &str) -> Option<SetInfo> {
        lock(&self.0).iter().find(|(_, h)| h.declaration.name == name).map(|(set, h)| h.info(*set))
    }

    /// Refuses a set that would make the list of all sets longer than a client can read.
    pub(crate) fn has_room(&self, declaration: &Declaration) -> bool {
        let listed = |d: &Declaration| encode(d).len() + d.parts.len() + 256;
        let all: usize = lock(&self.0).values().map(|h| listed(&h.declaration)).sum();
        all + listed(declaration) <= MAX_CONTROL
    }

    fn complete(&self, name: &str) -> Result<(u64, Held), SetError> {
        let all = lock(&self.0);
        let found = all.iter().find(|(_, h)| h.declaration.name == name);
        let (epoch, held) = found.ok_or_else(|| SetError::Unknown(name.into()))?;
        let parts = held.declaration.parts.len();
        let missing: Vec<u32> = (0..parts as u32).filter(|i| !held.parts.contains_key(i)).collect();
        match missing.is_empty() {
            true => Ok((*epoch, held.clone())),
            false => Err(SetError::Incomplete { name: name.into(), missing, parts }),
        }
    }

    /// The declaration of a complete set: all that the producer needs of it.
    pub(crate) fn declaration(&self, name: &str) -> Result<(u64, Arc<Declaration>), SetError> {
        self.complete(name).map(|(epoch, held)| (epoch, held.declaration))
    }

    /// An evaluator's share of a complete set.
    pub(crate) fn load(&self, store: &Store, name: &str) -> Result<SharedSet, SetError> {
        let (epoch, held) = self.complete(name)?;
        let declaration = (*held.declaration).clone();
        let mut words = Words::zeros(declaration.rows as usize * declaration.width());
        for (number, (_, share)) in &held.parts {
            load_part(store, &declaration, *number, share, &mut words)?;
        }
        Ok(SharedSet { epoch, coordinator: held.coordinator, declaration, words })
    }
}

/// Writes a part's rows into their place in the whole.
fn load_part(
    store: &Store,
    declaration: &Declaration,
    number: u32,
    share: &Share,
    whole: &mut [u64],
) -> Result<(), SetError> {
    let damaged = || SetError::Damaged { name: declaration.name.clone(), part: number };
    let (part, block) = declaration.part(number).ok_or_else(damaged)?;
    let (width, columns) = (declaration.width(), block.width as usize);
    let left = declaration.column(part.block);
    let mut rows = whole.chunks_exact_mut(width).skip(part.first as usize);
    let mut put = |piece: &[u64]| {
        // The piece first: a zip that ends there has not taken a row too many.
        for (values, row) in piece.chunks_exact(columns).zip(rows.by_ref()) {
            row[left..left + columns].copy_from_slice(values);
        }
    };
    let lengths = pieces(part.rows(), columns).map(|rows| rows * columns);
    match share {
        Share::Seed(seed) => {
            let bytes = <[u8; 32]>::try_from(seed.expose()).map_err(|_| damaged())?;
            let mut stream = alice_stream(&Seed::from_bytes(bytes));
            let mut piece = Words::default();
            for length in lengths {
                if piece.len() != length {
                    piece = Words::zeros(length);
                }
                stream.fill(&mut piece);
                put(&piece);
            }
            Ok(())
        }
        Share::Pieces(id) => Ok(store.read_pieces(id, lengths, |_, piece| put(piece))?),
        Share::Absent => Err(SetError::NoShare(declaration.name.clone())),
    }
}

/// Checks a declaration against itself and the cluster file.
pub(crate) fn check_declaration(cluster: &Cluster, declaration: &Declaration) -> Result<(), (Refusal, String)> {
    declaration.check().map_err(|e| (Refusal::Invalid, e.to_string()))?;
    match declaration.parts.iter().find(|p| cluster.client(&p.owner).is_none()) {
        None => Ok(()),
        Some(p) => {
            let owner: String = p.owner.chars().take(80).collect();
            Err((Refusal::Invalid, format!("the cluster file names no client {owner:?} to contribute a part")))
        }
    }
}

/// Checks that `owner` may contribute this part now, and gives the set.
pub(crate) fn check_part(sets: &DataSets, owner: &str, set: u64, part: u32) -> Result<SetInfo, (Refusal, String)> {
    let info = sets.info(set).filter(|i| i.declaration.names(owner));
    let Some(info) = info else {
        return Err((Refusal::UnknownSet, format!("no data set of number {set} for {owner}")));
    };
    let name = &info.declaration.name;
    match info.declaration.part(part) {
        None => Err((Refusal::Invalid, format!("{name} has no part {part}: there are {}", info.arrived.len()))),
        Some((p, _)) if p.owner != owner => {
            Err((Refusal::Denied, format!("part {part} of {name} is {}'s, not {owner}'s", p.owner)))
        }
        Some(_) if info.arrived.get(part as usize) == Some(&true) => {
            Err((Refusal::Invalid, format!("part {part} of {name} is already there")))
        }
        Some(_) => Ok(info),
    }
}

impl Core {
    /// Reads every kept declaration and part. What has lost its set or was only staged at alice is erased, and so are
    /// pieces that nothing names.
    pub(crate) fn load_sets(&self) -> Result<(), StoreError> {
        let (kept, staged) = self.store.records()?;
        if self.party == trefoil_prg::Party::Alice {
            staged.into_iter().try_for_each(|epoch| self.store.erase_record(epoch))?;
        }
        for epoch in &kept {
            match self.store.record(*epoch) {
                Err(e) => tracing::error!(epoch, reason = %e, "a stored data set cannot be used"),
                Ok(Record::Part { set, .. }) if !kept.contains(&set) => self.store.erase_record(*epoch)?,
                Ok(record) => {
                    if let Err(reason) = self.sets.insert(*epoch, record) {
                        tracing::error!(epoch, reason, "a stored data set cannot be used");
                    }
                }
            }
        }
        if let Err(e) = self.store.sweep_pieces() {
            tracing::error!(reason = %e, "what a crash may have left of data sets stays");
        }
        Ok(())
    }

    /// Makes a staged declaration or part permanent and known.
    pub(crate) fn keep_record(&self, epoch: u64) -> Result<(), String> {
        let record = self.store.keep(epoch).map_err(|e| e.to_string())?;
        self.sets.insert(epoch, record)
    }

    /// Follows alice's inventory of declarations and parts. Gives the numbers that this party lacks.
    pub(crate) fn reconcile_sets(&self, sets: &[u64], uploading: &[u64], below: u64) -> Result<Vec<u64>, Fault> {
        let _alone = lock(&self.reconciling);
        complete("sets", &self.sets.epochs(), sets, uploading, below)?;
        let (_, staged) = self.store.records()?;
        for epoch in staged {
            if sets.contains(&epoch) {
                self.keep_record(epoch).map_err(Fault::Own)?;
            } else if epoch < below && !uploading.contains(&epoch) {
                self.store.erase_record(epoch)?;
            }
        }
        let known = self.sets.epochs();
        Ok(sets.iter().copied().filter(|e| !known.contains(e)).collect())
    }

    /// Erases a set: first the declaration, without which its parts are nothing. What runs have opened of it goes at once.
    pub(crate) fn erase_set(&self, set: u64) -> Result<(), StoreError> {
        let mut epochs = self.sets.remove(set);
        if epochs.is_empty() {
            // A declaration that cannot be read. Its parts go when the store is opened next.
            epochs.push(set);
        }
        // Whoever opens its rows at this moment finds the set gone when they are to be kept.
        self.runs.all().iter().filter(|r| r.spec.set == set).for_each(|r| r.release());
        epochs.into_iter().try_for_each(|epoch| self.store.erase_record(epoch))
    }

    /// Does what alice commands bob and carol alike about a data set.
    pub(crate) fn follow_sets(&self, command: Command) -> Result<Option<Status>, Fault> {
        match command {
            Command::Declare { epoch, coordinator, declaration } => {
                let checked = check_declaration(&self.cluster, &declaration);
                checked.map_err(|(why, reason)| Fault::Refused(why, reason))?;
                self.stage_record(epoch, &Record::Set { coordinator, declaration })?;
            }
            Command::Keep { epoch } => {
                // In turn with a removal: what is known must be on disk, and the other way round.
                let _alone = lock(&self.reconciling);
                self.keep_record(epoch).map_err(Fault::Own)?;
                self.reached(Point::Committed);
            }
            Command::EraseSet { epoch } => {
                let _alone = lock(&self.reconciling);
                self.erase_set(epoch)?;
                tracing::info!(epoch, "data set removed");
            }
            other => return Err(Fault::Evaluator(format!("alice misbehaved: {other:?} about a data set"))),
        }
        Ok(Some(Status::Ok))
    }

    /// Stages a declaration or a part under a number that nothing has.
    pub(crate) fn stage_record(&self, epoch: u64, record: &Record) -> Result<(), Fault> {
        if self.sets.epochs().contains(&epoch) {
            return Err(Fault::Refused(Refusal::Mismatch, format!("number {epoch} is taken")));
        }
        self.store.stage_record(epoch, record)?;
        self.reached(Point::Staged);
        Ok(())
    }
}
