//! The way through a run, and runs that make no sense.

use proptest::prelude::*;
use trefoil_mpc::program::{Op, Program, Step, WeightSpec};

use super::*;
use crate::control::decode;
use crate::dataset::{Block, Content, Declaration, Part};

pub(super) fn program(ops: Vec<Op>) -> Program {
    let states = vec![WeightSpec { name: "w".into(), shape: vec![2], scale: 16 }];
    let steps = ops.into_iter().map(|op| Step { layer: "l".into(), op }).collect();
    Program { fraction_bits: 16, input_shape: vec![3], weights: vec![], states, rates: 0, steps }
}

fn learn() -> Program {
    program(vec![Op::Rows, Op::State { slot: 0 }, Op::Store { slot: 0, x: 1 }])
}

fn show() -> Program {
    program(vec![Op::Rows, Op::State { slot: 0 }, Op::Reveal { x: 1, shift: 0 }])
}

pub(super) fn declaration() -> Declaration {
    let part = |owner: &str, first, end| Part { owner: owner.into(), block: 0, first, end };
    let blocks = vec![Block { name: "b".into(), width: 3, content: Content::OneHot }];
    let parts = vec![part("ann", 0, 30), part("bert", 30, 50)];
    Declaration { name: "set".into(), rows: 50, fraction_bits: 16, metric_rows: 8, blocks, parts }
}

pub(super) fn disclosure(when: When) -> Disclosure {
    Disclosure { program: show(), recipient: "eve".into(), purpose: "to see".into(), when }
}

pub(super) fn spec() -> RunSpec {
    RunSpec {
        name: "run".into(),
        owner: "owner".into(),
        coordinator: "ann".into(),
        set: 1,
        declaration: declaration().hash(),
        extraction: None,
        step: learn(),
        rates: vec![],
        training: RowRange { first: 0, end: 42 },
        epochs: 3,
        batch: 10,
        shuffle: false,
        order: Order::Drawn,
        metrics: vec![0],
        check: Some(Check { program: learn(), rows: RowRange { first: 42, end: 50 }, batch: 4 }),
        reveals: vec![disclosure(When::EachEpoch), disclosure(When::AtEnd), disclosure(When::EachEpoch)],
        publish: None,
        checkpoint: 3,
    }
}

/// Every place of a run from its beginning to its end.
fn walk(spec: &RunSpec, stopped: bool) -> Vec<Position> {
    let mut places = vec![];
    let mut at = spec.due(Position::START, stopped);
    while at.phase != Phase::Done {
        places.push(at);
        at = spec.due(spec.after(at, 1), stopped);
    }
    places
}

#[test]
fn a_run_has_its_steps_checks_and_reveals_in_order() {
    let s = spec();
    s.check(&declaration()).unwrap();
    let places = walk(&s, false);
    assert_eq!(places.len() as u32, 3 * (4 + 2 + 2) + 1);
    assert!(places.windows(2).all(|p| p[0] < p[1]));
    let kinds: Vec<Phase> = places[..8].iter().map(|p| p.phase).collect();
    use Phase::{Check, Close, Reveal, Train};
    assert_eq!(kinds, [Train, Train, Train, Train, Check, Check, Reveal, Reveal]);
    assert_eq!(places[24], Position { epoch: 3, phase: Close, index: 0 });
    let shown: Vec<u32> = [places[6], places[7], places[24]].iter().map(|p| s.disclosure(*p).unwrap().0).collect();
    assert_eq!((shown, s.shown()), (vec![0, 2, 1], 7));
    assert_eq!(s.all_steps(), places.iter().filter(|p| p.phase == Train).count() as u64);
    assert_eq!(s.last_lot(places[24], 1, 5), Some(5));
    // One that is stopped ends with its first epoch.
    let stopped = walk(&s, true);
    assert_eq!((stopped.len(), stopped[8]), (9, Position { epoch: 1, phase: Close, index: 0 }));
    assert_eq!(s.parties(&declaration()), ["ann", "bert", "owner"]);
}

#[test]
fn states_are_saved_at_intervals_and_before_anything_is_revealed() {
    let s = spec();
    let saved: Vec<bool> = walk(&s, false)[..9].iter().map(|p| s.saves(*p, 1)).collect();
    assert_eq!(saved, [false, false, true, false, false, true, false, false, false]);
    let quiet = RunSpec { reveals: vec![], check: None, ..s };
    let saved: Vec<bool> = walk(&quiet, false)[..5].iter().map(|p| quiet.saves(*p, 1)).collect();
    assert_eq!(saved, [false, false, true, true, false]);
    assert!(quiet.saves(Position::START, 4) && !quiet.saves(Position::START, 2));
    let shuffled = RunSpec { shuffle: true, ..quiet };
    let saved: Vec<bool> = walk(&shuffled, false)[..5].iter().map(|p| shuffled.saves(*p, 1)).collect();
    assert_eq!(saved, [false, false, false, true, false]);
}

#[test]
fn public_numbers_are_of_the_run_the_epoch_or_the_step() {
    let numbers = |n: i64| (0..n).map(|i| vec![i]).collect::<Vec<_>>();
    let at = |epoch, index| Position { epoch, phase: Phase::Train, index };
    let mut s = spec();
    s.step.rates = 1;
    s.check = None;
    s.reveals.clear();
    for (n, want) in [(1, 0), (3, 2), (12, 9)] {
        s.rates = numbers(n);
        assert_eq!(s.rates_at(at(2, 1)), [want]);
    }
    s.rates = numbers(2);
    assert!(matches!(s.check(&declaration()), Err(RunError::Program { .. } | RunError::Rates { got: 2, .. })));
    assert!(s.rates_at(Position { phase: Phase::Check, ..Position::START }).is_empty());
}

#[test]
fn rows_follow_the_order_that_is_fixed() {
    let mut s = spec();
    s.order = Order::Fixed((0..40).rev().collect());
    s.check(&declaration()).unwrap();
    let at = |epoch, index| Position { epoch, phase: Phase::Train, index };
    assert_eq!(s.listed_rows(at(2, 1)).unwrap()[..3], [29, 28, 27]);
    s.order = Order::Fixed((0..120).map(|i| i % 42).collect());
    s.check(&declaration()).unwrap();
    assert_eq!(s.listed_rows(at(1, 0)).unwrap()[..3], [40, 41, 0]);
    assert_eq!(s.listed_rows(Position { epoch: 2, phase: Phase::Check, index: 1 }).unwrap(), [46, 47, 48, 49]);
    s.order = Order::Fixed(vec![0; 41]);
    assert!(matches!(s.check(&declaration()), Err(RunError::Order { got: 41, epoch: 40, all: 120 })));
    s.order = Order::Fixed(vec![42; 40]);
    assert!(matches!(s.check(&declaration()), Err(RunError::OrderRow { row: 42, .. })));
}

#[test]
fn what_makes_no_sense_is_named() {
    let said = |change: &dyn Fn(&mut RunSpec)| {
        let mut s = spec();
        change(&mut s);
        s.check(&declaration()).unwrap_err().to_string()
    };
    let ops = |ops: Vec<Op>| program(ops);
    assert!(said(&|s| s.name = "No".into()).contains("run \"No\" is no name"));
    assert!(said(&|s| s.reveals[1].recipient = "x y".into()).contains("recipient"));
    assert!(said(&|s| s.declaration[0] ^= 1).contains("not the one"));
    assert!(said(&|s| s.epochs = 0).contains("epochs: 0"));
    assert!(said(&|s| s.batch = 0).contains("rows of a batch of a step: 0"));
    assert!(said(&|s| s.batch = 43).contains("must be 1 to 42"));
    assert!(said(&|s| s.checkpoint = 0).contains("between checkpoints"));
    assert!(said(&|s| s.training.end = 51).contains("training rows 0..51 of a set of 50"));
    assert!(said(&|s| s.step.input_shape = vec![2]).contains("takes rows of 2 values"));
    assert!(said(&|s| s.step = ops(vec![Op::Rows, Op::State { slot: 0 }])).contains("stores nothing"));
    assert!(said(&|s| s.step.steps[0].op = Op::Input).contains("must begin with rows"));
    assert!(said(&|s| s.step.steps[1].op = Op::State { slot: 7 }).contains("the program of a step: step 1"));
    assert!(said(&|s| s.step = show()).contains("a step: reveals something"));
    assert!(said(&|s| s.metrics = vec![]).contains("stores state 0, which is no metric"));
    assert!(said(&|s| s.reveals[0].program = learn()).contains("reveal 0: reveals nothing"));
    assert!(said(&|s| s.reveals[0].purpose = String::new()).contains("purpose of reveal 0: 0"));
    for c in ['\n', '\u{202e}', '\u{200b}'] {
        assert!(said(&|s| s.reveals[0].purpose = format!("a{c}b")).contains("control or invisible characters"));
        assert!(said(&|s| s.step.states[0].name.push(c)).contains("control"));
        assert!(said(&|s| s.step.steps[1].layer.push(c)).contains("control"));
        assert!(said(&|s| s.name.push(c)).contains("is no name"));
        assert!(said(&|s| s.reveals[1].recipient.push(c)).contains("is no name"));
    }
    let rows = vec![Op::Rows, Op::Truncate { x: 0, shift: 1 }, Op::Reveal { x: 1, shift: 0 }];
    assert!(said(&|s| s.reveals[0].program = ops(rows.clone())).contains("reads rows"));
    let stores = vec![Op::Rows, Op::State { slot: 0 }, Op::Store { slot: 0, x: 1 }, Op::Reveal { x: 1, shift: 0 }];
    assert!(said(&|s| s.reveals[0].program = ops(stores.clone())).contains("stores a state"));
    assert!(said(&|s| s.epochs = 5_001).contains("values revealed: 10003"));
    let other = |s: &mut RunSpec| s.reveals[0].program.states[0].name = "v".into();
    assert!(said(&other).contains("has other states"));
}

/// Two features of each row of three values, by weights that are state 1.
fn on_features() -> RunSpec {
    use trefoil_mpc::program::Bilinear;
    let fixed = WeightSpec { name: "f".into(), shape: vec![3, 2], scale: 16 };
    let extraction = vec![
        Op::Rows,
        Op::Weight { index: 0 },
        Op::Product { x: 0, y: 1, map: Bilinear::Dense },
        Op::Open { x: 2 },
        Op::Truncate { x: 3, shift: 16 },
    ];
    let weights = vec![fixed.clone()];
    let extraction = Program { weights, states: vec![], ..program(extraction) };
    let narrow = |mut p: Program| {
        p.input_shape = vec![2];
        p.states.push(fixed.clone());
        p
    };
    let mut s = spec();
    s.step = narrow(s.step);
    s.check = s.check.map(|c| Check { program: narrow(c.program), ..c });
    s.reveals = s.reveals.into_iter().map(|d| Disclosure { program: narrow(d.program), ..d }).collect();
    RunSpec { extraction: Some(Extraction { program: extraction, weights: vec![1], batch: 20 }), ..s }
}

#[test]
fn features_come_first_and_cover_every_row_that_is_used() {
    let mut s = on_features();
    s.check(&declaration()).unwrap();
    assert_eq!((s.places(Phase::Extract), s.used()), (3, RowRange { first: 0, end: 50 }));
    let at = |index| Position { epoch: 2, phase: Phase::Extract, index };
    let sizes: Vec<u32> = (0..3).map(|i| s.program(at(i)).unwrap().1).collect();
    assert_eq!(sizes, [20, 20, 10]);
    assert_eq!(s.listed_rows(at(2)).unwrap(), (40..50).collect::<Vec<_>>());
    assert_eq!((s.last_lot(at(1), 2, 7), s.last_lot(at(1), 3, 7)), (Some(8), None));
    assert!(!s.saves(at(0), 3) && at(2) < Position { epoch: 2, ..Position::START });
    assert_eq!(s.after(at(0), 3), Position { epoch: 2, ..Position::START });
    s.shuffle = true;
    assert_eq!(s.shuffled(), Some((0..42 * 3, 3)), "rows are shuffled, not features");
    let (with, mut without) = (s.hash(), s);
    without.extraction = None;
    assert_ne!(with, without.hash());
}

#[test]
fn features_that_make_no_sense_are_named() {
    let said = |change: &dyn Fn(&mut RunSpec, &mut Extraction)| {
        let mut s = on_features();
        let mut e = s.extraction.take().unwrap();
        change(&mut s, &mut e);
        s.extraction = Some(e);
        s.check(&declaration()).unwrap_err().to_string()
    };
    let unseen = "names something \"a\\u{202e}\", with control or invisible characters";
    assert!(said(&|_, e| e.program.weights[0].name = "a\u{202e}".into()).contains(unseen));
    assert!(said(&|_, e| e.program.steps[1].layer = "a\u{202e}".into()).contains(unseen));
    assert!(said(&|_, e| e.batch = 0).contains("rows of a batch of the extraction: 0"));
    assert!(said(&|_, e| e.weights = vec![]).contains("1 weights, 0 states"));
    assert!(said(&|_, e| e.weights = vec![9]).contains("weight f of the extraction: there is no state 9"));
    assert!(said(&|_, e| e.weights = vec![0]).contains("shape [3, 2] at scale 16, but state 0 has [2]"));
    assert!(said(&|s, _| s.metrics.push(1)).contains("state 1 changes in training"));
    let store = |s: &mut RunSpec| {
        let layer = "l".to_owned();
        s.step.steps.push(Step { layer: layer.clone(), op: Op::State { slot: 1 } });
        s.step.steps.push(Step { layer, op: Op::Store { slot: 1, x: 3 } });
    };
    assert!(said(&|s, _| store(s)).contains("state 1 changes in training"));
    assert!(said(&|_, e| e.program.states = spec().step.states).contains("has states or public numbers"));
    assert!(said(&|_, e| drop(e.program.steps.pop())).contains("must end in additive values of each row"));
    let coins = Op::Pattern { shape: vec![2], keep: 9 };
    assert!(
        said(&|_, e| e.program.steps.insert(1, Step { layer: "l".into(), op: coins.clone() })).contains("extraction")
    );
    assert!(said(&|_, e| e.program.input_shape = vec![2]).contains("the program of the extraction"));
    assert!(
        said(&|s, _| s.step.input_shape = vec![1])
            .contains("takes rows of 1 values with 16 fraction bits, the extraction")
    );
}

#[test]
fn the_hash_covers_what_is_revealed() {
    let (a, mut b) = (spec(), spec());
    assert_eq!(a.hash(), b.hash());
    b.reveals[0].purpose += "!";
    assert_ne!(a.hash(), b.hash());
}

proptest! {
    /// Whatever the numbers: a run ends, its places ascend, and each kind comes as often as it should.
    #[test]
    fn every_run_ends(
        epochs in 1_u32..6, rows in 1_u32..20, batch in 1_u32..20, reveals in 0_usize..4, checkpoint in 1_u32..9,
        with_check: bool,
    ) {
        prop_assume!(batch <= rows);
        let mut s = spec();
        (s.epochs, s.batch, s.checkpoint) = (epochs, batch, checkpoint);
        s.training.end = rows;
        s.reveals.truncate(reveals);
        if !with_check { s.check = None }
        prop_assert_eq!(s.check(&declaration()), Ok(()));
        let places = walk(&s, false);
        prop_assert!(places.windows(2).all(|p| p[0] < p[1]));
        let count = |phase| places.iter().filter(|p| p.phase == phase).count() as u64;
        prop_assert_eq!(count(Phase::Train), s.all_steps());
        prop_assert_eq!(count(Phase::Reveal) + count(Phase::Close), s.shown());
        prop_assert_eq!(count(Phase::Check), u64::from(epochs * s.places(Phase::Check)));
        for (i, p) in places.iter().enumerate() {
            let steps = places[..i].iter().filter(|p| p.phase == Phase::Train).count() as u64;
            prop_assert!(s.steps_before(*p) == steps);
            // In one go or one by one: the same place, and saved if any part of it is.
            let left = s.places(p.phase) - p.index;
            for n in 1..=left.min(4) {
                prop_assert_eq!(s.due(s.after(*p, n), false), places.get(i + n as usize).copied().unwrap_or(s.after(*p, n)));
                prop_assert_eq!(s.last_lot(*p, n, 7), Some(6 + u64::from(n)));
            }
            prop_assert_eq!(s.last_lot(*p, left + 1, 7), None);
            let before_reveal = places.get(i + 1).is_some_and(|q| q.phase > Phase::Check);
            prop_assert!(p.phase > Phase::Check || !before_reveal || s.saves(*p, 1));
        }
    }

    /// Bytes that are no specification are refused, and one that was damaged is refused or is another.
    #[test]
    fn damaged_bytes_are_no_run(at in any::<prop::sample::Index>(), flip in 1_u8.., junk in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = encode(&spec());
        let i = at.index(bytes.len());
        bytes[i] ^= flip;
        if let Ok(other) = decode::<RunSpec>("run", &bytes) {
            prop_assert!(other != spec());
            let _ = other.check(&declaration());
        }
        if let Ok(other) = decode::<RunSpec>("run", &junk) {
            prop_assert!(other.check(&declaration()).is_err());
        }
    }
}
