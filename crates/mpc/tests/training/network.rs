//! A network of two layers, trained by hand-written steps.

use std::time::Duration;

use trefoil_mpc::Compare;
use trefoil_mpc::ideal;
use trefoil_mpc::program::{Bilinear, Op, Program, Window};
use trefoil_ring::Words;
use trefoil_testkit::{Links, Random, World};

use crate::common::{F, metered, program, states};

const INPUTS: usize = 6;
const HIDDEN: usize = 5;
const OUTPUTS: usize = 3;
const STEPS: usize = 40;

/// Dense, ReLU, dense; half of the squared error; gradient descent at rate 0 (weights, at F bits) and 1 (biases, 2 F).
/// States: w1, b1, w2, b2. Half of the hidden units are dropped if `drop`.
pub(crate) fn step(compare: Compare, drop: bool) -> Program {
    let window = Window { lo: 0, k: 48 };
    let mut ops: Vec<Op> = vec![];
    let mut push = |op: Op| {
        ops.push(op);
        ops.len()
    };
    let [w1, b1, w2, b2] = [0, 1, 2, 3].map(|slot| push(Op::State { slot }));
    let v1 = push(Op::Open { x: w1 });
    let v2 = push(Op::Open { x: w2 });
    let x = push(Op::Slice { x: 0, axis: 0, start: 0, len: INPUTS });
    let y = push(Op::Slice { x: 0, axis: 0, start: INPUTS, len: OUTPUTS });
    let z = push(Op::Product { x, y: v1, map: Bilinear::Dense });
    let z = push(Op::Add { x: z, y: b1 });
    let z = push(Op::Open { x: z });
    let bit = push(Op::Sign { x: z, window, compare });
    let h = push(Op::Select { bit, x: z, shift: F });
    let pattern = drop.then(|| push(Op::Pattern { shape: vec![HIDDEN], keep: 1 << 15 }));
    let h = pattern.map_or(h, |pattern| push(Op::Drop { x: h, pattern }));
    let h = push(Op::Open { x: h });
    let p = push(Op::Product { x: h, y: v2, map: Bilinear::Dense });
    let p = push(Op::Add { x: p, y: b2 });
    let p = push(Op::Open { x: p });
    let p = push(Op::Truncate { x: p, shift: F });
    let p = push(Op::Open { x: p });
    let minus = push(Op::Scale { x: y, factor: -1, extra: 0 });
    let e = push(Op::Add { x: p, y: minus });
    let back = push(Op::Product { x: e, y: v2, map: Bilinear::DenseInput });
    let back = pattern.map_or(back, |pattern| push(Op::Drop { x: back, pattern }));
    let back = push(Op::Open { x: back });
    let dz = push(Op::Select { bit, x: back, shift: F });
    let dz = push(Op::Open { x: dz });
    for (slot, state, input, error) in [(0, w1, x, dz), (2, w2, h, e)] {
        let g = push(Op::Product { x: input, y: error, map: Bilinear::DenseWeights });
        let g = push(Op::Rate { x: g, rate: 0, extra: F });
        let g = push(Op::Open { x: g });
        let g = push(Op::Truncate { x: g, shift: 2 * F });
        let g = push(Op::Scale { x: g, factor: -1, extra: 0 });
        let new = push(Op::Add { x: state, y: g });
        push(Op::Store { slot, x: new });
    }
    for (slot, state, error) in [(1, b1, dz), (3, b2, e)] {
        let g = push(Op::Sum { x: error, keep: 1, batch: true });
        let g = push(Op::Rate { x: g, rate: 1, extra: 2 * F });
        let g = push(Op::Truncate { x: g, shift: F });
        let g = push(Op::Scale { x: g, factor: -1, extra: 0 });
        let new = push(Op::Add { x: state, y: g });
        push(Op::Store { slot, x: new });
    }
    let shapes: [(&[usize], u32); 4] =
        [(&[INPUTS, HIDDEN], F), (&[HIDDEN], 2 * F), (&[HIDDEN, OUTPUTS], F), (&[OUTPUTS], 2 * F)];
    let mut p = program(vec![INPUTS + OUTPUTS], &shapes, ops);
    p.rates = 2;
    p
}

/// Rows whose targets are linear in their inputs.
pub(crate) fn data(r: &mut Random, n: usize) -> Vec<u64> {
    let one = f64::from(F).exp2();
    let row = |_| {
        let x: Vec<f64> = (0..INPUTS).map(|_| r.real(-1.0, 1.0)).collect();
        let y = (0..OUTPUTS).map(|o| x[o] - x[o + 1] / 2.0);
        x.iter().copied().chain(y).map(|v| (v * one) as i64 as u64).collect::<Vec<_>>()
    };
    (0..n).flat_map(row).collect()
}

/// The largest difference of two lists of states, in units.
fn apart(a: &[Vec<u64>], b: &[Words]) -> i64 {
    let far = |(a, b): (&u64, &u64)| (a.wrapping_sub(*b) as i64).abs();
    a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b.iter()).map(far)).max().unwrap()
}

#[test]
fn training_is_the_ideal_one_step_by_step() {
    for (compare, drop) in [(Compare::default(), false), (Compare::Keys, false), (Compare::default(), true)] {
        let p = step(compare, drop);
        let mut r = Random::new(31);
        let mut world = World::new(31);
        let model = world.share(&p, &[]).unwrap();
        let clear_rows = data(&mut r, 40);
        let rows = world.share_rows(&clear_rows).unwrap();
        let mut own = states(&p, &mut r, 1 << 14);
        let mut shared = world.split_states(&own);
        let rates = [1 << (F - 3), 1 << (2 * F - 3)];
        let mut losses = vec![];
        for n in 0..STEPS {
            let indices: Vec<usize> = (0..8).map(|i| (n * 8 + 3 * i) % 40).collect();
            let x: Vec<u64> = indices.iter().flat_map(|i| clear_rows[i * 9..(i + 1) * 9].to_vec()).collect();
            let mut same: Vec<Words> = shared.values().into_iter().map(Words::from).collect();
            let answer = world.step(&model, &rows, &indices, &mut shared, &rates).unwrap();
            metered(&p, 8, &answer);
            let common = world.last_common();
            let values = ideal::step(&p, 8, &x, &[], &mut same, &rates, &common).unwrap();
            // One unit of every truncation, times the few weights and samples it meets; biases have F more bits.
            let (got, errors) = (shared.values(), |i: usize| if i.is_multiple_of(2) { 4 } else { 4 << F });
            for i in 0..4 {
                assert!(
                    apart(&got[i..=i], &same[i..=i]) <= errors(i),
                    "state {i}: {}",
                    apart(&got[i..=i], &same[i..=i])
                );
            }
            ideal::step(&p, 8, &x, &[], &mut own, &rates, &common).unwrap();
            let error = p.steps.iter().position(|s| s.op.name() == "dense-input").unwrap() - 1;
            losses.push(values[error].iter().map(|e| (*e as i64 as f64).powi(2)).sum::<f64>());
        }
        for i in 0..4 {
            let most = if i % 2 == 0 { 256 } else { 256 << F };
            assert!(
                apart(&shared.values()[i..=i], &own[i..=i]) <= most,
                "state {i} after all steps: {}",
                apart(&shared.values()[i..=i], &own[i..=i])
            );
        }
        let [first, last] = [&losses[..5], &losses[STEPS - 5..]].map(|l| l.iter().sum::<f64>());
        assert!(drop || last < 0.6 * first, "{first} {last}");
        for log in [&world.alice_draws, &world.bob_draws, &world.carol_draws] {
            assert!(log.len() > STEPS * 10);
            assert_eq!(log.repeated(), []);
        }
    }
}

#[test]
fn a_step_that_fails_changes_no_state() {
    let p = step(Compare::default(), false);
    let mut r = Random::new(32);
    let mut world = World::new(32);
    let model = world.share(&p, &[]).unwrap();
    let rows = world.share_rows(&data(&mut r, 2)).unwrap();
    let clear = states(&p, &mut r, 1 << 14);
    let mut shared = world.split_states(&clear);
    let before = shared.values();
    // Bob's link to carol is gone: he gives up, and alice, who waits for him, with him.
    let mut links = Links::memory();
    links.dealt = Links::memory().dealt;
    links.alice.set_timeout(Some(Duration::from_millis(200)));
    assert!(world.step_over(&model, &rows, &[0, 1], &mut shared, &[1, 1], &mut links).is_err());
    assert_eq!(shared.values(), before);
    assert!(world.step(&model, &rows, &[0, 2], &mut shared, &[1, 1]).is_err());
    assert!(world.step(&model, &rows, &[0, 1], &mut shared, &[1]).is_err());
    world.step(&model, &rows, &[0, 1], &mut shared, &[1, 1]).unwrap();
}
