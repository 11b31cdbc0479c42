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

use super::dealing::{AliceDealing, BobDealing, Dealing};
use super::evaluate::{Outcome, Run, check_first, evaluate_given};
use super::local::Context;
use super::online::{Online, Role, shorter};
use super::prepare::{Given, Offline, prepare_given, with_output};
use super::weights::EvaluatorWeights;
use crate::error::MpcError;
use crate::program::{Checked, Prediction};

/// An evaluator, and its link to carol.
pub enum Seat<'a> {
    /// Alice: she needs the link where the program shows carol likelihoods.
    Alice(Option<&'a mut dyn Link>),
    /// Bob: on this link carol deals.
    Bob(&'a mut dyn Link),
}

impl<'a> Seat<'a> {
    fn role(&self) -> Role {
        match self {
            Seat::Alice(_) => Role::A,
            Seat::Bob(_) => Role::B,
        }
    }

    fn carol(self) -> Option<&'a mut dyn Link> {
        match self {
            Seat::Alice(link) => link,
            Seat::Bob(link) => Some(link),
        }
    }
}

/// At an evaluator: prepares one lot and evaluates `program` on `input`, step by step. The parties' sources and links
/// are those of [`prepare`](super::prepare()).
///
/// Where the program takes keys, whose correction words take the evaluators' own link, everything is prepared
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
    let seat = dealt.map_or(Seat::Alice(None), Seat::Bob);
    Ok(run_given(program.checked(batch)?, given, input, &[], weights, [carol, peer], link, seat, None)?.0)
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
    mut seat: Seat<'_>,
    mut helper: Option<&mut dyn Link>,
) -> Result<(Outcome, Vec<Option<Words>>), MpcError> {
    let Checked { program, values: infos } = checked;
    if program.is_prepared_first() {
        let dealt: Option<&mut dyn Link> = match &mut seat {
            Seat::Alice(_) => None,
            Seat::Bob(dealt) => Some(&mut **dealt),
        };
        let hash = program.hash();
        let material = prepare_given(checked, hash, given, weights, [carol, peer], link, dealt)?;
        let offline = material.time();
        let mut to_carol = seat.carol();
        let beside = [shorter(&mut to_carol), shorter(&mut helper)];
        let (outcome, stored) = evaluate_given(checked, hash, first, states, weights, material, link, beside)?;
        return Ok((Outcome { offline, ..outcome }, stored));
    }
    let began = Instant::now();
    let Given { batch, rates, .. } = given;
    weights.check(program)?;
    check_first(&first, infos, batch)?;
    let context = Context { program, infos, batch, rates };
    let mut run = Run::new(Online::new(seat.role(), link), shorter(&mut helper), context, weights, first, states);
    let mut keep = |i, m, shown: Option<&mut dyn Link>| run.feed(i, with_output(&context, i, m, peer)?, shown);
    let offline = Offline { context, given, weights };
    match seat {
        Seat::Alice(mut link) => {
            let mut dealing = AliceDealing::new(carol, None, shorter(&mut link));
            offline.walk(&mut dealing, |d, i, m| keep(i, m, d.shown()))?;
        }
        Seat::Bob(dealt) => {
            let mut dealing = BobDealing::new(carol, dealt, None);
            offline.walk(&mut dealing, |d, i, m| keep(i, m, d.shown()))?;
        }
    }
    let (outcome, stored) = run.finish()?;
    let offline = began.elapsed().saturating_sub(outcome.times.iter().sum());
    Ok((Outcome { offline, ..outcome }, stored))
}
