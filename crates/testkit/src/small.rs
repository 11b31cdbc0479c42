//! A small network with every kind of step that talks, its models and inputs: what the views are taken of.

use trefoil_mpc::Compare;
use trefoil_mpc::program::{Bilinear, Linear, Op, Program, ProgramError, Reveal, Step, WeightSpec, Window};
use trefoil_ring::geometry::Pads;
use trefoil_ring::{Pool2d, ShapeError, Tensor};

use crate::Random;

/// Fraction bits.
pub const F: u32 = 16;

/// A program from its operations after the input; layers are named after them.
pub fn program(input_shape: Vec<usize>, weights: Vec<WeightSpec>, ops: Vec<Op>) -> Program {
    let steps = std::iter::once(Op::Input).chain(ops).map(|op| Step { layer: op.name().into(), op }).collect();
    Program { fraction_bits: F, input_shape, weights, states: vec![], rates: 0, steps }
}

/// Dense, ReLU with truncation, 2 x 2 max-pool, ReLU, dense; logits or a label of four classes.
pub fn network(reveal: Reveal) -> Result<Program, ProgramError> {
    let spec = |name: &str, shape: &[usize], scale| WeightSpec { name: name.into(), shape: shape.to_vec(), scale };
    let weights =
        vec![spec("w1", &[6, 16], F), spec("b1", &[16], 2 * F), spec("w2", &[4, 4], F), spec("b2", &[4], 2 * F)];
    let dense = |x, weights, inputs, outputs| Op::Linear {
        x,
        weights,
        bias: Some(weights + 1),
        map: Linear::Dense { inputs, outputs },
    };
    let pool = Pool2d { input: (4, 4), channels: 1, window: (2, 2), stride: (2, 2), pads: Pads::default() };
    let ops = vec![
        Op::Open { x: 0 },
        dense(1, 0, 6, 16),
        Op::Open { x: 2 },
        Op::Relu { x: 3, shift: F, window: Window { lo: F, k: 32 }, compare: Compare::default() },
        Op::Reshape { x: 4, shape: vec![4, 4, 1] },
        Op::Open { x: 5 },
        Op::MaxPool { x: 6, pool, window: Window { lo: 0, k: 33 }, compare: Compare::default() },
        Op::Reshape { x: 7, shape: vec![4] },
        Op::Open { x: 8 },
        Op::Relu { x: 9, shift: 0, window: Window { lo: 0, k: 32 }, compare: Compare::default() },
        Op::Open { x: 10 },
        dense(11, 2, 4, 4),
    ];
    program(vec![6], weights, ops).ending_in(reveal, Window { lo: F, k: 32 })
}

/// Two inputs through one dense layer, and whether the squared distance of the results is below 400; or 400 less that.
pub fn judge(reveal: Reveal) -> Result<Program, ProgramError> {
    let spec = |name: &str, shape: &[usize], scale| WeightSpec { name: name.into(), shape: shape.to_vec(), scale };
    let weights = vec![spec("w", &[3, 4], F), spec("b", &[4], 2 * F)];
    let ops = vec![
        Op::Open { x: 0 },
        Op::Linear { x: 1, weights: 0, bias: Some(1), map: Linear::Dense { inputs: 3, outputs: 4 } },
        Op::Slice { x: 2, axis: 0, start: 0, len: 1 },
        Op::Slice { x: 2, axis: 0, start: 1, len: 1 },
        Op::Scale { x: 4, factor: -1, extra: 0 },
        Op::Add { x: 3, y: 5 },
        Op::Open { x: 6 },
        Op::Truncate { x: 7, shift: F },
        Op::Open { x: 8 },
        Op::Product { x: 9, y: 9, map: Bilinear::Elementwise },
        Op::Sum { x: 10, keep: 0, batch: false },
        Op::Scale { x: 11, factor: -1, extra: 0 },
        Op::Offset { x: 12, units: 400 << (2 * F) },
    ];
    program(vec![2, 3], weights, ops).ending_in(reveal, Window { lo: 0, k: 62 })
}

/// Encoded weights of model number `model`.
pub fn weights(program: &Program, model: u64) -> Result<Vec<Tensor>, ShapeError> {
    let mut r = Random::new(0x6d6f_6465_6c00 + model);
    let tensor = |spec: &WeightSpec| {
        let n = spec.shape.iter().product();
        let one = 1i64 << spec.scale;
        Tensor::new(spec.shape.clone(), (0..n).map(|_| r.between(-2 * one, 2 * one) as u64).collect())
    };
    program.weights.iter().map(tensor).collect()
}

/// Encoded input number `input` of `n` elements.
pub fn input(n: usize, input: u64) -> Vec<u64> {
    let mut r = Random::new(0x696e_7075_7400 + input);
    (0..n).map(|_| r.between(-3 << F, 3 << F) as u64).collect()
}
