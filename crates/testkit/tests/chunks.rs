//! Views of many elements: what is drawn and dealt chunk by chunk must not repeat from one chunk to the next.
//!
//! Every position is checked alone, and against those at a number of distances: neighbours, planes, chunks of ring
//! values, and chunks of everything that a comparison deals or opens.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;

use trefoil_mpc::Compare;
use trefoil_mpc::program::{Op, Window};
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{DrawId, Purpose};
use trefoil_testkit::small::{F, program};
use trefoil_testkit::uniform::{Report, Samples};
use trefoil_testkit::view::{opened, words};
use trefoil_testkit::{Links, Random, Seen, World};

/// Two chunks and a little more.
const N: usize = 2 * 4096 + 128;

/// Words of one plane of a chunk.
const PLANE: usize = 64;

fn distances(report: &mut Report, samples: &Samples, planes: &[usize]) {
    let alarm = 1e-9;
    report.add(samples.singles(alarm));
    let chunks = planes.iter().map(|p| p * PLANE);
    for by in [1, 2, PLANE, 2 * PLANE, 4096, 8192].into_iter().chain(chunks) {
        report.add(samples.against(&samples.rotated(by, samples), alarm));
    }
}

fn check(sessions: u64, interceptor: Option<Arc<dyn Interceptor>>) -> Report {
    let window = Window { lo: F, k: 32 };
    let p = program(
        vec![N],
        vec![],
        vec![Op::Open { x: 0 }, Op::Relu { x: 1, shift: F, window, compare: Compare::default() }],
    );
    let mut views: [Option<Samples>; 4] = [const { None }; 4];
    for s in 0..sessions {
        let mut world = World::new(0xc4a0 + s);
        if let Some(i) = &interceptor {
            world.intercept(i.clone());
        }
        let model = world.share(&p, &[]).unwrap();
        let mut r = Random::new(s % 2);
        let x: Vec<u64> = (0..N).map(|_| r.between(-(1 << 40), 1 << 40) as u64).collect();
        let seen = Seen::run(&mut world, &model, 1, &x, Links::memory()).unwrap();
        // Dealing is numbered by steps, the exchanges of a step from step * 2^12 on.
        let dealt: Vec<_> = seen.bob.iter().filter(|f| !f.sent && f.tag < 1 << 12).cloned().collect();
        let (places, sums, xors) = opened(&seen.alice);
        let view = [words(&dealt, false), words(&seen.alice, true), (places.clone(), sums), (places, xors)];
        for (samples, (places, words)) in views.iter_mut().zip(view) {
            samples.get_or_insert_with(|| Samples::new(places)).push(s % 2, &words);
        }
    }
    let mut report = Report::default();
    let [dealt, alice, sums, xors] = views.map(Option::unwrap);
    // A chunk of a 32-bit comparison: 151 planes dealt; 15, 3 and 1 opened.
    assert!(dealt.positions() > 151 * N / 64);
    distances(&mut report, &dealt, &[151]);
    for online in [&alice, &sums, &xors] {
        distances(&mut report, online, &[3, 15]);
    }
    report
}

#[test]
fn chunks_are_masked_afresh() {
    let report = check(96, None);
    let named: Vec<String> = report.findings.iter().take(5).map(ToString::to_string).collect();
    assert!(named.is_empty(), "{} findings: {named:#?}", report.findings.len());
    assert!(report.alarm < 1e-7, "a false alarm has probability {}", report.alarm);
    println!("{} tests, false alarm below {:.1e}", report.tests, report.alarm);
}

/// A planted mistake: every chunk of one draw gets the same words.
struct Restarted(Purpose);

impl Interceptor for Restarted {
    fn filled(&self, draw: &DrawId, _: u64, words: &mut [u64]) {
        if draw.purpose == self.0 && draw.part == 0 {
            let seed = u64::from_le_bytes(*draw.epoch.first_chunk().unwrap()) ^ draw.pair as u64;
            words.copy_from_slice(&Random::new(seed).words(words.len()));
        }
    }
}

#[test]
fn a_draw_that_starts_again_with_every_chunk_is_found() {
    for (purpose, tag) in [(Purpose::Leaf, "received with tag 0x2,"), (Purpose::NodeMask, "opened with tag 0x2000")] {
        let report = check(64, Some(Arc::new(Restarted(purpose))));
        let hits = report.findings.iter().filter(|f| f.test == "xor of two words" && f.place.contains(tag)).count();
        assert!(hits > 64, "{hits} findings at {tag} after restarting {purpose:?}, {} in all", report.findings.len());
    }
}
