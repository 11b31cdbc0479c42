//! Every operation that talks or is dealt: products, signs, selections, bits, piecewise polynomials, openings.

use trefoil_mpc::cost::cost;
use trefoil_mpc::masked::output::open_values;
use trefoil_mpc::program::{Bilinear, Op, Step, Window};
use trefoil_mpc::{Compare, Selecting};
use trefoil_ring::geometry::{Conv2d, Pads};
use trefoil_testkit::{Random, World};

use crate::common::{F, program, run, values};

const WAYS: [Compare; 3] = [Compare::Tree { block: 4, arity: 4 }, Compare::Tree { block: 8, arity: 2 }, Compare::Keys];

/// Cuts the first `n` elements off row value `x` and what is left, both as the given shapes.
fn halves(n: usize, whole: usize, a: &[usize], b: &[usize]) -> Vec<Op> {
    vec![
        Op::Slice { x: 0, axis: 0, start: 0, len: n },
        Op::Reshape { x: 1, shape: a.to_vec() },
        Op::Slice { x: 0, axis: 0, start: n, len: whole - n },
        Op::Reshape { x: 3, shape: b.to_vec() },
    ]
}

/// The product of two parts of each row.
fn of_rows(map: Bilinear, a: &[usize], b: &[usize]) {
    let (n, m): (usize, usize) = (a.iter().product(), b.iter().product());
    let mut ops = halves(n, n + m, a, b);
    ops.push(Op::Product { x: 2, y: 4, map });
    let p = program(vec![n + m], &[], ops);
    for batch in [1, 5] {
        let x = values(&mut Random::new(3), batch * (n + m), i64::MAX - 1);
        run(7, &p, batch, &x, &[]).exact();
    }
}

/// The product of each row with a state.
fn with_state(map: Bilinear, a: &[usize], b: &[usize]) {
    let ops = vec![Op::State { slot: 0 }, Op::Open { x: 1 }, Op::Product { x: 0, y: 2, map }];
    let p = program(a.to_vec(), &[(b, F)], ops);
    for batch in [1, 5] {
        let x = values(&mut Random::new(4), batch * a.iter().product::<usize>(), i64::MAX - 1);
        run(8, &p, batch, &x, &[]).exact();
    }
}

fn conv(groups: usize) -> Conv2d {
    Conv2d {
        input: (6, 5),
        in_channels: 4,
        out_channels: 6,
        kernel: (3, 2),
        stride: (2, 1),
        dilation: (1, 2),
        pads: Pads { top: 1, bottom: 0, left: 2, right: 1 },
        groups,
    }
}

#[test]
fn every_product_is_exact() {
    of_rows(Bilinear::Elementwise, &[3, 4], &[3, 4]);
    of_rows(Bilinear::Elementwise, &[3, 4], &[4]);
    of_rows(Bilinear::MatMul, &[3, 4], &[4, 5]);
    of_rows(Bilinear::DenseWeights, &[7], &[5]);
    of_rows(Bilinear::DenseWeights, &[3, 7], &[3, 5]);
    with_state(Bilinear::Elementwise, &[3, 4], &[3, 4]);
    with_state(Bilinear::Elementwise, &[3, 4], &[4]);
    with_state(Bilinear::Dense, &[7], &[7, 5]);
    with_state(Bilinear::Dense, &[3, 7], &[7, 5]);
    with_state(Bilinear::DenseInput, &[5], &[7, 5]);
    with_state(Bilinear::DenseInput, &[3, 5], &[7, 5]);
    for g in [conv(1), conv(2)] {
        let (h, w) = g.output().unwrap();
        with_state(Bilinear::Conv(g), &[6, 5, 4], &g.kernel_shape());
        with_state(Bilinear::ConvInput(g), &[h, w, 6], &g.kernel_shape());
        of_rows(Bilinear::ConvWeights(g), &[6, 5, 4], &[h, w, 6]);
    }
}

#[test]
fn a_product_is_dealt_in_pieces_that_fit_its_rows() {
    let ops = vec![Op::State { slot: 0 }, Op::Open { x: 1 }, Op::Product { x: 0, y: 2, map: Bilinear::Dense }];
    let p = program(vec![3], &[(&[3, 9000], F)], ops);
    let x = values(&mut Random::new(5), 3 * 11, i64::MAX - 1);
    run(9, &p, 11, &x, &[]).exact();
}

/// Values of both signs, near zero and anywhere in the window.
fn edgy(r: &mut Random, n: usize, half: i64) -> Vec<u64> {
    (0..n).map(|i| if i % 2 == 0 { r.between(-3, 4) } else { r.between(-half, half) } as u64).collect()
}

#[test]
fn signs_select_and_count() {
    let window = Window { lo: 0, k: 32 };
    for compare in WAYS {
        for (n, batch) in [(5, 1), (3000, 3)] {
            let x = edgy(&mut Random::new(6), n * batch, 1 << 31);
            let sign = Op::Sign { x: 0, window, compare };
            let p = program(vec![n], &[], vec![sign.clone(), Op::Bit { bit: 1 }]);
            run(10, &p, batch, &x, &[]).exact();
            let p = program(vec![n], &[], vec![sign.clone(), Op::Select { bit: 1, x: 0, shift: 0 }]);
            run(11, &p, batch, &x, &[]).exact();
            // The same bit selects another wire too, truncated: one unit.
            let more = Op::Scale { x: 0, factor: -(1 << 16), extra: 16 };
            let p = program(vec![n], &[], vec![sign, more, Op::Select { bit: 1, x: 2, shift: 16 }]);
            run(12, &p, batch, &x, &[]).within(1);
        }
    }
}

#[test]
fn piecewise_polynomials_are_exact() {
    let mut r = Random::new(13);
    let window = Window { lo: 0, k: 33 };
    for compare in WAYS {
        for (knots, terms) in
            [(0, 2), (0, 3), (0, 4), (1, 2), (2, 2), (3, 4), (5, 3), (10, 4), (13, 3), (17, 2), (64, 4)]
        {
            let mut knots: Vec<i64> = (0..knots).map(|_| r.between(-(1 << 30), 1 << 30)).collect();
            knots.sort_unstable();
            let pieces: Vec<Vec<i64>> =
                (0..=knots.len()).map(|_| (0..terms).map(|_| r.word() as i64).collect()).collect();
            let mut x: Vec<u64> = edgy(&mut r, 1000, 1 << 30);
            knots
                .iter()
                .enumerate()
                .for_each(|(i, k)| (-1..2).for_each(|d| x[3 * i + (d + 1) as usize] = (k + d) as u64));
            let op = Op::Piecewise { x: 0, knots, pieces, scale: 60, window, compare, select: Selecting::default() };
            for op in selections(&op) {
                run(14, &program(vec![500], &[], vec![op]), 2, &x, &[]).exact();
            }
        }
    }
}

/// The same with each way of selecting pieces.
fn selections(op: &Op) -> Vec<Op> {
    let keys = matches!(op, Op::Piecewise { knots, .. } if !knots.is_empty());
    let ways = [Selecting::Products, Selecting::Keys];
    ways[..1 + usize::from(keys)].iter().map(|way| op.selecting(*way)).collect()
}

/// Every number of a small window against every number of knots that it has room for, at both ends of the window.
#[test]
fn piecewise_polynomials_of_small_windows_are_exact_everywhere() {
    let mut r = Random::new(14);
    let window = Window { lo: 0, k: 7 };
    let x: Vec<u64> = (-32i64..32).map(|x| x as u64).collect();
    let ways = WAYS.into_iter().chain([Compare::Tree { block: 1, arity: 2 }, Compare::Tree { block: 3, arity: 3 }]);
    for compare in ways {
        for count in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64] {
            // -31 to 32: the difference of -32 and 32 is the least that a window of seven bits holds.
            let knots: Vec<i64> = (1..=count).map(|i| -32 + (64 * i) / count).collect();
            let terms = 2 + r.below(3);
            let pieces: Vec<Vec<i64>> =
                (0..=knots.len()).map(|_| (0..terms).map(|_| r.word() as i64).collect()).collect();
            let op = Op::Piecewise { x: 0, knots, pieces, scale: 60, window, compare, select: Selecting::default() };
            for op in selections(&op) {
                run(15, &program(vec![64], &[], vec![op]), 1, &x, &[]).exact();
            }
        }
    }
}

/// More values than a planner leaves to products of masks.
#[test]
fn piecewise_polynomials_of_many_values_are_exact() {
    let mut r = Random::new(16);
    let window = Window { lo: 0, k: 33 };
    for compare in [Compare::default(), Compare::Tree { block: 8, arity: 8 }] {
        for (knots, terms) in [(2, 4), (7, 3), (10, 4), (17, 2)] {
            let knots: Vec<i64> = (1..=knots).map(|i| (i - 8) << 24).collect();
            let pieces: Vec<Vec<i64>> =
                (0..=knots.len()).map(|_| (0..terms).map(|_| r.word() as i64).collect()).collect();
            let x: Vec<u64> = edgy(&mut r, 2 * 4100, 1 << 30);
            let op = Op::Piecewise { x: 0, knots, pieces, scale: 60, window, compare, select: Selecting::default() };
            for op in selections(&op) {
                let p = program(vec![4100], &[], vec![op]);
                run(16, &p, 2, &x, &[]).exact();
                let [ahead, in_step] = [World::new(17), World::new(17).in_step()].map(|mut world| {
                    let (model, rows) = (world.share(&p, &[]).unwrap(), world.share_rows(&x).unwrap());
                    let mut none = world.split_states(&[]);
                    world.step(&model, &rows, &[0, 1], &mut none, &[]).unwrap().value()
                });
                assert!(ahead == in_step);
            }
        }
    }
}

#[test]
fn openings_side_by_side_take_one_round() {
    let ops = vec![
        Op::State { slot: 0 },
        Op::State { slot: 1 },
        Op::Open { x: 1 },
        Op::Open { x: 2 },
        Op::Open { x: 1 },
        Op::Product { x: 0, y: 3, map: Bilinear::Dense },
        Op::Product { x: 0, y: 5, map: Bilinear::Dense },
        Op::Add { x: 6, y: 7 },
        Op::Open { x: 8 },
        Op::Product { x: 9, y: 4, map: Bilinear::Elementwise },
    ];
    let p = program(vec![4], &[(&[4, 3], F), (&[3], F)], ops);
    let x = values(&mut Random::new(1), 8, 1 << 20);
    run(15, &p, 2, &x, &[]).exact();
    let cost = cost(&p, 2).unwrap();
    let rounds: Vec<u64> = cost.iter().map(|c| c.rounds).collect();
    assert_eq!(rounds, [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(cost[3].online, 2 * (8 * (12 + 3 + 12) + 12));
}

#[test]
fn a_step_may_reveal_a_sum() {
    let ops = vec![Op::Product { x: 0, y: 0, map: Bilinear::Elementwise }, Op::Sum { x: 1, keep: 0, batch: true }];
    let mut p = program(vec![4], &[], ops);
    p.steps.push(Step { layer: "loss".into(), op: Op::Reveal { x: 2, shift: F } });
    let x = values(&mut Random::new(2), 12, 1 << 20);
    let mut world = World::new(16);
    let model = world.share(&p, &[]).unwrap();
    let rows = world.share_rows(&x).unwrap();
    let mut states = world.split_states(&[]);
    let answer = world.step(&model, &rows, &[2, 0], &mut states, &[]).unwrap();
    let got = open_values(&answer.alice.payload, &answer.bob.payload, 1, F).unwrap()[0];
    let want = x[8..].iter().chain(&x[..4]).fold(0u64, |sum, v| sum.wrapping_add(v.wrapping_mul(*v))) as i64 >> F;
    assert!((0..=1).contains(&(got - want)), "{got} {want}");
}
