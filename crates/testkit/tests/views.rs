//! Views by position, over many seeded sessions: two inputs, two models, two requests and a retry in each session.
//!
//! The words of a view must look uniform one by one, and so must the differences, sums and XORs of every two words of
//! a request and of the same word of two requests. Each check is given a false-alarm level; by the union bound over
//! exact binomial tails their sum bounds the whole suite's: every test here stays below a thirteenth of 1e-6.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{ALARM, Plan, Sessions, check, memory};
use trefoil_mpc::Compare;
use trefoil_mpc::program::Reveal;
use trefoil_prg::Pair;
use trefoil_testkit::World;
use trefoil_testkit::record::frames;
use trefoil_testkit::small::{input, network, weights};
use trefoil_testkit::uniform::Report;

/// Tests that spend part of the 1e-6: ten here, three over other links.
const SHARES: f64 = 13.0;

fn clean(report: &Report) {
    let named: Vec<String> = report.findings.iter().take(5).map(ToString::to_string).collect();
    assert!(named.is_empty(), "{} findings: {named:#?}", report.findings.len());
    assert!(report.alarm < 1e-6 / SHARES, "a false alarm has probability {}", report.alarm);
    println!("{} tests, false alarm below {:.1e}", report.tests, report.alarm);
}

#[test]
fn logits_every_view_is_uniform() {
    clean(&check(&Sessions::fresh(Reveal::Logits, 256, memory)));
}

#[test]
fn label_every_view_is_uniform() {
    clean(&check(&Sessions::fresh(Reveal::Label, 256, memory)));
}

#[test]
fn label_by_another_tree_every_view_is_uniform() {
    clean(&check(&Sessions::comparing(Compare::Tree { block: 2, arity: 3 }, Reveal::Label, 256)));
}

/// Pairs judged: of the distance, its bound and the verdict no view tells anything.
#[test]
fn verdict_every_view_is_uniform() {
    clean(&check(&Sessions::planted(Reveal::Label, 256, &Plan { judge: true, ..Plan::default() })));
}

#[test]
fn verdicts_are_uniform_given_the_partys_own_randomness() {
    let plan = Plan { judge: true, ..Plan::default() };
    let given = |pair| Sessions::planted_given(Reveal::Label, 128, 5, pair, memory, &plan);
    let mut report = given(Pair::BobCarol).check_received(false);
    report.add(given(Pair::AliceCarol).check_received(true));
    let answers = given(Pair::AliceBob);
    report.add(answers.payload(0, 0).check());
    report.add(answers.payload(1, 0).check());
    clean(&report);
}

/// Keys of distributed comparison functions, whose correction words make up most of what is dealt.
#[test]
fn logits_by_keys_every_view_is_uniform() {
    clean(&check(&Sessions::comparing(Compare::Keys, Reveal::Logits, 96)));
}

/// Given an evaluator's own root seeds, the correction words are uniform through the other's alone.
#[test]
fn views_by_keys_are_uniform_given_the_partys_own_randomness() {
    let mut report = Sessions::keyed_given(96, Pair::BobCarol, None).check_received(false);
    report.add(Sessions::keyed_given(96, Pair::AliceCarol, None).check_received(true));
    clean(&report);
}

/// With all that a party draws held fixed, only what the others draw may make its view uniform: it must.
#[test]
fn views_are_uniform_given_the_partys_own_randomness() {
    for (reveal, seed) in [(Reveal::Logits, 1), (Reveal::Label, 2)] {
        let mut report = Sessions::given(reveal, 128, seed, Pair::BobCarol, memory).check_received(false);
        report.add(Sessions::given(reveal, 128, seed, Pair::AliceCarol, memory).check_received(true));
        clean(&report);
    }
}

/// Whoever knows every mask of the producer and both answers' messages still sees uniform shares: they are
/// re-randomised under a seed that only the evaluators have.
#[test]
fn answers_are_uniform_given_all_that_carol_and_the_client_know() {
    for reveal in [Reveal::Logits, Reveal::Label] {
        let s = Sessions::given(reveal, 256, 3, Pair::AliceBob, memory);
        let mut report = s.payload(0, 0).check();
        report.add(s.payload(1, 0).check());
        clean(&report);
    }
}

/// The shares that the client gets say nothing of the coins that the hidden layers' truncations tossed.
#[test]
fn shares_of_an_answer_are_independent_of_hidden_coins() {
    let s = Sessions::fresh(Reveal::Logits, 256, memory);
    let coins = s.hidden_coins();
    let tossed = coins.iter().filter(|c| c.contains(&0) && c.contains(&1)).count();
    assert!(tossed > 8, "only {tossed} of the hidden layer's coins vary");
    let mut report = Report::default();
    for from in [0, 1] {
        for coin in &coins {
            let mut flipped = s.payload(from, 0).0;
            for p in 0..flipped.positions() {
                flipped.column_mut(p).iter_mut().zip(coin).for_each(|(w, c)| *w ^= u64::from(*c).wrapping_neg() >> 16);
            }
            report.add(flipped.singles(ALARM / 100.0));
        }
    }
    clean(&report);
}

#[test]
fn lengths_are_the_same_whatever_input_and_model() {
    for reveal in [Reveal::Logits, Reveal::Label] {
        let s = Sessions::fresh(reveal, 32, memory);
        let first = s.all[0].shapes[0].clone();
        assert!(first.len() > 20);
        assert!(s.all.iter().flat_map(|x| &x.shapes).all(|shape| *shape == first), "a request of another shape");
        assert!(s.all.iter().all(|x| x.carol == 0), "carol received something");
    }
}

/// What carol sends follows from her seeds alone: neither input nor model changes a byte.
#[test]
fn carol_deals_the_same_whatever_input_and_model() {
    let p = network(Reveal::Label).unwrap();
    let deal = |which: u64, model: u64| {
        let mut world = World::new(41);
        let shared = world.share(&p, &weights(&p, model).unwrap()).unwrap();
        let (mut links, t) = memory().recorded();
        world.run_over(&shared, 1, &input(6, which), &mut links).unwrap();
        frames(&t.carol)
    };
    let first = deal(0, 0);
    assert!(first.len() > 5 && first.iter().all(|f| f.sent));
    assert!(first == deal(1, 0) && first == deal(0, 1));
}

/// The same seeds give the same bytes: a finding can be looked at again.
#[test]
fn sessions_are_deterministic() {
    let run = || Sessions::fresh(Reveal::Label, 2, memory);
    let (a, b) = (run(), run());
    for (x, y) in a.all.iter().zip(&b.all) {
        assert!(x.requests.iter().zip(&y.requests).all(|(x, y)| x.alice == y.alice && x.bob == y.bob));
    }
}
