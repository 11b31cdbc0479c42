//! Training runs at carol's lanes: she draws the masks of the data set once, and deals step after step.

use super::*;
use crate::core::lock;
use crate::runs::{Extracting, Live, MOST, OpenRows, Run, check_run, joint_seed};
use crate::store::Initial;
use trefoil_mpc::masked::ProducerWeights;
use trefoil_mpc::masked::rows::{HeldRows, draw_row_masks};
use trefoil_mpc::masked::shuffle::deal_shuffle;
use trefoil_mpc::masked::training::{Batch, serve_step};
use trefoil_proto::control::SecretSeed;
use trefoil_proto::run::{Phase, Position, Training};
use trefoil_ring::Words;

/// While the evaluators compute what they show her, carol waits so many times as long as for other messages.
const PATIENCE: u32 = 10;

impl Lane<'_> {
    pub(super) fn train(&mut self, training: Training) -> Result<Option<Status>, Fault> {
        match training {
            Training::Stage { run, hash, spec: Some(spec), .. } => {
                if spec.hash() != hash {
                    return Err(refused(Refusal::Mismatch, "the run's hash is another at carol"));
                }
                check_run(self.core, &spec).map_err(|(why, reason)| refused(why, format!("carol: {reason}")))?;
                self.core.stage_run(run, spec, Initial::Absent)?;
                Ok(Some(Status::Ok))
            }
            Training::Stage { spec: None, .. } => Err(refused(Refusal::Invalid, "carol needs the specification")),
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
                    return Err(refused(Refusal::Mismatch, "alice and carol differ in what the run is"));
                }
                Ok(Some(Status::Resumed(Box::new(run.resumed(self.core)?))))
            }
            Training::Begin { run, at, rows, open, seeds, .. } => {
                let run = self.core.run_of(run)?;
                let patience = self.core.patience(&run);
                self.alice.set_timeout(Some(patience));
                self.bob.set_timeout(Some(patience));
                let done = self.begin(&run, at, (rows, open), &seeds);
                self.bob.set_timeout(Some(self.core.silence));
                done
            }
            Training::Stretch { run, at, count, lot } => {
                let run = self.core.run_of(run)?;
                self.deal_stretch(&run, at, count, lot).map(|()| None)
            }
            Training::Publish { run, epoch } => {
                let run = self.core.run_of(run)?;
                let Some(publication) = &run.spec.publish else {
                    return Err(refused(Refusal::Denied, "the run publishes no model"));
                };
                let manifest = &publication.manifest;
                let program = (manifest.program.clone(), manifest.window);
                self.draw_model(epoch, run.spec.owner.clone(), program, Some(run.origin()))
            }
            Training::Finish { run, note } => {
                let run = self.core.run_of(run)?;
                self.core.finish_run(&run, &note)?;
                Ok(Some(Status::Ok))
            }
        }
    }

    fn begin(
        &mut self,
        run: &Run,
        at: Position,
        (rows, open): (u64, bool),
        seeds: &[SecretSeed],
    ) -> Result<Option<Status>, Fault> {
        if seeds.len() != 3 || seeds[2] != run.seed {
            return Err(refused(Refusal::Mismatch, "carol's part of the run's seed is another"));
        }
        let info = self.core.sets.info(run.spec.set).filter(|i| i.is_complete());
        let info = info.ok_or_else(|| refused(Refusal::UnknownSet, "carol does not know the whole data set"))?;
        let mut live = lock(&run.live);
        *live = None;
        if !open && run.rows_lot() != Some(rows) {
            return Err(refused(Refusal::Mismatch, format!("carol has no masks of lot {rows}")));
        }
        let reserved = if open { Some(run.reserve(self.core)?) } else { None };
        let agreed = if open { self.agree_and_wait(rows, rows)? } else { self.agreed()? };
        if !agreed {
            return Ok(None);
        }
        let mut extracting = None;
        if let Some(reserved) = reserved {
            let session = self.session()?;
            let alice = session.source(Party::Alice, rows).map_err(evaluator)?;
            let bob = session.source(Party::Bob, rows).map_err(evaluator)?;
            if let Some((part, width)) = run.spec.shuffled() {
                deal_shuffle(part.len(), width, &alice, &bob, self.bob.as_mut())
                    .map_err(|e| Fault::Evaluator(e.to_string()))?;
                self.bob.meter().take();
            }
            let n = info.declaration.rows as usize * info.declaration.width();
            let own = |e: trefoil_mpc::MpcError| Fault::Own(e.to_string());
            let lambda = draw_row_masks(n, &alice, &bob).map_err(own)?;
            extracting = Extracting::begin_at_carol(run, &alice, &bob).map_err(own)?;
            let table = HeldRows { delta: Words::default(), lambda };
            run.keep_open(self.core, OpenRows::new(rows, table, run, reserved))?;
        }
        *live = Some(Live { seed: joint_seed(seeds), extracting, states: vec![], at, order: None });
        run.leave(live, false);
        run.reached(at);
        Ok(Some(Status::Ok))
    }

    fn deal_stretch(&mut self, run: &Run, first: Position, count: u32, lot: u64) -> Result<(), Fault> {
        let mut guard = lock(&run.live);
        let done = self.deal_stretch_on(run, &mut guard, first, count, lot);
        run.leave(guard, done.is_err());
        done
    }

    fn deal_stretch_on(
        &mut self,
        run: &Run,
        live: &mut Option<Live>,
        first: Position,
        count: u32,
        lot: u64,
    ) -> Result<(), Fault> {
        let live = live.as_mut().ok_or_else(|| refused(Refusal::Mismatch, "carol has not taken up the run"))?;
        if !live.is_ready_for(first) {
            return Err(refused(
                Refusal::NotYet,
                format!("carol's features are not as far as {first:?} takes them to be"),
            ));
        }
        let last = run.spec.last_lot(first, count, lot).filter(|_| count <= MOST);
        let last =
            last.ok_or_else(|| refused(Refusal::Invalid, format!("{count} parts of a run from {first:?} on")))?;
        if !self.agree_and_wait(lot, last)? {
            return Ok(());
        }
        for l in [&mut self.alice, &mut self.bob] {
            l.set_timeout(Some(PATIENCE * self.core.silence));
        }
        for (index, number) in (first.index..).zip(lot..=last) {
            let at = Position { index, ..first };
            match at.phase {
                Phase::Extract => self.deal_features(run, live, at, number)?,
                _ => {
                    self.deal_part(run, live, at, number)?;
                    run.reached(run.spec.after(at, 1));
                }
            }
        }
        for l in [&mut self.alice, &mut self.bob] {
            l.set_timeout(Some(self.core.silence));
            l.meter().take();
        }
        Ok(())
    }

    fn deal_features(&mut self, run: &Run, live: &mut Live, at: Position, lot: u64) -> Result<(), Fault> {
        let session = self.session()?;
        let common = session.common(&live.seed, lot);
        let alice = session.source(Party::Alice, lot).map_err(evaluator)?;
        let bob = session.source(Party::Bob, lot).map_err(evaluator)?;
        let dealt = live.deal_features(run, at, [&alice, &bob, &common], self.bob.as_mut());
        dealt.map_err(|e| Fault::Evaluator(e.to_string()))?;
        self.core.reached(Point::Extracted);
        Ok(())
    }

    fn deal_part(&mut self, run: &Run, live: &mut Live, at: Position, lot: u64) -> Result<(), Fault> {
        let own = |e: trefoil_mpc::MpcError| Fault::Evaluator(e.to_string());
        let Some((program, size)) = run.spec.program(at) else { return Err(Fault::Own("nothing to deal".into())) };
        let rows = live.batch(run, at, program.input_shape.iter().product());
        let (_, lambda) = rows.map_err(|e| Fault::Evaluator(e.to_string()))?;
        let weights = ProducerWeights::new(program, vec![]).map_err(own)?;
        let session = self.session()?;
        let common = session.common(&live.seed, lot);
        let batch = Batch { size: size as usize, lambda, rates: run.spec.rates_at(at), common: &common };
        let alice = session.source(Party::Alice, lot).map_err(evaluator)?;
        let bob = session.source(Party::Bob, lot).map_err(evaluator)?;
        let links: [&mut dyn Link; 2] = [self.alice.as_mut(), self.bob.as_mut()];
        serve_step(program, batch, &weights, [&alice, &bob], links, false).map_err(own)?;
        self.core.reached(Point::Stepped);
        Ok(())
    }
}
