//! Data sets at alice's lanes: she numbers declarations and parts, has bob and carol stage them, and decides.
//!
//! What she has kept exists; what she has not, the others drop when they next hear her inventory. A removed set goes at
//! the others first.

use super::*;
use crate::jobs::Contribution;
use crate::sets::check_part;
use crate::store::{Record, Share};
use trefoil_proto::dataset::Declaration;

/// A change of the data sets that is under way: no other may cross it.
pub(super) enum Change {
    /// A set of this name is declared.
    Declare(String),
    /// This part of a set arrives.
    Part(u64, u32),
    /// A set is removed.
    Remove(u64),
}

/// Changes under way, by number (none for a removal).
#[derive(Default)]
pub(super) struct Changes(Vec<(Option<u64>, Change)>);

impl Changes {
    /// The numbers of what is being staged.
    pub(super) fn epochs(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().filter_map(|(epoch, _)| *epoch)
    }

    fn declares(&self, name: &str) -> bool {
        self.0.iter().any(|(_, c)| matches!(c, Change::Declare(n) if n == name))
    }

    fn touches(&self, of: u64) -> bool {
        self.0.iter().any(|(_, c)| matches!(c, Change::Part(set, _) | Change::Remove(set) if *set == of))
    }

    fn blocks(&self, of: u64, number: u32) -> bool {
        self.0.iter().any(|(_, c)| match c {
            Change::Part(set, part) => (*set, *part) == (of, number),
            Change::Remove(set) => *set == of,
            Change::Declare(_) => false,
        })
    }
}

fn busy<T>(reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused(Refusal::Busy, reason.into()))
}

impl Lane<'_> {
    pub(super) fn declare(&mut self, coordinator: String, declaration: Box<Declaration>) -> Result<(), Fault> {
        self.need_carol()?;
        let name = declaration.name.clone();
        let epoch = {
            let mut changes = lock(&self.desk.sets);
            if self.core.sets.named(&name).is_some() || changes.declares(&name) {
                let reason = format!("a data set named {name} exists: remove it first or choose another name");
                return Err(Fault::Refused(Refusal::Invalid, reason));
            }
            let epoch = self.core.store.take_lot()?;
            changes.0.push((Some(epoch), Change::Declare(name.clone())));
            epoch
        };
        let command = Command::Declare { epoch, coordinator: coordinator.clone(), declaration: declaration.clone() };
        let done = self.keep_everywhere(epoch, &command, &Record::Set { coordinator, declaration });
        self.end_change(epoch, done)?;
        tracing::info!(set = name, epoch, "data set declared");
        Ok(())
    }

    pub(super) fn contribute(&mut self, c: Contribution) -> Result<(), Fault> {
        self.need_carol()?;
        let Contribution { id, owner, set, part, seed } = c;
        let epoch = {
            let mut changes = lock(&self.desk.sets);
            check_part(&self.core.sets, &owner, set, part).map_err(|(why, reason)| Fault::Refused(why, reason))?;
            if changes.blocks(set, part) {
                return busy(format!("busy: part {part} is on its way already, or its set is being removed"));
            }
            let epoch = self.core.store.take_lot()?;
            changes.0.push((Some(epoch), Change::Part(set, part)));
            epoch
        };
        let command = Command::Contribute { id, owner: owner.clone(), set, part, epoch };
        let done = self.keep_everywhere(epoch, &command, &Record::Part { set, part, share: Share::Seed(seed) });
        self.end_change(epoch, done)?;
        tracing::info!(owner, set, part, epoch, "part of a data set kept");
        Ok(())
    }

    pub(super) fn remove_set(&mut self, set: u64) -> Result<(), Fault> {
        self.need_carol()?;
        {
            let mut changes = lock(&self.desk.sets);
            if changes.touches(set) {
                return busy("busy: a part of this data set is arriving, or it is being removed");
            }
            changes.0.push((None, Change::Remove(set)));
        }
        let done = self.tell_everyone(&Command::EraseSet { epoch: set }).and_then(|()| Ok(self.core.erase_set(set)?));
        lock(&self.desk.sets).0.retain(|(_, c)| !matches!(c, Change::Remove(s) if *s == set));
        done?;
        tracing::info!(epoch = set, "data set removed");
        Ok(())
    }

    /// Bob stages, then carol, then alice; what she keeps then, all keep.
    fn keep_everywhere(&mut self, epoch: u64, command: &Command, own: &Record) -> Result<(), Fault> {
        match Self::ask(self.bob.as_mut(), command).map_err(evaluator)? {
            Status::Ok => {}
            Status::Refused { why, reason } => return Err(Fault::Refused(why, reason)),
            other => return Err(Fault::Evaluator(format!("bob answered {other:?}"))),
        }
        let Some((link, _)) = &mut self.carol else { return Err(Fault::Producer("no session with carol".into())) };
        match Self::ask(link.as_mut(), command).map_err(producer)? {
            Status::Ok => {}
            Status::Refused { why, reason } => return Err(Fault::Refused(why, reason)),
            other => return Err(Fault::Producer(format!("carol answered {other:?}"))),
        }
        self.core.stage_record(epoch, own)?;
        self.core.keep_record(epoch).map_err(Fault::Own)?;
        self.core.reached(Point::Committed);
        self.tell_everyone(&Command::Keep { epoch })
    }

    fn end_change(&mut self, epoch: u64, done: Result<(), Fault>) -> Result<(), Fault> {
        lock(&self.desk.sets).0.retain(|(e, _)| *e != Some(epoch));
        if done.is_err() && !self.core.sets.epochs().contains(&epoch) {
            self.core.store.erase_record(epoch)?;
        }
        if let Err(Fault::Producer(_) | Fault::Refused(..)) = &done {
            // The lane goes on, and bob may have staged what will not be.
            self.take_stock()?;
        }
        done
    }
}
