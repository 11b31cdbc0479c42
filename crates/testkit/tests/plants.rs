//! Words planted in honest views: clear ones among thousands, and masks shared by two positions. None may slip through.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{ALARM, Sessions, memory};
use trefoil_mpc::program::Reveal;
use trefoil_testkit::Random;
use trefoil_testkit::uniform::{Finding, Report, Samples};

/// Forty clear words and forty shared masks of every sort, each at places of its own: none may slip through.
#[test]
fn forty_of_each_in_honest_views() {
    for (bob, sessions) in [(false, 256), (true, 256), (true, 96)] {
        let s = Sessions::fresh(Reveal::Label, sessions, memory);
        let honest = s.view(bob).0;
        let mut r = Random::new(sessions + u64::from(bob));
        let mut places: Vec<usize> = (0..honest.positions()).collect();
        for i in (1..places.len()).rev() {
            places.swap(i, r.below(i as u64 + 1) as usize);
        }
        let mut view = honest.clone();
        for (kind, &p) in places[..40].iter().enumerate() {
            let value = r.word();
            // Always the same; a small number of either sign; one bit stuck; a few values only.
            view.column_mut(p).iter_mut().for_each(|w| match kind % 4 {
                0 => *w = value,
                1 => *w = r.between(-(1 << 33), 1 << 33) as u64,
                2 => *w |= 1 << (value % 64),
                _ => *w = value.rotate_left(r.below(3) as u32),
            });
        }
        let report = view.singles(ALARM);
        for &p in &places[..40] {
            caught_at(&report, &name(&view, p));
        }
        if sessions < 256 {
            continue;
        }
        let mut view = honest;
        for (kind, pair) in places[..80].chunks_exact(2).enumerate() {
            let first = view.column(pair[0]).to_vec();
            let value = r.word();
            for (w, f) in view.column_mut(pair[1]).iter_mut().zip(first) {
                *w = match kind % 4 {
                    0 => f.wrapping_add(value),
                    1 => f.wrapping_add(r.between(-(1 << 33), 1 << 33) as u64),
                    2 => value.wrapping_sub(f),
                    _ => f ^ (r.word() >> 1),
                };
            }
        }
        let report = view.pairs(ALARM);
        for pair in places[..80].chunks_exact(2) {
            let (p, q) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            caught_at(&report, &format!("{} and {}", name(&view, p), name(&view, q)));
        }
    }
}

fn name(view: &Samples, p: usize) -> String {
    view.places()[p].name.clone()
}

/// A finding at exactly this place, whatever the test.
#[track_caller]
fn caught_at(report: &Report, place: &str) {
    let rest = |f: &Finding| {
        f.place.strip_prefix(place).map(|r| r.is_empty() || r.starts_with(" bit") || r.starts_with(" value"))
    };
    assert!(report.findings.iter().any(|f| rest(f) == Some(true)), "nothing found at {place}");
}
