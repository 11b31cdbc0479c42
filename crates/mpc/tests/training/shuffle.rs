//! Rows shuffled among three parties: all of them, in every order, and nothing to be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use trefoil_link::Phase;
use trefoil_link::frame::HEADER;
use trefoil_mpc::MpcError;
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{DrawId, Pair, Purpose};
use trefoil_ring::Words;
use trefoil_testkit::uniform::{Place, Report, Samples};
use trefoil_testkit::{Links, World};

/// Rows that tell which they are in every word.
fn table(rows: usize, width: usize) -> Vec<u64> {
    (0..rows * width).map(|i| (i / width * 1000 + i % width) as u64).collect()
}

fn put_together(a: &Words, b: &Words) -> Vec<u64> {
    a.iter().zip(b.iter()).map(|(a, b)| a.wrapping_add(*b)).collect()
}

/// Which row has come where; every row is whole.
fn order(values: &[u64], width: usize) -> Vec<usize> {
    values
        .chunks(width)
        .map(|row| {
            let number = row[0] / 1000;
            assert!(row.iter().enumerate().all(|(i, v)| *v == number * 1000 + i as u64), "{row:?}");
            number as usize
        })
        .collect()
}

fn shuffled(world: &mut World, rows: usize, width: usize) -> (Words, Words) {
    let (mut a, mut b) = world.split(&table(rows, width));
    world.shuffle_over((&mut a, &mut b), width, &mut Links::memory()).unwrap();
    (a, b)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_rows_are_the_same_ones(seed: u64, rows in 1_usize..60, width in 1_usize..30) {
        let mut world = World::new(seed);
        let (a, b) = shuffled(&mut world, rows, width);
        let mut order = order(&put_together(&a, &b), width);
        order.sort_unstable();
        prop_assert_eq!(order, (0..rows).collect::<Vec<_>>());
        for log in [&world.alice_draws, &world.bob_draws, &world.carol_draws] {
            prop_assert_eq!(log.repeated(), []);
        }
    }
}

#[test]
fn every_order_is_as_likely() {
    let mut world = World::unlogged(3);
    let (rows, each) = (4, 250);
    let mut seen: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
    for _ in 0..24 * each {
        let (a, b) = shuffled(&mut world, rows, 1);
        *seen.entry(order(&put_together(&a, &b), 1)).or_default() += 1;
    }
    let chi: f64 = seen.values().map(|n| (f64::from(*n) - f64::from(each)).powi(2) / f64::from(each)).sum();
    // 23 degrees of freedom: beyond 60 once in 10^5 seeds.
    assert!(seen.len() == 24 && chi < 60.0, "{chi} {seen:?}");
}

#[test]
fn each_seed_alone_takes_every_row_everywhere() {
    // What two servers share may be known to both: the third's part of the order is still drawn anew.
    for pair in [Pair::AliceCarol, Pair::BobCarol, Pair::AliceBob] {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let (a, b) = shuffled(&mut World::unlogged(7).reseeded(pair, seed), 4, 2);
            seen.insert(order(&put_together(&a, &b), 2));
        }
        assert_eq!(seen.len(), 24, "{pair:?}");
    }
}

#[test]
fn it_costs_what_is_said() {
    let (rows, width) = (3000, 794);
    let words = (rows * width) as u64;
    let mut world = World::unlogged(5);
    let (mut a, mut b) = world.split(&table(rows, width));
    let (online, offline) = world.shuffle_over((&mut a, &mut b), width, &mut Links::memory()).unwrap();
    let frames = words.div_ceil((1 << 20) / width as u64 * width as u64);
    let bytes = 8 * words + frames * HEADER as u64;
    let (to_bob, to_alice) = (online[&(Phase::Online, 0)], online[&(Phase::Online, 1)]);
    assert_eq!((to_bob.sent, to_bob.received, to_bob.rounds), (bytes, 0, 0));
    assert_eq!((to_alice.sent, to_alice.received, to_alice.rounds), (0, bytes, 0));
    assert_eq!([0, 1].map(|pass| offline[&(Phase::Offline, pass)].sent), [bytes; 2]);
    assert_eq!((online.len(), offline.len(), frames), (2, 2, 3));
    assert_eq!(order(&put_together(&a, &b), width).into_iter().collect::<BTreeSet<_>>().len(), rows);
}

/// Every draw of one kind is zero, at everybody.
struct Silent(Purpose);

impl Interceptor for Silent {
    fn filled(&self, draw: &DrawId, _: u64, words: &mut [u64]) {
        if draw.purpose == self.0 {
            words.fill(0);
        }
    }
}

/// What alice receives, what bob receives, and both shares at the end: tested word by word and in pairs, on the same
/// shares in every session.
fn views(planted: Option<Purpose>) -> Vec<Report> {
    let mut world = World::unlogged(11);
    let (xa, xb) = world.split(&table(3, 2));
    if let Some(purpose) = planted {
        world.intercept(Arc::new(Silent(purpose)));
    }
    let places = |name: &str, n: usize| (0..n).map(|i| Place { name: format!("{name} {i}"), width: 64 }).collect();
    let mut samples =
        [("alice", 6), ("bob", 18), ("shares", 6), ("shares", 6)].map(|(w, n)| Samples::new(places(w, n)));
    for _ in 0..400 {
        let (mut a, mut b) = (xa.clone(), xb.clone());
        let (mut links, seen) = Links::memory().recorded();
        world.shuffle_over((&mut a, &mut b), 2, &mut links).unwrap();
        let [alice, mut bob, dealt] = [&seen.alice, &seen.bob, &seen.dealt].map(|view| {
            let received = view.lock().unwrap();
            let bytes = received.iter().filter(|f| !f.sent).flat_map(|f| f.bytes.clone()).collect::<Vec<u8>>();
            bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect::<Vec<u64>>()
        });
        bob.extend(dealt);
        for (samples, words) in samples.iter_mut().zip([&alice[..], &bob, &a, &b]) {
            samples.push(0, words);
        }
    }
    let report = |s: &Samples| {
        let mut report = s.singles(1e-7);
        report.add(s.pairs(1e-7));
        report
    };
    samples.iter().map(report).collect()
}

#[test]
fn what_everyone_receives_and_holds_is_uniform() {
    for report in views(None) {
        assert!(report.findings.is_empty() && report.alarm < 1e-6, "{:#?}", report.findings);
    }
}

#[test]
fn a_share_handed_over_bare_and_a_correction_without_a_fresh_share_are_seen() {
    let bare = views(Some(Purpose::RowMask));
    assert!(bare[1].found("repeated word"), "alice's share goes to bob as it is");
    assert!(!views(Some(Purpose::RowShare))[1].findings.is_empty());
}

#[test]
fn part_of_a_row_is_refused() {
    let mut world = World::new(1);
    for width in [0, 4] {
        let (mut a, mut b) = world.split(&table(5, 2));
        let outcome = world.shuffle_over((&mut a, &mut b), width, &mut Links::memory());
        assert!(matches!(outcome, Err(MpcError::Input { .. })), "{width}");
    }
}
