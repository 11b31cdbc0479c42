//! A dealing session: one lane's fresh seeds between alice, bob and carol, and the links to carol.
//!
//! Each lane has its own session, so that a failure on one lane disturbs no other. Lots are numbered across all lanes
//! and sessions; a session's epoch is the hash that all three confirmed.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use trefoil_link::{Link, Phase};
use trefoil_prg::{Ledger, Pair, Party, Seed, Source};
use trefoil_proto::agreement::{Hello, Offer, Seeds};
use trefoil_proto::control::{decode, encode, tag};
use zeroize::Zeroizing;

use crate::core::Core;
use crate::error::LaneError;

/// Seeds that all three parties confirmed.
pub(crate) struct Session {
    seeds: Seeds,
    epoch: [u8; 32],
    party: Party,
    ledger: Option<Arc<dyn Ledger>>,
}

impl Session {
    /// The source that this party shares with `peer` for one lot.
    pub(crate) fn source(&self, peer: Party, lot: u64) -> Result<Source, LaneError> {
        let pair = match (self.party.min(peer), self.party.max(peer)) {
            (Party::Alice, Party::Bob) => Pair::AliceBob,
            (Party::Alice, Party::Carol) => Pair::AliceCarol,
            _ => Pair::BobCarol,
        };
        let seed = self.seeds.with(peer).ok_or_else(|| LaneError::Protocol(format!("no seed with {peer}")))?;
        let seed = Seed::from_bytes(*seed.expose());
        Ok(Source::new(&seed, pair, self.epoch, lot).with_ledger(self.ledger.clone()))
    }

    /// The source of what all three servers may know in one lot of a training run, from the run's seed.
    pub(crate) fn common(&self, seed: &Seed, lot: u64) -> Source {
        Source::new(seed, Pair::Common, self.epoch, lot).with_ledger(self.ledger.clone())
    }
}

/// Agrees on fresh seeds over the links to the two others, given in the parties' order.
pub(crate) fn agree(core: &Core, links: [&mut dyn Link; 2]) -> Result<Session, LaneError> {
    let failed = |e: trefoil_proto::agreement::AgreementError| LaneError::Protocol(e.to_string());
    let [first, second] = links;
    let offer = Offer::new(core.party, core.fingerprint()).map_err(failed)?;
    let mine = offer.hello().encode();
    let mut theirs = [[0; Hello::LEN]; 2];
    first.exchange(tag::HELLO, &[&mine], &mut theirs[0])?;
    second.exchange(tag::HELLO, &[&mine], &mut theirs[1])?;
    let hellos = [Hello::decode(&theirs[0]).map_err(failed)?, Hello::decode(&theirs[1]).map_err(failed)?];
    let agreement = offer.agree(hellos, &core.cluster.pins()).map_err(failed)?;
    let [(_, to_first), (_, to_second)] = agreement.tags();
    let mut tags = [[0; 32]; 2];
    first.exchange(tag::CONFIRM, &[&to_first], &mut tags[0])?;
    second.exchange(tag::CONFIRM, &[&to_second], &mut tags[1])?;
    let epoch = agreement.session();
    let seeds = agreement.confirm(tags).map_err(failed)?;
    let ledger = core.probe.as_ref().and_then(|p| p.ledger());
    Ok(Session { seeds, epoch, party: core.party, ledger })
}

/// Sends a control message, of which nothing stays in memory: some carry seeds.
pub(crate) fn say<T: Serialize>(link: &mut dyn Link, tag: u32, message: &T) -> Result<(), LaneError> {
    link.meter().enter(Phase::Control, 0);
    Ok(link.send(tag, &[&Zeroizing::new(encode(message))])?)
}

/// Receives a control message.
pub(crate) fn hear<T: DeserializeOwned>(link: &mut dyn Link, tag: u32, what: &'static str) -> Result<T, LaneError> {
    link.meter().enter(Phase::Control, 0);
    let bytes = Zeroizing::new(link.recv_any(tag, trefoil_proto::control::MAX_CONTROL)?);
    Ok(decode(what, &bytes)?)
}
