//! Views by position over whole training runs: what each party receives, keeps and hands out, from the owners' upload to
//! the published model, is distributed alike whatever the rows, labels and weights.
//!
//! As in `views.rs`, every word must look uniform by itself, for each table and model too, and so must the differences,
//! sums and XORs of every two words of a run, whatever its phases. Each test states the bound on its false alarms; all
//! of them stay below 1e-6 together.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod run;

use run::{Plan, Sessions, checked};
use trefoil_mpc::Compare;
use trefoil_prg::Pair;
use trefoil_testkit::uniform::Report;

/// Tests that share the 1e-6: five here.
const SHARES: f64 = 5.0;

fn clean(report: &Report) {
    let named: Vec<String> = report.findings.iter().take(5).map(ToString::to_string).collect();
    assert!(named.is_empty(), "{} findings: {named:#?}", report.findings.len());
    assert!(report.alarm < 1e-6 / SHARES, "a false alarm has probability {}", report.alarm);
    println!("{} tests, false alarm below {:.1e}", report.tests, report.alarm);
}

#[test]
fn every_view_of_a_run_is_uniform() {
    all_views(192, vec![]);
}

/// All other sizes of blocks, a step or check each, with nodes of every size.
#[test]
fn every_view_of_a_run_by_other_trees_is_uniform() {
    let sizes = [(1, 2), (2, 3), (3, 5), (5, 6), (6, 4), (7, 2), (8, 3)];
    all_views(96, sizes.map(|(block, arity)| Compare::Tree { block, arity }).into());
}

#[test]
fn every_view_of_a_run_by_keys_is_uniform() {
    all_views(96, keyed().ways);
}

/// Keys in a step and in both checks.
fn keyed() -> Plan {
    Plan { ways: vec![Compare::Keys, Compare::default(), Compare::default()], ..Plan::default() }
}

/// Every view and everything that is handed out, where steps and checks compare by `ways` in turn.
fn all_views(sessions: u64, ways: Vec<Compare>) {
    let s = Sessions::fresh(sessions, &Plan { ways, ..Plan::default() });
    let mut report = Report::default();
    for samples in [s.view(false, true), s.view(true, true)].iter().chain(&s.opened()) {
        println!("{} positions", samples.positions());
        report.add(checked(samples));
    }
    // The recipient adds both parts: either by itself says nothing.
    for from in [0, 1] {
        report.add(checked(&s.handed_out(from)));
    }
    clean(&report);
    let shapes = s.shapes();
    assert!(shapes[0].len() > 100 && shapes.iter().all(|shape| *shape == shapes[0]), "a run of another shape");
    assert!(s.0.iter().all(|x| x.carol == 0), "carol received something");
}

/// With all that a party draws, and its shares of rows and weights, held fixed, only what the others draw may make its
/// view uniform: it must.
#[test]
fn views_of_a_run_are_uniform_given_the_partys_own_randomness() {
    let mut report = Report::default();
    for (bob, pair) in [(false, Pair::BobCarol), (true, Pair::AliceCarol)] {
        for (sessions, plan) in [(128, Plan::default()), (96, keyed())] {
            let s = Sessions::given(sessions, pair, &plan);
            report.add(checked(&s.view(bob, false)));
            s.opened().iter().for_each(|o| report.add(checked(o)));
        }
    }
    clean(&report);
}

/// Whoever knows every mask of the producer still sees uniform shares in what one evaluator hands out.
#[test]
fn what_a_run_reveals_is_re_randomised() {
    let s = Sessions::given(192, Pair::AliceBob, &Plan::default());
    let mut report = checked(&s.handed_out(0));
    report.add(checked(&s.handed_out(1)));
    clean(&report);
}
