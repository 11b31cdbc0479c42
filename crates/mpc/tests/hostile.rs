//! Programs that a hostile owner could write are refused before they cost anything.
#![allow(clippy::unwrap_used)]

use trefoil_mpc::limits::MAX_STEPS;
use trefoil_mpc::program::{MAX_RANK, Op, Program, Reveal, Step, Window};
use trefoil_ring::geometry::{Pads, Pool2d};

fn program(input_shape: Vec<usize>, ops: Vec<Op>) -> Program {
    let steps = std::iter::once(Op::Input).chain(ops).map(|op| Step { layer: "l".into(), op }).collect();
    Program { fraction_bits: 16, input_shape, weights: vec![], steps }
}

fn refusal(p: &Program) -> String {
    p.infer().unwrap_err().to_string()
}

#[test]
fn numbers_that_overflow_are_refused() {
    let scale = program(vec![2], vec![Op::Scale { x: 0, factor: 1, extra: u32::MAX }]);
    assert!(refusal(&scale).contains("at most 60 in all"));
    for (lo, k) in [(u32::MAX, 2), (2, u32::MAX), (u32::MAX, u32::MAX)] {
        let window = Window { lo, k };
        let relu = program(vec![2], vec![Op::Open { x: 0 }, Op::Relu { x: 1, shift: 16, window }]);
        assert!(refusal(&relu).contains("window of"));
        let plain = program(vec![2], vec![]);
        assert!(plain.ending_in(Reveal::Logits, window).is_ok());
        assert!(plain.ending_in(Reveal::Label, window).is_err());
    }
}

#[test]
fn many_dimensions_and_many_steps_are_refused() {
    assert!(program(vec![1; MAX_RANK], vec![]).infer().is_ok());
    assert!(refusal(&program(vec![1; MAX_RANK + 1], vec![])).contains("9 dimensions"));
    let offsets = |n| program(vec![1], vec![Op::Offset { x: 0, units: 1 }; n]);
    assert!(offsets(MAX_STEPS - 1).infer().is_ok());
    assert!(refusal(&offsets(MAX_STEPS)).contains("4097 steps"));
}

#[test]
fn a_pool_whose_windows_overlap_without_end_is_refused() {
    let pool = Pool2d {
        input: (1 << 14, 1 << 14),
        channels: 1,
        window: (1 << 13, 1 << 13),
        stride: (1, 1),
        pads: Pads::default(),
    };
    let p = program(vec![1 << 14, 1 << 14, 1], vec![Op::AveragePool { x: 0, pool, extra: 0 }]);
    assert!(refusal(&p).contains("windows of (8192, 8192)"));
}
