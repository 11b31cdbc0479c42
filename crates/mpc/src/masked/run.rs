//! Both phases in step with each other: each step's material is used as soon as it is prepared.
//!
//! A request without material made ahead gains by it: the producer deals the later steps while the evaluators are at
//! the earlier ones, the material of the step after an opening is prepared while the opened shares are on their way,
//! and no more than one step's material is held. The draws, the messages on each link and the answer
//! are those of [`prepare`](super::prepare()) and [`evaluate`](super::evaluate()).

use std::time::Instant;

use trefoil_link::Link;
use trefoil_prg::Source;
use trefoil_ring::Words;

use super::dealing::{AliceDealing, BobDealing};
use super::evaluate::{Outcome, Run, check_first, evaluate_given};
use super::local::Context;
use super::online::{Online, Role};
use super::prepare::{Given, Offline, prepare_given, with_output};
use super::weights::EvaluatorWeights;
use crate::compare::Compare;
use crate::error::MpcError;
use crate::program::{Checked, Prediction};

/// At an evaluator: prepares one lot and evaluates `program` on `input`, step by step. The parties' sources and links
/// are those of [`prepare`](super::prepare()).
///
/// Where the program compares by keys, whose correction words take the evaluators' own link, everything is prepared
/// first.
#[expect(clippy::too_many_arguments, reason = "both phases' parties, and what they work on")]
pub fn run(
    program: &Prediction,
    batch: usize,
    input: Words,
    weights: &EvaluatorWeights,
    carol: &Source,
    peer: &Source,
    link: &mut dyn Link,
    dealt: Option<&mut dyn Link>,
) -> Result<Outcome, MpcError> {
    let given = Given { batch, ..Given::default() };
    Ok(run_given(program.checked(batch)?, given, input, &[], weights, [carol, peer], link, dealt)?.0)
}

/// The same for any program on shares of its states. Gives the states that it stores as well.
#[expect(clippy::too_many_arguments, reason = "both phases' parties, and what they work on")]
pub(crate) fn run_given(
    checked: Checked<'_>,
    given: Given<'_>,
    first: Words,
    states: &[Words],
    weights: &EvaluatorWeights,
    [carol, peer]: [&Source; 2],
    link: &mut dyn Link,
    dealt: Option<&mut dyn Link>,
) -> Result<(Outcome, Vec<Option<Words>>), MpcError> {
    let Checked { program, values: infos } = checked;
    if program.steps.iter().any(|s| s.op.compare() == Some(Compare::Keys)) {
        let hash = program.hash();
        let material = prepare_given(checked, hash, given, weights, [carol, peer], link, dealt)?;
        let offline = material.time();
        let (outcome, stored) = evaluate_given(checked, hash, first, states, weights, material, link)?;
        return Ok((Outcome { offline, ..outcome }, stored));
    }
    let began = Instant::now();
    let Given { batch, rates, .. } = given;
    weights.check(program)?;
    check_first(&first, infos, batch)?;
    let role = if dealt.is_some() { Role::B } else { Role::A };
    let context = Context { program, infos, batch, rates };
    let mut run = Run::new(Online::new(role, link), context, weights, first, states);
    let keep = |i, m| run.feed(i, with_output(&context, i, m, peer)?);
    let offline = Offline { context, given, weights };
    match dealt {
        Some(dealt) => offline.walk(&mut BobDealing::new(carol, dealt, None), keep)?,
        None => offline.walk(&mut AliceDealing::new(carol, None), keep)?,
    }
    let (outcome, stored) = run.finish()?;
    let offline = began.elapsed().saturating_sub(outcome.times.iter().sum());
    Ok((Outcome { offline, ..outcome }, stored))
}
