//! The programs of the small run: two features, four hidden units, one label; squared error, gradient descent.

use trefoil_mpc::Compare;
use trefoil_mpc::program::{Bilinear, Linear, Op, Program, Step, WeightSpec, Window};
use trefoil_ring::Words;
use trefoil_testkit::Random;

const F: u32 = 16;
const FEATURES: usize = 2;
pub(crate) const HIDDEN: usize = 4;
/// Of the compared sums.
pub(crate) const WINDOW: Window = Window { lo: 16, k: 24 };
/// Features and a label.
pub(crate) const WIDTH: usize = FEATURES + 1;
/// Rows; the first of them are to train on.
const ROWS: usize = 6;
pub(crate) const TRAINING: usize = 4;
/// States: weights of both layers one after the other, the sum of losses, and the weights to be served.
pub(crate) const W: usize = 0;
pub(crate) const LOSS: usize = 1;
pub(crate) const SERVED: usize = 2;

const WEIGHTS: usize = FEATURES * HIDDEN + HIDDEN;

fn program(rates: usize, ops: Vec<Op>) -> Program {
    let steps = ops.into_iter().map(|op| Step { layer: op.name().into(), op }).collect();
    let state = |name: &str, n: usize| WeightSpec { name: name.into(), shape: vec![n], scale: F };
    let states = vec![state("weights", WEIGHTS), state("loss", 1), state("served", FEATURES * HIDDEN)];
    Program { fraction_bits: F, input_shape: vec![WIDTH], weights: vec![], states, rates, steps }
}

/// Writes operations one after the other.
#[derive(Default)]
struct Writer(Vec<Op>);

impl Writer {
    fn push(&mut self, op: Op) -> usize {
        self.0.push(op);
        self.0.len() - 1
    }

    fn open(&mut self, x: usize) -> usize {
        self.push(Op::Open { x })
    }

    fn truncated(&mut self, x: usize, shift: u32) -> usize {
        let x = self.open(x);
        self.push(Op::Truncate { x, shift })
    }

    /// `rate` times a gradient at 2 F bits, as a step that is to be added.
    fn scaled(&mut self, x: usize, n: usize) -> usize {
        let x = self.push(Op::Rate { x, rate: 0, extra: 10 });
        let x = self.truncated(x, F + 10);
        self.push(Op::Reshape { x, shape: vec![n] })
    }
}

/// What both passes have in common, up to the stored loss.
struct Forward {
    features: usize,
    weights: usize,
    second: usize,
    bit: usize,
    hidden: usize,
    error: usize,
}

fn forward(w: &mut Writer, compare: Compare) -> Forward {
    let rows = w.push(Op::Rows);
    let features = w.push(Op::Slice { x: rows, axis: 0, start: 0, len: FEATURES });
    let label = w.push(Op::Slice { x: rows, axis: 0, start: FEATURES, len: 1 });
    let weights = w.push(Op::State { slot: W });
    let all = w.open(weights);
    let first = w.push(Op::Slice { x: all, axis: 0, start: 0, len: FEATURES * HIDDEN });
    let first = w.push(Op::Reshape { x: first, shape: vec![FEATURES, HIDDEN] });
    let second = w.push(Op::Slice { x: all, axis: 0, start: FEATURES * HIDDEN, len: HIDDEN });
    let second = w.push(Op::Reshape { x: second, shape: vec![HIDDEN, 1] });
    let sum = w.push(Op::Product { x: features, y: first, map: Bilinear::Dense });
    let sum = w.open(sum);
    let bit = w.push(Op::Sign { x: sum, window: WINDOW, compare });
    let hidden = w.push(Op::Select { bit, x: sum, shift: F });
    let hidden = w.open(hidden);
    let out = w.push(Op::Product { x: hidden, y: second, map: Bilinear::Dense });
    let out = w.open(out);
    let label = w.push(Op::Scale { x: label, factor: -(1 << 16), extra: 16 });
    let error = w.push(Op::Add { x: out, y: label });
    let error = w.push(Op::Truncate { x: error, shift: F });
    let error = w.open(error);
    let square = w.push(Op::Product { x: error, y: error, map: Bilinear::Elementwise });
    let square = w.push(Op::Sum { x: square, keep: 1, batch: true });
    let square = w.truncated(square, F);
    let loss = w.push(Op::State { slot: LOSS });
    let loss = w.push(Op::Add { x: loss, y: square });
    w.push(Op::Store { slot: LOSS, x: loss });
    Forward { features, weights, second, bit, hidden, error }
}

/// One step on a batch.
pub(crate) fn step(compare: Compare) -> Program {
    let mut w = Writer::default();
    let f = forward(&mut w, compare);
    let last = w.push(Op::Product { x: f.hidden, y: f.error, map: Bilinear::DenseWeights });
    let last = w.scaled(last, HIDDEN);
    let back = w.push(Op::Product { x: f.error, y: f.second, map: Bilinear::DenseInput });
    let back = w.open(back);
    let back = w.push(Op::Select { bit: f.bit, x: back, shift: F });
    let back = w.open(back);
    let first = w.push(Op::Product { x: f.features, y: back, map: Bilinear::DenseWeights });
    let first = w.scaled(first, FEATURES * HIDDEN);
    let change = w.push(Op::Concat { xs: vec![first, last], axis: 0 });
    let new = w.push(Op::Add { x: f.weights, y: change });
    w.push(Op::Store { slot: W, x: new });
    program(1, w.0)
}

/// The loss of a batch of validation rows, added up with the epoch's.
pub(crate) fn check(compare: Compare) -> Program {
    let mut w = Writer::default();
    forward(&mut w, compare);
    program(0, w.0)
}

/// Reveals a state.
pub(crate) fn reveal(slot: usize) -> Program {
    program(0, vec![Op::Rows, Op::State { slot }, Op::Reveal { x: 1, shift: 0 }])
}

/// Brings the first layer's weights to the scale at which they are served.
pub(crate) fn finish() -> Program {
    let mut w = Writer::default();
    w.push(Op::Rows);
    let all = w.push(Op::State { slot: W });
    let first = w.push(Op::Slice { x: all, axis: 0, start: 0, len: FEATURES * HIDDEN });
    let up = w.push(Op::Scale { x: first, factor: 1 << 20, extra: 20 });
    let x = w.truncated(up, 20);
    w.push(Op::Store { slot: SERVED, x });
    program(0, w.0)
}

/// What is served: the first layer.
pub(crate) fn served() -> Program {
    let map = Linear::Dense { inputs: FEATURES, outputs: HIDDEN };
    let ops = [Op::Input, Op::Open { x: 0 }, Op::Linear { x: 1, weights: 0, bias: None, map }];
    let steps = ops.into_iter().map(|op| Step { layer: op.name().into(), op }).collect();
    let weights = vec![WeightSpec { name: "first".into(), shape: vec![FEATURES, HIDDEN], scale: F }];
    Program { fraction_bits: F, input_shape: vec![FEATURES], weights, states: vec![], rates: 0, steps }
}

/// The rows of table number `which`.
pub(crate) fn table(which: u64) -> Vec<u64> {
    let mut r = Random::new(0x7461_0000 + which);
    (0..ROWS * WIDTH).map(|_| r.between(-2 << F, 2 << F) as u64).collect()
}

/// First values of the states of model number `which`.
pub(crate) fn initial(which: u64) -> Vec<Words> {
    let mut r = Random::new(0x696e_0000 + which);
    let weights: Vec<u64> = (0..WEIGHTS).map(|_| r.between(-1 << F, 1 << F) as u64).collect();
    vec![weights.into(), vec![0].into(), vec![0; FEATURES * HIDDEN].into()]
}
