//! Every operation on three parties against the ideal functionality, and against the cost that was predicted.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;

use trefoil_link::Phase;
use trefoil_mpc::Compare;
use trefoil_mpc::cost::cost;
use trefoil_mpc::ideal;
use trefoil_mpc::masked::output::{open_labels, open_values};
use trefoil_mpc::program::{Bilinear, Linear, Op, Program, Reveal, Step, WeightSpec, Window};
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{DrawId, Pair, Purpose};
use trefoil_ring::Tensor;
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};
use trefoil_testkit::{Answer, Links, Random, World};

const F: u32 = 16;
const ONE: i64 = 1 << F;

/// Ways of comparing that differ in everything.
const WAYS: [Compare; 4] = [
    Compare::Tree { block: 4, arity: 4 },
    Compare::Tree { block: 8, arity: 8 },
    Compare::Tree { block: 1, arity: 2 },
    Compare::Keys,
];

fn program(input_shape: Vec<usize>, weights: Vec<WeightSpec>, ops: Vec<Op>) -> Program {
    let steps = std::iter::once(Op::Input).chain(ops).map(|op| Step { layer: op.name().into(), op }).collect();
    Program { fraction_bits: F, input_shape, weights, states: vec![], rates: 0, steps }
}

/// Runs the program and checks that what the meters counted is what was predicted, step by step.
fn run(world: &mut World, p: &Program, weights: &[Tensor], batch: usize, x: &[i64]) -> Answer {
    let x: Vec<u64> = x.iter().map(|v| *v as u64).collect();
    let model = world.share(p, weights).unwrap();
    let answer = world.run(&model, batch, &x).unwrap();
    for (i, predicted) in cost(p, batch).unwrap().iter().enumerate() {
        let online = answer.online.get(&(Phase::Online, i)).copied().unwrap_or_default();
        let offline = answer.offline.get(&(Phase::Offline, i)).copied().unwrap_or_default();
        assert_eq!(
            (online.rounds, online.sent + online.received, offline.sent),
            (predicted.rounds, predicted.online, predicted.offline),
            "step {i} ({})",
            p.steps[i].op.name()
        );
        let forwarded = answer.online.get(&(Phase::Offline, i)).copied().unwrap_or_default();
        assert_eq!((forwarded.received, forwarded.sent), (predicted.forwarded, 0));
        let revealed = if matches!(p.steps[i].op, Op::Reveal { .. }) {
            answer.alice.payload.len() + answer.bob.payload.len() + 24
        } else {
            0
        };
        assert_eq!(predicted.revealed as usize, revealed);
    }
    answer
}

/// Values near 0, near 2^lo either way, near the range's ends, and anywhere between.
fn edgy(r: &mut Random, n: usize, lo: u32, half: i64) -> Vec<i64> {
    let centres = [0, 1 << lo, -(1 << lo), -half, half - (1 << lo)];
    let mut out = Vec::with_capacity(n);
    for i in 0..n {
        let v = if i % 2 == 0 {
            centres[r.below(5) as usize] + r.between(-4, 5)
        } else {
            r.between(-half, half - (1 << lo))
        };
        out.push(v.clamp(-half, half - (1 << lo) - 1));
    }
    out
}

#[test]
fn opening_gives_the_value_back() {
    let mut r = Random::new(1);
    let x: Vec<i64> = r.words(1000).iter().map(|w| *w as i64).collect();
    let p = program(vec![100], vec![], vec![Op::Open { x: 0 }, Op::Truncate { x: 1, shift: 1 }]);
    let small: Vec<i64> = x.iter().map(|v| v >> 3).collect();
    let got = run(&mut World::new(1), &p, &[], 10, &small).value();
    for (g, x) in got.iter().zip(&small) {
        assert!((0..=1).contains(&(g - (x >> 1))));
    }
}

#[test]
fn truncation_is_never_off_by_more_than_one_unit() {
    let mut r = Random::new(2);
    for shift in [1, 3, 8, 16] {
        let x = edgy(&mut r, 5000, shift, 1 << 61);
        let p = program(vec![5000], vec![], vec![Op::Open { x: 0 }, Op::Truncate { x: 1, shift }]);
        for (g, x) in run(&mut World::new(u64::from(shift)), &p, &[], 1, &x).value().iter().zip(&x) {
            assert!((0..=1).contains(&(g - (x >> shift))), "{x} >> {shift}: {g}");
        }
    }
}

#[test]
fn relu_keeps_its_tolerance_for_every_window() {
    let mut r = Random::new(3);
    let windows =
        [(16, 16, 32), (16, 16, 24), (16, 0, 48), (0, 0, 32), (0, 0, 62), (16, 10, 5), (16, 16, 2), (7, 7, 33)];
    for (compare, (shift, lo, k)) in Compare::all().step_by(7).chain(WAYS).flat_map(|c| windows.map(|w| (c, w))) {
        let half = 1i64 << (lo + k - 1);
        let x = edgy(&mut r, 9000, lo, half);
        let window = Window { lo, k };
        let p = program(vec![9000], vec![], vec![Op::Open { x: 0 }, Op::Relu { x: 1, shift, window, compare }]);
        for (g, x) in run(&mut World::new(u64::from(k)), &p, &[], 1, &x).value().iter().zip(&x) {
            let err = g - (x.max(&0) >> shift);
            assert!((0..=i64::from(shift > 0)).contains(&err), "relu({x}) >> {shift}, window {lo}+{k}, {compare}: {g}");
        }
    }
}

#[test]
fn relu_is_right_on_a_whole_small_domain() {
    let window = Window { lo: 0, k: 9 };
    let x: Vec<i64> = (-256..255).collect();
    for compare in WAYS {
        let relu = Op::Relu { x: 1, shift: 0, window, compare };
        let p = program(vec![x.len()], vec![], vec![Op::Open { x: 0 }, relu]);
        for seed in 0..20 {
            let got = run(&mut World::new(seed), &p, &[], 1, &x).value();
            assert!(got.iter().zip(&x).all(|(g, x)| *g == *x.max(&0)), "{compare}");
        }
    }
}

/// Replaces both parts of the mask of wire 1: their sum is one of the masks that break a careless comparison.
struct Adversarial;

impl Interceptor for Adversarial {
    fn filled(&self, draw: &DrawId, at: u64, words: &mut [u64]) {
        if draw.wire != 1 || draw.purpose != Purpose::Lambda {
            return;
        }
        let mut r = Random::new(at);
        for (i, w) in words.iter_mut().enumerate() {
            let (any, own) = (r.word(), r.word());
            let masks = [any, 0, u64::MAX, 1 << 63, (1 << 63) - 1, any | 0xFFFF, any & !0xFFFF, 1 << 47];
            *w = if draw.pair == Pair::AliceCarol { own } else { masks[i % 8].wrapping_sub(own) };
        }
    }
}

#[test]
fn relu_is_right_under_adversarial_masks() {
    let mut r = Random::new(99);
    for (compare, (shift, lo, k)) in
        WAYS.into_iter().flat_map(|c| [(16, 16, 32), (16, 16, 24), (16, 16, 25), (0, 0, 32)].map(|w| (c, w)))
    {
        let half = 1i64 << (lo + k - 1);
        let x = edgy(&mut r, 2000, lo, half);
        let relu = Op::Relu { x: 1, shift, window: Window { lo, k }, compare };
        let p = program(vec![2000], vec![], vec![Op::Open { x: 0 }, relu]);
        let mut world = World::new(u64::from(k));
        world.intercept(Arc::new(Adversarial));
        for (g, x) in run(&mut world, &p, &[], 1, &x).value().iter().zip(&x) {
            let err = g - (x.max(&0) >> shift);
            assert!((0..=i64::from(shift > 0)).contains(&err), "relu({x}) >> {shift}, window {lo}+{k}, {compare}: {g}");
        }
    }
}

/// A network with two hidden layers, compared in the given way.
fn perceptron(compare: Compare) -> Program {
    let dense =
        |x, weights, inputs, outputs| Op::Linear { x, weights, bias: None, map: Linear::Dense { inputs, outputs } };
    let relu = |x| Op::Relu { x, shift: F, window: Window { lo: F, k: 32 }, compare };
    let ops = vec![
        Op::Open { x: 0 },
        dense(1, 0, 20, 12),
        Op::Open { x: 2 },
        relu(3),
        Op::Open { x: 4 },
        dense(5, 1, 12, 12),
        Op::Open { x: 6 },
        relu(7),
        Op::Open { x: 8 },
        dense(9, 2, 12, 4),
    ];
    let weights = vec![spec("a", &[20, 12], F), spec("b", &[12, 12], F), spec("c", &[12, 4], F)];
    program(vec![20], weights, ops)
}

#[test]
fn both_phases_in_step_send_and_answer_the_same() {
    let window = Window { lo: F, k: 32 };
    for way in [Compare::default(), Compare::Keys] {
        let p = perceptron(way).ending_in(Reveal::Label, window).unwrap();
        let mut r = Random::new(41);
        let weights: Vec<Tensor> = p
            .weights
            .iter()
            .map(|w| {
                let n = w.shape.iter().product();
                Tensor::new(w.shape.clone(), (0..n).map(|_| r.between(-ONE, ONE) as u64).collect()).unwrap()
            })
            .collect();
        let x: Vec<u64> = (0..5 * 20).map(|_| r.between(-ONE, ONE) as u64).collect();
        let [apart, in_step] = [World::new(17), World::new(17).in_step()].map(|mut world| {
            let model = world.share(&p, &weights).unwrap();
            let (mut links, seen) = Links::memory().recorded();
            let answer = world.run_over(&model, 5, &x, &mut links).unwrap();
            let frames = [seen.alice, seen.bob, seen.carol, seen.dealt].map(|t| t.lock().unwrap().clone());
            (answer.alice.payload, answer.bob.payload, answer.online, answer.offline, frames)
        });
        assert!(apart == in_step);
        assert!(apart.4.iter().all(|frames| frames.len() > 5));
    }
}

#[test]
fn two_hidden_layers_by_keys_take_five_rounds() {
    let window = Window { lo: F, k: 32 };
    let p = perceptron(Compare::Keys).ending_in(Reveal::Logits, window).unwrap();
    assert_eq!(cost(&p, 3).unwrap().iter().map(|c| c.rounds).sum::<u64>(), 5);
    assert!(p.hash() != perceptron(Compare::default()).ending_in(Reveal::Logits, window).unwrap().hash());
    let mut r = Random::new(77);
    let weights: Vec<Tensor> = p.weights.iter().map(|w| tensor(&mut r, &w.shape, 1 << 15)).collect();
    let x: Vec<i64> = (0..60).map(|_| r.between(-(1 << 17), 1 << 17)).collect();
    let answer = run(&mut World::new(77), &p, &weights, 3, &x);
    let got = open_values(&answer.alice.payload, &answer.bob.payload, 12, F).unwrap();
    let clear: Vec<&[u64]> = weights.iter().map(Tensor::data).collect();
    let input: Vec<u64> = x.iter().map(|v| *v as u64).collect();
    let want = ideal::evaluate(&p, 3, &input, &clear).unwrap();
    let want = want.last().unwrap();
    assert!(got.iter().zip(want.iter()).all(|(g, w)| (g - *w as i64).abs() <= 16), "{got:?} {want:?}");
}

#[test]
fn keys_look_uniform_to_each_evaluator() {
    // One input under fresh lots: every bit of what alice is passed on, and of what bob is dealt, is balanced.
    let (window, compare) = (Window { lo: F, k: 32 }, Compare::Keys);
    looks_uniform(Op::Relu { x: 1, shift: F, window, compare }, 64 * 8600);
    looks_uniform(Op::Sign { x: 1, window, compare }, 64 * 3272);
}

/// Every bit that a step on 64 elements brings either evaluator is balanced; they are more than `least`.
fn looks_uniform(op: Op, least: usize) {
    let p = program(vec![64], vec![], vec![Op::Open { x: 0 }, op]);
    let mut world = World::unlogged(5);
    let model = world.share(&p, &[]).unwrap();
    let sessions = 200;
    let mut ones: [Vec<u32>; 2] = [vec![], vec![]];
    for _ in 0..sessions {
        let (mut links, seen) = Links::memory().recorded();
        world.run_over(&model, 1, &[1 << 16; 64], &mut links).unwrap();
        for (counts, view) in ones.iter_mut().zip([&seen.alice, &seen.dealt]) {
            let bytes: Vec<u8> =
                view.lock().unwrap().iter().filter(|f| !f.sent).flat_map(|f| f.bytes.clone()).collect();
            counts.resize(8 * bytes.len(), 0);
            counts.iter_mut().enumerate().for_each(|(i, c)| *c += u32::from(bytes[i / 8] >> (i % 8) & 1));
        }
    }
    for counts in ones {
        assert!(counts.len() > least);
        let (mean, deviation) = (f64::from(sessions) / 2.0, f64::from(sessions).sqrt() / 2.0);
        let worst = counts.iter().map(|c| (f64::from(*c) - mean).abs() / deviation).fold(0.0, f64::max);
        // At most 5.5 * 10^5 bits: 7 deviations have a probability below 2 * 10^-6.
        assert!(worst < 7.0, "{worst} deviations");
    }
}

fn spec(name: &str, shape: &[usize], scale: u32) -> WeightSpec {
    WeightSpec { name: name.into(), shape: shape.to_vec(), scale }
}

fn tensor(r: &mut Random, shape: &[usize], size: i64) -> Tensor {
    let data = (0..shape.iter().product()).map(|_| r.between(-size, size) as u64).collect();
    Tensor::new(shape.to_vec(), data).unwrap()
}

#[test]
fn products_are_exact() {
    let mut r = Random::new(4);
    let dense = Linear::Dense { inputs: 7, outputs: 5 };
    let g = |groups, stride, dilation| Conv2d {
        input: (6, 5),
        in_channels: 4,
        out_channels: 8,
        kernel: (3, 2),
        stride: (stride, 1),
        dilation: (1, dilation),
        pads: Pads { top: 1, bottom: 0, left: 2, right: 1 },
        groups,
    };
    let cases = [
        (vec![3, 7], dense),
        (vec![6, 5, 4], Linear::Conv(g(1, 1, 1))),
        (vec![6, 5, 4], Linear::Conv(g(2, 2, 2))),
        (vec![6, 5, 4], Linear::Conv(g(4, 1, 1))),
    ];
    for (shape, map) in cases {
        let weights = vec![spec("w", &map.weight_shape(), F), spec("b", &[map.outputs()], 2 * F)];
        let linear = Op::Linear { x: 1, weights: 0, bias: Some(1), map };
        let p = program(shape.clone(), weights, vec![Op::Open { x: 0 }, linear]);
        let w = [tensor(&mut r, &map.weight_shape(), 1 << 20), tensor(&mut r, &[map.outputs()], 1 << 40)];
        let batch = 3;
        let x: Vec<i64> =
            (0..batch * shape.iter().product::<usize>()).map(|_| r.between(-(1 << 20), 1 << 20)).collect();
        let got = run(&mut World::new(4), &p, &w, batch, &x).value();
        let clear: Vec<u64> = x.iter().map(|v| *v as u64).collect();
        let want = ideal::evaluate(&p, batch, &clear, &[w[0].data(), w[1].data()]).unwrap();
        assert!(got.iter().zip(want.last().unwrap().iter()).all(|(g, w)| *g as u64 == *w), "{map:?}");
    }
}

#[test]
fn products_of_two_secrets_are_exact() {
    let mut r = Random::new(11);
    let ops = vec![
        Op::Open { x: 0 },
        Op::Slice { x: 1, axis: 0, start: 0, len: 3 * 4 },
        Op::Slice { x: 1, axis: 0, start: 3 * 4, len: 4 * 5 },
        Op::Reshape { x: 2, shape: vec![3, 4] },
        Op::Reshape { x: 3, shape: vec![4, 5] },
        Op::Product { x: 4, y: 5, map: Bilinear::MatMul },
    ];
    let p = program(vec![32], vec![], ops);
    let x: Vec<i64> = (0..64).map(|_| r.between(-(1 << 20), 1 << 20)).collect();
    let got = run(&mut World::new(11), &p, &[], 2, &x).value();
    let clear: Vec<u64> = x.iter().map(|v| *v as u64).collect();
    let want = ideal::evaluate(&p, 2, &clear, &[]).unwrap();
    assert!(got.len() == 30 && got.iter().zip(want.last().unwrap().iter()).all(|(g, w)| *g as u64 == *w));
}

#[test]
fn max_pools_are_within_a_unit() {
    let mut r = Random::new(5);
    let base = Pool2d { input: (6, 6), channels: 3, window: (2, 2), stride: (2, 2), pads: Pads::default() };
    let pools = [
        base,
        Pool2d { window: (3, 3), stride: (1, 2), ..base },
        Pool2d { window: (6, 6), stride: (1, 1), ..base },
        Pool2d { window: (1, 1), stride: (1, 1), ..base },
        Pool2d { window: (3, 3), pads: Pads { top: 1, bottom: 1, left: 0, right: 1 }, ..base },
    ];
    for (pool, compare) in pools.into_iter().flat_map(|p| WAYS.map(|c| (p, c))) {
        let x: Vec<i64> = edgy(&mut r, 5 * 108, 16, 1 << 46);
        let op = Op::MaxPool { x: 1, pool, window: Window { lo: 16, k: 33 }, compare };
        let p = program(vec![6, 6, 3], vec![], vec![Op::Open { x: 0 }, op]);
        let got = run(&mut World::new(5), &p, &[], 5, &x).value();
        let clear: Vec<u64> = x.iter().map(|v| *v as u64).collect();
        let want = ideal::evaluate(&p, 5, &clear, &[]).unwrap();
        let levels = 6;
        for (g, w) in got.iter().zip(want.last().unwrap().iter()) {
            let err = *w as i64 - g;
            assert!((0..levels << 16).contains(&err), "{pool:?}, {compare}: {g} for {}", *w as i64);
        }
    }
}

#[test]
fn local_steps_are_exact_in_both_forms() {
    let mut r = Random::new(6);
    let pool = Pool2d {
        input: (5, 5),
        channels: 2,
        window: (2, 2),
        stride: (2, 2),
        pads: Pads { top: 0, bottom: 1, left: 0, right: 1 },
    };
    for masked in [false, true] {
        let mut ops = if masked { vec![Op::Open { x: 0 }] } else { vec![Op::Offset { x: 0, units: 0 }] };
        ops.extend([
            Op::Scale { x: 1, factor: -3, extra: 0 },
            Op::Offset { x: 2, units: 77 },
            Op::Add { x: 1, y: 3 },
            Op::Concat { xs: vec![4, 1], axis: 2 },
            Op::Pad { x: 5, pads: Pads { top: 1, bottom: 0, left: 0, right: 2 } },
            Op::Reshape { x: 6, shape: vec![42 * 4] },
            Op::Add { x: 7, y: 7 },
            Op::AveragePool { x: 1, pool, extra: 10 },
            Op::Reshape { x: 9, shape: vec![18] },
            Op::Concat { xs: vec![8, 8, 10], axis: 0 },
        ]);
        // Joining two scales is refused; so the pooled value joins only where it may.
        let mut p = program(vec![5, 5, 2], vec![], ops);
        assert!(p.infer().unwrap_err().reason.contains("differ"));
        p.steps.pop();
        p.steps.push(Step { layer: "end".into(), op: Op::Concat { xs: vec![8, 8, 7], axis: 0 } });
        if masked {
            p.steps.push(Step { layer: "end".into(), op: Op::Truncate { x: 11, shift: 1 } });
        }
        let x: Vec<i64> = (0..100).map(|_| r.between(-1000, 1000)).collect();
        let clear: Vec<u64> = x.iter().map(|v| *v as u64).collect();
        let want = ideal::evaluate(&p, 2, &clear, &[]).unwrap();
        let got = run(&mut World::new(6), &p, &[], 2, &x).value();
        for (g, w) in got.iter().zip(want.last().unwrap().iter()) {
            assert!((0..=i64::from(masked)).contains(&(g - *w as i64)));
        }
    }
}

#[test]
fn labels_are_the_largest_value_with_ties_to_the_lower_index() {
    let mut r = Random::new(7);
    for n in [2, 3, 5, 6, 10, 17, 40] {
        for (batch, compare) in [1, 70].into_iter().flat_map(|b| WAYS.map(|c| (b, c))) {
            let mut p = program(vec![n], vec![], vec![]).ending_in(Reveal::Label, Window { lo: 0, k: 32 }).unwrap();
            for step in &mut p.steps {
                step.op = step.op.comparing(compare);
            }
            let mut x: Vec<i64> = (0..n * batch).map(|_| r.between(-(1 << 30), 1 << 30)).collect();
            for row in x.chunks_exact_mut(n).step_by(3) {
                let v = row[0];
                row.iter_mut().for_each(|x| *x = v + r.between(0, 2));
            }
            let answer = run(&mut World::new(7), &p, &[], batch, &x);
            let got = open_labels(&answer.alice.payload, &answer.bob.payload, batch, n).unwrap();
            for (label, row) in got.iter().zip(x.chunks_exact(n)) {
                let best = (0..n).rev().max_by_key(|&i| row[i]).unwrap();
                assert_eq!(*label as usize, best, "{row:?}");
            }
        }
    }
}

/// Window of a value that is compared bit by bit, as wide as the ring.
const WHOLE: Window = Window { lo: 0, k: 62 };

#[test]
fn the_label_of_a_single_output_says_whether_it_is_positive() {
    let mut r = Random::new(12);
    for (batch, compare) in [1, 70].into_iter().flat_map(|b| WAYS.map(|c| (b, c))) {
        let mut p = program(vec![1, 1], vec![], vec![]).ending_in(Reveal::Label, WHOLE).unwrap();
        p.steps.iter_mut().for_each(|step| step.op = step.op.comparing(compare));
        let x = edgy(&mut r, batch, 0, (1 << 62) - 1);
        for x in [x, vec![0; batch], vec![1; batch], vec![-1; batch]] {
            let answer = run(&mut World::new(12), &p, &[], batch, &x);
            let got = open_labels(&answer.alice.payload, &answer.bob.payload, batch, 1).unwrap();
            let want: Vec<u32> = x.iter().map(|v| u32::from(*v > 0)).collect();
            assert_eq!(got, want, "{x:?}");
            // One bit of a sample is open; the words around it hold no more.
            let planes = batch.div_ceil(64);
            assert_eq!((answer.alice.payload.len(), answer.bob.payload.len()), (8 * planes, 8 * planes));
        }
    }
}

#[test]
fn logits_leave_truncated_within_one_unit() {
    let mut r = Random::new(8);
    let map = Linear::Dense { inputs: 20, outputs: 10 };
    let weights = vec![spec("w", &[20, 10], F), spec("b", &[10], 2 * F)];
    let linear = Op::Linear { x: 1, weights: 0, bias: Some(1), map };
    let p = program(vec![20], weights, vec![Op::Open { x: 0 }, linear])
        .ending_in(Reveal::Logits, Window { lo: 16, k: 32 })
        .unwrap();
    let w = [tensor(&mut r, &[20, 10], 1 << 17), tensor(&mut r, &[10], 1 << 33)];
    let x: Vec<i64> = (0..80).map(|_| r.between(-(1 << 16), 1 << 16)).collect();
    let answer = run(&mut World::new(8), &p, &w, 4, &x);
    let got = open_values(&answer.alice.payload, &answer.bob.payload, 40, 16).unwrap();
    let clear: Vec<u64> = x.iter().map(|v| *v as u64).collect();
    let want = ideal::evaluate(&p, 4, &clear, &[w[0].data(), w[1].data()]).unwrap();
    for (g, w) in got.iter().zip(want.last().unwrap().iter()) {
        assert!((0..=1).contains(&(g - *w as i64)));
    }
}

#[test]
fn no_address_is_drawn_twice() {
    let pool = Pool2d { input: (4, 4), channels: 1, window: (4, 2), stride: (4, 2), pads: Pads::default() };
    for compare in WAYS {
        let relu = |x, shift| Op::Relu { x, shift, window: Window { lo: 0, k: 32 }, compare };
        let max = Op::MaxPool { x: 5, pool, window: Window { lo: 0, k: 33 }, compare };
        let reshape = Op::Reshape { x: 3, shape: vec![4, 4, 1] };
        let ops = vec![
            Op::Open { x: 0 },
            relu(1, 0),
            Op::Open { x: 2 },
            reshape,
            Op::Reshape { x: 4, shape: vec![4, 4, 1] },
            max,
        ];
        let p = program(vec![16], vec![], ops).ending_in(Reveal::Label, Window { lo: 0, k: 32 }).unwrap();
        let mut world = World::new(9);
        for _ in 0..3 {
            run(&mut world, &p, &[], 2, &[5; 32]);
        }
        for log in [&world.alice_draws, &world.bob_draws, &world.carol_draws] {
            assert!(log.len() > 20);
            assert_eq!(log.repeated(), []);
        }
    }
}
