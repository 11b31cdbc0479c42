//! Carol's lanes: she calls alice and bob, holds the masks of the models, and deals what alice asks for.

mod runs;

use trefoil_link::Link;
use trefoil_mpc::masked::deal;
use trefoil_mpc::masked::weights::draw_weight_masks;
use trefoil_mpc::program::{Program, Window};
use trefoil_prg::Party;
use trefoil_proto::control::{Command, Opening, Refusal, Status, Terms, tag};
use trefoil_transport::Connection;

use crate::core::{Core, Counted, SETUP, guarded, lock};
use crate::dial::dial;
use crate::error::{Fault, LaneError};
use crate::models::Model;
use crate::probe::Point;
use crate::session::{Session, agree, hear, say};
use crate::sets::check_part;
use crate::store::{Origin, Record, Share};

struct Lane<'a> {
    core: &'a Core,
    number: u32,
    alice: Box<dyn Link>,
    bob: Box<dyn Link>,
    session: Option<Session>,
    /// While there is a session.
    met: Option<Counted<'a>>,
    /// No lot below this one is accepted on this lane.
    floor: u64,
}

fn evaluator(e: LaneError) -> Fault {
    Fault::Evaluator(e.to_string())
}

fn refused(why: Refusal, reason: impl Into<String>) -> Fault {
    Fault::Refused(why, reason.into())
}

/// Runs one lane until the server ends.
pub(crate) fn serve(core: &Core, number: u32) {
    while !core.draining() {
        let Some(alice) = call(core, Party::Alice, number) else { continue };
        let Some(bob) = call(core, Party::Bob, number) else {
            core.hang_up(Party::Alice, number);
            continue;
        };
        let floor = core.store.next_lot();
        let mut lane = Lane { core, number, alice, bob, session: None, met: None, floor };
        let ended = guarded(|| lane.follow());
        core.hang_up(Party::Alice, number);
        core.hang_up(Party::Bob, number);
        if let (Err(fault), false) = (ended, core.draining()) {
            tracing::warn!(lane = number, reason = fault.refusal().1, "lane down");
        }
    }
}

fn call(core: &Core, party: Party, number: u32) -> Option<Box<dyn Link>> {
    let Connection { mut link, closer, .. } = dial(core, party, number)?;
    core.watch(party, number, closer);
    if core.draining() {
        // Whoever ends all links may have passed by before this one was there.
        return None;
    }
    let opening = Opening::Lane { party: core.party.name().into(), lane: number };
    say(link.as_mut(), tag::OPENING, &opening).ok()?;
    Some(core.slowed(link, party))
}

impl Lane<'_> {
    fn follow(&mut self) -> Result<(), Fault> {
        loop {
            self.alice.set_timeout(None);
            let command: Command = hear(self.alice.as_mut(), tag::COMMAND, "command").map_err(evaluator)?;
            self.alice.set_timeout(Some(self.core.silence));
            let _working = self.core.work();
            let status = match self.obey(command) {
                Ok(status) => status,
                Err(Fault::Refused(why, reason)) => {
                    tracing::warn!(lane = self.number, reason, "refused");
                    Some(Status::Refused { why, reason })
                }
                Err(fault) => return Err(fault),
            };
            if let Some(status) = status {
                say(self.alice.as_mut(), tag::STATUS, &status).map_err(evaluator)?;
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<Option<Status>, Fault> {
        match command {
            Command::Ping => Ok(Some(Status::Ok)),
            Command::Session => self.set_up().map(|()| None),
            Command::Inventory { .. } => self.core.follow_inventory(&self.core.masks, command),
            Command::Run { terms, .. } => self.deal(&terms).map(|()| None),
            Command::Upload { owner, epoch, program: Some(program), .. } => {
                let invalid = |reason: String| refused(Refusal::Invalid, reason);
                crate::models::plans(&program.0, program.1).map_err(invalid)?;
                self.draw_model(epoch, owner, *program, None)
            }
            Command::Commit { epoch } => {
                self.core.commit(&self.core.masks, epoch)?;
                self.core.reached(Point::Committed);
                Ok(Some(Status::Ok))
            }
            Command::Erase { epoch } => {
                let _alone = lock(&self.core.reconciling);
                self.core.masks.remove(epoch);
                self.core.store.erase(epoch)?;
                tracing::info!(epoch, "model removed");
                Ok(Some(Status::Ok))
            }
            Command::Contribute { owner, set, part, epoch, .. } => {
                let known = check_part(&self.core.sets, &owner, set, part);
                known.map_err(|(why, reason)| refused(why, format!("carol: {reason}")))?;
                self.core.stage_record(epoch, &Record::Part { set, part, share: Share::Absent })?;
                Ok(Some(Status::Ok))
            }
            command @ (Command::Declare { .. } | Command::Keep { .. } | Command::EraseSet { .. }) => {
                self.core.follow_sets(command)
            }
            Command::Training(training) => self.train(*training),
            Command::Upload { program: None, .. } | Command::Go | Command::Cancel => {
                Err(Fault::Evaluator("alice misbehaved: nothing was agreed".into()))
            }
        }
    }

    fn session(&self) -> Result<&Session, Fault> {
        self.session.as_ref().ok_or_else(|| refused(Refusal::Unavailable, "carol has no session"))
    }

    fn set_up(&mut self) -> Result<(), Fault> {
        if self.session.is_some() {
            return Err(Fault::Evaluator("alice misbehaved: a second session on one connection".into()));
        }
        say(self.alice.as_mut(), tag::STATUS, &Status::Mark(self.core.store.next_lot())).map_err(evaluator)?;
        for l in [&mut self.alice, &mut self.bob] {
            l.set_timeout(Some(SETUP));
        }
        let session = agree(self.core, [self.alice.as_mut(), self.bob.as_mut()]).map_err(evaluator)?;
        self.bob.set_timeout(Some(self.core.silence));
        self.session = Some(session);
        self.met = Some(Counted::new(&self.core.connected));
        tracing::info!(lane = self.number, "lane up");
        Ok(())
    }

    /// Draws the masks of a model's weights and stages them.
    fn draw_model(
        &mut self,
        epoch: u64,
        owner: String,
        program: (Program, Window),
        origin: Option<Origin>,
    ) -> Result<Option<Status>, Fault> {
        if !self.agree_and_wait(epoch, epoch)? {
            return Ok(None);
        }
        let session = self.session()?;
        let alice = session.source(Party::Alice, epoch).map_err(evaluator)?;
        let bob = session.source(Party::Bob, epoch).map_err(evaluator)?;
        let weights = draw_weight_masks(&program.0, &alice, &bob).map_err(|e| Fault::Own(e.to_string()))?;
        let model = Model::new(epoch, owner, origin, program, weights).map_err(Fault::Own)?;
        self.core.store.stage(&model.stored())?;
        self.core.reached(Point::Staged);
        Ok(Some(Status::Ok))
    }

    /// Agrees to neighbouring lots and waits for alice's word; burns them on it. `false`: she cancelled.
    fn agree_and_wait(&mut self, lot: u64, last: u64) -> Result<bool, Fault> {
        self.session()?;
        if lot < self.floor {
            let reason = format!("lot {lot} does not increase: carol is at {}", self.floor);
            return Err(refused(Refusal::Mismatch, reason));
        }
        let go = self.agreed()?;
        if go {
            self.floor = self.core.store.burn(last, self.floor)?;
            self.core.reached(Point::Burnt);
        }
        Ok(go)
    }

    /// Agrees and waits for alice's word. `false`: she cancelled.
    fn agreed(&mut self) -> Result<bool, Fault> {
        say(self.alice.as_mut(), tag::STATUS, &Status::Ok).map_err(evaluator)?;
        self.core.reached(Point::Agreed);
        match hear(self.alice.as_mut(), tag::COMMAND, "command").map_err(evaluator)? {
            Command::Go => Ok(true),
            Command::Cancel => Ok(false),
            other => Err(Fault::Evaluator(format!("alice misbehaved: {other:?} where a go was due"))),
        }
    }

    fn deal(&mut self, terms: &Terms) -> Result<(), Fault> {
        let model = self.core.masks.get(terms.epoch);
        let model = model
            .ok_or_else(|| refused(Refusal::UnknownModel, format!("carol holds no model of epoch {}", terms.epoch)))?;
        let plan = model.plan(terms.reveal);
        let plan =
            plan.ok_or_else(|| refused(Refusal::Invalid, format!("this model cannot reveal {:?}", terms.reveal)))?;
        let own = Terms { plan: plan.hash, ..terms.clone() };
        if let Some(difference) = own.difference(terms) {
            return Err(refused(Refusal::Mismatch, format!("carol and alice differ in {difference}")));
        }
        plan.fits(terms.batch)?;
        if !self.agree_and_wait(terms.lot, terms.lot)? {
            return Ok(());
        }
        let session = self.session()?;
        let alice = session.source(Party::Alice, terms.lot).map_err(evaluator)?;
        let bob = session.source(Party::Bob, terms.lot).map_err(evaluator)?;
        let dealt = deal(&plan.program, terms.batch as usize, &model.weights, &alice, &bob, self.bob.as_mut());
        self.bob.meter().take();
        dealt.map_err(|e| Fault::Evaluator(e.to_string()))
    }
}
