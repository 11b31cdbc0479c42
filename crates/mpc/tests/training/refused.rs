//! Programs that must be refused, each naming why; and steps given what does not fit them.

use trefoil_mpc::program::{Bilinear, Op, Program, Window};
use trefoil_mpc::{Compare, Selecting};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};
use trefoil_testkit::World;

use crate::common::{F, program};

const WINDOW: Window = Window { lo: 0, k: 32 };
const TREE: Compare = Compare::Tree { block: 4, arity: 4 };

/// Rows `[4, 4, 1]`; states 0: `[4, 1]` at F, 1: `[4, 4, 1]` at 2 F. Steps 1 and 2 are the states, 3 and 4 opened.
fn with(op: Op) -> Program {
    let first = vec![Op::State { slot: 0 }, Op::State { slot: 1 }, Op::Open { x: 1 }, Op::Open { x: 2 }, op];
    let mut p = program(vec![4, 4, 1], &[(&[4, 1], F), (&[4, 4, 1], 2 * F)], first);
    p.rates = 1;
    p
}

#[track_caller]
fn refused(p: &Program, why: &str) {
    let e = p.infer().expect_err("the program was accepted").to_string();
    assert!(e.contains(why), "{e:?} does not say {why:?}");
}

/// A shift by 64 bits or more is no shift.
#[test]
fn states_of_more_fraction_bits_than_values_may_have() {
    let show = |scale| program(vec![2], &[(&[2], scale)], vec![Op::State { slot: 0 }, Op::Reveal { x: 1, shift: 48 }]);
    assert!(show(60).infer().is_ok());
    for scale in [61, 112, u32::MAX] {
        refused(&show(scale), "fraction bits: at most 60");
    }
}

#[test]
fn operands_that_do_not_fit() {
    for (op, why) in [
        (Op::Rows, "only step 0"),
        (Op::Input, "only step 0"),
        (Op::State { slot: 2 }, "does not exist"),
        (Op::Weight { index: 0 }, "weights 0 do not exist"),
        (Op::Store { slot: 2, x: 1 }, "does not exist"),
        (Op::Store { slot: 0, x: 2 }, "cannot hold"),
        (Op::Store { slot: 0, x: 3 }, "must be Additive"),
        (Op::Select { bit: 3, x: 3, shift: 0 }, "must be Choice"),
        (Op::Bit { bit: 0 }, "must be Choice"),
        (Op::Sign { x: 1, window: WINDOW, compare: TREE }, "must be Masked"),
        (Op::Sign { x: 0, window: Window { lo: 40, k: 32 }, compare: TREE }, "window"),
        (Op::Sign { x: 0, window: WINDOW, compare: Compare::Tree { block: 0, arity: 2 } }, "blocks of 0"),
        (Op::Sum { x: 0, keep: 4, batch: false }, "sum to 4"),
        (Op::Sum { x: 1, keep: 1, batch: true }, "batch: true"),
        (Op::Broadcast { x: 1, shape: vec![4, 2], batch: true }, "cannot be repeated"),
        (Op::Broadcast { x: 0, shape: vec![4, 4, 1], batch: true }, "cannot be repeated"),
        (Op::Broadcast { x: 1, shape: vec![1 << 40, 4, 1], batch: false }, "elements"),
        (Op::Rate { x: 0, rate: 1, extra: 0 }, "public number 1 of 1"),
        (Op::Rate { x: 0, rate: 0, extra: 60 }, "more fraction bits"),
        (Op::Pattern { shape: vec![2], keep: 0 }, "pattern of 0"),
        (Op::Pattern { shape: vec![2], keep: 1 << 16 }, "pattern of 65536"),
        (Op::Pattern { shape: vec![], keep: 1 << 20 }, "pattern of"),
        (Op::Drop { x: 0, pattern: 0 }, "must be Public"),
        (Op::Crop { x: 0, pads: Pads { top: 3, bottom: 2, ..Pads::default() } }, "cropping"),
        (Op::Crop { x: 0, pads: Pads { left: usize::MAX, right: 1, ..Pads::default() } }, "cropping"),
        (Op::Slice { x: 0, axis: 3, start: 0, len: 1 }, "axis 3"),
        (Op::Slice { x: 0, axis: 1, start: usize::MAX, len: 2 }, "axis 1"),
        (Op::Add { x: 1, y: 2 }, "differ"),
        (Op::Add { x: 3, y: 0 }, "differ"),
        (Op::Add { x: 0, y: 4 }, "differ"),
    ] {
        refused(&with(op), why);
    }
    let twice = vec![Op::State { slot: 0 }, Op::Store { slot: 0, x: 1 }, Op::Store { slot: 0, x: 1 }];
    refused(&program(vec![1], &[(&[1], F)], twice), "stored twice");
    let mut p = with(Op::Bit { bit: 0 });
    p.rates = 1 << 20;
    refused(&p, "public numbers");
    p.states[0].shape = vec![1 << 40, 1 << 40];
    refused(&p, "must have");
    // A pattern and a selection of other sizes.
    let sign = Op::Sign { x: 3, window: WINDOW, compare: TREE };
    let mut p = with(sign);
    p.steps.push(trefoil_mpc::program::Step { layer: "l".into(), op: Op::Select { bit: 5, x: 0, shift: 0 } });
    refused(&p, "select from");
}

#[test]
fn products_that_do_not_fit() {
    let conv = |kernel: usize| Conv2d {
        input: (4, 4),
        in_channels: 1,
        out_channels: 1,
        kernel: (kernel, 1),
        stride: (1, 1),
        dilation: (1, 1),
        pads: Pads::default(),
        groups: 1,
    };
    for (x, y, map) in [
        (1, 3, Bilinear::Elementwise),
        (3, 0, Bilinear::Elementwise),
        (0, 3, Bilinear::MatMul),
        (0, 3, Bilinear::Dense),
        (0, 0, Bilinear::Dense),
        (0, 4, Bilinear::DenseInput),
        (0, 3, Bilinear::DenseWeights),
        (0, 3, Bilinear::Conv(conv(4))),
        (0, 3, Bilinear::Conv(conv(9))),
        (0, 4, Bilinear::ConvInput(conv(4))),
        (0, 3, Bilinear::ConvWeights(conv(4))),
        (0, 3, Bilinear::Conv(Conv2d { stride: (0, 0), ..conv(4) })),
    ] {
        let p = with(Op::Product { x, y, map });
        assert!(p.infer().is_err(), "{:?}", p.steps.last());
    }
    let op = Op::Product { x: 0, y: 4, map: Bilinear::Elementwise };
    assert!(with(op).infer().is_ok());
}

#[test]
fn pools_and_pieces_that_do_not_fit() {
    let pool = Pool2d { input: (4, 4), channels: 1, window: (2, 2), stride: (2, 2), pads: Pads::default() };
    let padded = Pool2d { pads: Pads { top: 1, ..Pads::default() }, ..pool };
    let vast = Pool2d { window: (usize::MAX, usize::MAX), ..pool };
    for op in [
        Op::Window { x: 0, pool, index: 4 },
        Op::Window { x: 0, pool: padded, index: 0 },
        Op::Window { x: 0, pool: vast, index: 0 },
        Op::Unwindow { x: 0, pool, index: 0 },
        Op::Spread { x: 0, pool, extra: 0 },
        Op::Spread { x: 0, pool: vast, extra: 0 },
        Op::Spread { x: 0, pool, extra: 64 },
    ] {
        assert!(with(op.clone()).infer().is_err(), "{op:?}");
    }
    let piecewise = |knots: Vec<i64>, pieces: Vec<Vec<i64>>, scale| Op::Piecewise {
        x: 0,
        knots,
        pieces,
        scale,
        window: WINDOW,
        compare: TREE,
        select: Selecting::default(),
    };
    for (op, why) in [
        (piecewise(vec![0], vec![vec![1, 2]], 32), "pieces"),
        (piecewise(vec![], vec![vec![1, 2]], 32).selecting(Selecting::Keys), "one piece"),
        (piecewise(vec![], vec![], 32), "pieces"),
        (piecewise(vec![1, 1], vec![vec![1, 2]; 3], 32), "ascend"),
        (piecewise(vec![1], vec![vec![1, 2], vec![1]], 32), "coefficients"),
        (piecewise(vec![], vec![vec![1]], 32), "coefficients"),
        (piecewise(vec![], vec![vec![1; 5]], 60), "coefficients"),
        (piecewise(vec![], vec![vec![1; 4]], 47), "scale 48"),
        (piecewise(vec![], vec![vec![1; 2]], 61), "to 60"),
        (piecewise((0..65).collect(), vec![vec![1; 2]; 66], 60), "at most 64"),
    ] {
        refused(&with(op), why);
    }
}

#[test]
fn a_program_starts_with_what_it_reads() {
    for op in [Op::State { slot: 0 }, Op::Pattern { shape: vec![1], keep: 5 }] {
        let mut p = with(Op::Open { x: 1 });
        p.steps[0].op = op;
        refused(&p, "step 0");
    }
}

#[test]
fn predictions_and_training_keep_apart() {
    let p = with(Op::Offset { x: 0, units: 1 });
    assert!(p.infer().is_ok());
    assert!(p.check_prediction().unwrap_err().to_string().contains("states"));
    let rows = program(vec![2], &[], vec![]);
    assert!(rows.check_prediction().unwrap_err().to_string().contains("not in a prediction"));
    let mut input = program(vec![2], &[], vec![Op::Sum { x: 0, keep: 1, batch: true }]);
    input.steps[0].op = Op::Input;
    assert!(input.check_prediction().unwrap_err().to_string().contains("samples apart"));
    input.steps.pop();
    input.check_prediction().unwrap();
    let mut world = World::new(1);
    let model = world.share(&rows, &[]).unwrap();
    assert!(world.run(&model, 1, &[1, 2]).is_err());
    let model = world.share(&input, &[]).unwrap();
    let set = world.share_rows(&[1, 2]).unwrap();
    let mut states = world.split_states(&[]);
    let refused = world.step(&model, &set, &[0], &mut states, &[]).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("reads rows"), "{refused}");
    // A program of one state, given none.
    let model = world.share(&program(vec![2], &[(&[1], F)], vec![]), &[]).unwrap();
    assert!(world.step(&model, &set, &[0], &mut states, &[]).is_err());
}
