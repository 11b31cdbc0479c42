//! Planted leaks: each must be caught by the very checks that the honest sessions pass.
//!
//! The mistakes are made in running protocols, by replacing draws at everybody who makes them or by using a lot twice.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::{Plan, Sessions, check, memory};
use trefoil_mpc::program::Reveal;
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{DrawId, Pair, Purpose};
use trefoil_testkit::Random;
use trefoil_testkit::uniform::Report;

fn sessions(sessions: u64, interceptor: impl Interceptor + 'static) -> Sessions {
    Sessions::planted(Reveal::Logits, sessions, &Plan { interceptor: Some(Arc::new(interceptor)), ..Plan::default() })
}

#[track_caller]
fn caught(report: &Report, test: &str, place: &str) {
    let hit = report.findings.iter().find(|f| f.test == test && f.place.contains(place));
    let Some(hit) = hit else {
        let some: Vec<String> = report.findings.iter().take(8).map(ToString::to_string).collect();
        panic!("no {test:?} at {place:?} among {} findings: {some:#?}", report.findings.len())
    };
    println!("caught: {hit}");
}

/// Gives the draws of `to` the words of `from`, in every party's hands.
struct SharedMask {
    from: (u32, u32, Purpose),
    to: (u32, u32, Purpose),
    words: Mutex<HashMap<DrawId, Vec<u64>>>,
}

impl Interceptor for SharedMask {
    fn filled(&self, draw: &DrawId, at: u64, words: &mut [u64]) {
        let coordinates = (draw.wire, draw.part, draw.purpose);
        let (wire, part, purpose) = self.from;
        let from = DrawId { wire, part, purpose, ..draw.clone() };
        let mut kept = self.words.lock().unwrap();
        if coordinates == self.from && at == 0 {
            kept.insert(from, words.to_vec());
        } else if coordinates == self.to && at == 0 {
            words.iter_mut().zip(&kept[&from]).for_each(|(w, k)| *w = *k);
        }
    }
}

#[test]
fn a_mask_shared_by_two_wires() {
    let lambda = |wire| (wire, 0, Purpose::Lambda);
    let report = check(&sessions(128, SharedMask { from: lambda(3), to: lambda(6), words: Mutex::default() }));
    caught(&report, "near words", "opened with tag 0x3000, word 0 and frame");
    caught(&report, "near words", "opened with tag 0x3000, word 15 and frame");
}

#[test]
fn a_bit_mask_shared_by_two_comparisons() {
    let sign = |wire| (wire, 0, Purpose::SignMask);
    let report = check(&sessions(128, SharedMask { from: sign(4), to: sign(10), words: Mutex::default() }));
    caught(&report, "xor of two words", "opened with tag 0x4002, word 0 and frame");
}

#[test]
fn a_lot_used_twice() {
    let plan = Plan { repeat_lot: true, ..Plan::default() };
    let report = check(&Sessions::planted(Reveal::Logits, 128, &plan));
    caught(&report, "near words", "opened with tag 0x1000, word 0 of two requests");
    caught(&report, "xor of two words", "received with tag 0x4, word 0 of two requests");
}

/// Zeroes some bits of one word of the draws at one place.
struct Clear {
    wire: u32,
    purpose: Purpose,
    word: u64,
    keep: u64,
    pairs: &'static [Pair],
}

impl Interceptor for Clear {
    fn filled(&self, draw: &DrawId, at: u64, words: &mut [u64]) {
        let here = draw.wire == self.wire && draw.part == 0 && draw.purpose == self.purpose;
        if here && self.pairs.contains(&draw.pair) && (at..at + words.len() as u64).contains(&self.word) {
            words[(self.word - at) as usize] &= self.keep;
        }
    }
}

const MASKS: &[Pair] = &[Pair::AliceCarol, Pair::BobCarol];

#[test]
fn one_word_opened_without_a_mask() {
    let report = check(&sessions(128, Clear { wire: 3, purpose: Purpose::Lambda, word: 5, keep: 0, pairs: MASKS }));
    caught(&report, "repeated word", "opened with tag 0x3000, word 5");
    caught(&report, "bit balance", "opened with tag 0x3000, word 5");
    // Only that word (and pairs with it) among thousands.
    assert!(report.findings.iter().all(|f| f.place.contains("tag 0x3000, word 5")));
}

#[test]
fn one_bit_opened_without_a_mask() {
    let keep = !(1 << 9);
    let report = check(&sessions(256, Clear { wire: 4, purpose: Purpose::SignMask, word: 0, keep, pairs: MASKS }));
    caught(&report, "bit balance", "opened with tag 0x4002, word 0 bit 9");
}

/// The bound less the distance, opened as it is: the one word that a verdict's view must hide.
#[test]
fn a_distance_opened_without_a_mask() {
    let plan = |interceptor| Plan { interceptor: Some(Arc::new(interceptor)), judge: true, ..Plan::default() };
    let clear = Clear { wire: 15, purpose: Purpose::Lambda, word: 0, keep: 0, pairs: MASKS };
    let report = check(&Sessions::planted(Reveal::Label, 128, &plan(clear)));
    caught(&report, "bit balance", "opened with tag 0xf000, word 0");
    // A verdict whose shares are the wires' own.
    let clear = Clear { wire: 19, purpose: Purpose::Output, word: 0, keep: 0, pairs: &[Pair::AliceBob] };
    let s = Sessions::planted_given(Reveal::Label, 256, 3, Pair::AliceBob, memory, &plan(clear));
    caught(&s.payload(0, 0).check(), "bit balance", "element 0 from alice");
}

#[test]
fn an_output_that_is_not_re_randomised() {
    for (reveal, words) in [(Reveal::Logits, 4), (Reveal::Label, 2)] {
        let plan = || -> Plan {
            let outputs = (0..words).map(|word| Clear {
                wire: if reveal == Reveal::Logits { 13 } else { 16 },
                purpose: Purpose::Output,
                word,
                keep: 0,
                pairs: &[Pair::AliceBob],
            });
            Plan { interceptor: Some(Arc::new(All(outputs.collect()))), ..Plan::default() }
        };
        let s = Sessions::planted_given(reveal, 256, 3, Pair::AliceBob, memory, &plan());
        caught(&s.payload(0, 0).check(), "bit balance", "element 0 from alice");
        caught(&s.payload(1, 0).check(), "bit balance", "element 1 from bob");
    }
}

struct All(Vec<Clear>);

impl Interceptor for All {
    fn filled(&self, draw: &DrawId, at: u64, words: &mut [u64]) {
        self.0.iter().for_each(|i| i.filled(draw, at, words));
    }
}

/// Root seeds of comparison keys that bob could guess: given his own, the correction words follow from the masks alone.
#[test]
fn roots_of_alices_keys_that_bob_knows() {
    let words =
        (0..32).map(|word| Clear { wire: 4, purpose: Purpose::KeyRoot, word, keep: 0, pairs: &[Pair::AliceCarol] });
    let s = Sessions::keyed_given(96, Pair::AliceCarol, Some(Arc::new(All(words.collect()))));
    // After shares of five kinds: the correction of the first key's first seed.
    caught(&s.check_received(true), "repeated word", "received with tag 0x4, word 56");
}

/// A mask of bob's that alice could compute. Only what is opened, given her own randomness, shows it.
struct Known;

impl Interceptor for Known {
    fn filled(&self, draw: &DrawId, _: u64, words: &mut [u64]) {
        if draw.wire == 3 && draw.purpose == Purpose::Lambda && draw.pair == Pair::BobCarol {
            words.copy_from_slice(&Random::new(draw.lot).words(words.len()));
        }
    }
}

#[test]
fn a_mask_of_bobs_that_alice_knows() {
    let plan = Plan { interceptor: Some(Arc::new(Known)), ..Plan::default() };
    let s = Sessions::planted_given(Reveal::Logits, 128, 1, Pair::BobCarol, memory, &plan);
    caught(&s.check_received(false), "bit balance", "opened with tag 0x3000");
}
