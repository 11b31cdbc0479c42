//! Random programs of exact operations on any ring values: bit for bit what the ideal functionality gives.

use proptest::prelude::*;
use trefoil_mpc::program::{Bilinear, Form, Op, Program, Step, ValueInfo, Window};
use trefoil_mpc::{Compare, Selecting};
use trefoil_ring::Words;
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};
use trefoil_testkit::Random;

use crate::common::{program, run_on};

/// All bits: right for every ring value but the largest.
const WINDOW: Window = Window { lo: 0, k: 64 };

fn any_op(r: &mut Random, values: &[ValueInfo]) -> Op {
    let n = values.len() as u64;
    // Recent values more often than old ones.
    let mut value = || (n - 1 - r.below(n).min(r.below(n))) as usize;
    let (x, y) = (value(), value());
    let shape = values[x].shape.clone();
    let compare = if r.below(4) == 0 { Compare::Keys } else { Compare::default() };
    let small = |r: &mut Random| 1 + r.below(3) as usize;
    let side = |i: usize| shape.get(i).copied().unwrap_or(1);
    let pool = Pool2d {
        input: (side(0), side(1)),
        channels: side(2),
        window: (small(r), small(r)),
        stride: (small(r), 1),
        pads: Pads::default(),
    };
    let conv = Conv2d {
        input: pool.input,
        in_channels: pool.channels,
        out_channels: 1,
        kernel: (2, 2),
        stride: (1, 1),
        dilation: (1, 1),
        pads: Pads::default(),
        groups: 1,
    };
    let maps = [
        Bilinear::Elementwise,
        Bilinear::MatMul,
        Bilinear::Dense,
        Bilinear::DenseInput,
        Bilinear::DenseWeights,
        Bilinear::Conv(conv),
    ];
    let index = r.below(4) as usize;
    match r.below(24) {
        0..5 => Op::Open { x },
        5..9 => Op::Product { x, y, map: maps[r.below(6) as usize] },
        9 => Op::Sign { x, window: WINDOW, compare },
        10 => Op::Select { bit: y, x, shift: 0 },
        11 => Op::Bit { bit: x },
        12 => {
            // One knot at most: what wraps around would have a second bit without the first.
            let knots: Vec<i64> = (0..r.below(2)).map(|_| r.word() as i64).collect();
            let terms = 2 + r.below(3);
            let pieces = (0..=knots.len()).map(|_| (0..terms).map(|_| r.word() as i64).collect()).collect();
            let keys = !knots.is_empty() && r.below(2) == 0;
            let select = if keys { Selecting::Keys } else { Selecting::Products };
            Op::Piecewise { x, knots, pieces, scale: 60, window: WINDOW, compare, select }
        }
        13 => Op::Sum { x, keep: index, batch: r.below(2) == 0 },
        14 => Op::Broadcast { x, shape: [vec![small(r)], shape].concat(), batch: r.below(2) == 0 },
        15 => Op::Window { x, pool, index },
        16 => Op::AveragePool { x, pool, extra: 3 },
        17 => Op::Rate { x, rate: 0, extra: 1 },
        18 => Op::Pattern { shape, keep: 1 << 15 },
        19 => {
            let pattern = values.iter().rposition(|v| v.form == Form::Public).unwrap_or(x);
            let like = |v: &ValueInfo| v.shape == values[pattern].shape && v.form != Form::Public;
            Op::Drop { x: values.iter().rposition(like).unwrap_or(x), pattern }
        }
        20 => Op::Add { x, y },
        21 => Op::Slice { x, axis: index % shape.len(), start: r.below(2) as usize, len: small(r) },
        22 => Op::Offset { x, units: r.word() as i64 },
        _ => Op::Store { slot: r.below(2) as usize, x },
    }
}

/// A program of `choices` steps that infer accepts, ending in an additive value.
fn random(seed: u64, choices: usize) -> Program {
    let mut r = Random::new(seed);
    let mut first: Vec<Op> = (0..3).map(|slot| Op::State { slot }).collect();
    first.extend((1..4).map(|x| Op::Open { x }));
    let mut p = program(vec![3, 3, 2], &[(&[2, 2], 4), (&[3, 3, 2], 4), (&[2, 2, 2, 1], 4)], first);
    (p.fraction_bits, p.rates) = (4, 1);
    let push = |p: &mut Program, op: Op| p.steps.push(Step { layer: op.name().into(), op });
    for _ in 0..choices {
        let values = p.infer().unwrap();
        push(&mut p, any_op(&mut r, &values));
        let fits = p.infer().is_ok_and(|v| v[v.len() - 1].elements() <= 200);
        if !fits {
            p.steps.pop();
        }
    }
    let values = p.infer().unwrap();
    let last = values.iter().rposition(|v| matches!(v.form, Form::Masked | Form::Choice)).unwrap();
    let mut bit = last;
    if values[last].form == Form::Masked {
        bit = p.steps.len();
        push(&mut p, Op::Sign { x: last, window: WINDOW, compare: Compare::default() });
        push(&mut p, Op::Select { bit, x: last, shift: 0 });
    } else {
        push(&mut p, Op::Bit { bit });
    }
    p.infer().unwrap();
    p
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_steps_are_exact(seed: u64, choices in 1usize..120, batch in 1usize..4) {
        let p = random(seed, choices);
        let mut r = Random::new(seed);
        let x = r.words(batch * 18);
        let states: Vec<Words> = [4, 18, 8].map(|n| r.words(n).into()).into();
        run_on(seed, &p, batch, &x, &[r.word() as i64], states).exact();
    }
}

#[test]
fn random_programs_hold_every_kind_of_step() {
    let mut names = std::collections::BTreeSet::new();
    for seed in 0..300 {
        names.extend(random(seed, 100).steps.iter().map(|s| s.op.name()));
    }
    for name in [
        "product",
        "matmul",
        "dense",
        "dense-input",
        "dense-weights",
        "conv2d",
        "sign",
        "select",
        "bit",
        "piecewise",
        "sum",
        "broadcast",
        "window",
        "average-pool",
        "rate",
        "pattern",
        "drop",
        "add",
        "slice",
        "store",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}
