//! Likelihoods that alice computes: right, paid for as predicted, and shown to nobody else.

use trefoil_link::frame::HEADER;
use trefoil_mpc::cost::cost;
use trefoil_mpc::program::{Op, Program};
use trefoil_testkit::{Links, Random, World};

use crate::common::{F, program, run, states, values};

const CLASSES: usize = 10;

/// Logits that are made of rows and a bias, at scale 2f; then likelihoods and an opening of them.
fn head() -> Program {
    let ops = vec![
        Op::State { slot: 0 },
        Op::Open { x: 1 },
        Op::Product { x: 0, y: 2, map: trefoil_mpc::program::Bilinear::Elementwise },
        Op::Likelihoods { x: 3, shift: F },
        Op::Open { x: 4 },
        Op::Truncate { x: 5, shift: 1 },
    ];
    program(vec![CLASSES], &[(&[CLASSES], F)], ops)
}

/// Only the likelihoods.
fn bare() -> Program {
    let mut p = head();
    p.steps.truncate(5);
    p
}

#[test]
fn they_are_those_of_the_ideal_and_cost_what_is_predicted() {
    for (seed, batch) in [(1, 1), (2, 7), (3, 128)] {
        let x = values(&mut Random::new(seed), batch * CLASSES, 1 << 18);
        // Two units of rounding of a logit move -ln p by as much.
        run(seed, &bare(), batch, &x, &[]).within(4);
        run(seed, &head(), batch, &x, &[]).within(4);
    }
    let step = cost(&bare(), 3).unwrap()[4];
    let payload = 6 * 3 * CLASSES as u64;
    assert_eq!((step.rounds, step.online, step.offline), (1, payload + 2 * HEADER as u64, 0));
}

#[test]
fn a_table_sums_up_and_has_one_largest() {
    let x = values(&mut Random::new(9), 5 * CLASSES, 1 << 19);
    let ran = run(9, &bare(), 5, &x, &[]);
    for table in ran.got.chunks(3 * CLASSES) {
        let (p, rest) = table.split_at(CLASSES);
        let (cost, hit) = rest.split_at(CLASSES);
        assert!((p.iter().sum::<i64>() - (1 << F)).abs() <= CLASSES as i64);
        assert_eq!(hit.iter().sum::<i64>(), 1 << F);
        let top = hit.iter().position(|h| *h > 0).unwrap();
        assert!(p.iter().all(|v| *v <= p[top]) && cost.iter().all(|v| *v >= cost[top]));
    }
}

/// Everything the parties received in the step of the likelihoods, for rows that differ by a constant alone.
fn frames(world: &mut World, weight: u64, x: &[u64]) -> [Vec<Vec<u8>>; 3] {
    let p = bare();
    let model = world.share(&p, &[]).unwrap();
    let rows = world.share_rows(x).unwrap();
    let mut shared = world.split_states(&[vec![weight; CLASSES].into()]);
    let (mut links, seen) = Links::memory().recorded();
    world.step_over(&model, &rows, &[0], &mut shared, &[], &mut links).unwrap();
    [&seen.alice, &seen.bob, &seen.dealt].map(|view| {
        let view = view.lock().unwrap();
        view.iter().filter(|f| !f.sent).map(|f| f.bytes.clone()).collect()
    })
}

#[test]
fn alice_sees_uniform_words_with_the_right_differences_and_bob_nothing() {
    let (mut world, sessions) = (World::unlogged(21), 300);
    let x: Vec<u64> = (0..CLASSES as u64).map(|i| i << F).collect();
    let mut ones = vec![0_u32; 8 * 6 * CLASSES];
    for _ in 0..sessions {
        let [alice, bob, dealt] = frames(&mut world, 1 << F, &x);
        // One opening, then bob's message; alice sends an empty frame.
        let last = alice.last().unwrap();
        assert_eq!((last.len(), bob.last().unwrap().len(), dealt.len()), (6 * CLASSES, 0, 1));
        ones.iter_mut().enumerate().for_each(|(i, c)| *c += u32::from(last[i / 8] >> (i % 8) & 1));
    }
    let (mean, deviation) = (f64::from(sessions) / 2.0, f64::from(sessions).sqrt() / 2.0);
    let worst = ones.iter().map(|c| (f64::from(*c) - mean).abs() / deviation).fold(0.0, f64::max);
    assert!(worst < 5.0, "{worst} standard deviations");
}

#[test]
fn what_must_not_be_shown_is_refused() {
    let refused = |ops: Vec<Op>, what: &str| {
        let p = program(vec![CLASSES], &[(&[CLASSES], F)], ops);
        let e = p.infer().unwrap_err().to_string();
        assert!(e.contains(what), "{e}");
    };
    refused(vec![Op::Likelihoods { x: 0, shift: 0 }], "must be Additive");
    refused(vec![Op::State { slot: 0 }, Op::Likelihoods { x: 1, shift: 0 }], "of each row");
    let mut p = head();
    p.steps[4].op = Op::Likelihoods { x: 3, shift: F - 1 };
    assert!(p.infer().unwrap_err().to_string().contains("fraction bits are shown"));
    p.steps[4].op = Op::Likelihoods { x: 3, shift: 40 };
    assert!(p.infer().is_err());
    assert!(states(&bare(), &mut Random::new(1), 2).len() == 1 && bare().check_prediction().is_err());
}
