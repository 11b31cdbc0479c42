//! The extraction of features: what layers that do not change make of every row, once, before steps read it.
//!
//! Each batch is a lot of its own. Its features are opened under masks of that lot as soon as they are there, and kept as
//! values, as the rows themselves are; when the last ones are there the rows are dropped. The layers' weights are
//! opened once, in the data set's lot. Nothing of it is on disk: whoever loses its memory has all three begin anew.

use trefoil_link::Link;
use trefoil_mpc::MpcError;
use trefoil_mpc::masked::rows::{HeldRows, draw_row_masks, open_rows};
use trefoil_mpc::masked::training::{Batch, Seat, deal_step, run_step};
use trefoil_mpc::masked::weights::{draw_weight_masks, open_weights};
use trefoil_mpc::masked::{EvaluatorWeights, ProducerWeights, Role};
use trefoil_prg::{Party, Source};
use trefoil_proto::run::{Phase, Position};
use trefoil_ring::Words;

use super::live::{Live, Lot, PartError};
use super::{Fault, Run};
use crate::core::{Core, nanos};
use crate::probe::Point;

/// An extraction under way; the features so far are with the [open rows](super::OpenRows).
pub(crate) struct Extracting {
    weights: Fixed,
    /// Batches done.
    done: u32,
}

/// The weights of the layers that do not change.
enum Fixed {
    Opened(EvaluatorWeights),
    Masks(ProducerWeights),
}

impl Extracting {
    /// At an evaluator: opens the weights of `run`'s extraction, if it has one, out of its shares of the states.
    pub(crate) fn begin(
        run: &Run,
        states: &[Words],
        role: Role,
        carol: &Source,
        peer: &mut dyn Link,
    ) -> Result<Option<Self>, Fault> {
        let Some(e) = &run.spec.extraction else { return Ok(None) };
        let other = if role == Role::A { Party::Bob } else { Party::Alice };
        let shares = super::live::weights(&run.spec, states, &e.program, &e.weights).map_err(Fault::Own)?;
        let weights = open_weights(role, &e.program, shares, carol, peer).map_err(|e| Fault::of(&e, other))?;
        Ok(Some(Self { weights: Fixed::Opened(weights), done: 0 }))
    }

    /// At the producer: draws the masks of the same weights.
    pub(crate) fn begin_at_carol(run: &Run, alice: &Source, bob: &Source) -> Result<Option<Self>, MpcError> {
        let Some(e) = &run.spec.extraction else { return Ok(None) };
        let weights = Fixed::Masks(draw_weight_masks(&e.program, alice, bob)?);
        Ok(Some(Self { weights, done: 0 }))
    }
}

impl Live {
    /// The batch to be extracted before what is due, if that reads rows.
    pub(crate) fn to_extract(&self) -> Option<Position> {
        let done = self.extracting.as_ref().filter(|_| self.at.phase <= Phase::Check)?.done;
        Some(Position { epoch: self.at.epoch, phase: Phase::Extract, index: done })
    }

    /// Whether the features are as far as a place of the run takes for granted.
    pub(crate) fn is_ready_for(&self, at: Position) -> bool {
        match &self.extracting {
            Some(e) if at.phase == Phase::Extract => e.done == at.index,
            Some(_) => at.phase > Phase::Check,
            None => at.phase != Phase::Extract,
        }
    }

    /// At an evaluator: the features of one batch, with a lot of its own.
    pub(crate) fn extract(&mut self, core: &Core, run: &Run, at: Position, lot: Lot<'_>) -> Result<(), PartError> {
        let began = std::time::Instant::now();
        let Some((program, size)) = run.spec.program(at) else { return Err(PartError::Nothing(at)) };
        if let Some(reason) = run.obstacle(core) {
            return Err(PartError::Halted(reason));
        }
        let (rows, lambda) = self.batch(run, at, program.input_shape.iter().product())?;
        let Some(Extracting { weights: Fixed::Opened(weights), .. }) = &self.extracting else {
            return Err(PartError::Nothing(at));
        };
        let batch = Batch { size: size as usize, lambda, rates: &[], common: &lot.common };
        core.reached(Point::Begun);
        let Lot { carol, other, peer, seat, .. } = lot;
        let role = if matches!(seat, Seat::Bob(_)) { Role::B } else { Role::A };
        let outcome = run_step(program, batch, rows, &mut [], weights, &carol, &other, peer, seat, None)?;
        let HeldRows { delta, lambda } = open_rows(role, outcome.share, &carol, peer)?;
        self.keep(run, at, &HeldRows { delta, lambda })?;
        core.reached(Point::Extracted);
        run.count(|n| {
            n.measured.extracted.rows += u64::from(size);
            n.measured.extracted.nanos += nanos(began.elapsed());
        });
        Ok(())
    }

    /// At the producer: deals the same batch.
    pub(crate) fn deal_features(
        &mut self,
        run: &Run,
        at: Position,
        [alice, bob, common]: [&Source; 3],
        link: &mut dyn Link,
    ) -> Result<(), PartError> {
        let Some((program, size)) = run.spec.program(at) else { return Err(PartError::Nothing(at)) };
        let (_, lambda) = self.batch(run, at, program.input_shape.iter().product())?;
        let Some(Extracting { weights: Fixed::Masks(weights), .. }) = &self.extracting else {
            return Err(PartError::Nothing(at));
        };
        let batch = Batch { size: size as usize, lambda, rates: &[], common };
        deal_step(program, batch, weights, alice, bob, link)?;
        let width = run.spec.extraction.as_ref().map_or(0, |e| e.width());
        let lambda = draw_row_masks(size as usize * width, alice, bob)?;
        self.keep(run, at, &HeldRows { delta: Words::default(), lambda })
    }

    /// Puts a batch of features in its place. After the last one they are what is read, and the rows are dropped.
    fn keep(&mut self, run: &Run, at: Position, features: &HeldRows) -> Result<(), PartError> {
        let Some(e) = &mut self.extracting else { return Err(PartError::Nothing(at)) };
        e.done += 1;
        let last = e.done == run.spec.places(Phase::Extract);
        run.keep_features(at.index, features, last)?;
        run.reached(Position { index: e.done, ..at });
        if last {
            self.extracting = None;
        }
        Ok(())
    }
}
