//! Bob's lanes: he calls alice, follows her commands, and checks each of them against his own knowledge.

mod runs;
mod sets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use trefoil_link::Link;
use trefoil_mpc::masked::weights::open_weights;
use trefoil_mpc::masked::{EvaluatorWeights, Material, Role, evaluate, prepare, run};
use trefoil_prg::{Party, Source};
use trefoil_proto::control::{Command, Manifest, Opening, Refusal, RequestId, RunReport, Status, Terms, encode, tag};
use trefoil_proto::run::Phase;
use trefoil_ring::Tensor;
use trefoil_transport::Connection;

use crate::alice::step_reports;
use crate::core::{Core, Counted, SETUP, guarded, lock, nanos, peak_rss};
use crate::dial::dial;
use crate::error::{Fault, LaneError};
use crate::halves::{Half, Halves, Waiting};
use crate::jobs::Given;
use crate::models::{Model, Plan};
use crate::probe::Point;
use crate::runs::{Run, account};
use crate::session::{Session, agree, hear, say};

/// How long alice's command may be ahead of an owner's half of a model.
const HALF: Duration = Duration::from_secs(4);
/// How long a lane waits for a client's half: alice asks again while other requests use the lane.
const BRIEF: Duration = Duration::from_millis(20);
/// What a client hears when alice withdrew.
const CANCELLED: &str = "alice cancelled: another server did not agree";

/// How much longer than carol may be silent alice may be.
const PATIENCE: Duration = Duration::from_secs(2);

struct Lane<'a> {
    core: &'a Core,
    halves: &'a Halves,
    number: u32,
    alice: Box<dyn Link>,
    carol: Option<(Box<dyn Link>, Session)>,
    /// No lot below this one is accepted on this lane.
    floor: u64,
    /// How long alice may be silent before her next command.
    patience: Duration,
    /// To the helper, once a run needed it.
    helper: Option<Box<dyn Link>>,
}

fn evaluator(e: LaneError) -> Fault {
    Fault::Evaluator(format!("alice: {e}"))
}

fn refused(why: Refusal, reason: impl Into<String>) -> Fault {
    Fault::Refused(why, reason.into())
}

/// Runs one lane until the server ends.
pub(crate) fn serve(core: &Core, halves: &Halves, number: u32) {
    while !core.draining() {
        let Some(Connection { mut link, closer, .. }) = dial(core, Party::Alice, number) else { continue };
        core.watch(Party::Alice, number, closer);
        if core.draining() {
            // Whoever ends all links may have passed by before this one was there.
            break;
        }
        let floor = core.store.next_lot();
        let opening = Opening::Lane { party: core.party.name().into(), lane: number };
        let opened = say(link.as_mut(), tag::OPENING, &opening).map_err(evaluator);
        let alice = core.slowed(link, Party::Alice);
        let mut lane =
            Lane { core, halves, number, alice, carol: None, floor, patience: core.silence + PATIENCE, helper: None };
        let ended = opened.and_then(|()| guarded(|| lane.run()));
        core.hang_up(Party::Alice, number);
        core.hang_up(Party::Carol, number);
        core.leave_helper(number);
        if let (Err(fault), false) = (ended, core.draining()) {
            tracing::warn!(lane = number, reason = fault.refusal().1, "lane down");
        }
    }
}

/// Carol's link, and a lot's sources with her and with alice.
fn dealing(
    carol: &mut Option<(Box<dyn Link>, Session)>,
    lot: u64,
) -> Result<(&mut (dyn Link + 'static), [Source; 2]), Fault> {
    let Some((link, session)) = carol else {
        return Err(Fault::Producer("bob has no session with carol".into()));
    };
    let source = |peer| session.source(peer, lot).map_err(|e| Fault::Producer(e.to_string()));
    Ok((link.as_mut(), [source(Party::Carol)?, source(Party::Alice)?]))
}

impl Lane<'_> {
    /// The lane is up from alice's first word on: a call alone may wait at a host whose server hangs.
    fn run(&mut self) -> Result<(), Fault> {
        let first = self.command()?;
        let _up = Counted::new(&self.core.connected);
        self.follow(first)
    }

    /// Alice's next command. She asks after bob every second, unless she herself waits for carol.
    fn command(&mut self) -> Result<Command, Fault> {
        self.alice.set_timeout(Some(self.patience));
        self.patience = self.core.silence + PATIENCE;
        hear(self.alice.as_mut(), tag::COMMAND, "command").map_err(evaluator)
    }

    fn follow(&mut self, mut command: Command) -> Result<(), Fault> {
        loop {
            self.alice.set_timeout(Some(self.core.silence));
            let working = self.core.work();
            let status = match self.obey(command) {
                Ok(status) => status,
                Err(Fault::Refused(why, reason)) => {
                    tracing::warn!(lane = self.number, reason, "refused");
                    Some(Status::Refused { why, reason })
                }
                Err(Fault::Producer(reason)) => {
                    tracing::warn!(lane = self.number, reason, "session with carol ended");
                    self.carol = None;
                    self.core.hang_up(Party::Carol, self.number);
                    Some(Status::Refused { why: Refusal::Unavailable, reason })
                }
                Err(fault) => return Err(fault),
            };
            if let Some(status) = status {
                say(self.alice.as_mut(), tag::STATUS, &status).map_err(evaluator)?;
            }
            drop(working);
            command = self.command()?;
        }
    }

    /// Does what alice commands; the status that she is still owed.
    fn obey(&mut self, command: Command) -> Result<Option<Status>, Fault> {
        match command {
            Command::Ping => Ok(Some(Status::Ok)),
            Command::Session => self.session().map(|()| None),
            Command::Inventory { ref ready, .. } => {
                self.core.pool.retain(|_, lot| ready.contains(&lot));
                self.core.follow_inventory(&self.core.models, command)
            }
            Command::Run { id: Some(id), terms, ahead } => self.run_request(id, &terms, ahead).map(|()| None),
            Command::Run { id: None, terms, .. } => self.fill(&terms),
            Command::Upload { id, owner, epoch, manifest_hash, .. } => self.upload(id, &owner, epoch, manifest_hash),
            Command::Commit { epoch } => {
                self.core.commit(&self.core.models, epoch)?;
                self.core.reached(Point::Committed);
                Ok(Some(Status::Ok))
            }
            Command::Erase { epoch } => {
                let _alone = lock(&self.core.reconciling);
                self.core.models.remove(epoch);
                self.core.pool.retain(|kind, _| kind.0 != epoch);
                self.core.store.erase(epoch)?;
                tracing::info!(epoch, "model removed");
                Ok(Some(Status::Ok))
            }
            Command::Contribute { id, owner, set, part, epoch } => self.contribute(id, &owner, (set, part), epoch),
            command @ (Command::Declare { .. } | Command::Keep { .. } | Command::EraseSet { .. }) => {
                self.core.follow_sets(command)
            }
            Command::Training(training) => self.train(*training),
            Command::Go | Command::Cancel => Err(Fault::Evaluator("alice misbehaved: nothing was agreed".into())),
        }
    }

    fn session(&mut self) -> Result<(), Fault> {
        let connection = self.core.take_arrival(Party::Carol, self.number, SETUP / 2);
        let Some(Connection { mut link, closer, .. }) = connection else {
            return Err(refused(Refusal::Unavailable, "carol has not called bob"));
        };
        self.core.watch(Party::Carol, self.number, closer);
        say(self.alice.as_mut(), tag::STATUS, &Status::Mark(self.core.store.next_lot())).map_err(evaluator)?;
        for l in [&mut self.alice, &mut link] {
            l.set_timeout(Some(SETUP));
        }
        let session = agree(self.core, [self.alice.as_mut(), link.as_mut()]);
        let session = session.map_err(|e| Fault::Evaluator(format!("setting up a session: {e}")))?;
        link.set_timeout(Some(self.core.silence));
        self.alice.set_timeout(Some(self.core.silence));
        self.carol = Some((link, session));
        Ok(())
    }

    fn agree(&mut self) -> Result<(), Fault> {
        say(self.alice.as_mut(), tag::STATUS, &Status::Ok).map_err(evaluator)?;
        self.core.reached(Point::Agreed);
        Ok(())
    }

    /// Agrees and waits for alice's word. `false`: she cancelled.
    fn agree_and_wait(&mut self) -> Result<bool, Fault> {
        self.agree()?;
        match hear(self.alice.as_mut(), tag::COMMAND, "command").map_err(evaluator)? {
            Command::Go => Ok(true),
            Command::Cancel => Ok(false),
            other => Err(Fault::Evaluator(format!("alice misbehaved: {other:?} where a go was due"))),
        }
    }

    /// Checks alice's terms for a lot against what bob knows. `client` is none where material is dealt ahead.
    fn check(&self, terms: &Terms, dealt: bool) -> Result<(Arc<Model<EvaluatorWeights>>, Arc<Plan>), Fault> {
        let model = self.core.models.get(terms.epoch);
        let model = model
            .ok_or_else(|| refused(Refusal::UnknownModel, format!("bob holds no model of epoch {}", terms.epoch)))?;
        let plan = model.plan(terms.reveal);
        let plan =
            plan.ok_or_else(|| refused(Refusal::Invalid, format!("this model cannot reveal {:?}", terms.reveal)))?;
        let own = Terms { plan: plan.hash, ..terms.clone() };
        if let Some(difference) = own.difference(terms) {
            return Err(refused(Refusal::Mismatch, format!("bob and alice differ in {difference}")));
        }
        plan.fits(terms.batch)?;
        if dealt && terms.lot < self.floor {
            let reason = format!("lot {} does not increase: bob is at {}", terms.lot, self.floor);
            return Err(refused(Refusal::Mismatch, reason));
        }
        Ok((model, plan))
    }

    fn burn(&mut self, lot: u64) -> Result<(), Fault> {
        self.floor = self.core.store.burn(lot, self.floor)?;
        self.core.reached(Point::Burnt);
        Ok(())
    }

    fn prepare(&mut self, plan: &Plan, terms: &Terms, model: &Model<EvaluatorWeights>) -> Result<Material, Fault> {
        let (link, [carol, alice]) = dealing(&mut self.carol, terms.lot)?;
        let (peer, batch) = (self.alice.as_mut(), terms.batch as usize);
        let dealt = prepare(&plan.program, batch, &model.weights, &carol, &alice, peer, Some(link));
        dealt.map_err(|e| Fault::of(&e, Party::Alice))
    }

    fn fill(&mut self, terms: &Terms) -> Result<Option<Status>, Fault> {
        if !terms.client.is_empty() {
            return Err(refused(Refusal::Mismatch, "material is dealt ahead for no client"));
        }
        let (model, plan) = self.check(terms, true)?;
        if self.carol.is_none() {
            return Err(refused(Refusal::Unavailable, "bob has no session with carol"));
        }
        if !self.agree_and_wait()? {
            return Ok(None);
        }
        self.burn(terms.lot)?;
        let material = self.prepare(&plan, terms, &model)?;
        if let Some((link, _)) = &mut self.carol {
            link.meter().take();
        }
        self.core.pool.put((terms.epoch, terms.reveal, terms.batch), material);
        self.core.forget_removed(terms.epoch);
        Ok(Some(Status::Ok))
    }

    fn run_request(&mut self, id: RequestId, terms: &Terms, ahead: bool) -> Result<(), Fault> {
        let half = self.halves.take(&id, BRIEF);
        let half = half.ok_or_else(|| refused(Refusal::NotYet, "bob has not received his half of the request"))?;
        match self.run_half(&half, terms, ahead) {
            // Alice will try another lot or tell the client; either way this half may still be wanted.
            Err(Fault::Refused(why, reason)) => {
                if why == Refusal::Mismatch && ahead {
                    self.halves.put_back(id, half);
                } else {
                    answer(&half, Err((why, reason.clone())));
                }
                Err(Fault::Refused(why, reason))
            }
            Err(fault) => {
                answer(&half, Err(fault.refusal()));
                // Alice waits for the evaluation, not for a status: she hears of it by the lane's end.
                Err(Fault::Evaluator(fault.refusal().1))
            }
            Ok(None) => {
                answer(&half, Err((Refusal::Unavailable, CANCELLED.into())));
                Ok(())
            }
            Ok(Some(given)) => {
                answer(&half, Ok(given));
                Ok(())
            }
        }
    }

    fn run_half(&mut self, half: &Waiting, terms: &Terms, ahead: bool) -> Result<Option<Given>, Fault> {
        let Half::Predict { epoch, batch, reveal, share } = &half.half else {
            return Err(refused(Refusal::Invalid, "the client sent bob another kind of request"));
        };
        // Not a mismatch between the servers: no other lot would help, and none is to be lost by it.
        let own = Terms { client: half.client.clone(), epoch: *epoch, batch: *batch, reveal: *reveal, ..terms.clone() };
        if let Some(difference) = own.difference(terms) {
            let reason = format!("the client's request to bob and alice's differ in {difference}");
            return Err(refused(Refusal::Invalid, reason));
        }
        let (model, plan) = self.check(terms, !ahead)?;
        if !model.public.reveals_to(&half.client).contains(reveal) {
            return Err(refused(Refusal::Denied, format!("{} may not be shown {reveal:?} of this model", half.client)));
        }
        if !ahead && self.carol.is_none() {
            return Err(refused(Refusal::Unavailable, "bob has no session with carol"));
        }
        let material = match ahead {
            true => {
                let kept = self.core.pool.take_lot((*epoch, *reveal, *batch), terms.lot);
                let none = || refused(Refusal::Mismatch, format!("bob has no material of lot {}", terms.lot));
                Some(kept.ok_or_else(none)?)
            }
            false => None,
        };
        // Where everything is dealt nobody but the two has to agree: he begins.
        if ahead {
            self.agree()?;
        } else if !self.agree_and_wait()? {
            return Ok(None);
        }
        let started = Instant::now();
        if !ahead {
            self.burn(terms.lot)?;
        }
        self.alice.meter().take();
        self.core.reached(Point::Begun);
        let (program, weights, share) = (&plan.program, &model.weights, share.clone());
        let mut offline = 0;
        let outcome = match material {
            Some(material) => {
                offline = nanos(material.time());
                evaluate(program, share, weights, material, self.alice.as_mut())
            }
            None => {
                let (link, [carol, alice]) = dealing(&mut self.carol, terms.lot)?;
                run(program, terms.batch as usize, share, weights, &carol, &alice, self.alice.as_mut(), Some(link))
            }
        };
        let outcome = outcome.map_err(|e| Fault::of(&e, Party::Alice))?;
        let total = nanos(started.elapsed());
        let (online, offline) = (nanos(outcome.times.iter().sum()), offline + nanos(outcome.offline));
        self.core.reached(Point::Evaluated);
        let dealt = match (&mut self.carol, ahead) {
            (Some((link, _)), false) => Some(link),
            _ => None,
        };
        let steps = step_reports(&outcome, self.alice.as_mut(), dealt);
        let report =
            RunReport { lot: terms.lot, ahead, queued: 0, offline, online, total, steps, peak_rss: peak_rss() };
        tracing::info!(
            client = half.client,
            model = model.public.name,
            batch,
            ?reveal,
            lot = terms.lot,
            ahead,
            millis = total as f64 / 1e6,
            "answered"
        );
        Ok(Some((Arc::new(outcome.payload), report)))
    }

    fn upload(&mut self, id: RequestId, owner: &str, epoch: u64, hash: [u8; 32]) -> Result<Option<Status>, Fault> {
        let half = self.halves.take(&id, HALF);
        let half = half.ok_or_else(|| refused(Refusal::Unavailable, "bob has not received his half of the model"))?;
        let sender = half.answer.clone();
        let done = self.upload_half(half, owner, epoch, hash);
        let reply = match &done {
            Ok(Some(_)) => Ok(Default::default()),
            // Alice, who cancelled, waits for no status.
            Ok(None) => Err((Refusal::Unavailable, CANCELLED.into())),
            Err(fault) => Err(fault.refusal()),
        };
        // An owner that is gone hears nothing: nothing is lost by that.
        let _ = sender.send(reply);
        done
    }

    fn upload_half(&mut self, half: Waiting, owner: &str, epoch: u64, hash: [u8; 32]) -> Result<Option<Status>, Fault> {
        let Half::Upload { manifest, shares } = half.half else {
            return Err(refused(Refusal::Invalid, "the owner sent bob another kind of request"));
        };
        if half.client != owner || *blake3::hash(&encode(&manifest)).as_bytes() != hash {
            return Err(refused(Refusal::Mismatch, "the owner told alice and bob different things about the model"));
        }
        let invalid = |reason: String| refused(Refusal::Invalid, reason);
        crate::models::plans(&manifest.program, manifest.window).map_err(invalid)?;
        let Some((_, session)) = &self.carol else {
            return Err(refused(Refusal::Unavailable, "bob has no session with carol"));
        };
        if epoch < self.floor {
            return Err(refused(
                Refusal::Mismatch,
                format!("epoch {epoch} does not increase: bob is at {}", self.floor),
            ));
        }
        let source = session.source(Party::Carol, epoch).map_err(evaluator)?;
        if !self.agree_and_wait()? {
            return Ok(None);
        }
        self.burn(epoch)?;
        self.open_model(epoch, owner.into(), *manifest, shares, &source, None)?;
        Ok(Some(Status::Ok))
    }

    /// Opens a model's weights under masks of its own and stages it.
    fn open_model(
        &mut self,
        epoch: u64,
        owner: String,
        manifest: Manifest,
        shares: Vec<Tensor>,
        source: &Source,
        of: Option<&Run>,
    ) -> Result<(), Fault> {
        let weights = open_weights(Role::B, &manifest.program, shares, source, self.alice.as_mut());
        let weights = weights.map_err(|e| Fault::of(&e, Party::Alice))?;
        if let Some(run) = of {
            account(run, Phase::Publish, self.alice.as_mut(), [None, None]);
        }
        self.alice.meter().take();
        let model = Model::new(epoch, owner, of.map(Run::origin), manifest, weights).map_err(Fault::Own)?;
        self.core.store.stage(&model.stored())?;
        self.core.reached(Point::Staged);
        Ok(())
    }
}

fn answer(half: &Waiting, answer: crate::jobs::Answer) {
    // A client that is gone hears nothing: nothing is lost by that.
    let _ = half.answer.send(answer);
}
