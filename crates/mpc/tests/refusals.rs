//! Programs and weights that must be refused, each naming why.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use trefoil_mpc::Compare;
use trefoil_mpc::cost::cost;
use trefoil_mpc::limits::MAX_STEPS;
use trefoil_mpc::masked::weights::{HeldWeight, draw_weight_masks};
use trefoil_mpc::masked::{EvaluatorWeights, ProducerWeights};
use trefoil_mpc::program::{Linear, MAX_RANK, Op, Program, Step, WeightSpec, Window};
use trefoil_mpc::{MpcError, Reveal};
use trefoil_prg::{Pair, Seed, Source};
use trefoil_ring::Tensor;
use trefoil_ring::geometry::{Pads, Pool2d};
use trefoil_testkit::World;
use trefoil_testkit::small::{F, input, network, program, weights};

#[track_caller]
fn refused(p: &Program, why: &str) {
    let e = p.infer().expect_err("the program was accepted").to_string();
    assert!(e.contains(why), "{e:?} does not say {why:?}");
    assert!(cost(p, 1).is_err());
}

#[test]
fn a_reveal_ends_the_program() {
    let reveal = || Op::Reveal { x: 0, shift: 0 };
    assert!(program(vec![2], vec![], vec![reveal()]).infer().is_ok());
    refused(&program(vec![2], vec![], vec![reveal(), Op::Open { x: 1 }]), "only the last step");
    refused(&program(vec![2], vec![], vec![reveal(), reveal()]), "only the last step");
}

#[test]
fn an_answer_is_never_finer_than_the_fixed_point() {
    let scaled = Op::Scale { x: 0, factor: 3, extra: 4 };
    let p = |shift| program(vec![2], vec![], vec![scaled.clone(), Op::Reveal { x: 1, shift }]);
    assert!(p(4).infer().is_ok());
    refused(&p(3), "at most 16");
}

#[test]
fn sizes_that_overflow() {
    let spec = |shape: &[usize], scale| WeightSpec { name: "w".into(), shape: shape.to_vec(), scale };
    let dense = Op::Linear { x: 1, weights: 0, bias: None, map: Linear::Dense { inputs: 2, outputs: 3 } };
    let p = |spec| program(vec![2], vec![spec], vec![Op::Open { x: 0 }, dense.clone()]);
    assert!(p(spec(&[2, 3], F)).infer().is_ok());
    refused(&p(spec(&[2, 3], u32::MAX)), "more fraction bits");
    refused(&p(spec(&[1 << 40, 1 << 40], F)), "must have");
    refused(&p(spec(&[0], F)), "must have");
    let unused = Program { weights: vec![spec(&[1], F); MAX_STEPS + 1], ..program(vec![2], vec![], vec![]) };
    refused(&unused, "tensors");
    let after = |op| program(vec![4, 4, 1], vec![], vec![Op::Open { x: 0 }, op]);
    for window in [Window { lo: u32::MAX, k: 2 }, Window { lo: 0, k: u32::MAX }, Window { lo: 0, k: 1 }] {
        refused(&after(Op::Relu { x: 1, shift: 0, window, compare: Compare::default() }), "window");
    }
    for (block, arity) in [(0, 4), (9, 4), (4, 1), (4, 9), (u32::MAX, u32::MAX)] {
        let compare = Compare::Tree { block, arity };
        refused(&after(Op::Relu { x: 1, shift: 0, window: Window { lo: 0, k: 32 }, compare }), "nodes of");
    }
    refused(&after(Op::Scale { x: 1, factor: 1, extra: u32::MAX }), "more fraction bits");
    let side = 1 << 40;
    let pads = Pads { top: side - 1, bottom: side - 1, left: side - 1, right: side - 1 };
    let pool = Pool2d { input: (4, 4), channels: 1, window: (side, side), stride: (side, side), pads };
    refused(
        &after(Op::MaxPool { x: 1, pool, window: Window { lo: 0, k: 32 }, compare: Compare::default() }),
        "one sample takes",
    );
    refused(&program(vec![1; MAX_RANK + 1], vec![], vec![]), "dimensions");
    let many = vec![Op::Offset { x: 0, units: 1 }; MAX_STEPS];
    refused(&program(vec![2], vec![], many), "steps");
    refused(&Program { steps: Vec::<Step>::new(), ..program(vec![2], vec![], vec![]) }, "steps");
}

#[test]
fn a_batch_beyond_all_memory() {
    let p = network(Reveal::Label).unwrap();
    for batch in [0, 1 << 40, usize::MAX] {
        assert!(matches!(cost(&p, batch), Err(MpcError::Input { .. })));
    }
}

#[test]
fn weights_of_another_program() {
    let p = network(Reveal::Logits).unwrap();
    let mut other = p.clone();
    other.weights.push(WeightSpec { name: "more".into(), shape: vec![1], scale: F });
    let mut world = World::new(1);
    let mut model = world.share(&p, &weights(&p, 0).unwrap()).unwrap();
    model.program = other;
    assert!(matches!(world.run(&model, 1, &input(6, 0)), Err(MpcError::Input { .. })));
    let tensor = || Tensor::from_vec(vec![1, 2]);
    assert!(EvaluatorWeights::new(&p, vec![HeldWeight { share: tensor(), delta: None }]).is_err());
    assert!(ProducerWeights::new(&p, vec![tensor(); 4]).is_err());
    let source = |pair| Source::new(&Seed::from_bytes([1; 32]), pair, [0; 32], 1);
    let masks = draw_weight_masks(&p, &source(Pair::AliceCarol), &source(Pair::BobCarol)).unwrap();
    assert_eq!(masks.masks()[0].len(), 96);
    let mut vast = p;
    vast.weights[0].shape = vec![1 << 31, 1 << 31];
    let refused = draw_weight_masks(&vast, &source(Pair::AliceCarol), &source(Pair::BobCarol));
    assert!(matches!(refused, Err(MpcError::Program(_))));
}
