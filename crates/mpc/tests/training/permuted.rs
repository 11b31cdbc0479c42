//! Likelihoods that carol or the helper computes: right in both ways of running, paid for as predicted; neither sees the
//! classes.

use std::collections::BTreeSet;

use trefoil_link::frame::HEADER;
use trefoil_link::pair;
use trefoil_mpc::Compare;
use trefoil_mpc::cost::cost;
use trefoil_mpc::ideal;
use trefoil_mpc::program::{Bilinear, Op, Program, Shown, Window};
use trefoil_prg::{Pair, Purpose};
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::unpack;
use trefoil_testkit::record::frames;
use trefoil_testkit::{Links, Random, Transcripts, World};

use crate::common::{F, metered, program, run, states, values};

/// Who computes them, and the bytes ahead of an evaluator's logits.
const SERVERS: [(Shown, u64); 2] = [(Shown::Carol, 0), (Shown::Helper, 64)];

/// The likelihoods of logits that are made of rows and a bias, at scale 2f, and a comparison of them.
fn head(classes: usize, compare: Compare, shown: Shown) -> Program {
    let window = Window { lo: 0, k: 40 };
    let ops = vec![
        Op::State { slot: 0 },
        Op::Open { x: 1 },
        Op::Product { x: 0, y: 2, map: Bilinear::Elementwise },
        Op::Likelihoods { x: 3, shift: F, shown },
        Op::Offset { x: 4, units: -(1 << 14) },
        Op::Open { x: 5 },
        Op::Sign { x: 6, window, compare },
        Op::Select { bit: 7, x: 6, shift: 0 },
    ];
    program(vec![classes], &[(&[classes], F)], ops)
}

/// Only the likelihoods.
fn bare(classes: usize, shown: Shown) -> Program {
    let ops = vec![
        Op::State { slot: 0 },
        Op::Open { x: 1 },
        Op::Product { x: 0, y: 2, map: Bilinear::Elementwise },
        Op::Likelihoods { x: 3, shift: F, shown },
    ];
    program(vec![classes], &[(&[classes], F)], ops)
}

#[test]
fn they_are_those_of_the_ideal_and_cost_what_is_predicted() {
    for (shown, head_bytes) in SERVERS {
        for (seed, batch) in [(1, 1), (2, 7), (3, 128)] {
            let x = values(&mut Random::new(seed), batch * 10, 1 << 18);
            run(seed, &bare(10, shown), batch, &x, &[]).within(4);
            run(seed, &head(10, Compare::default(), shown), batch, &x, &[]).within(4);
        }
        let step = cost(&bare(10, shown), 3).unwrap()[4];
        let (told, answered) = (head_bytes + 6 * 30, 8 * 3 * 30);
        assert_eq!((step.rounds, step.online, step.offline), (2, 2 * told + answered + 3 * HEADER as u64, 0));
    }
}

/// Carol computes in the middle of her dealing, or after it where keys are compared: the answer is the same.
#[test]
fn both_phases_in_step_give_the_same_bits() {
    let ways = SERVERS.map(|(shown, _)| [Compare::default(), Compare::Keys].map(|compare| (shown, compare)));
    for (shown, compare) in ways.concat() {
        let p = head(10, compare, shown);
        let x = values(&mut Random::new(4), 50, 1 << 18);
        let clear = states(&p, &mut Random::new(4), 1 << 18);
        let [apart, together] = [World::new(4), World::new(4).in_step()].map(|mut world| {
            let model = world.share(&p, &[]).unwrap();
            let rows = world.share_rows(&x).unwrap();
            let mut shared = world.split_states(&clear);
            let answer = world.step(&model, &rows, &[0, 1, 2, 3, 4], &mut shared, &[]).unwrap();
            metered(&p, 5, &answer);
            for log in [&world.alice_draws, &world.bob_draws, &world.carol_draws] {
                assert_eq!(log.repeated(), []);
            }
            let common = world.last_common();
            let ideal = ideal::step(&p, 5, &x, &[], &mut clear.clone(), &[], &common).unwrap();
            let want = ideal.last().unwrap().iter().map(|v| *v as i64);
            assert!(answer.value().iter().zip(want).all(|(g, w)| (g - w).abs() <= 4), "{shown:?}, {compare}");
            answer.alice.share
        });
        assert_eq!(apart, together, "{shown:?}, {compare}");
    }
}

/// One step on the rows `x`, as its links saw it.
fn seen(world: &mut World, classes: usize, x: &[u64], shown: Shown) -> Transcripts {
    let p = bare(classes, shown);
    let model = world.share(&p, &[]).unwrap();
    let rows = world.share_rows(x).unwrap();
    let mut shared = world.split_states(&[vec![1 << F; classes].into()]);
    let indices: Vec<usize> = (0..x.len() / classes).collect();
    let (mut links, seen) = Links::memory().recorded();
    world.step_over(&model, &rows, &indices, &mut shared, &[], &mut links).unwrap();
    seen
}

/// The logits that carol or the helper adds up from what both evaluators sent.
fn added_up(t: &Transcripts, n: usize, shown: Shown) -> Vec<u64> {
    let received = |end| frames(end).into_iter().filter(|f| !f.sent).map(|f| f.bytes);
    let messages: Vec<Vec<u8>> = match shown {
        Shown::Helper => received(&t.helper).map(|m| m[64..].to_vec()).collect(),
        _ => received(&t.seen).chain(received(&t.carol)).collect(),
    };
    assert_eq!(messages.len(), 2, "one message from each evaluator, and no more");
    let parts: Vec<Words> = messages.iter().map(|m| unpacked(m, n)).collect();
    parts[0].iter().zip(parts[1].iter()).map(|(a, b)| a.wrapping_add(*b) << F >> F).collect()
}

fn unpacked(message: &[u8], n: usize) -> Words {
    let mut words = Words::zeros(n);
    unpack(message, 64 - F, &mut words);
    words
}

/// How far a count is from what is expected, in standard deviations.
fn far(count: u32, of: u32, chance: f64) -> f64 {
    let n = f64::from(of);
    (f64::from(count) - n * chance).abs() / (n * chance * (1.0 - chance)).sqrt()
}

/// With all held fixed but what alice and bob draw together: every order of the classes is as likely as any other, in each
/// row, and the logits' constant is uniform.
fn every_order_is_as_likely(shown: Shown) {
    const CLASSES: usize = 4;
    let sessions = 2400;
    // Two rows that are alike: only their orders may differ.
    let x: Vec<u64> = (0..2 * CLASSES as u64).map(|i| (i % 4) << (F + 3)).collect();
    let mut orders = [[0_u32; 256]; 2];
    let (mut alike, mut ones) = (0, vec![0_u32; 64 - F as usize]);
    for seed in 0..sessions {
        let mut world = World::unlogged(31).reseeded(Pair::AliceBob, u64::from(seed));
        let sums = added_up(&seen(&mut world, CLASSES, &x, shown), x.len(), shown);
        let codes: Vec<usize> = sums
            .chunks(CLASSES)
            .map(|row| {
                // Logits are multiples of 8, each at most one unit off: which one it is, above the least of the row.
                let least = |a: &u64, b: &u64| ((a.wrapping_sub(*b) << F) as i64).cmp(&0);
                let low = *row.iter().min_by(|a, b| least(a, b)).unwrap();
                let rank = |v: &u64| ((v.wrapping_sub(low) << F >> F) + (1 << (F + 2))) >> (F + 3);
                let ranks: Vec<u64> = row.iter().map(rank).collect();
                let mut sorted = ranks.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, [0, 1, 2, 3], "the multiset is there, whatever the order");
                ranks.iter().fold(0, |code, r| code << 2 | *r as usize)
            })
            .collect();
        (0..2).for_each(|row| orders[row][codes[row]] += 1);
        alike += u32::from(codes[0] == codes[1]);
        ones.iter_mut().enumerate().for_each(|(b, c)| *c += (sums[0] >> b & 1) as u32);
    }
    for row in orders {
        let there: Vec<u32> = row.into_iter().filter(|c| *c > 0).collect();
        assert_eq!(there.len(), 24, "all orders of four classes");
        assert!(there.iter().all(|c| far(*c, sessions, 1.0 / 24.0) < 5.0), "{there:?}");
    }
    assert!(far(alike, sessions, 1.0 / 24.0) < 5.0, "the rows' orders agree {alike} times");
    assert!(ones.iter().all(|c| far(*c, sessions, 0.5) < 5.0), "the logits' constant shows: {ones:?}");
}

#[test]
fn carol_sees_every_order_of_the_classes_as_often_and_no_constant() {
    every_order_is_as_likely(Shown::Carol);
}

#[test]
fn the_helper_sees_every_order_of_the_classes_as_often_and_no_constant() {
    every_order_is_as_likely(Shown::Helper);
}

/// Given all that carol knows, each evaluator's message alone is uniform; bob's answer is, given all that bob knows.
#[test]
fn messages_are_uniform_and_alice_hears_nothing() {
    let x: Vec<u64> = (0..10).map(|i| i << F).collect();
    let sessions = 300;
    for pair in [Pair::AliceBob, Pair::AliceCarol] {
        let mut ones: Vec<Vec<u32>> = vec![];
        for seed in 0..sessions {
            let mut world = World::unlogged(32).reseeded(pair, u64::from(seed));
            let t = seen(&mut world, 10, &x, Shown::Carol);
            assert!(frames(&t.shown).iter().all(|f| f.sent), "carol told alice something");
            assert!(
                frames(&t.alice).iter().all(|f| f.bytes.len() == 80),
                "alice and bob exchanged more than an opening"
            );
            let received = |end| frames(end).into_iter().filter(|f| !f.sent).map(|f| f.bytes);
            let views: Vec<Vec<u8>> = match pair {
                Pair::AliceBob => received(&t.seen).chain(received(&t.carol)).collect(),
                _ => received(&t.dealt).collect(),
            };
            ones.resize(views.len(), vec![]);
            for (counts, bytes) in ones.iter_mut().zip(&views) {
                counts.resize(8 * bytes.len(), 0);
                counts.iter_mut().enumerate().for_each(|(i, c)| *c += u32::from(bytes[i / 8] >> (i % 8) & 1));
            }
        }
        // Two messages of ten logits, or a product's dealing and ten tables' columns.
        assert!(ones.iter().map(Vec::len).sum::<usize>() >= 960);
        let worst = ones.iter().flatten().map(|c| far(*c, sessions, 0.5)).fold(0.0, f64::max);
        assert!(worst < 6.0, "{pair:?}: {worst} standard deviations");
    }
}

/// The helper is told sizes and two uniform messages; carol, who knows alice's key, receives nothing.
#[test]
fn the_helper_sees_sizes_and_uniform_messages() {
    let x: Vec<u64> = (0..10).map(|i| i << F).collect();
    let sessions = 300;
    let (mut ones, mut answers) = (vec![vec![0_u32; 480]; 2], vec![0_u32; 8 * 240]);
    let mut about = BTreeSet::new();
    for seed in 0..sessions {
        // Everything else stays as it is; for bob's answer, what he does not know is drawn anew.
        let count = |counts: &mut [u32], bytes: &[u8]| {
            assert_eq!(counts.len(), 8 * bytes.len());
            counts.iter_mut().enumerate().for_each(|(i, c)| *c += u32::from(bytes[i / 8] >> (i % 8) & 1));
        };
        let mut world = World::unlogged(33).reseeded(Pair::AliceBob, u64::from(seed));
        let t = seen(&mut world, 10, &x, Shown::Helper);
        assert!(frames(&t.carol).iter().all(|f| f.sent) && frames(&t.seen).is_empty());
        let received: Vec<_> = frames(&t.helper).into_iter().filter(|f| !f.sent).collect();
        for (counts, f) in ones.iter_mut().zip(&received) {
            about.insert(f.bytes[..32].to_vec());
            count(counts, &f.bytes[64..]);
        }
        assert_eq!(received[1].bytes[32..64], [0; 32], "bob sends no key");
        let mut world = World::unlogged(33).reseeded(Pair::AliceCarol, u64::from(seed));
        let t = seen(&mut world, 10, &x, Shown::Helper);
        let sent: Vec<_> = frames(&t.helper).into_iter().filter(|f| f.sent).collect();
        assert_eq!(sent.len(), 1, "only bob is answered");
        count(&mut answers, &sent[0].bytes);
    }
    assert_eq!(about.len(), 1, "what a message is about follows from lot and program");
    let worst = ones.iter().flatten().chain(&answers).map(|c| far(*c, sessions, 0.5)).fold(0.0, f64::max);
    assert!(worst < 6.0, "{worst} standard deviations");
}

#[test]
fn each_row_has_an_order_of_its_own_draw() {
    let x = values(&mut Random::new(8), 6 * 10, 1 << 18);
    let mut world = World::new(8);
    seen(&mut world, 10, &x, Shown::Carol);
    seen(&mut world, 10, &x, Shown::Helper);
    let orders = |log: &trefoil_testkit::DrawLog| {
        let draws = log.draws();
        draws.into_iter().filter(|d| d.purpose == Purpose::ClassOrder).collect::<Vec<_>>()
    };
    let (alice, bob, carol) = (orders(&world.alice_draws), orders(&world.bob_draws), orders(&world.carol_draws));
    assert_eq!((alice.len(), carol.len()), (12, 0));
    assert!(alice == bob && alice.iter().all(|d| d.pair == Pair::AliceBob));
    assert_eq!(world.alice_draws.repeated(), []);
}

/// An evaluator or carol that fails in the middle of a step leaves an error at the others, no panic and no silence.
#[test]
fn a_link_that_ends_is_an_error() {
    let x = values(&mut Random::new(5), 10, 1 << 18);
    let ways = SERVERS.map(|(shown, _)| [false, true].map(|in_step| (shown, in_step)));
    for (shown, in_step) in ways.concat() {
        let p = bare(10, shown);
        let mut world = if in_step { World::new(5).in_step() } else { World::new(5) };
        let model = world.share(&p, &[]).unwrap();
        let rows = world.share_rows(&x).unwrap();
        let before = vec![Words::from(&[1 << F; 10][..])];
        let mut shared = world.split_states(&before);
        let mut links = Links::memory();
        (links.shown, links.asking[0]) = (Links::memory().shown, Box::new(pair("alice", "helper").0));
        let Links { alice, bob, carol, dealt, seen, asking: [_, asking], helper: [a, b], .. } = &mut links;
        for link in [alice, bob, carol, dealt, seen, asking, a, b] {
            link.set_timeout(Some(std::time::Duration::from_millis(200)));
        }
        assert!(world.step_over(&model, &rows, &[0], &mut shared, &[], &mut links).is_err());
    }
}
