//! Rounds, bits online and bits dealt of every operation: predicted, metered, and not above the executable models'.
//!
//! The figures of the models are printed by the design's protocol model and by `docs/model/pooling.py`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use trefoil_link::Phase;
use trefoil_link::frame::HEADER;
use trefoil_mpc::Compare;
use trefoil_mpc::cost::cost;
use trefoil_mpc::program::{Linear, Op, Program, Reveal, WeightSpec, Window};
use trefoil_ring::Pool2d;
use trefoil_ring::Tensor;
use trefoil_ring::geometry::Pads;
use trefoil_testkit::small::{F, program};
use trefoil_testkit::{Random, World};

/// Rounds, bits that each evaluator sends, bits that the producer deals: per element.
type Figures = (u64, f64, f64);

/// Elements of a step, and samples of a batch: whole words of bits.
const N: usize = 1280;
const BATCH: usize = 128;

/// The figures of some steps together, without frame headers, from the meters; they must be what `cost` says.
fn metered(p: &Program, batch: usize, steps: &[usize], elements: usize) -> Figures {
    let mut r = Random::new(1);
    let weights: Vec<Tensor> = p
        .weights
        .iter()
        .map(|w| {
            let n = w.shape.iter().product();
            Tensor::new(w.shape.clone(), (0..n).map(|_| r.between(-100, 100) as u64).collect()).unwrap()
        })
        .collect();
    let x: Vec<u64> =
        (0..batch * p.input_shape.iter().product::<usize>()).map(|_| r.between(-(1 << 20), 1 << 20) as u64).collect();
    let mut world = World::new(1);
    let model = world.share(p, &weights).unwrap();
    let answer = world.run(&model, batch, &x).unwrap();
    let predicted = cost(p, batch).unwrap();
    let (mut rounds, mut online, mut dealt) = (0, 0, 0);
    for &i in steps {
        let on = answer.online.get(&(Phase::Online, i)).copied().unwrap_or_default();
        let off = answer.offline.get(&(Phase::Offline, i)).copied().unwrap_or_default();
        let expected = (predicted[i].rounds, predicted[i].online, predicted[i].offline);
        assert_eq!((on.rounds, on.sent + on.received, off.sent), expected, "step {i} of {p:?}");
        assert_eq!(on.sent, on.received);
        rounds += on.rounds;
        online += on.sent - on.messages * HEADER as u64;
        dealt += off.sent - off.messages * HEADER as u64;
    }
    let per = |bytes: u64| 8.0 * bytes as f64 / elements as f64;
    (rounds, per(online), per(dealt))
}

fn row(name: &str, got: Figures, model: Figures) {
    println!(
        "{name:36} rounds {:2} (model {:2})   online {:7.1} ({:7.1})   dealt {:7.1} ({:7.1})",
        got.0, model.0, got.1, model.1, got.2, model.2
    );
    assert!(got.0 <= model.0 && got.1 <= model.1 && got.2 <= model.2, "{name}: {got:?}, the model has {model:?}");
}

fn after_opening(shape: Vec<usize>, op: Op) -> Program {
    program(shape, vec![], vec![Op::Open { x: 0 }, op])
}

#[test]
fn opening_truncation_and_comparison() {
    let open = metered(&after_opening(vec![N], Op::Truncate { x: 1, shift: F }), 1, &[1], N);
    row("open", open, (1, 64.0, 0.0));
    let truncate = metered(&after_opening(vec![N], Op::Truncate { x: 1, shift: F }), 1, &[2], N);
    row("truncate (after opening)", truncate, (0, 0.0, 80.0));
    for (lo, k, model) in
        [(0, 64, (3, 39.0, 329.0)), (0, 32, (3, 19.0, 151.0)), (16, 32, (3, 19.0, 151.0)), (16, 24, (3, 15.0, 101.0))]
    {
        // A ReLU is the comparison and 128 (untruncated) or 192 + 2 f bits dealt for the selection.
        let shift = if lo == 0 { 0 } else { F };
        let select = if lo == 0 { 128.0 } else { 192.0 + 2.0 * f64::from(F) };
        let relu =
            after_opening(vec![N], Op::Relu { x: 1, shift, window: Window { lo, k }, compare: Compare::default() });
        let (rounds, online, dealt) = metered(&relu, 1, &[2], N);
        row(&format!("[z >= 0] bits {lo}..{}", lo + k), (rounds, online, dealt - select), model);
    }
}

#[test]
fn layers() {
    let window = Window { lo: F, k: 32 };
    let ops =
        vec![Op::Open { x: 0 }, Op::Relu { x: 1, shift: F, window, compare: Compare::default() }, Op::Open { x: 2 }];
    let relu = metered(&program(vec![N], vec![], ops), 1, &[2, 3], N);
    row("ReLU + truncate + re-open", relu, (4, 83.0, 375.0));
    let spec = |shape: &[usize], scale| WeightSpec { name: "w".into(), shape: shape.to_vec(), scale };
    let linear = Op::Linear { x: 1, weights: 0, bias: None, map: Linear::Dense { inputs: 30, outputs: 10 } };
    let ops = vec![Op::Open { x: 0 }, linear, Op::Open { x: 2 }, Op::Truncate { x: 3, shift: F }];
    let product = program(vec![30], vec![spec(&[30, 10], F)], ops);
    row("matmul + truncate (per output)", metered(&product, BATCH, &[2, 3, 4], 10 * BATCH), (1, 64.0, 144.0));
    row("matmul", metered(&product, BATCH, &[2], 10 * BATCH), (0, 0.0, 64.0));
}

#[test]
fn pools_and_labels() {
    let base = Pool2d { input: (16, 16), channels: 5, window: (2, 2), stride: (2, 2), pads: Pads::default() };
    let shape = || vec![16, 16, 5];
    for lo in [0, 16] {
        let window = Window { lo, k: 33 };
        let pool = after_opening(shape(), Op::MaxPool { x: 1, pool: base, window, compare: Compare::default() });
        row(&format!("2x2 max-pool, bits {lo}..{}", lo + 33), metered(&pool, 4, &[2], N), (7, 185.0, 861.0));
    }
    let three = Pool2d { window: (3, 3), stride: (1, 1), pads: Pads { top: 1, bottom: 1, left: 1, right: 1 }, ..base };
    let pool = after_opening(
        shape(),
        Op::MaxPool { x: 1, pool: three, window: Window { lo: 0, k: 33 }, compare: Compare::default() },
    );
    row("3x3 max-pool, bits 0..33", metered(&pool, 1, &[2], N), (15, 600.0, 2296.0));
    let pool = after_opening(shape(), Op::AveragePool { x: 1, pool: base, extra: 2 });
    row("average-pool", metered(&pool, 4, &[2], N), (0, 0.0, 0.0));
    for (n, model) in [(4, (3, 114.0, 970.0)), (10, (4, 885.0, 7315.0)), (40, (5, 15340.0, 129_060.0))] {
        let label = program(vec![n], vec![], vec![]).ending_in(Reveal::Label, Window { lo: 0, k: 32 }).unwrap();
        row(&format!("argmax of {n} (per sample)"), metered(&label, BATCH, &[3], BATCH), model);
    }
}

/// An answer: 64 - f bits from each evaluator for a value at scale 2f, the index's bits for a label.
#[test]
fn outputs() {
    let revealed = |p: &Program, per: usize| {
        let cost = cost(p, BATCH).unwrap();
        let last = cost.last().unwrap();
        assert_eq!((last.rounds, last.online, last.offline), (0, 0, 0));
        8.0 * (last.revealed / 2 - HEADER as u64) as f64 / per as f64
    };
    let spec = WeightSpec { name: "w".into(), shape: vec![3, 10], scale: F };
    let linear = Op::Linear { x: 1, weights: 0, bias: None, map: Linear::Dense { inputs: 3, outputs: 10 } };
    let p = program(vec![3], vec![spec], vec![Op::Open { x: 0 }, linear]);
    let window = Window { lo: F, k: 32 };
    let logits = revealed(&p.ending_in(Reveal::Logits, window).unwrap(), 10 * BATCH);
    let label = revealed(&p.ending_in(Reveal::Label, window).unwrap(), BATCH);
    println!("output: logits {logits} bits from each evaluator, label of 10 {label} bits");
    assert_eq!((logits, label), (48.0, 4.0));
}
