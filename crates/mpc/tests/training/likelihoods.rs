//! Likelihoods that alice computes: right, paid for as predicted, and shown to nobody else.

use trefoil_link::frame::HEADER;
use trefoil_mpc::cost::cost;
use trefoil_mpc::program::{Op, Program, Shown};
use trefoil_prg::{Address, Pair, Purpose, Source};
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::unpack;
use trefoil_testkit::{Links, Random, World};

use crate::common::{F, program, run, values};

const CLASSES: usize = 10;

/// Logits that are made of rows and a bias, at scale 2f; then likelihoods and an opening of them.
fn head() -> Program {
    let ops = vec![
        Op::State { slot: 0 },
        Op::Open { x: 1 },
        Op::Product { x: 0, y: 2, map: trefoil_mpc::program::Bilinear::Elementwise },
        Op::Likelihoods { x: 3, shift: F, shown: Shown::Alice },
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

/// One step on the row `x`: alice's share of its last value, and what alice, bob and bob from carol received.
fn received(world: &mut World, p: &Program, x: &[u64]) -> (Words, [Vec<Vec<u8>>; 3]) {
    let model = world.share(p, &[]).unwrap();
    let rows = world.share_rows(x).unwrap();
    let mut shared = world.split_states(&[vec![1 << F; CLASSES].into()]);
    let (mut links, seen) = Links::memory().recorded();
    let answer = world.step_over(&model, &rows, &[0], &mut shared, &[], &mut links).unwrap();
    let frames = [&seen.alice, &seen.bob, &seen.dealt].map(|view| {
        let view = view.lock().unwrap();
        view.iter().filter(|f| !f.sent).map(|f| f.bytes.clone()).collect()
    });
    (answer.alice.share, frames)
}

#[test]
fn alice_learns_differences_alone_and_bob_nothing() {
    let x: Vec<u64> = (0..CLASSES as u64).map(|i| i << F).collect();
    let mut logits = bare();
    logits.steps.truncate(4);
    let (sessions, kept) = (300_u32, 64 - F);
    let mut ones = vec![0_u32; kept as usize];
    for seed in 0..sessions {
        // Everything that alice knows stays as it is; what she does not know is drawn anew.
        let world = || World::unlogged(21).reseeded(Pair::BobCarol, u64::from(seed));
        let (mut one, mut other) = (world(), world());
        let (z, _) = received(&mut other, &logits, &x);
        let (_, [alice, bob, dealt]) = received(&mut one, &bare(), &x);
        let message = alice.last().unwrap();
        assert_eq!((message.len(), bob.last().unwrap().len(), dealt.len()), (6 * CLASSES, 0, 1));
        // What she adds up: her share of the logits, with her part of the offset and of the re-randomisation.
        let [carol, peer, ..] = one.last_sources();
        let drawn = |source: &Source, purpose, n| source.draw(Address::new(0, 4, 0, purpose)).words(n);
        let offset = drawn(&carol, Purpose::LogitOffset, 1)[0];
        let r = drawn(&peer, Purpose::Output, CLASSES);
        let mut theirs = vec![0; CLASSES];
        unpack(message, kept, &mut theirs);
        let sum = |i: usize| {
            let own = z[i].wrapping_add(offset).wrapping_add(r[i]) >> F;
            own.wrapping_add(theirs[i]) << F >> F
        };
        for i in 0..CLASSES {
            let apart = (sum(i).wrapping_sub(sum(0)) << F) as i64 >> F;
            assert!((apart - ((i as i64) << F)).abs() <= 1, "class {i}: {apart}");
        }
        ones.iter_mut().enumerate().for_each(|(b, c)| *c += (sum(0) >> b & 1) as u32);
    }
    let (mean, deviation) = (f64::from(sessions) / 2.0, f64::from(sessions).sqrt() / 2.0);
    let worst = ones.iter().map(|c| (f64::from(*c) - mean).abs() / deviation).fold(0.0, f64::max);
    assert!(worst < 5.0, "{worst} standard deviations: the logits' constant shows");
}

#[test]
fn what_must_not_be_shown_is_refused() {
    let refused = |ops: Vec<Op>, what: &str| {
        let p = program(vec![CLASSES], &[(&[CLASSES], F)], ops);
        let e = p.infer().unwrap_err().to_string();
        assert!(e.contains(what), "{e}");
    };
    refused(vec![Op::Likelihoods { x: 0, shift: 0, shown: Shown::Alice }], "must be Additive");
    refused(vec![Op::State { slot: 0 }, Op::Likelihoods { x: 1, shift: 0, shown: Shown::Alice }], "of each row");
    let mut p = head();
    p.steps[4].op = Op::Likelihoods { x: 3, shift: F - 1, shown: Shown::Alice };
    assert!(p.infer().unwrap_err().to_string().contains("fraction bits are shown"));
    p.steps[4].op = Op::Likelihoods { x: 3, shift: 40, shown: Shown::Alice };
    assert!(p.infer().is_err());
    assert!(bare().check_prediction().is_err());
}
