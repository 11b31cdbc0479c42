//! Data sets at an evaluator: what coordinators and owners ask for, and bob's share of a part as it arrives.

use trefoil_proto::control::SecretSeed;
use trefoil_proto::dataset::{Declaration, SetInfo, pieces};

use super::*;
use crate::error::LaneError;
use crate::jobs::Contribution;
use crate::probe::Point;
use crate::sets::{check_declaration, check_part};
use crate::store::Pieces;

/// What an owner says of a part: the set, the hash of its declaration, the part.
type Named = (u64, [u8; 32], u32);

impl Counter<'_> {
    /// The sets that `client` declared or contributes to.
    pub(super) fn sets(&self, client: &str) -> Vec<SetInfo> {
        let visible = |i: &SetInfo| i.coordinator == client || i.declaration.names(client);
        self.core.sets.all().into_iter().filter(visible).collect()
    }

    pub(super) fn declare(&self, client: &str, declaration: Box<Declaration>) -> Result<Response, Refused> {
        self.only_alice("declared")?;
        if !self.core.cluster.client(client).is_some_and(|c| c.roles.contains(&Role::Owner)) {
            let reason = format!("{client} may not declare data sets: the cluster file does not name it an owner");
            return refused(Refusal::Denied, reason);
        }
        check_declaration(&self.core.cluster, &declaration)?;
        if !self.core.sets.has_room(&declaration) {
            return refused(Refusal::Invalid, "the servers' list of data sets is full: remove some");
        }
        let answer = self.enqueue(client, Work::Declare(client.into(), declaration))?;
        self.finish(client, RequestId::default(), &answer)
    }

    pub(super) fn remove_set(&self, client: &str, name: &str) -> Result<Response, Refused> {
        self.only_alice("removed")?;
        let Some(info) = self.core.sets.named(name).filter(|i| i.coordinator == client) else {
            return refused(Refusal::UnknownSet, format!("{client} has declared no data set {name}"));
        };
        let answer = self.enqueue(client, Work::RemoveSet(info.epoch))?;
        self.finish(client, RequestId::default(), &answer)
    }

    fn only_alice(&self, done: &str) -> Result<(), Refused> {
        match self.core.party {
            Party::Alice => Ok(()),
            _ => refused(Refusal::Invalid, format!("data sets are {done} at alice")),
        }
    }

    /// The set whose part `client` may contribute, declared as it has read.
    fn may_contribute(&self, client: &str, (set, hash, part): Named) -> Result<SetInfo, Refused> {
        let info = check_part(&self.core.sets, client, set, part)?;
        if info.declaration.hash() != hash {
            return refused(Refusal::Mismatch, "the declaration is not the one that the owner read");
        }
        Ok(info)
    }

    /// Alice's half of a part.
    pub(super) fn alice_contribute(
        &self,
        client: &str,
        id: RequestId,
        named: Named,
        seed: SecretSeed,
    ) -> Result<Response, Refused> {
        self.may_contribute(client, named)?;
        read_seed(&seed)?;
        let (set, _, part) = named;
        let work = Contribution { id, owner: client.into(), set, part, seed };
        let answer = self.enqueue(client, Work::Contribute(work))?;
        self.finish(client, id, &answer)
    }

    /// Bob's half of a part: he says that he is ready, then the pieces come.
    pub(super) fn bob_contribute(
        &self,
        link: &mut dyn Link,
        client: &str,
        id: RequestId,
        named: Named,
    ) -> Result<Result<Response, Refused>, LaneError> {
        let info = match self.may_contribute(client, named) {
            Ok(info) => info,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (set, _, number) = named;
        let Some((part, block)) = info.declaration.part(number) else {
            return Ok(refused(Refusal::Invalid, format!("no part {number}")));
        };
        let (rows, columns) = (part.rows(), block.width as usize);
        let longest = pieces(rows, columns).next().unwrap_or(0) * columns;
        let Some(_reserved) = self.core.in_flight.reserve(2 * 8 * longest as u64) else {
            return Ok(refused(Refusal::Busy, MEMORY));
        };
        let begun = match self.core.store.begin_pieces(id) {
            Ok(begun) => begun,
            Err(e) => return Ok(refused(Refusal::Unavailable, e.to_string())),
        };
        say(link, tag::REPLY, &Reply::Ready)?;
        Ok(match self.receive_pieces(link, begun, pieces(rows, columns).map(|r| r * columns))? {
            Ok(pieces) => self.await_alice(link, client, id, Half::Contribute { set, part: number, pieces })?,
            Err(e) => refused(Refusal::Unavailable, format!("bob cannot keep the part: {e}")),
        })
    }

    /// Reads all pieces, whatever the disk says: after them comes the next request.
    fn receive_pieces(
        &self,
        link: &mut dyn Link,
        begun: Pieces,
        lengths: impl Iterator<Item = usize>,
    ) -> Result<Result<Pieces, crate::store::StoreError>, LaneError> {
        let mut outcome = Ok(begun);
        let mut words = Words::default();
        for length in lengths {
            if words.len() != length {
                words = Words::zeros(length);
            }
            link.recv(tag::SHARES, words.bytes_mut())?;
            if let Ok(mut pieces) = outcome {
                outcome = self.core.store.add_piece(&mut pieces, &words).map(|()| pieces);
                self.core.reached(Point::Piece);
            }
        }
        Ok(outcome)
    }

    /// Only now is alice asked: she finds the half here, and so does the owner's word that she refused.
    fn await_alice(
        &self,
        link: &mut dyn Link,
        client: &str,
        id: RequestId,
        half: Half,
    ) -> Result<Result<Response, Refused>, LaneError> {
        let (answer, receiver) = channel();
        if !self.halves.put(id, client.into(), half, answer) {
            return Ok(refused(Refusal::Busy, "busy: too many requests wait, or this one is already under way"));
        }
        if let Err(e) = say(link, tag::REPLY, &Reply::Ready) {
            self.halves.forget(&id, client);
            return Err(e);
        }
        Ok(self.finish(client, id, &receiver))
    }
}
