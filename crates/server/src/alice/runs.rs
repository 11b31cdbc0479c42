//! Training runs at alice's lanes: a lane that takes a run brings it back to where it stood, and goes on from there.
//!
//! Lots are agreed on a stretch at a time, so that a step of training needs no word of control: carol deals ahead while
//! the evaluators compute, as far as her link lets her. After any failure the lane gives the run up, and whichever takes
//! it next goes back to the latest checkpoint that bob has as well.

use super::*;
use crate::runs::{
    Extracting, Held, Live, Lot, OpenRows, Run, account, check_run, joint_seed, pair, revealed_at, shuffled, weights,
};
use crate::store::{Checkpoint, Initial};
use trefoil_mpc::masked::rows::open_rows;
use trefoil_mpc::masked::shuffle::shuffle_at_alice;
use trefoil_mpc::masked::training::Seat;
use trefoil_proto::control::SecretSeed;
use trefoil_proto::run::{Phase as Part, Position, Resumed, Revealed, RunSpec, Saved, Training};

/// Steps whose lots are agreed on at once.
const STRETCH: u32 = 16;
/// How long the removal of a run waits for the lane that works on it.
const RELEASE: Duration = Duration::from_secs(30);

/// After the go nobody reports back: whatever fails ends the lane, at all three.
fn fatal(fault: Fault) -> Fault {
    Fault::Evaluator(fault.refusal().1)
}

impl Lane<'_> {
    /// Does one stretch of a run, if there is one to be done. `false`: there was nothing to do.
    pub(super) fn train(&mut self) -> Result<bool, Fault> {
        if self.carol.is_none() || self.core.draining() {
            self.training = None;
            return Ok(false);
        }
        let Some(mut held) = self.training.take().or_else(|| self.core.runs.claim(self.core)) else {
            return Ok(false);
        };
        if held.run.is_removed() {
            return Ok(false);
        }
        let _working = self.core.work();
        let outcome = self.train_on(&mut held);
        held.run.leave(lock(&held.run.live), outcome.is_err());
        if let Err(fault) = &outcome {
            held.run.failed(&fault.refusal().1);
        }
        let goes_on = *outcome.as_ref().unwrap_or(&false);
        self.training = goes_on.then_some(held);
        self.settle(outcome.map(drop))?;
        Ok(goes_on)
    }

    /// Whether another lane is there for what clients ask.
    pub(super) fn others_are_free(&self) -> bool {
        self.desk.up.load(Ordering::Acquire) > self.core.runs.held()
    }

    /// `false`: the run is over.
    fn train_on(&mut self, held: &mut Held) -> Result<bool, Fault> {
        let run = held.run.clone();
        run.unobstructed(self.core)?;
        let Some(revealed) = &held.resumed else {
            self.bear_silence(self.core.patience(&run));
            let done = self.take_up(&run);
            self.bear_silence(self.core.silence);
            held.resumed = done?;
            return Ok(held.resumed.is_some());
        };
        let mut guard = lock(&run.live);
        let Some(live) = guard.as_mut() else { return Err(Fault::Own("the run is not in memory".into())) };
        let notes = run.notes();
        live.at = run.spec.due(live.at, notes.stopped);
        // What both have revealed is not revealed again: its recipient would learn more than was agreed.
        while let Some(own) = revealed_at(&run.spec, &notes.revealed, live.at).filter(|r| revealed.contains(r)) {
            tracing::info!(run = run.spec.name, index = own.index, epoch = own.epoch, "revealed before");
            live.at = run.spec.due(run.spec.after(live.at, 1), notes.stopped);
        }
        while run.is_served(self.core, live.at) {
            live.at = run.spec.after(live.at, 1);
        }
        if let Some(at) = live.to_extract() {
            return self.stretch(&run, live, at).map(|()| true);
        }
        match live.at.phase {
            Part::Done => {
                drop(guard);
                self.finish(&run, notes.stopped).map(|()| false)
            }
            Part::Publish if run.spec.program(live.at).is_none() => self.publish(&run, live).map(|()| true),
            _ => self.stretch(&run, live, live.at).map(|()| true),
        }
    }

    /// How long bob and carol may say nothing from now on.
    fn bear_silence(&mut self, limit: Duration) {
        self.bob.set_timeout(Some(limit));
        if let Some((link, _)) = &mut self.carol {
            link.set_timeout(Some(limit));
        }
    }

    /// Bob and carol agree to what alice commands, or nothing happens.
    fn agree_to_train(&mut self, training: Training) -> Result<(), Fault> {
        self.agree_to(&Command::Training(Box::new(training)), true)
    }

    fn ask_of_run(link: &mut dyn Link, run: &Run) -> Result<Result<Resumed, Fault>, LaneError> {
        let resume = Training::Resume { run: run.number, hash: run.hash };
        match Self::ask(link, &Command::Training(Box::new(resume)))? {
            Status::Resumed(there) => Ok(Ok(*there)),
            Status::Refused { why, reason } => Ok(Err(Fault::Refused(why, reason))),
            other => Err(LaneError::Protocol(format!("answered {other:?} about a run"))),
        }
    }

    /// Goes back to the latest checkpoint that bob has too, and opens the data set unless it is open at all three.
    /// What bob has revealed; none if the run is over.
    fn take_up(&mut self, run: &Run) -> Result<Option<Vec<Revealed>>, Fault> {
        let bob = Self::ask_of_run(self.bob.as_mut(), run).map_err(evaluator)??;
        let Some((link, _)) = &mut self.carol else { return Err(Fault::Producer("no session with carol".into())) };
        let carol = Self::ask_of_run(link.as_mut(), run).map_err(producer)??;
        if let Some(note) = bob.done {
            let training = Training::Finish { run: run.number, note: note.clone() };
            self.tell_everyone(&Command::Training(Box::new(training)))?;
            self.core.finish_run(run, &note)?;
            return Ok(None);
        }
        if let Some(model) = run.published(self.core) {
            // Bob may have been told at a moment when an agreement was missing.
            self.tell_everyone(&Command::Commit { epoch: model.epoch })?;
        }
        let own = self.core.store.checkpoints(run.number)?;
        let saved: Vec<Saved> = own.iter().map(Checkpoint::saved).collect();
        let both = pair(&saved, &bob.checkpoints).map_err(|e| Fault::Refused(Refusal::Mismatch, e))?;
        let common = own.iter().find(|c| Some(c.saved()) == both);
        let (at, states) = match common {
            Some(c) => (c.at, c.words()),
            None => (Position::START, run.first_states(self.core).map_err(Fault::Own)?),
        };
        let mut live = lock(&run.live);
        let is_open = run.rows_lot();
        let open = is_open.is_none() || [bob.rows, carol.rows] != [is_open; 2];
        let reserved = if open { Some(run.reserve(self.core)?) } else { None };
        let rows = match is_open {
            Some(lot) if !open => lot,
            _ => self.core.store.take_lot()?,
        };
        let share = if open { Some(self.core.load_rows(run)?) } else { None };
        let seeds: Vec<SecretSeed> = vec![run.seed.clone(), bob.seed.clone(), carol.seed];
        let seed = joint_seed(&seeds);
        let after = both.map(|s| s.lot);
        self.agree_to_train(Training::Begin { run: run.number, at, after, rows, open, seeds })?;
        self.go()?;
        let mut extracting = None;
        if let (Some(mut share), Some(reserved)) = (share, reserved) {
            let Some((_, session)) = &self.carol else { return Err(Fault::Own("no session with carol".into())) };
            let source = session.source(Party::Carol, rows).map_err(evaluator)?;
            if let Some((part, width)) = shuffled(&run.spec, &mut share)? {
                let bob = session.source(Party::Bob, rows).map_err(evaluator)?;
                let done = shuffle_at_alice(part, width, &source, &bob, self.bob.as_mut());
                done.map_err(|e| fatal(Fault::of(&e, Party::Bob)))?;
            }
            let opened = open_rows(Role::A, share, &source, self.bob.as_mut());
            let table = opened.map_err(|e| fatal(Fault::of(&e, Party::Bob)))?;
            self.bob.meter().take();
            extracting = Extracting::begin(run, &states, Role::A, &source, self.bob.as_mut()).map_err(fatal)?;
            account(run, Part::Extract, self.bob.as_mut(), [None, None]);
            run.keep_open(self.core, OpenRows::new(rows, table, run, reserved)).map_err(fatal)?;
        }
        *live = Some(Live { seed, extracting, states, at, order: None });
        self.core.store.erase_checkpoints_after(run.number, at)?;
        run.taken_up(self.core)?;
        run.reached(at);
        self.everyone("take up the run").map_err(fatal)?;
        self.bob.meter().take();
        tracing::info!(run = run.spec.name, ?at, open, "training goes on");
        Ok(Some(bob.revealed))
    }

    /// Neighbouring parts of one kind; what is revealed or saved stands alone or at the end.
    fn stretch(&mut self, run: &Run, live: &mut Live, first: Position) -> Result<(), Fault> {
        let most = match first.phase {
            Part::Extract | Part::Train | Part::Check => STRETCH,
            _ => 1,
        };
        self.core.helper(&run.spec, self.number, &mut self.helper)?;
        let count = most.min(run.spec.places(first.phase) - first.index);
        let lot = self.core.store.take_lots(count)?;
        self.agree_to_train(Training::Stretch { run: run.number, at: first, count, lot })?;
        self.core.reached(Point::Burnt);
        self.bob.meter().take();
        self.go()?;
        for (index, number) in (first.index..).zip(lot..).take(count as usize) {
            let Some((link, session)) = &mut self.carol else { return Err(Fault::Own("no session with carol".into())) };
            let carol = session.source(Party::Carol, number).map_err(evaluator)?;
            let other = session.source(Party::Bob, number).map_err(evaluator)?;
            let common = session.common(&live.seed, number);
            let seat = Seat::Alice(Some(link.as_mut()));
            let helper = self.core.helper(&run.spec, self.number, &mut self.helper)?;
            let lot = Lot { number, carol, other, common, peer: self.bob.as_mut(), seat, helper };
            live.part(self.core, run, Position { index, ..first }, lot).map_err(|e| fatal(e.fault(Party::Bob)))?;
        }
        account(run, first.phase, self.bob.as_mut(), [None, None]);
        let carol = self.carol.as_mut().map(|(link, _)| link);
        carol.into_iter().chain(&mut self.helper).for_each(|link| {
            link.meter().take();
        });
        Ok(live.save(self.core, run, (first, count), lot + u64::from(count) - 1)?)
    }

    /// The trained weights become a model of their own, under masks of their own, and are never put together.
    fn publish(&mut self, run: &Run, live: &Live) -> Result<(), Fault> {
        let Some(publication) = &run.spec.publish else { return Err(Fault::Own("nothing is to be published".into())) };
        let manifest = &publication.manifest;
        let epoch = self.name_upload(&manifest.name)?;
        let done = self.publish_as(run, live, epoch);
        self.end_upload(epoch, done)
    }

    fn publish_as(&mut self, run: &Run, live: &Live, epoch: u64) -> Result<(), Fault> {
        let Some(publication) = &run.spec.publish else { return Err(Fault::Own("nothing is to be published".into())) };
        let manifest = publication.manifest.clone();
        let shares = weights(&run.spec, &live.states, &manifest.program, &publication.weights).map_err(Fault::Own)?;
        self.agree_to_train(Training::Publish { run: run.number, epoch })?;
        self.go()?;
        self.open_model(epoch, run.spec.owner.clone(), manifest, shares, Some(run))
    }

    /// Everyone forgets the states, alice last: while she has not, she asks again.
    fn finish(&mut self, run: &Run, stopped: bool) -> Result<(), Fault> {
        let note = if stopped { "stopped early" } else { "all epochs done" };
        let finish = Training::Finish { run: run.number, note: note.into() };
        self.tell_everyone(&Command::Training(Box::new(finish)))?;
        Ok(self.core.finish_run(run, note)?)
    }

    /// A new run: bob stages, then carol, then alice; what she keeps then, all keep.
    pub(super) fn stage_run(&mut self, id: RequestId, spec: Box<RunSpec>, seed: SecretSeed) -> Result<(), Fault> {
        self.need_carol()?;
        check_run(self.core, &spec).map_err(|(why, reason)| Fault::Refused(why, reason))?;
        if let Some(name) = spec.publish.as_ref().map(|p| &p.manifest.name)
            && self.core.models.named(name).is_some()
        {
            let reason = format!("a model named {name} exists: remove it first or publish under another name");
            return Err(Fault::Refused(Refusal::Invalid, reason));
        }
        let name = format!("run {}", spec.name);
        let number = {
            let mut uploading = lock(&self.desk.uploading);
            if self.core.runs.named(&spec.name).is_some() || uploading.iter().any(|(_, n)| *n == name) {
                let reason = format!("a run named {} exists: drop it first or choose another name", spec.name);
                return Err(Fault::Refused(Refusal::Invalid, reason));
            }
            let number = self.core.store.take_lot()?;
            uploading.push((number, name));
            number
        };
        let done = self.stage_everywhere(id, number, spec, seed);
        lock(&self.desk.uploading).retain(|(e, _)| *e != number);
        if done.is_err() && self.core.runs.get(number).is_none() {
            self.core.store.erase_run(number)?;
        }
        if let Err(Fault::Producer(_) | Fault::Refused(..)) = &done {
            self.take_stock()?;
        }
        done
    }

    fn stage_everywhere(&mut self, id: RequestId, run: u64, spec: Box<RunSpec>, seed: SecretSeed) -> Result<(), Fault> {
        let hash = spec.hash();
        let stage = |spec| Command::Training(Box::new(Training::Stage { id, run, hash, spec }));
        match Self::ask(self.bob.as_mut(), &stage(None)).map_err(evaluator)? {
            Status::Ok => {}
            Status::Refused { why, reason } => return Err(Fault::Refused(why, reason)),
            other => return Err(Fault::Evaluator(format!("bob answered {other:?}"))),
        }
        let Some((link, _)) = &mut self.carol else { return Err(Fault::Producer("no session with carol".into())) };
        match Self::ask(link.as_mut(), &stage(Some(spec.clone()))).map_err(producer)? {
            Status::Ok => {}
            Status::Refused { why, reason } => return Err(Fault::Refused(why, reason)),
            other => return Err(Fault::Producer(format!("carol answered {other:?}"))),
        }
        self.core.stage_run(run, spec, Initial::Seed(seed))?;
        self.core.keep_run(run)?;
        self.core.reached(Point::Committed);
        self.tell_everyone(&Command::Training(Box::new(Training::Keep { run })))?;
        tracing::info!(run, "training run kept");
        Ok(())
    }

    /// Removes a run once no lane works on it: the others first.
    pub(super) fn drop_run(&mut self, run: &Run) -> Result<(), Fault> {
        self.need_carol()?;
        if self.training.as_ref().is_some_and(|held| held.run.number == run.number) {
            self.training = None;
        }
        let until = Instant::now() + RELEASE;
        while !run.withdraw(true) {
            if Instant::now() >= until {
                run.withdraw(false);
                return Err(Fault::Refused(Refusal::Busy, "busy: the run is in the middle of a step".into()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let told = self.tell_everyone(&Command::Training(Box::new(Training::Erase { run: run.number })));
        if told.is_err() {
            run.withdraw(false);
        }
        told?;
        self.core.erase_run(run.number)?;
        tracing::info!(run = run.spec.name, "run removed");
        Ok(())
    }
}
