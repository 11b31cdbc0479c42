//! Every local operation in both forms.

use trefoil_mpc::program::{Bilinear, Op};
use trefoil_ring::geometry::{Pads, Pool2d};
use trefoil_testkit::Random;

use crate::common::{F, program, run, values};

/// Runs `ops` (whose step 1 is the rows in the form under test) on masked and on additive values. A masked result is
/// multiplied by an opened state of ones, so that it can be put together.
fn both(shape: &[usize], rates: &[i64], ops: &[Op]) {
    for masked in [false, true] {
        for batch in [1, 3] {
            // The product with a masked one is additive.
            let mut all = vec![Op::State { slot: 0 }, Op::Open { x: 1 }];
            if masked {
                all.push(Op::Offset { x: 0, units: 0 });
            } else {
                all.push(Op::Product { x: 0, y: 2, map: Bilinear::Elementwise });
            }
            all.extend(ops.iter().cloned());
            if masked {
                let last = all.len();
                all.push(Op::Product { x: last, y: 2, map: Bilinear::Elementwise });
            }
            let mut p = program(shape.to_vec(), &[(&[1], F)], all);
            p.rates = rates.len();
            let x = values(&mut Random::new(21), batch * shape.iter().product::<usize>(), 1 << 40);
            run(22, &p, batch, &x, rates).exact();
        }
    }
}

/// The rows are step 3 in what follows.
const X: usize = 3;

#[test]
fn images_are_cut_padded_and_pooled() {
    let pool = Pool2d { input: (4, 5), channels: 1, window: (2, 3), stride: (2, 1), pads: Pads::default() };
    let overlapping = Pool2d { stride: (1, 1), ..pool };
    let pads = Pads { top: 1, bottom: 0, left: 2, right: 1 };
    for pool in [pool, overlapping] {
        both(&[4, 5, 1], &[], &[Op::Window { x: X, pool, index: 4 }]);
        both(&[4, 5, 1], &[], &[Op::Window { x: X, pool, index: 1 }, Op::Unwindow { x: X + 1, pool, index: 5 }]);
        both(&[4, 5, 1], &[], &[Op::AveragePool { x: X, pool, extra: 5 }, Op::Spread { x: X + 1, pool, extra: 3 }]);
    }
    both(&[4, 5, 1], &[], &[Op::Pad { x: X, pads }]);
    both(&[4, 5, 1], &[], &[Op::Crop { x: X, pads }]);
}

/// The same sum, whether it adds the elements of the windows where they lie or finds them spread out.
#[test]
fn windows_that_are_only_added_may_stay_small() {
    let pool = Pool2d { input: (4, 5), channels: 1, window: (2, 3), stride: (1, 2), pads: Pads::default() };
    let sum = |read_twice: bool| {
        let unwindow = Op::Unwindow { x: X + 1, pool, index: 5 };
        let mut ops = vec![Op::State { slot: 0 }, Op::Open { x: 1 }];
        ops.push(Op::Product { x: 0, y: 2, map: Bilinear::Elementwise });
        ops.extend([Op::Window { x: X, pool, index: 1 }, unwindow]);
        if read_twice {
            ops.push(Op::Scale { x: X + 2, factor: 3, extra: 0 });
        }
        ops.push(Op::Add { x: X, y: X + 2 });
        let p = program(vec![4, 5, 1], &[(&[1], F)], ops);
        let ran = run(24, &p, 3, &values(&mut Random::new(21), 60, 1 << 40), &[]);
        ran.exact();
        ran.got
    };
    assert_eq!(sum(false), sum(true));
}

#[test]
fn slices_sums_and_repetitions() {
    both(&[4, 5, 1], &[], &[Op::Slice { x: X, axis: 1, start: 1, len: 3 }]);
    both(&[4, 5, 1], &[], &[Op::Slice { x: X, axis: 0, start: 3, len: 1 }]);
    for (keep, batch) in [(0, false), (1, false), (2, true), (3, true), (0, true)] {
        both(&[4, 5, 1], &[], &[Op::Sum { x: X, keep, batch }]);
    }
    both(&[5, 1], &[], &[Op::Broadcast { x: X, shape: vec![2, 3, 5, 1], batch: false }]);
    let sum = Op::Sum { x: X, keep: 2, batch: true };
    both(&[5, 1], &[], &[sum.clone(), Op::Broadcast { x: X + 1, shape: vec![2, 5, 1], batch: true }]);
    // One row added to each, and a trailing part to the whole.
    both(&[5, 1], &[], &[sum, Op::Add { x: X, y: X + 1 }]);
    both(&[5, 1], &[], &[Op::Sum { x: X, keep: 1, batch: false }, Op::Add { x: X, y: X + 1 }]);
    both(&[5, 1], &[], &[Op::Sum { x: X, keep: 1, batch: true }, Op::Add { x: X, y: X + 1 }]);
    both(&[5, 1], &[], &[Op::Add { x: X, y: X }, Op::Concat { xs: vec![X, X + 1, X], axis: 0 }]);
}

#[test]
fn public_numbers_and_patterns() {
    both(&[5, 1], &[-77, 1 << 40], &[Op::Rate { x: X, rate: 0, extra: 3 }, Op::Rate { x: X + 1, rate: 1, extra: 0 }]);
    both(&[5, 1], &[], &[Op::Scale { x: X, factor: -3, extra: 2 }, Op::Offset { x: X + 1, units: 12345 }]);
    for keep in [1, 30_000, 65_535] {
        both(&[50, 1], &[], &[Op::Pattern { shape: vec![50, 1], keep }, Op::Drop { x: X, pattern: X + 1 }]);
    }
}

#[test]
fn a_pattern_keeps_as_many_as_it_should() {
    let ops = vec![
        Op::State { slot: 0 },
        Op::Pattern { shape: vec![10_000, 1], keep: 1 << 14 },
        Op::Broadcast { x: 1, shape: vec![10_000, 1], batch: true },
        Op::Drop { x: 3, pattern: 2 },
    ];
    let p = program(vec![1], &[(&[1], F)], ops);
    let ran = run(23, &p, 4, &[0; 4], &[]);
    ran.exact();
    let kept: Vec<usize> = ran.got.chunks(10_000).map(|row| row.iter().filter(|v| **v != 0).count()).collect();
    // Mean 2500, deviation 43; every sample has a pattern of its own.
    assert!(kept.iter().all(|k| (2200..2800).contains(k)), "{kept:?}");
    assert!(ran.got[..10_000] != ran.got[10_000..20_000]);
}
