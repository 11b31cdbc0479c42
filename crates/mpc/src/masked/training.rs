//! One step of training: a program run once on a batch of a data set's rows, with states kept from step to step.
//!
//! A step is one lot of its own, as a request is. Each evaluator keeps additive shares of the states; the program opens
//! them under fresh masks, and what it stores replaces them when the whole step has succeeded.

use std::sync::Arc;

use trefoil_link::Link;
use trefoil_prg::Source;
use trefoil_ring::Words;

use super::evaluate::{Outcome, evaluate_given};
use super::material::Material;
use super::prepare::{Given, check, deal_given, prepare_given, serve_given};
pub use super::run::Seat;
use super::run::run_given;
use super::weights::{EvaluatorWeights, ProducerWeights};
use crate::error::MpcError;
use crate::program::{Checked, Op, Program, ValueInfo};

/// What all three servers know of the batch of one step, and this server's masks of its rows.
pub struct Batch<'a> {
    /// How many rows.
    pub size: usize,
    /// The masks of the rows: whole at the producer, this evaluator's part at an evaluator.
    pub lambda: Words,
    /// The step's public numbers.
    pub rates: &'a [i64],
    /// The lot's source of what all three servers may know.
    pub common: &'a Source,
}

impl<'a> Batch<'a> {
    /// What the step of a checked program is given, checked.
    fn given(self, program: &Program, infos: &[ValueInfo]) -> Result<Given<'a>, MpcError> {
        if !matches!(program.steps[0].op, Op::Rows) {
            return Err(unfit("the program", "one that reads rows", "another"));
        }
        let due = infos[0].count(self.size);
        if self.lambda.len() != due {
            return Err(unfit("the masks of the rows", due, self.lambda.len()));
        }
        if self.rates.len() != program.rates {
            return Err(unfit("the list of public numbers", program.rates, self.rates.len()));
        }
        Ok(Given { batch: self.size, rates: self.rates, rows: Arc::new(self.lambda), common: Some(self.common) })
    }
}

fn unfit(what: &str, expected: impl ToString, got: impl ToString) -> MpcError {
    MpcError::Input { what: what.into(), expected: expected.to_string(), got: got.to_string() }
}

/// At the producer: deals one step of training to bob. `alice` and `bob` are the lot's sources; `weights` are those
/// that the program does not train. A program that shows carol likelihoods needs [`serve_step`].
pub fn deal_step(
    program: &Program,
    batch: Batch<'_>,
    weights: &ProducerWeights,
    alice: &Source,
    bob: &Source,
    link: &mut dyn Link,
) -> Result<(), MpcError> {
    let values = &check(program, batch.size)?;
    deal_given(Checked { program, values }, batch.given(program, values)?, weights, [alice, bob], link)
}

/// At the producer: deals one step of training and computes the likelihoods that the program shows carol, if any. `links`
/// lead to alice and to bob. The evaluators [run](run_step) the step, or [prepare](prepare_step) it `first` and then
/// [evaluate](evaluate_step) it.
pub fn serve_step(
    program: &Program,
    batch: Batch<'_>,
    weights: &ProducerWeights,
    [alice, bob]: [&Source; 2],
    links: [&mut dyn Link; 2],
    first: bool,
) -> Result<(), MpcError> {
    let values = &check(program, batch.size)?;
    let first = first || program.is_prepared_first();
    serve_given(Checked { program, values }, batch.given(program, values)?, weights, [alice, bob], links, first)
}

/// At an evaluator: prepares one step of training; the parties' sources and links are those of
/// [`prepare`](super::prepare()).
pub fn prepare_step(
    program: &Program,
    batch: Batch<'_>,
    weights: &EvaluatorWeights,
    carol: &Source,
    peer: &Source,
    link: &mut dyn Link,
    dealt: Option<&mut dyn Link>,
) -> Result<Material, MpcError> {
    let values = &check(program, batch.size)?;
    let given = batch.given(program, values)?;
    prepare_given(Checked { program, values }, program.hash(), given, weights, [carol, peer], link, dealt)
}

/// At an evaluator: one step of training on the deltas of the batch's rows, consuming the lot's material. `states` are
/// this evaluator's additive shares: what the program stores is written to them only when the whole step has succeeded.
/// A program that shows carol or the helper likelihoods takes the link to that server.
pub fn evaluate_step(
    program: &Program,
    rows: Words,
    states: &mut [Words],
    weights: &EvaluatorWeights,
    material: Material,
    peer: &mut dyn Link,
    to_carol_and_helper: [Option<&mut dyn Link>; 2],
) -> Result<Outcome, MpcError> {
    let checked = Checked { program, values: &check(program, material.batch)? };
    check_states(program, states)?;
    let hash = program.hash();
    let (outcome, stored) = evaluate_given(checked, hash, rows, states, weights, material, peer, to_carol_and_helper)?;
    store(states, stored);
    Ok(outcome)
}

/// At an evaluator: both phases of one step of training in step with each other, as [`run`](super::run()) does for
/// predictions. A program that shows the helper likelihoods takes a link to it.
#[expect(clippy::too_many_arguments, reason = "both phases' parties, and what they work on")]
pub fn run_step(
    program: &Program,
    batch: Batch<'_>,
    rows: Words,
    states: &mut [Words],
    weights: &EvaluatorWeights,
    carol: &Source,
    peer: &Source,
    link: &mut dyn Link,
    seat: Seat<'_>,
    helper: Option<&mut dyn Link>,
) -> Result<Outcome, MpcError> {
    let values = &check(program, batch.size)?;
    let given = batch.given(program, values)?;
    check_states(program, states)?;
    let checked = Checked { program, values };
    let (outcome, stored) = run_given(checked, given, rows, states, weights, [carol, peer], link, seat, helper)?;
    store(states, stored);
    Ok(outcome)
}

fn store(states: &mut [Words], stored: Vec<Option<Words>>) {
    for (state, new) in states.iter_mut().zip(stored) {
        if let Some(new) = new {
            *state = new;
        }
    }
}

/// Whether these are values of the program's states. The program was checked.
pub(crate) fn check_states(program: &Program, states: &[Words]) -> Result<(), MpcError> {
    if states.len() != program.states.len() {
        return Err(unfit("the list of states", program.states.len(), states.len()));
    }
    for (spec, state) in program.states.iter().zip(states) {
        let due: usize = spec.shape.iter().product();
        if state.len() != due {
            return Err(unfit(&spec.name, format!("{due} elements"), state.len()));
        }
    }
    Ok(())
}
