//! Leaks planted in every phase of a training run: the checks that honest runs pass must catch each where it is.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod run;

use std::sync::Arc;

use run::{Plan, Sessions, checked};
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{DrawId, Pair, Purpose};
use trefoil_testkit::uniform::Report;

const SESSIONS: u64 = 96;

/// The draws for one purpose in one lot give zeros.
struct Silent {
    pairs: &'static [Pair],
    lot: u64,
    purpose: Purpose,
}

impl Interceptor for Silent {
    fn filled(&self, draw: &DrawId, _: u64, words: &mut [u64]) {
        if draw.purpose == self.purpose && draw.lot == self.lot && self.pairs.contains(&draw.pair) {
            words.fill(0);
        }
    }
}

const MASKS: &[Pair] = &[Pair::AliceCarol, Pair::BobCarol];

/// The lot of a phase of every session.
fn lot(phase: &str) -> u64 {
    let honest = Sessions::fresh(1, &Plan::default());
    honest.0[0].seen.iter().find(|s| s.phase == phase).unwrap().lot
}

fn silent(pairs: &'static [Pair], lot: u64, purpose: Purpose) -> Plan {
    Plan { interceptor: Some(Arc::new(Silent { pairs, lot, purpose })), ..Plan::default() }
}

#[track_caller]
fn caught(report: &Report, tests: &[&str], place: &str) {
    let hit = report.findings.iter().find(|f| tests.contains(&f.test) && f.place.contains(place));
    let Some(hit) = hit else {
        let some: Vec<String> = report.findings.iter().take(8).map(ToString::to_string).collect();
        panic!("nothing at {place:?} among {} findings: {some:#?}", report.findings.len())
    };
    println!("caught: {hit}");
}

const ALONE: &[&str] = &["repeated word", "bit balance", "top byte", "low byte"];
const PAIRED: &[&str] = &["near words", "near opposite words", "fixed difference", "fixed sum", "xor of two words"];

#[test]
fn a_share_of_rows_that_is_the_rows() {
    let s = Sessions::fresh(SESSIONS, &silent(&[Pair::OwnerAlice], 1, Purpose::Share));
    caught(&checked(&s.view(true, true)), ALONE, "upload of rows: kept word");
}

#[test]
fn a_share_of_states_that_is_the_states() {
    let s = Sessions::fresh(SESSIONS, &silent(&[Pair::OwnerAlice], 2, Purpose::Share));
    caught(&checked(&s.view(true, true)), ALONE, "upload of states: kept word");
}

#[test]
fn a_share_that_is_handed_over_bare_to_be_shuffled() {
    let s = Sessions::fresh(SESSIONS, &silent(&[Pair::AliceCarol], lot("shuffle"), Purpose::RowMask));
    caught(&checked(&s.view(true, true)), PAIRED, "shuffle: frame");
}

#[test]
fn rows_opened_without_a_mask() {
    let s = Sessions::fresh(SESSIONS, &silent(MASKS, lot("opening of rows"), Purpose::RowLambda));
    caught(&checked(&s.opened()[0]), ALONE, "opening of rows: frame 0 opened");
}

#[test]
fn a_step_without_masks() {
    for phase in ["epoch 1 step 0", "epoch 0 check"] {
        let s = Sessions::fresh(SESSIONS, &silent(MASKS, lot(phase), Purpose::Lambda));
        caught(&checked(&s.opened()[0]), ALONE, &format!("{phase}: frame"));
    }
}

#[test]
fn a_step_whose_dealt_values_are_bare() {
    let s = Sessions::fresh(SESSIONS, &silent(&[Pair::AliceCarol], lot("epoch 1 step 1"), Purpose::Tau));
    caught(&checked(&s.view(true, true)), PAIRED, "epoch 1 step 1: frame");
}

#[test]
fn a_step_begun_anew_with_the_lot_that_it_had() {
    let s = Sessions::fresh(SESSIONS, &Plan { same_lot: true, ..Plan::default() });
    caught(&checked(&s.view(true, true)), PAIRED, "step again: frame");
    caught(&checked(&s.opened()[0]), PAIRED, "step again: frame");
}

#[test]
fn a_checkpoint_of_the_states_themselves() {
    let s = Sessions::fresh(SESSIONS, &Plan { whole: true, ..Plan::default() });
    caught(&checked(&s.view(false, true)), ALONE, "epoch 1 checkpoint: kept word");
}

#[test]
fn values_revealed_without_fresh_shares() {
    for phase in ["epoch 0 metric", "weights"] {
        let plan = silent(&[Pair::AliceBob], lot(phase), Purpose::Output);
        let s = Sessions::given(SESSIONS, Pair::AliceBob, &plan);
        for from in [0, 1] {
            caught(&checked(&s.handed_out(from)), ALONE, &format!("{phase}: handed out word"));
        }
    }
}

#[test]
fn a_model_published_without_masks() {
    let s = Sessions::fresh(SESSIONS, &silent(MASKS, lot("publication"), Purpose::WeightLambda));
    caught(&checked(&s.opened()[0]), ALONE, "publication: frame 0 opened");
}
