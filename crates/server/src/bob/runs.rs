//! Training runs at bob's lanes: he holds alice to the specification that its owner sent him, and to whom agreed to it.

use super::*;
use crate::core::lock;
use crate::runs::{
    Extracting, Live, Lot, MOST, OpenRows, Run, account, all_states, check_run, joint_seed, shuffled, weights,
};
use crate::store::{Checkpoint, Initial};
use trefoil_mpc::masked::rows::open_rows;
use trefoil_mpc::masked::shuffle::shuffle_at_bob;
use trefoil_mpc::masked::training::Seat;
use trefoil_proto::control::SecretSeed;
use trefoil_proto::run::{Phase as Part, Position, Training};

/// After alice's go she hears nothing before the next command: whatever fails ends the lane.
fn fatal(fault: Fault) -> Fault {
    Fault::Evaluator(fault.refusal().1)
}

impl Lane<'_> {
    pub(super) fn train(&mut self, training: Training) -> Result<Option<Status>, Fault> {
        match training {
            Training::Stage { id, run, hash, .. } => self.stage_run(id, run, hash),
            Training::Keep { run } => {
                let _alone = lock(&self.core.reconciling);
                self.core.keep_run(run)?;
                self.core.reached(Point::Committed);
                Ok(Some(Status::Ok))
            }
            Training::Erase { run } => {
                let _alone = lock(&self.core.reconciling);
                self.core.erase_run(run)?;
                tracing::info!(run, "run removed");
                Ok(Some(Status::Ok))
            }
            Training::Resume { run, hash } => {
                let run = self.core.run_of(run)?;
                if run.hash != hash {
                    return Err(refused(Refusal::Mismatch, "alice and bob differ in what the run is"));
                }
                if run.notes().done.is_none() {
                    run.unobstructed(self.core)?;
                }
                // Alice reads her share of the data set before she goes on.
                self.patience = self.core.patience(&run) + PATIENCE;
                Ok(Some(Status::Resumed(Box::new(run.resumed(self.core)?))))
            }
            Training::Begin { run, at, after, rows, open, seeds } => {
                let run = self.core.run_of(run)?;
                self.bear_silence(self.core.patience(&run));
                let done = self.begin(&run, (at, after), (rows, open), &seeds);
                self.bear_silence(self.core.silence);
                done
            }
            Training::Stretch { run, at, count, lot } => {
                let run = self.core.run_of(run)?;
                self.stretch(&run, at, count, lot).map(|()| None)
            }
            Training::Publish { run, epoch } => {
                let run = self.core.run_of(run)?;
                self.publish(&run, epoch)
            }
            Training::Finish { run, note } => {
                let run = self.core.run_of(run)?;
                let at = lock(&run.live).as_ref().map(|l| l.at);
                let over = at.and_then(|at| run.reach(self.core, at, |p| p.phase == Part::Done));
                if run.notes().done.is_none() && over.is_none() {
                    return Err(refused(Refusal::Mismatch, "the run is not over at bob"));
                }
                self.core.finish_run(&run, &note)?;
                Ok(Some(Status::Ok))
            }
        }
    }

    /// How long alice and carol may say nothing from now on.
    fn bear_silence(&mut self, limit: Duration) {
        self.alice.set_timeout(Some(limit));
        if let Some((link, _)) = &mut self.carol {
            link.set_timeout(Some(limit));
        }
    }

    fn stage_run(&mut self, id: RequestId, run: u64, hash: [u8; 32]) -> Result<Option<Status>, Fault> {
        let half = self.halves.take(&id, HALF);
        let half = half.ok_or_else(|| refused(Refusal::Unavailable, "bob has not received his half of the run"))?;
        let Waiting { client, half, answer, .. } = half;
        let done = self.stage_half(&client, half, run, hash);
        // An owner that is gone hears nothing: nothing is lost by that.
        let _ = answer.send(done.as_ref().map(|()| Default::default()).map_err(Fault::refusal));
        done.map(|()| Some(Status::Ok))
    }

    fn stage_half(&mut self, client: &str, half: Half, run: u64, hash: [u8; 32]) -> Result<(), Fault> {
        let Half::Train { spec, share } = half else {
            return Err(refused(Refusal::Invalid, "the owner sent bob another kind of request"));
        };
        if spec.owner != client || spec.hash() != hash {
            return Err(refused(Refusal::Mismatch, "the owner told alice and bob different things about the run"));
        }
        check_run(self.core, &spec).map_err(|(why, reason)| refused(why, format!("bob: {reason}")))?;
        if all_states(&spec) != Some(share.len()) {
            return Err(refused(Refusal::Invalid, "the owner's share is not of the states' size"));
        }
        self.core.stage_run(run, spec, Initial::Values(share.bytes().to_vec()))
    }

    /// Goes back to the checkpoint that alice names, opening the data set if she says so.
    fn begin(
        &mut self,
        run: &Run,
        (at, after): (Position, Option<u64>),
        (rows, open): (u64, bool),
        seeds: &[SecretSeed],
    ) -> Result<Option<Status>, Fault> {
        run.unobstructed(self.core)?;
        if seeds.len() != 3 || seeds[1] != run.seed {
            return Err(refused(Refusal::Mismatch, "bob's part of the run's seed is another"));
        }
        let same = |c: &Checkpoint| c.at == at && Some(c.lot) == after;
        let states = match self.core.store.checkpoints(run.number)?.into_iter().find(same) {
            Some(checkpoint) => checkpoint.words(),
            None if (at, after) == (Position::START, None) => run.first_states(self.core).map_err(Fault::Own)?,
            None => {
                let reason = format!("bob has no checkpoint at {at:?} after lot {}", after.unwrap_or(0));
                return Err(refused(Refusal::Mismatch, reason));
            }
        };
        let mut live = lock(&run.live);
        *live = None;
        if !open && run.rows_lot() != Some(rows) {
            return Err(refused(Refusal::Mismatch, format!("bob has not opened the data set under lot {rows}")));
        }
        let Some((_, session)) = &self.carol else {
            return Err(refused(Refusal::Unavailable, "bob has no session with carol"));
        };
        let share = match open {
            true => {
                self.increases(rows)?;
                let reserved = run.reserve(self.core)?;
                let sources = [Party::Carol, Party::Alice].map(|p| session.source(p, rows).map_err(evaluator));
                let [carol, alice] = sources;
                Some((self.core.load_rows(run)?, carol?, alice?, reserved))
            }
            false => None,
        };
        if !self.agree_and_wait()? {
            return Ok(None);
        }
        let mut extracting = None;
        if let Some((mut share, source, alice, reserved)) = share {
            self.burn(rows)?;
            if let Some((part, width)) = shuffled(&run.spec, &mut share)? {
                let Some((dealt, _)) = &mut self.carol else { return Err(Fault::Own("carol is gone".into())) };
                let done = shuffle_at_bob(part, width, &source, &alice, self.alice.as_mut(), dealt.as_mut());
                done.map_err(|e| fatal(Fault::of(&e, Party::Alice)))?;
                dealt.meter().take();
            }
            let table = open_rows(Role::B, share, &source, self.alice.as_mut())
                .map_err(|e| fatal(Fault::of(&e, Party::Alice)))?;
            self.alice.meter().take();
            extracting = Extracting::begin(run, &states, Role::B, &source, self.alice.as_mut()).map_err(fatal)?;
            account(run, Part::Extract, self.alice.as_mut(), [None, None]);
            run.keep_open(self.core, OpenRows::new(rows, table, run, reserved)).map_err(fatal)?;
        }
        *live = Some(Live { seed: joint_seed(seeds), extracting, states, at, order: None });
        run.leave(live, false);
        self.core.store.erase_checkpoints_after(run.number, at)?;
        run.taken_up(self.core)?;
        run.reached(at);
        self.alice.meter().take();
        Ok(Some(Status::Ok))
    }

    fn increases(&self, lot: u64) -> Result<(), Fault> {
        if lot < self.floor {
            let reason = format!("lot {lot} does not increase: bob is at {}", self.floor);
            return Err(refused(Refusal::Mismatch, reason));
        }
        Ok(())
    }

    /// Checks that `at` is due at bob, too.
    fn follows(&self, run: &Run, live: &Live, at: Position) -> Result<(), Fault> {
        let due = at.phase == Part::Extract || run.may_follow(self.core, live.at, at);
        if due && live.is_ready_for(at) {
            return Ok(());
        }
        Err(refused(Refusal::NotYet, format!("bob is at {:?} of the run, alice at {at:?}", live.at)))
    }

    fn stretch(&mut self, run: &Run, at: Position, count: u32, lot: u64) -> Result<(), Fault> {
        run.unobstructed(self.core)?;
        let mut guard = lock(&run.live);
        let done = self.stretch_on(run, &mut guard, at, count, lot);
        if let Err(Fault::Evaluator(reason)) = &done {
            // Alice only sees that he is gone.
            run.failed(reason);
        }
        run.leave(guard, done.is_err());
        done
    }

    fn stretch_on(
        &mut self,
        run: &Run,
        live: &mut Option<Live>,
        at: Position,
        count: u32,
        lot: u64,
    ) -> Result<(), Fault> {
        let live = live.as_mut().ok_or_else(|| refused(Refusal::Mismatch, "bob has not taken up the run"))?;
        self.follows(run, live, at)?;
        self.increases(lot)?;
        let last = run.spec.last_lot(at, count, lot).filter(|_| count <= MOST);
        let last = last.ok_or_else(|| refused(Refusal::Invalid, format!("{count} parts of a run from {at:?} on")))?;
        if self.carol.is_none() {
            return Err(refused(Refusal::Unavailable, "bob has no session with carol"));
        }
        self.core.helper(&run.spec, self.number, &mut self.helper)?;
        if !self.agree_and_wait()? {
            return Ok(());
        }
        self.burn(last)?;
        self.alice.meter().take();
        if at.phase != Part::Extract {
            live.at = at;
        }
        for (index, number) in (at.index..).zip(lot..=last) {
            let Some((link, session)) = &mut self.carol else { return Err(Fault::Own("carol is gone".into())) };
            let carol = session.source(Party::Carol, number).map_err(evaluator)?;
            let other = session.source(Party::Alice, number).map_err(evaluator)?;
            let common = session.common(&live.seed, number);
            let (peer, seat) = (self.alice.as_mut(), Seat::Bob(link.as_mut()));
            let helper = self.core.helper(&run.spec, self.number, &mut self.helper)?;
            let lot = Lot { number, carol, other, common, peer, seat, helper };
            live.part(self.core, run, Position { index, ..at }, lot).map_err(|e| fatal(e.fault(Party::Alice)))?;
        }
        let dealt = self.carol.as_mut().map(|(link, _)| link.as_mut() as &mut dyn Link);
        let helper = self.helper.as_mut().map(|link| link.as_mut() as &mut dyn Link);
        account(run, at.phase, self.alice.as_mut(), [dealt, helper]);
        Ok(live.save(self.core, run, (at, count), last)?)
    }

    /// Opens the trained weights as a model's.
    fn publish(&mut self, run: &Run, epoch: u64) -> Result<Option<Status>, Fault> {
        run.unobstructed(self.core)?;
        let guard = lock(&run.live);
        let done = self.publish_of(run, guard.as_ref(), epoch);
        run.leave(guard, done.is_err());
        done
    }

    fn publish_of(&mut self, run: &Run, live: Option<&Live>, epoch: u64) -> Result<Option<Status>, Fault> {
        let live = live.ok_or_else(|| refused(Refusal::Mismatch, "bob has not taken up the run"))?;
        let due = run.reach(self.core, live.at, |p| *p == run.spec.opening(p.epoch));
        self.follows(run, live, due.unwrap_or_else(|| run.spec.opening(live.at.epoch)))?;
        self.increases(epoch)?;
        let Some(publication) = &run.spec.publish else {
            return Err(refused(Refusal::Denied, "the run publishes no model"));
        };
        let program = &publication.manifest.program;
        let shares = weights(&run.spec, &live.states, program, &publication.weights).map_err(Fault::Own)?;
        let Some((_, session)) = &self.carol else {
            return Err(refused(Refusal::Unavailable, "bob has no session with carol"));
        };
        let source = session.source(Party::Carol, epoch).map_err(evaluator)?;
        if !self.agree_and_wait()? {
            return Ok(None);
        }
        self.burn(epoch)?;
        let (owner, manifest) = (run.spec.owner.clone(), publication.manifest.clone());
        self.open_model(epoch, owner, manifest, shares, &source, Some(run)).map_err(fatal)?;
        // Alice, who decides next, is to hear it now.
        run.unobstructed(self.core)?;
        Ok(Some(Status::Ok))
    }
}
