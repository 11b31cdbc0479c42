//! Likelihoods that carol or the helper computes, over every link: the same bits, and no deadlock however much is sent.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod sockets;

use trefoil_mpc::program::{Bilinear, Op, Program, Shown, Step, WeightSpec, Window};
use trefoil_mpc::{Compare, ideal};
use trefoil_ring::Words;
use trefoil_testkit::world::Links;
use trefoil_testkit::{Random, World};

const F: u32 = 16;

/// Likelihoods with a comparison before and after them, both stored: the producer deals on each side of her answer.
fn program(classes: usize, shown: Shown) -> Program {
    let (window, compare) = (Window { lo: 0, k: 40 }, Compare::default());
    let ops = [
        Op::Rows,
        Op::Sign { x: 0, window, compare },
        Op::Select { bit: 1, x: 0, shift: 0 },
        Op::Open { x: 2 },
        Op::State { slot: 0 },
        Op::Open { x: 4 },
        Op::Product { x: 3, y: 5, map: Bilinear::Elementwise },
        Op::Likelihoods { x: 6, shift: F, shown },
        Op::Slice { x: 7, axis: 0, start: 0, len: 1 },
        Op::Open { x: 8 },
        Op::Sign { x: 9, window, compare },
        Op::Select { bit: 10, x: 9, shift: 0 },
        Op::Sum { x: 11, keep: 1, batch: true },
        Op::Store { slot: 0, x: 12 },
    ];
    let steps = ops.into_iter().map(|op| Step { layer: op.name().into(), op }).collect();
    let states = vec![WeightSpec { name: "bias".into(), shape: vec![classes], scale: F }];
    Program { fraction_bits: F, input_shape: vec![classes], weights: vec![], states, rates: 0, steps }
}

/// What the state holds after a step on `batch` rows.
fn stepped(shown: Shown, (classes, batch): (usize, usize), in_step: bool, mut links: Links) -> Vec<u64> {
    let p = program(classes, shown);
    let mut random = Random::new(3);
    let x: Vec<u64> = (0..batch * classes).map(|_| random.between(-(1 << 17), 1 << 17) as u64).collect();
    let clear: Vec<Words> = vec![vec![1 << F; classes].into()];
    let mut world = if in_step { World::new(6).in_step() } else { World::new(6) };
    let model = world.share(&p, &[]).unwrap();
    let rows = world.share_rows(&x).unwrap();
    let mut shared = world.split_states(&clear);
    let indices: Vec<usize> = (0..batch).collect();
    world.step_over(&model, &rows, &indices, &mut shared, &[], &mut links).unwrap();
    for log in [&world.alice_draws, &world.bob_draws, &world.carol_draws] {
        assert_eq!(log.repeated(), []);
    }
    let mut want = clear;
    ideal::step(&p, batch, &x, &[], &mut want, &[], &world.last_common()).unwrap();
    let got = shared.values().remove(0);
    let near = |(g, w): (&u64, &u64)| (g.wrapping_sub(*w) as i64).abs() <= 4 * batch as i64;
    assert!(got.iter().zip(want[0].iter()).all(near));
    got
}

const SERVERS: [Shown; 2] = [Shown::Carol, Shown::Helper];

#[test]
fn memory_tcp_and_tls_give_the_same_bits() {
    for shown in SERVERS {
        let first = stepped(shown, (10, 128), false, Links::memory());
        for links in [Links::memory, sockets::tcp, sockets::tls] {
            assert_eq!(stepped(shown, (10, 128), true, links()), first);
        }
    }
}

/// More in flight each way than sockets buffer: six megabytes from each evaluator, twenty-five back.
#[test]
fn large_batches_do_not_deadlock() {
    for shown in SERVERS {
        for links in [sockets::tcp, sockets::tls] {
            stepped(shown, (1 << 12, 256), true, links());
        }
    }
}
