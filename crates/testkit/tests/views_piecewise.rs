//! Views of a piecewise polynomial of many knots: leaves that all knots share, masks that none may, and the keys that
//! select a piece. Planted leaks must be caught by the checks that honest sessions pass.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;

use trefoil_mpc::program::{Op, Program, Step, Window};
use trefoil_mpc::{Compare, Selecting};
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{DrawId, Pair, Purpose};
use trefoil_testkit::record::{Frame, frames};
use trefoil_testkit::uniform::{Report, Samples};
use trefoil_testkit::view::{opened, words};
use trefoil_testkit::{Links, World};

const SESSIONS: u64 = 128;
/// False-alarm level of one check of one view.
const ALARM: f64 = 2.5e-9;
/// As many elements as fill the words in which single bits are dealt.
const ELEMENTS: usize = 64;
const KNOTS: [i64; 7] = [-300, -90, -7, 0, 12, 100, 290];

/// How the knots are compared, and how the piece is selected.
type Way = (Compare, Selecting);

fn program((compare, select): Way) -> Program {
    let window = Window { lo: 0, k: 12 };
    let pieces = (0..8).map(|i| vec![i << 40, 3 << 30, 1 - i, 5]).collect();
    let piecewise = Op::Piecewise { x: 1, knots: KNOTS.to_vec(), pieces, scale: 60, window, compare, select };
    let ops = [Op::Input, Op::Open { x: 0 }, piecewise, Op::Reveal { x: 2, shift: 44 }];
    Program {
        fraction_bits: 16,
        input_shape: vec![ELEMENTS],
        weights: vec![],
        states: vec![],
        rates: 0,
        steps: ops.map(|op| Step { layer: "f".into(), op }).into(),
    }
}

/// What alice and bob saw of a request in each session, and whether its input was the other one.
fn sessions(
    world: impl Fn(u64) -> World,
    planted: Option<Arc<dyn Interceptor>>,
    way: Way,
) -> Vec<(u64, [Vec<Frame>; 2])> {
    let program = program(way);
    let session = |s: u64| {
        let mut world = world(s);
        planted.iter().for_each(|p| world.intercept(p.clone()));
        let (mut links, seen) = Links::memory().recorded();
        let model = world.share(&program, &[]).unwrap();
        let input: Vec<u64> =
            (0..ELEMENTS as u64).map(|e| if s.is_multiple_of(2) { e } else { 0u64.wrapping_sub(9 * e) }).collect();
        world.run_over(&model, 1, &input, &mut links).unwrap();
        (s % 2, [frames(&seen.alice), [frames(&seen.dealt), frames(&seen.bob)].concat()])
    };
    (0..SESSIONS).map(session).collect()
}

fn fresh(way: Way, planted: Option<Arc<dyn Interceptor>>) -> Vec<(u64, [Vec<Frame>; 2])> {
    sessions(|s| World::new(0x5e56_0000 + s), planted, way)
}

/// Sessions in which only the seed of `pair` is fresh: one input for all.
fn given(way: Way, pair: Pair, planted: Option<Arc<dyn Interceptor>>) -> Vec<(u64, [Vec<Frame>; 2])> {
    sessions(|s| World::new(5).reseeded(pair, 2 * s), planted, way).into_iter().step_by(2).collect()
}

/// The words that one party received, and sent where `sent`.
fn view(all: &[(u64, [Vec<Frame>; 2])], party: usize, sent: bool) -> Samples {
    let mut samples = None;
    for (group, seen) in all {
        let (places, words) = words(&seen[party], sent);
        samples.get_or_insert_with(|| Samples::new(places)).push(*group, &words);
    }
    samples.unwrap()
}

fn check(samples: &Samples) -> Report {
    let mut report = samples.singles(ALARM);
    samples.by_group().into_iter().for_each(|group| report.add(group.singles(ALARM / 4.0)));
    report.add(samples.pairs(ALARM));
    report
}

/// Sums and XORs of what the evaluators exchanged.
fn check_opened(all: &[(u64, [Vec<Frame>; 2])]) -> Report {
    let (places, ..) = opened(&all[0].1[0]);
    let mut both = [Samples::new(places.clone()), Samples::new(places)];
    for (group, seen) in all {
        let (_, sums, xors) = opened(&seen[0]);
        both[0].push(*group, &sums);
        both[1].push(*group, &xors);
    }
    let mut report = check(&both[0]);
    report.add(check(&both[1]));
    report
}

#[track_caller]
fn clean(report: &Report) {
    let named: Vec<String> = report.findings.iter().take(5).map(ToString::to_string).collect();
    assert!(named.is_empty(), "{} findings: {named:#?}", report.findings.len());
    assert!(report.alarm < 1e-6 / 2.0, "a false alarm has probability {}", report.alarm);
}

#[track_caller]
fn caught(report: &Report, test: &str, place: &str) {
    let hit = report.findings.iter().find(|f| f.test == test && f.place.contains(place));
    let some: Vec<String> = report.findings.iter().take(8).map(ToString::to_string).collect();
    println!("caught: {}", hit.unwrap_or_else(|| panic!("no {test:?} at {place:?}: {some:#?}")));
}

const TREE: Compare = Compare::Tree { block: 4, arity: 4 };
/// A tree, with each way of selecting pieces, and keys that compare and select.
const WAYS: [Way; 3] = [(TREE, Selecting::Products), (TREE, Selecting::Keys), (Compare::Keys, Selecting::Keys)];

#[test]
fn every_view_is_uniform() {
    for way in WAYS {
        let all = fresh(way, None);
        let mut report = check_opened(&all);
        report.add(check(&view(&all, 0, true)));
        // What bob sends alice receives, and what he passes on he has received.
        report.add(check(&view(&all, 1, false)));
        clean(&report);
    }
}

#[test]
fn views_are_uniform_given_the_partys_own_randomness() {
    for way in WAYS {
        let mut report = Report::default();
        for (pair, party) in [(Pair::BobCarol, 0), (Pair::AliceCarol, 1)] {
            let all = given(way, pair, None);
            report.add(check(&view(&all, party, false)));
            report.add(check_opened(&all));
        }
        clean(&report);
    }
}

/// Every knot's nodes get the masks of the first knot's: 64 elements of a knot fill one word of each plane.
struct OneMaskForAllKnots;

impl Interceptor for OneMaskForAllKnots {
    fn filled(&self, draw: &DrawId, _: u64, words: &mut [u64]) {
        if draw.purpose == Purpose::NodeMask {
            words.chunks_exact_mut(KNOTS.len()).for_each(|plane| plane.fill(plane[0]));
        }
    }
}

#[test]
fn masks_that_knots_share() {
    let report = check_opened(&fresh(WAYS[0], Some(Arc::new(OneMaskForAllKnots))));
    caught(&report, "xor of two words", "opened with tag 0x2000");
}

/// Zeros come of the draws for one purpose.
struct Bare(Purpose, &'static [Pair]);

impl Interceptor for Bare {
    fn filled(&self, draw: &DrawId, _: u64, words: &mut [u64]) {
        if draw.purpose == self.0 && self.1.contains(&draw.pair) {
            words.fill(0);
        }
    }
}

#[test]
fn bits_and_numbers_of_pieces_opened_without_a_mask() {
    for way in WAYS {
        let place = if way.0 == TREE { "opened with tag 0x2001" } else { "opened with tag 0x2000" };
        let planted = Bare(Purpose::SignMask, &[Pair::AliceCarol, Pair::BobCarol]);
        caught(&check_opened(&fresh(way, Some(Arc::new(planted)))), "bit balance", place);
    }
}

/// Root seeds of keys that bob could guess: given his own, the correction words follow from the
/// masks alone.
#[test]
fn roots_of_alices_keys_that_bob_knows() {
    let planted = Bare(Purpose::KeyRoot, &[Pair::AliceCarol]);
    let planted = Arc::new(planted);
    for way in &WAYS[1..] {
        let all = given(*way, Pair::AliceCarol, Some(planted.clone()));
        caught(&check(&view(&all, 1, false)), "repeated word", "received with tag 0x2");
    }
}
