//! Alice's lanes: she numbers lots, leads bob and carol through agreement, and runs admitted work.

mod models;
mod runs;
mod sets;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trefoil_link::{Link, Phase};
use trefoil_mpc::masked::input::alice_share;
use trefoil_mpc::masked::{EvaluatorWeights, Material, Outcome, Role, evaluate, prepare, run};
use trefoil_prg::{Party, Source};
use trefoil_proto::control::{Command, Refusal, RequestId, RunReport, Status, StepReport, Terms, tag};
use trefoil_transport::Connection;

use crate::core::{Core, Counted, IDLE, SETUP, guarded, lock, nanos, peak_rss};
use crate::error::{Fault, LaneError};
use crate::jobs::{Answer, Given, Job, Predict, Queue, Work};
use crate::models::{Model, Plan};
use crate::pool::Kind;
use crate::probe::Point;
use crate::runs::Held;
use crate::session::{Session, agree, hear, say};
use crate::store::StoreError;

/// How often a lane without work asks whether the others are still there.
const PING: Duration = Duration::from_secs(1);
/// A lane that was silent for longer asks before it begins a request.
const FRESH: Duration = Duration::from_millis(50);
/// How long a request waits for carol to call again.
const CAROL: Duration = Duration::from_secs(1);
/// How long alice asks bob again for a half that has not arrived: a client's link may be slow.
const NOT_YET: Duration = Duration::from_secs(12);
/// How long requests wait while no lane is up.
pub(crate) const NO_LANE: Duration = Duration::from_secs(3);

/// What alice's lanes share beside the core.
pub(crate) struct Desk {
    pub(crate) queue: Queue,
    /// Uploads under way, by epoch, with their names.
    uploading: Mutex<Vec<(u64, String)>>,
    /// Changes of data sets under way.
    sets: Mutex<sets::Changes>,
    /// Whether an owner took an agreement back since bob and carol were last told.
    pub(crate) withdrawn: AtomicBool,
    /// Lanes whose link to bob stands.
    up: AtomicUsize,
}

impl Desk {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            queue: Queue::new(capacity),
            uploading: Mutex::default(),
            sets: Mutex::default(),
            withdrawn: AtomicBool::new(false),
            up: AtomicUsize::new(0),
        }
    }
}

/// One lane while its link to bob stands.
struct Lane<'a> {
    core: &'a Core,
    desk: &'a Desk,
    number: u32,
    bob: Box<dyn Link>,
    carol: Option<(Box<dyn Link>, Session)>,
    /// While there is a session with carol.
    met: Option<Counted<'a>>,
    heard: Instant,
    /// The training run that this lane works on.
    training: Option<Held>,
    /// To the helper, once a run needed it.
    helper: Option<Box<dyn Link>>,
}

fn evaluator(e: LaneError) -> Fault {
    Fault::Evaluator(format!("bob: {e}"))
}

fn producer(e: LaneError) -> Fault {
    Fault::Producer(format!("carol: {e}"))
}

/// Runs one lane until the server ends.
pub(crate) fn serve(core: &Core, desk: &Desk, number: u32) {
    while !core.draining() || !desk.queue.is_empty() {
        let Some(connection) = core.take_arrival(Party::Bob, number, IDLE) else {
            if core.draining() {
                break;
            }
            if desk.up.load(Ordering::Acquire) == 0 {
                for job in desk.queue.overdue(NO_LANE) {
                    refuse(job, Refusal::Unavailable, "bob is not connected");
                }
            }
            continue;
        };
        let Connection { link, closer, .. } = connection;
        core.watch(Party::Bob, number, closer);
        let mut lane = Lane {
            core,
            desk,
            number,
            bob: link,
            carol: None,
            met: None,
            heard: Instant::now(),
            training: None,
            helper: None,
        };
        let ended = guarded(|| lane.run());
        core.hang_up(Party::Bob, number);
        core.hang_up(Party::Carol, number);
        core.leave_helper(number);
        if let Err(fault) = ended {
            tracing::warn!(lane = number, reason = fault.refusal().1, "lane down");
        }
    }
    if core.draining() && number == 0 {
        for job in desk.queue.clear() {
            refuse(job, Refusal::Unavailable, "alice is shutting down");
        }
    }
}

fn refuse(job: Job, why: Refusal, reason: &str) {
    // A client that is gone hears nothing: nothing is lost by that.
    let _ = job.answer.send(Err((why, reason.into())));
}

impl Lane<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        self.bob.set_timeout(Some(SETUP));
        self.take_stock()?;
        tracing::info!(lane = self.number, "lane up");
        let _up = Counted::new(&self.desk.up);
        self.work()
    }

    fn work(&mut self) -> Result<(), Fault> {
        loop {
            if self.core.draining() && self.desk.queue.is_empty() {
                return Ok(());
            }
            if self.carol.is_none() && self.core.has_arrived(Party::Carol, self.number) {
                let joined = self.join_carol();
                self.settle(joined)?;
            }
            // Carol, if she is away, hears it when she calls; a lane that has her tells it.
            if self.carol.is_some() && self.desk.withdrawn.swap(false, Ordering::AcqRel) {
                let told = self.tell_stock();
                self.settle(told)?;
            }
            let trained = self.train()?;
            if trained && self.others_are_free() {
                continue;
            }
            let fill = (self.carol.is_some() && !trained).then(|| self.wanted()).flatten();
            let wait = if fill.is_some() || trained { Duration::ZERO } else { IDLE };
            if let Some(job) = self.desk.queue.pop(wait) {
                if let Some((kind, ..)) = fill {
                    self.core.pool.finish(kind, None);
                }
                if self.heard.elapsed() > FRESH
                    && let Err(fault) = self.ping()
                {
                    self.desk.queue.put_back(job);
                    return Err(fault);
                }
                self.serve_job(job)?;
            } else if let Some((kind, model)) = fill {
                let _working = self.core.work();
                let made = self.fill(kind, &model);
                let (material, made) = match made {
                    Ok(m) => (Some(m), Ok(())),
                    Err(f) => (None, Err(f)),
                };
                self.core.pool.finish(kind, material);
                self.core.forget_removed(kind.0);
                if made.is_err() {
                    std::thread::sleep(IDLE);
                }
                self.settle(made)?;
            } else if !trained && self.heard.elapsed() > PING {
                self.ping()?;
            }
        }
    }

    /// Deals with a fault: carol's ends her session, bob's or one's own ends the lane, a refusal ends nothing.
    fn settle(&mut self, result: Result<(), Fault>) -> Result<(), Fault> {
        self.heard = Instant::now();
        match result {
            Ok(()) => Ok(()),
            Err(Fault::Producer(reason)) => {
                tracing::warn!(lane = self.number, reason, "session with carol ended");
                self.leave_carol();
                Ok(())
            }
            Err(Fault::Refused(_, reason)) => {
                tracing::warn!(lane = self.number, reason, "refused");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    fn leave_carol(&mut self) {
        (self.carol, self.met) = (None, None);
        self.core.hang_up(Party::Carol, self.number);
    }

    fn ask(link: &mut dyn Link, command: &Command) -> Result<Status, LaneError> {
        say(link, tag::COMMAND, command)?;
        hear(link, tag::STATUS, "status")
    }

    fn ping(&mut self) -> Result<(), Fault> {
        let pong = |status| match status {
            Status::Ok => Ok(()),
            other => Err(LaneError::Protocol(format!("out of step: {other:?} to a ping"))),
        };
        Self::ask(self.bob.as_mut(), &Command::Ping).and_then(pong).map_err(evaluator)?;
        let carol = match &mut self.carol {
            Some((link, _)) => Self::ask(link.as_mut(), &Command::Ping).and_then(pong).map_err(producer),
            None => Ok(()),
        };
        self.settle(carol)
    }

    /// Tells bob which models and material exist; hears which he lacks.
    fn take_stock(&mut self) -> Result<(), Fault> {
        let missing = Self::inventory(self.core, self.desk, self.bob.as_mut()).map_err(evaluator)?;
        if !missing.is_empty() {
            tracing::error!(
                ?missing,
                "bob lacks models or data that alice holds: they cannot be used; remove and share them again"
            );
        }
        Ok(())
    }

    /// Tells both again what exists, and which runs have to stop.
    fn tell_stock(&mut self) -> Result<(), Fault> {
        self.take_stock()?;
        match &mut self.carol {
            Some((link, _)) => Self::inventory(self.core, self.desk, link.as_mut()).map(drop).map_err(producer),
            None => Ok(()),
        }
    }

    fn inventory(core: &Core, desk: &Desk, link: &mut dyn Link) -> Result<Vec<u64>, LaneError> {
        // The uploads first: one that ends in between stands in both lists. One that begins later is not below.
        let (uploading, below): (Vec<u64>, u64) = {
            let (uploading, sets) = (lock(&desk.uploading), lock(&desk.sets));
            (uploading.iter().map(|(e, _)| *e).chain(sets.epochs()).collect(), core.store.next_lot())
        };
        // What is kept, whether or not it can be read; not what another lane is only about to complete.
        let kept = |list: Result<(Vec<u64>, Vec<u64>), StoreError>, known: &[u64]| {
            let (kept, _) = list.map_err(|e| LaneError::Protocol(e.to_string()))?;
            let settled = |e: &u64| !uploading.contains(e) || known.contains(e);
            Ok::<Vec<u64>, LaneError>(kept.into_iter().filter(settled).collect())
        };
        let models: Vec<u64> = core.models.all().iter().map(|m| m.epoch).collect();
        let runs: Vec<u64> = core.runs.all().iter().map(|r| r.number).collect();
        let (epochs, sets) = (kept(core.store.epochs(), &models)?, kept(core.store.records(), &core.sets.epochs())?);
        let runs = kept(core.store.stored_runs(), &runs)?;
        let halted = core.runs.all().iter().filter(|r| r.obstacle(core).is_some()).map(|r| r.number).collect();
        let ready = core.pool.lots();
        match Self::ask(link, &Command::Inventory { epochs, sets, runs, halted, uploading, below, ready })? {
            Status::Missing(epochs) => Ok(epochs),
            Status::Refused { reason, .. } => Err(LaneError::Protocol(reason)),
            _ => Ok(vec![]),
        }
    }

    /// Sets up a session with carol, who has called.
    fn join_carol(&mut self) -> Result<(), Fault> {
        self.bob.set_timeout(Some(SETUP));
        let mark = match Self::ask(self.bob.as_mut(), &Command::Session).map_err(evaluator)? {
            Status::Mark(mark) => mark,
            Status::Refused { reason, .. } => {
                // Her line to bob is gone and she, waiting for a word from here, does not see it: she is to call again.
                if let Some(stale) = self.core.take_arrival(Party::Carol, self.number, Duration::ZERO) {
                    stale.closer.close();
                }
                return Err(Fault::Refused(Refusal::Unavailable, reason));
            }
            other => return Err(Fault::Evaluator(format!("bob answered {other:?} to a session"))),
        };
        // From here on bob waits for the hellos: if carol fails now, so does the lane, and all start again.
        let Some(connection) = self.core.take_arrival(Party::Carol, self.number, Duration::ZERO) else {
            return Err(Fault::Evaluator("carol's call was withdrawn".into()));
        };
        let Connection { mut link, closer, .. } = connection;
        self.core.watch(Party::Carol, self.number, closer);
        link.set_timeout(Some(SETUP));
        let lane = |e: LaneError| Fault::Evaluator(format!("setting up a session: {e}"));
        let other = match Self::ask(link.as_mut(), &Command::Session).map_err(lane)? {
            Status::Mark(mark) => mark,
            other => return Err(Fault::Evaluator(format!("carol answered {other:?} to a session"))),
        };
        let session = agree(self.core, [self.bob.as_mut(), link.as_mut()]).map_err(lane)?;
        self.core.store.raise(mark.max(other))?;
        let missing = Self::inventory(self.core, self.desk, link.as_mut()).map_err(producer)?;
        if !missing.is_empty() {
            tracing::error!(?missing, "carol lacks models or data that alice holds: nothing can be dealt for them");
        }
        link.set_timeout(Some(self.core.silence));
        self.bob.set_timeout(Some(self.core.silence));
        self.carol = Some((link, session));
        self.met = Some(Counted::new(&self.core.connected));
        tracing::info!(lane = self.number, "session with carol set up");
        Ok(())
    }

    fn need_carol(&mut self) -> Result<(), Fault> {
        if self.carol.is_none() && self.core.await_arrival(Party::Carol, self.number, CAROL) {
            self.join_carol()?;
        }
        match self.carol {
            Some(_) => Ok(()),
            None => Err(Fault::Refused(Refusal::Unavailable, "carol is not connected and no material is ready".into())),
        }
    }

    fn serve_job(&mut self, job: Job) -> Result<(), Fault> {
        let _working = self.core.work();
        let Job { work, client, answer, admitted } = job;
        let result = match work {
            Work::Predict(p) => match self.predict(&p, admitted) {
                Err(Fault::Refused(Refusal::NotYet, _)) if admitted.elapsed() < NOT_YET && !self.core.draining() => {
                    self.desk.queue.requeue(Job { work: Work::Predict(p), client, answer, admitted });
                    return self.settle(Ok(()));
                }
                Err(Fault::Refused(Refusal::NotYet, reason)) => Err(Fault::Refused(Refusal::Unavailable, reason)),
                done => done,
            },
            Work::Upload(u) => self.upload(u).map(|()| Default::default()),
            Work::Remove(m) => self.remove(&m).map(|()| Default::default()),
            Work::Declare(by, declaration) => self.declare(by, declaration).map(|()| Default::default()),
            Work::Contribute(c) => self.contribute(c).map(|()| Default::default()),
            Work::RemoveSet(set) => self.remove_set(set).map(|()| Default::default()),
            Work::Train { id, spec, seed } => self.stage_run(id, spec, seed).map(|()| Default::default()),
            Work::DropRun(run) => self.drop_run(&run).map(|()| Default::default()),
        };
        let (reply, result): (Answer, _) = match result {
            Ok(done) => (Ok(done), Ok(())),
            Err(fault) => (Err(fault.refusal()), Err(fault)),
        };
        // A client that is gone hears nothing: nothing is lost by that.
        let _ = answer.send(reply);
        self.settle(result)
    }

    /// Everyone agrees on a lot or nothing happens. `carol`: whether she deals it.
    fn agree_on(&mut self, id: Option<RequestId>, terms: &Terms, carol: bool) -> Result<(), Fault> {
        self.agree_to(&Command::Run { id, terms: terms.clone(), ahead: !carol }, carol)
    }

    /// Everyone agrees to a command or nothing happens. `carol`: whether it concerns her.
    fn agree_to(&mut self, command: &Command, carol: bool) -> Result<(), Fault> {
        say(self.bob.as_mut(), tag::COMMAND, command).map_err(evaluator)?;
        let dealt = match (&mut self.carol, carol) {
            (Some((link, _)), true) => Some(Self::ask(link.as_mut(), command).map_err(producer)),
            _ => None,
        };
        let bob: Status = hear(self.bob.as_mut(), tag::STATUS, "status").map_err(evaluator)?;
        let bob_agreed = bob == Status::Ok;
        let carol_agreed = matches!(dealt, None | Some(Ok(Status::Ok)));
        if bob_agreed && carol_agreed {
            self.core.reached(Point::Agreed);
            return Ok(());
        }
        if bob_agreed {
            say(self.bob.as_mut(), tag::COMMAND, &Command::Cancel).map_err(evaluator)?;
        }
        if let (Some((link, _)), Some(Ok(Status::Ok))) = (&mut self.carol, &dealt) {
            say(link.as_mut(), tag::COMMAND, &Command::Cancel).map_err(producer)?;
        }
        match (bob, dealt) {
            (_, Some(Err(fault))) => Err(fault),
            (Status::Refused { why, reason }, _) | (_, Some(Ok(Status::Refused { why, reason }))) => {
                Err(Fault::Refused(why, reason))
            }
            (bob, _) => Err(Fault::Evaluator(format!("bob answered {bob:?}"))),
        }
    }

    /// Carol first: bob waits for what she deals.
    fn go(&mut self) -> Result<(), Fault> {
        if let Some((link, _)) = &mut self.carol
            && let Err(e) = say(link.as_mut(), tag::COMMAND, &Command::Go)
        {
            say(self.bob.as_mut(), tag::COMMAND, &Command::Cancel).map_err(evaluator)?;
            return Err(producer(e));
        }
        say(self.bob.as_mut(), tag::COMMAND, &Command::Go).map_err(evaluator)
    }

    /// This lot's sources with carol and with bob.
    fn sources(&self, lot: u64) -> Result<(Source, Source), Fault> {
        let Some((_, session)) = &self.carol else { return Err(Fault::Own("no session with carol".into())) };
        let carol = session.source(Party::Carol, lot).map_err(producer)?;
        Ok((carol, session.source(Party::Bob, lot).map_err(evaluator)?))
    }

    /// Draws this party's material of a lot.
    fn prepare(
        &mut self,
        plan: &Plan,
        batch: u32,
        model: &Model<EvaluatorWeights>,
        lot: u64,
    ) -> Result<Material, Fault> {
        let (carol, bob) = self.sources(lot)?;
        let material = prepare(&plan.program, batch as usize, &model.weights, &carol, &bob, self.bob.as_mut(), None);
        material.map_err(|e| Fault::of(&e, Party::Bob))
    }

    fn terms(
        &self,
        client: &str,
        model: &Model<EvaluatorWeights>,
        kind: Kind,
        lot: u64,
    ) -> Result<(Arc<Plan>, Terms), Fault> {
        let (epoch, reveal, batch) = kind;
        let plan = model.plan(reveal);
        let plan =
            plan.ok_or_else(|| Fault::Refused(Refusal::Invalid, format!("this model cannot reveal {reveal:?}")))?;
        let terms = Terms { client: client.into(), epoch, plan: plan.hash, batch, reveal, lot };
        Ok((plan, terms))
    }

    fn predict(&mut self, p: &Predict, admitted: Instant) -> Result<Given, Fault> {
        let began = Instant::now();
        let kind = (p.model.epoch, p.reveal, p.batch);
        let mut report = RunReport { queued: nanos(began - admitted), ..Default::default() };
        let (plan, material) = loop {
            let ready = self.core.pool.take(kind);
            if ready.is_none() {
                self.need_carol()?;
            }
            let lot = match &ready {
                Some(m) => m.lot(),
                None => self.core.store.take_lot()?,
            };
            let (plan, terms) = self.terms(&p.client, &p.model, kind, lot)?;
            match self.agree_on(Some(p.id), &terms, ready.is_none()) {
                // Bob may have lost material in a restart: the next lot will do.
                Err(Fault::Refused(Refusal::Mismatch, reason)) if ready.is_some() => {
                    tracing::info!(lot, reason, "material dropped");
                }
                Err(fault) => {
                    // Bob refused before he took his half of the material, and nobody has used it.
                    if let (Fault::Refused(..), Some(material)) = (&fault, ready) {
                        self.core.pool.put(kind, material);
                        self.core.forget_removed(kind.0);
                    }
                    return Err(fault);
                }
                Ok(()) => {
                    report.lot = lot;
                    report.ahead = ready.is_some();
                    break (plan, ready);
                }
            }
        };
        let started = Instant::now();
        self.core.reached(Point::Burnt);
        self.bob.meter().take();
        // Where everything is dealt bob has begun when he agreed: nobody is left to disagree.
        if material.is_none() {
            self.go()?;
        }
        self.core.reached(Point::Begun);
        let share =
            alice_share(&p.seed, p.batch as usize * p.model.public.program.input_shape.iter().product::<usize>());
        let (program, weights) = (&plan.program, &p.model.weights);
        let outcome = match material {
            Some(material) => {
                report.offline = nanos(material.time());
                evaluate(program, share, weights, material, self.bob.as_mut())
            }
            None => {
                let (carol, bob) = self.sources(report.lot)?;
                run(program, p.batch as usize, share, weights, &carol, &bob, self.bob.as_mut(), None)
            }
        };
        let outcome = outcome.map_err(|e| Fault::of(&e, Party::Bob))?;
        report.total = nanos(started.elapsed());
        report.offline += nanos(outcome.offline);
        report.online = nanos(outcome.times.iter().sum());
        self.core.reached(Point::Evaluated);
        report.steps = step_reports(&outcome, self.bob.as_mut(), None);
        report.peak_rss = peak_rss();
        tracing::info!(
            client = p.client,
            model = p.model.public.name,
            batch = p.batch,
            reveal = ?p.reveal,
            lot = report.lot,
            ahead = report.ahead,
            millis = report.total as f64 / 1e6,
            "answered"
        );
        Ok((Arc::new(outcome.payload), report))
    }

    /// Material that some model wants ready; reserved until it is finished.
    fn wanted(&self) -> Option<(Kind, Arc<Model<EvaluatorWeights>>)> {
        if self.core.draining() {
            return None;
        }
        self.core.models.all().into_iter().find_map(|m| {
            let mut wishes = m.public.ahead.iter();
            let wish =
                wishes.find(|a| self.core.pool.reserve((m.epoch, a.reveal, a.batch), a.count, self.core.pool_bytes))?;
            let kind = (m.epoch, wish.reveal, wish.batch);
            Some((kind, m.clone()))
        })
    }

    /// Prepares material ahead, at bob as well.
    fn fill(&mut self, kind: Kind, model: &Model<EvaluatorWeights>) -> Result<Material, Fault> {
        let lot = self.core.store.take_lot()?;
        let (plan, terms) = self.terms("", model, kind, lot)?;
        self.agree_on(None, &terms, true)?;
        self.core.reached(Point::Burnt);
        self.go()?;
        let material = self.prepare(&plan, kind.2, model, lot)?;
        match hear::<Status>(self.bob.as_mut(), tag::STATUS, "status").map_err(evaluator)? {
            Status::Ok => Ok(material),
            Status::Refused { reason, .. } => Err(Fault::Producer(reason)),
            other => Err(Fault::Evaluator(format!("bob answered {other:?}"))),
        }
    }

    /// Hears from bob and carol that a step is done.
    fn everyone(&mut self, what: &str) -> Result<(), Fault> {
        self.everyone_told(Ok(()), what)
    }

    /// The same, where carol may not have been told: bob is heard in any case, or he would be out of step.
    fn everyone_told(&mut self, carol: Result<(), Fault>, what: &str) -> Result<(), Fault> {
        let bob = hear(self.bob.as_mut(), tag::STATUS, "status").map_err(evaluator)?;
        carol?;
        let carol = match &mut self.carol {
            Some((link, _)) => hear(link.as_mut(), tag::STATUS, "status").map_err(producer)?,
            None => return Err(Fault::Producer("no session with carol".into())),
        };
        match (bob, carol) {
            (Status::Ok, Status::Ok) => Ok(()),
            (Status::Ok, other) => Err(Fault::Producer(format!("carol could not {what}: {other:?}"))),
            (other, _) => Err(Fault::Evaluator(format!("bob could not {what}: {other:?}"))),
        }
    }

    fn tell_everyone(&mut self, command: &Command) -> Result<(), Fault> {
        say(self.bob.as_mut(), tag::COMMAND, command).map_err(evaluator)?;
        let carol = match &mut self.carol {
            Some((link, _)) => say(link.as_mut(), tag::COMMAND, command).map_err(producer),
            None => Err(Fault::Producer("no session with carol".into())),
        };
        self.everyone_told(carol, "finish")
    }
}

/// What each step took: times of the outcome, counters of the links.
pub(crate) fn step_reports(
    outcome: &Outcome,
    peer: &mut dyn Link,
    dealt: Option<&mut Box<dyn Link>>,
) -> Vec<StepReport> {
    let online = peer.meter().take();
    let offline = dealt.map(|d| d.meter().take()).unwrap_or_default();
    let report = |(i, time): (usize, &Duration)| {
        let on = online.get(&(Phase::Online, i)).copied().unwrap_or_default();
        let off = offline.get(&(Phase::Offline, i)).copied().unwrap_or_default();
        StepReport { nanos: nanos(*time), rounds: on.rounds, online: on.sent + on.received, offline: off.received }
    };
    outcome.times.iter().enumerate().map(report).collect()
}
