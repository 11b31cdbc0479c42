//! Features that the servers make of every row once: by layers that training does not change.

use serde::{Deserialize, Serialize};
use trefoil_mpc::program::{Form, Op, Program, Rows, WeightSpec};

use super::check::{plain_names, size, stores, unfit};
use super::{RowRange, RunError, RunSpec};
use crate::dataset::{Declaration, MAX_ELEMENTS};

/// How rows become features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extraction {
    /// From a row of the data set to the row that steps and checks read in its place: the last value. Reads no states.
    pub program: Program,
    /// For each weight of the program, the state that holds it, which nothing changes. They are opened once, under masks
    /// of their own. A weight with more fraction bits is shifted up.
    pub weights: Vec<u32>,
    /// Rows of each batch; the last one may have fewer.
    pub batch: u32,
}

impl Extraction {
    /// Values of a row of features, labels included; 0 if the program makes no sense.
    pub fn width(&self) -> usize {
        self.program.infer().ok().and_then(|values| values.last().map(|v| v.elements())).unwrap_or(0)
    }
}

impl RunSpec {
    /// The rows of which features are made: all from the first to the last one used.
    pub fn used(&self) -> RowRange {
        let RowRange { first, end } = self.training;
        match &self.check {
            Some(c) => RowRange { first: first.min(c.rows.first), end: end.max(c.rows.end) },
            None => RowRange { first, end },
        }
    }

    /// Rows of batch number `index` of the extraction, as numbers in the data set.
    pub fn extracted_rows(&self, index: u32) -> RowRange {
        let RowRange { first, end } = self.used();
        let batch = self.extraction.as_ref().map_or(0, |e| e.batch);
        let first = u64::from(first) + u64::from(index) * u64::from(batch);
        let cut = |row: u64| row.min(end.into()) as u32;
        RowRange { first: cut(first), end: cut(first + u64::from(batch)) }
    }

    /// Values of a row as steps and checks read it.
    pub(super) fn read_width(&self, declaration: &Declaration) -> usize {
        self.extraction.as_ref().map_or(declaration.width(), Extraction::width)
    }

    pub(super) fn check_extraction(&self, e: &Extraction, declaration: &Declaration) -> Result<(), RunError> {
        const WHICH: &str = "the extraction";
        let program = &e.program;
        let failed = |source| RunError::Program { which: WHICH.into(), source };
        plain_names(program, WHICH)?;
        let values = program.infer().map_err(failed)?;
        let most = program.largest_batch().map_err(failed)? as u64;
        size("rows of a batch of the extraction", e.batch, most)?;
        self.check_rows(program, WHICH, declaration.width(), declaration)?;
        if !program.states.is_empty() || program.rates > 0 {
            return Err(unfit(WHICH, "has states or public numbers: features must not change"));
        }
        let alien = |op: &Op| matches!(op, Op::Reveal { .. } | Op::Likelihoods { .. } | Op::Pattern { .. });
        if let Some(s) = program.steps.iter().find(|s| alien(&s.op)) {
            return Err(unfit(WHICH, format!("{} is not for features", s.op.name())));
        }
        let fits = |v: &trefoil_mpc::program::ValueInfo| {
            v.form == Form::Additive && v.rows == Rows::Each && v.scale == program.fraction_bits
        };
        let Some(last) = values.last().filter(|v| fits(v)) else {
            return Err(unfit(WHICH, "must end in additive values of each row at the set's fraction bits"));
        };
        let elements = u64::from(self.used().rows()) * last.elements() as u64;
        size("values of all features", elements, MAX_ELEMENTS)?;
        if e.weights.len() != program.weights.len() {
            let reason = format!("{} weights, {} states named for them", program.weights.len(), e.weights.len());
            return Err(unfit(WHICH, reason));
        }
        for (spec, slot) in program.weights.iter().zip(&e.weights) {
            let reason = self.unfit_weight(spec, *slot);
            if let Some(reason) = reason {
                return Err(RunError::Weight { which: WHICH, weight: spec.name.clone(), reason });
            }
        }
        Ok(())
    }

    /// Why a state cannot be a weight of the extraction.
    fn unfit_weight(&self, spec: &WeightSpec, slot: u32) -> Option<String> {
        let Some(WeightSpec { shape, scale, .. }) = self.step.states.get(slot as usize) else {
            return Some(format!("there is no state {slot}"));
        };
        if *shape != spec.shape || *scale > spec.scale {
            let WeightSpec { shape: due, scale: most, .. } = spec;
            return Some(format!("shape {due:?} at scale {most}, but state {slot} has {shape:?} at {scale}"));
        }
        let programs = [Some(&self.step), self.check.as_ref().map(|c| &c.program)];
        let changes = programs.into_iter().flatten().any(|p| stores(p).any(|s| s == slot as usize));
        let changes = changes || self.metrics.contains(&slot);
        changes.then(|| format!("state {slot} changes in training: features would be others after a restart"))
    }
}
