//! Whether a run makes sense: checked by whoever writes one and by every server that is to take part.

use std::collections::HashSet;

use thiserror::Error;
use trefoil_mpc::program::{Form, Op, Program, ProgramError, Rows, WeightSpec};

use super::{
    Check, Disclosure, MAX_DISCLOSURES, MAX_EPOCHS, MAX_PURPOSE, MAX_SHOWN, MAX_SPEC, Order, Publication, RowRange,
    RunSpec,
};
use crate::control::encode;
use crate::dataset::Declaration;
use crate::identity::check_name;
use crate::text::is_plain;

/// Why a run is refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RunError {
    /// A run, owner, coordinator or recipient whose name is none.
    #[error("{what} {name:?} is no name: 1 to 63 lower-case letters, digits and dashes")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Something beyond its bounds.
    #[error("{what}: {got}, must be 1 to {most}")]
    Size {
        /// What.
        what: String,
        /// Its size.
        got: u64,
        /// The most.
        most: u64,
    },
    /// The data set is another one than the run was written for.
    #[error("the declaration of the data set is not the one that this run is for")]
    Declaration,
    /// Rows that are none of the set's.
    #[error("{what} rows {first}..{end} of a set of {rows}")]
    Rows {
        /// Training or validation.
        what: &'static str,
        /// First.
        first: u32,
        /// The row after the last.
        end: u32,
        /// The set's rows.
        rows: u32,
    },
    /// A program that cannot be run.
    #[error("the program of {which}: {source}")]
    Program {
        /// Which.
        which: String,
        /// Why.
        source: ProgramError,
    },
    /// A program that may not be run at its place.
    #[error("the program of {which}: {reason}")]
    Unfit {
        /// Which.
        which: String,
        /// Why.
        reason: String,
    },
    /// Not the right number of public numbers.
    #[error("{got} lists of public numbers: one for all steps, {epochs} (epochs) or {steps} (steps) are due")]
    Rates {
        /// Lists given.
        got: usize,
        /// Epochs.
        epochs: u32,
        /// Steps of the run.
        steps: u64,
    },
    /// A list of public numbers of the wrong length.
    #[error("public numbers of step or epoch {at}: {got}, the program takes {due}")]
    Numbers {
        /// Which list.
        at: usize,
        /// Its length.
        got: usize,
        /// The program's.
        due: usize,
    },
    /// Not the right number of rows in an order.
    #[error("an order of {got} rows: {epoch} for every epoch, or {all} for all of them, are due")]
    Order {
        /// Rows given.
        got: usize,
        /// Rows of an epoch.
        epoch: u64,
        /// Rows of all.
        all: u64,
    },
    /// A row in the order that is not a training row.
    #[error("row {row} in the order is none of the training rows {first}..{end}")]
    OrderRow {
        /// The row.
        row: u32,
        /// First training row.
        first: u32,
        /// The row after the last.
        end: u32,
    },
    /// A row that an epoch uses more than once.
    #[error("row {row} comes twice in epoch {epoch} of the order")]
    OrderTwice {
        /// The row.
        row: u32,
        /// Which epoch, from 0.
        epoch: usize,
    },
    /// Validation rows of which some are shuffled with the training rows and some are not.
    #[error("validation rows {first}..{end} are in part training rows, which are shuffled")]
    Shuffled {
        /// First validation row.
        first: u32,
        /// The row after the last.
        end: u32,
    },
    /// A metric that is no state.
    #[error("metric {0} is none of the {1} states")]
    Metric(u32, usize),
    /// A metric that is revealed and made of too few rows.
    #[error(
        "metric {metric} is a sum over {rows} rows: the data set demands at least {least} behind a revealed metric: raise \
         [train] validation, or declare the set with a smaller metric_rows"
    )]
    FewRows {
        /// The metric.
        metric: String,
        /// Rows of an epoch that are in it.
        rows: u64,
        /// The fewest that the declaration allows.
        least: u32,
    },
    /// A weight that no state fits.
    #[error("weight {weight} of {which}: {reason}")]
    Weight {
        /// The published model, or the extraction.
        which: &'static str,
        /// Its name.
        weight: String,
        /// Why.
        reason: String,
    },
}

pub(super) fn unfit(which: &str, reason: impl Into<String>) -> RunError {
    RunError::Unfit { which: which.into(), reason: reason.into() }
}

pub(super) fn size(what: impl Into<String>, got: impl Into<u64>, most: impl Into<u64>) -> Result<(), RunError> {
    let (got, most) = (got.into(), most.into());
    if (1..=most).contains(&got) { Ok(()) } else { Err(RunError::Size { what: what.into(), got, most }) }
}

fn name(what: &'static str, name: &str) -> Result<(), RunError> {
    check_name(name).map_err(|_| RunError::Name { what, name: name.chars().take(80).collect() })
}

impl RunSpec {
    /// Checks everything that can be known before the run: programs, shapes, rows, schedules, what is revealed.
    pub fn check(&self, declaration: &Declaration) -> Result<(), RunError> {
        for (what, text) in [("run", &self.name), ("owner", &self.owner), ("coordinator", &self.coordinator)] {
            name(what, text)?;
        }
        if declaration.hash() != self.declaration {
            return Err(RunError::Declaration);
        }
        size("bytes of the specification", encode(self).len() as u64, MAX_SPEC as u64)?;
        size("epochs", self.epochs, MAX_EPOCHS)?;
        size("steps between checkpoints", self.checkpoint, u32::MAX)?;
        rows("training", self.training, declaration)?;
        if let Some(extraction) = &self.extraction {
            self.check_extraction(extraction, declaration)?;
        }
        self.check_program(&self.step, "a step", (self.batch, self.training), declaration)?;
        reveals(&self.step, "a step", false)?;
        if stores(&self.step).next().is_none() {
            return Err(unfit("a step", "stores nothing: nothing would be learnt"));
        }
        self.check_rates()?;
        self.check_order()?;
        let states = self.step.states.len();
        if let Some(m) = self.metrics.iter().find(|m| **m as usize >= states) {
            return Err(RunError::Metric(*m, states));
        }
        if let Some(check) = &self.check {
            self.check_check(check, declaration)?;
        }
        if self.reveals.len() > MAX_DISCLOSURES || self.shown() > MAX_SHOWN {
            let got = self.shown().max(self.reveals.len() as u64);
            return Err(RunError::Size { what: "values revealed".into(), got, most: MAX_SHOWN });
        }
        self.reveals.iter().enumerate().try_for_each(|(i, d)| self.check_disclosure(i, d, declaration))?;
        self.publish.as_ref().map_or(Ok(()), |p| self.check_publication(p, declaration))?;
        self.check_likelihoods(declaration.metric_rows)?;
        self.check_metrics(declaration)
    }

    /// A program that runs on batches of rows and on the run's states.
    fn check_program(
        &self,
        program: &Program,
        which: &str,
        (batch, from): (u32, RowRange),
        declaration: &Declaration,
    ) -> Result<(), RunError> {
        let most = program.largest_batch().map_err(|source| RunError::Program { which: which.into(), source })?;
        let most = u64::from(from.rows()).min(most as u64);
        size(format!("rows of a batch of {which}"), batch, most)?;
        self.check_rows(program, which, self.read_width(declaration), declaration)?;
        if !program.weights.is_empty() {
            return Err(unfit(which, "has weights of its own: what is not trained is a state that nothing stores"));
        }
        plain_names(program, which)?;
        if program.states != self.step.states {
            return Err(unfit(which, "has other states than a step"));
        }
        if which != "a step" && program.rates > 0 {
            return Err(unfit(which, "takes public numbers: only steps have them"));
        }
        Ok(())
    }

    /// Whether a program takes rows of `due` values as the data set has them.
    pub(super) fn check_rows(
        &self,
        program: &Program,
        which: &str,
        due: usize,
        declaration: &Declaration,
    ) -> Result<(), RunError> {
        let width: usize = program.input_shape.iter().product();
        if !matches!(program.steps[0].op, Op::Rows) {
            return Err(unfit(which, "must begin with rows of the data set"));
        }
        if width != due || program.fraction_bits != declaration.fraction_bits {
            let has = if due == declaration.width() { "the data set has" } else { "the extraction gives" };
            let reason = format!(
                "takes rows of {width} values with {} fraction bits, {has} {due} with {}",
                program.fraction_bits, declaration.fraction_bits
            );
            return Err(unfit(which, reason));
        }
        Ok(())
    }

    fn check_rates(&self) -> Result<(), RunError> {
        let (got, steps, due) = (self.rates.len(), self.all_steps(), self.step.rates);
        let known = got == 1 || got as u64 == u64::from(self.epochs) || got as u64 == steps;
        if !(known || got == 0 && due == 0) {
            return Err(RunError::Rates { got, epochs: self.epochs, steps });
        }
        match self.rates.iter().enumerate().find(|(_, r)| r.len() != due) {
            Some((at, r)) => Err(RunError::Numbers { at, got: r.len(), due }),
            None => Ok(()),
        }
    }

    fn check_order(&self) -> Result<(), RunError> {
        let Order::Fixed(list) = &self.order else { return Ok(()) };
        let epoch = u64::from(self.steps()) * u64::from(self.batch);
        let all = epoch.saturating_mul(self.epochs.into());
        if ![epoch, all].contains(&(list.len() as u64)) {
            return Err(RunError::Order { got: list.len(), epoch, all });
        }
        let RowRange { first, end } = self.training;
        if let Some(row) = list.iter().find(|r| !(first..end).contains(r)) {
            return Err(RunError::OrderRow { row: *row, first, end });
        }
        let each = usize::try_from(epoch).unwrap_or(usize::MAX).max(1);
        for (epoch, rows) in list.chunks(each).enumerate() {
            let mut seen = HashSet::with_capacity(rows.len());
            if let Some(row) = rows.iter().find(|r| !seen.insert(**r)) {
                return Err(RunError::OrderTwice { row: *row, epoch });
            }
        }
        Ok(())
    }

    fn check_check(&self, check: &Check, declaration: &Declaration) -> Result<(), RunError> {
        rows("validation", check.rows, declaration)?;
        let RowRange { first, end } = check.rows;
        let RowRange { first: from, end: to } = self.training;
        let (apart, within) = (end <= from || to <= first, from <= first && end <= to);
        if self.shuffle && !(apart || within) {
            return Err(RunError::Shuffled { first, end });
        }
        self.check_program(&check.program, "the check", (check.batch, check.rows), declaration)?;
        reveals(&check.program, "the check", false)?;
        match stores(&check.program).find(|s| !self.metrics.contains(&(*s as u32))) {
            Some(slot) => Err(unfit("the check", format!("stores state {slot}, which is no metric"))),
            None => Ok(()),
        }
    }

    fn check_disclosure(&self, index: usize, d: &Disclosure, declaration: &Declaration) -> Result<(), RunError> {
        let which = format!("reveal {index}");
        name("recipient", &d.recipient)?;
        size(format!("bytes of the purpose of {which}"), d.purpose.len() as u64, MAX_PURPOSE as u64)?;
        if !is_plain(&d.purpose) {
            return Err(unfit(&which, "has a purpose with control or invisible characters"));
        }
        self.check_program(&d.program, &which, (1, RowRange { first: 0, end: 1 }), declaration)?;
        reveals(&d.program, &which, true)?;
        reads_no_rows(&d.program, &which)?;
        shows_nothing(&d.program, &which)?;
        if stores(&d.program).next().is_some() {
            return Err(unfit(&which, "stores a state"));
        }
        let infos = d.program.infer().map_err(|source| RunError::Program { which: which.clone(), source })?;
        match infos.last() {
            Some(last) if last.form == Form::Additive && last.rows == Rows::One => Ok(()),
            _ => Err(unfit(&which, "must reveal numbers of the whole run, not of rows")),
        }
    }

    fn check_publication(&self, p: &Publication, declaration: &Declaration) -> Result<(), RunError> {
        if let Some(finish) = &p.finish {
            let which = "the published model's weights";
            self.check_program(finish, which, (1, RowRange { first: 0, end: 1 }), declaration)?;
            reveals(finish, which, false)?;
            reads_no_rows(finish, which)?;
            shows_nothing(finish, which)?;
        }
        let (weights, specs) = (&p.weights, &p.manifest.program.weights);
        name("published model", &p.manifest.name)?;
        let grants = p.manifest.grants.iter().filter(|g| g.client != "*");
        grants.map(|g| &g.client).try_for_each(|client| name("client of the published model", client))?;
        plain_names(&p.manifest.program, "the published model")?;
        p.manifest
            .program
            .check_prediction()
            .map_err(|source| RunError::Program { which: "the published model".into(), source })?;
        if weights.len() != specs.len() {
            let reason = format!("{} weights, {} states named for them", specs.len(), weights.len());
            return Err(unfit("the published model", reason));
        }
        for (spec, slot) in specs.iter().zip(weights) {
            let fail =
                |reason: String| RunError::Weight { which: "the published model", weight: spec.name.clone(), reason };
            let state = self.step.states.get(*slot as usize);
            let WeightSpec { shape, scale, .. } = state.ok_or_else(|| fail(format!("there is no state {slot}")))?;
            if *shape != spec.shape || *scale > spec.scale {
                return Err(fail(format!(
                    "shape {:?} at scale {}, but state {slot} has {shape:?} at {scale}",
                    spec.shape, spec.scale
                )));
            }
        }
        Ok(())
    }

    /// Everyone who must have agreed before the run begins: the owners of its data and of its model, its coordinator.
    pub fn parties(&self, declaration: &Declaration) -> Vec<String> {
        let mut all: Vec<String> = declaration.parts.iter().map(|p| p.owner.clone()).collect();
        all.extend([self.owner.clone(), self.coordinator.clone()]);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether `client` is shown something.
    pub fn reveals_to(&self, client: &str) -> bool {
        self.reveals.iter().any(|d| d.recipient == client)
    }
}

/// Whether what a program calls its tensors and layers is all seen as it stands.
pub(super) fn plain_names(program: &Program, which: &str) -> Result<(), RunError> {
    let tensors = program.states.iter().chain(&program.weights).map(|s| &s.name);
    match tensors.chain(program.steps.iter().map(|s| &s.layer)).find(|n| !is_plain(n)) {
        Some(name) => Err(unfit(which, format!("names something {name:?}, with control or invisible characters"))),
        None => Ok(()),
    }
}

/// Whether a program ends in a reveal as it should.
fn reveals(program: &Program, which: &str, due: bool) -> Result<(), RunError> {
    match (program.steps.iter().any(|s| matches!(s.op, Op::Reveal { .. })), due) {
        (true, false) => Err(unfit(which, "reveals something")),
        (false, true) => Err(unfit(which, "reveals nothing")),
        _ => Ok(()),
    }
}

/// Only what training made of the rows leaves it.
fn reads_no_rows(program: &Program, which: &str) -> Result<(), RunError> {
    match program.steps.iter().any(|s| s.op.operands().contains(&0)) {
        true => Err(unfit(which, "reads rows: only what training made of them leaves it")),
        false => Ok(()),
    }
}

/// Only steps and checks show a server likelihoods.
fn shows_nothing(program: &Program, which: &str) -> Result<(), RunError> {
    match program.shown().is_empty() {
        true => Ok(()),
        false => Err(unfit(which, "shows likelihoods to a server: only steps and checks may")),
    }
}

pub(super) fn stores(program: &Program) -> impl Iterator<Item = usize> + '_ {
    program.steps.iter().filter_map(|s| match s.op {
        Op::Store { slot, .. } => Some(slot),
        _ => None,
    })
}

fn rows(what: &'static str, range: RowRange, declaration: &Declaration) -> Result<(), RunError> {
    let RowRange { first, end } = range;
    if first < end && end <= declaration.rows {
        return Ok(());
    }
    Err(RunError::Rows { what, first, end, rows: declaration.rows })
}
