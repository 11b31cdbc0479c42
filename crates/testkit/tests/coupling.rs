//! Coupling: one evaluator's view fits every input.
//!
//! Alice's randomness and her share of the input are kept; bob's masks are programmed so that another input gives her,
//! byte for byte, the same view; and the answer is the other input's. Then the roles are swapped: alice's draws are
//! programmed so that bob's view, what carol deals to him included, stays the same. The programmed draws are found
//! frame by frame: a frame that differs is put right by changing the one mask (or dealt value's share) that covers it,
//! which changes only later frames.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use trefoil_mpc::ideal;
use trefoil_mpc::masked::output::{open_labels, open_values};
use trefoil_mpc::program::{Program, Reveal};
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{DrawId, Pair, Purpose};
use trefoil_ring::{Tensor, Words};
use trefoil_testkit::record::{Frame, frames};
use trefoil_testkit::small::{F, input, network, weights};
use trefoil_testkit::{Links, World};

/// Keeps what was drawn, in order, and replaces what is programmed.
#[derive(Default)]
struct Programmed {
    replaced: HashMap<DrawId, Vec<u64>>,
    drawn: Mutex<Drawn>,
}

/// Each draw's words, and every piece (draw, first word, words) in the order in which a party takes them.
#[derive(Default, Clone)]
struct Drawn {
    words: HashMap<DrawId, Vec<u64>>,
    pieces: Vec<(DrawId, usize, usize)>,
}

impl Interceptor for Programmed {
    fn filled(&self, draw: &DrawId, at: u64, words: &mut [u64]) {
        let at = at as usize;
        if let Some(r) = self.replaced.get(draw) {
            words.copy_from_slice(&r[at..at + words.len()]);
        }
        let mut drawn = self.drawn.lock().unwrap();
        let known = drawn.words.entry(draw.clone()).or_default();
        if known.len() == at {
            // Both ends of a pair draw in one order: whoever is ahead writes the piece down.
            known.extend_from_slice(words);
            drawn.pieces.push((draw.clone(), at, words.len()));
        }
    }
}

/// What one party sees, and what came out.
struct Run {
    view: Vec<Frame>,
    dealt: Vec<Frame>,
    payloads: [Vec<u8>; 2],
    drawn: Drawn,
    lot: u64,
}

struct Setting {
    program: Program,
    weights: Vec<Tensor>,
    /// Whose view stays: alice's or bob's.
    bob: bool,
}

impl Setting {
    fn run(&self, shares: &(Vec<u64>, Vec<u64>), replaced: &HashMap<DrawId, Vec<u64>>) -> Run {
        let mut world = World::new(31);
        let interceptor = Arc::new(Programmed { replaced: replaced.clone(), drawn: Mutex::default() });
        world.intercept(interceptor.clone());
        let model = world.share(&self.program, &self.weights).unwrap();
        let (mut links, t) = Links::memory().recorded();
        let shares: (Words, Words) = (shares.0.clone().into(), shares.1.clone().into());
        let answer = world.run_shares(&model, 1, shares, &mut links).unwrap();
        let view = frames(if self.bob { &t.bob } else { &t.alice });
        let dealt = if self.bob { frames(&t.dealt) } else { vec![] };
        let drawn = interceptor.drawn.lock().unwrap().clone();
        Run {
            view,
            dealt,
            payloads: [answer.alice.payload.to_vec(), answer.bob.payload.to_vec()],
            drawn,
            lot: world.lot(),
        }
    }

    /// Changes the programmed draws where `run` gives the party another view than `target`. Tells whether it did.
    fn program(&self, run: &Run, target: &Run, replaced: &mut HashMap<DrawId, Vec<u64>>) -> bool {
        let other = if self.bob { Pair::AliceCarol } else { Pair::BobCarol };
        let mut changed = false;
        let mut change = |draw: &DrawId, at: usize, new: u64| {
            replaced.entry(draw.clone()).or_insert_with(|| run.drawn.words[draw].clone())[at] = new;
            changed = true;
        };
        let lot = |d: &DrawId| d.lot == run.lot && d.pair == other;
        // Each frame that the other evaluator sends is covered by one draw of masks.
        let mut masks: Vec<&DrawId> = run.drawn.words.keys().filter(|d| lot(d) && stage(d).is_some()).collect();
        masks.sort_by_key(|d| (d.wire, stage(d)));
        let got: Vec<&Frame> = run.view.iter().filter(|f| !f.sent).collect();
        let want: Vec<&Frame> = target.view.iter().filter(|f| !f.sent).collect();
        assert_eq!((got.len(), want.len()), (masks.len(), masks.len()));
        for ((got, want), mask) in got.iter().zip(want).zip(masks) {
            assert_eq!(8 * run.drawn.words[mask].len(), got.bytes.len(), "{mask:?}");
            for (i, (g, w)) in words(&got.bytes).zip(words(&want.bytes)).enumerate().filter(|(_, (g, w))| g != w) {
                let now = run.drawn.words[mask][i];
                let ring = mask.purpose == Purpose::Lambda;
                change(mask, i, if ring { now.wrapping_sub(g.wrapping_sub(w)) } else { now ^ g ^ w });
            }
        }
        if !self.bob {
            return changed;
        }
        // Carol's corrections are value minus alice's share: one piece after the other.
        let bytes = |r: &Run| -> Vec<u8> { r.dealt.iter().flat_map(|f| f.bytes.clone()).collect() };
        let (got, want) = (bytes(run), bytes(target));
        let mut at = 0;
        for (draw, first, n) in run.drawn.pieces.iter().filter(|(d, ..)| lot(d) && stage(d).is_none()) {
            let width = if matches!(draw.purpose, Purpose::Top | Purpose::BetaTop) { F as usize / 8 } else { 8 };
            for i in 0..*n {
                let word = |b: &[u8]| {
                    let mut w = [0; 8];
                    w[..width].copy_from_slice(&b[at..at + width]);
                    u64::from_le_bytes(w)
                };
                let (g, w) = (word(&got), word(&want));
                if g != w {
                    let now = run.drawn.words[draw][first + i];
                    change(
                        draw,
                        first + i,
                        if ring_share(draw) { now.wrapping_add(g.wrapping_sub(w)) } else { now ^ g ^ w },
                    );
                }
                at += width;
            }
        }
        assert_eq!(at, got.len(), "the pieces do not make up what was dealt");
        changed
    }
}

/// The place of a mask's frame among those of its step; nothing for draws that cover dealt values.
fn stage(draw: &DrawId) -> Option<(u32, u32, u32)> {
    let (unit, level) = (draw.part / 64, draw.part % 64);
    match draw.purpose {
        Purpose::NodeMask => Some((unit, 0, level)),
        Purpose::SignMask => Some((unit, 1, 0)),
        Purpose::Lambda | Purpose::AndMask => Some((unit, 2, level)),
        _ => None,
    }
}

fn ring_share(draw: &DrawId) -> bool {
    !matches!(draw.purpose, Purpose::Leaf | Purpose::NodeMonomial | Purpose::WindowTop | Purpose::AndMonomial)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|c| u64::from_le_bytes(*c))
}

fn answer(reveal: Reveal, payloads: &[Vec<u8>; 2]) -> Vec<i64> {
    match reveal {
        Reveal::Logits => open_values(&payloads[0], &payloads[1], 4, F).unwrap(),
        Reveal::Label => vec![i64::from(open_labels(&payloads[0], &payloads[1], 1, 4).unwrap()[0])],
    }
}

/// Whether `got` is the answer for `x`: labels exactly, logits to the units that hidden truncations may add.
fn is_answer(s: &Setting, x: &[u64], got: &[i64]) -> bool {
    let clear: Vec<&[u64]> = s.weights.iter().map(Tensor::data).collect();
    let want = ideal::evaluate(&s.program, 1, x, &clear).unwrap();
    let tolerance = if got.len() == 1 { 0 } else { 16 };
    got.iter().zip(want.last().unwrap().iter()).all(|(g, w)| (g - *w as i64).abs() <= tolerance)
}

fn couple(reveal: Reveal, bob: bool) {
    let program = network(reveal).unwrap();
    let s = Setting { weights: weights(&program, 0).unwrap(), program, bob };
    let label = |x: &[u64]| {
        let clear: Vec<&[u64]> = s.weights.iter().map(Tensor::data).collect();
        let p = network(Reveal::Label).unwrap();
        ideal::evaluate(&p, 1, x, &clear).unwrap().last().unwrap()[0]
    };
    let x = input(6, 0);
    let other = (1..100).map(|i| input(6, i)).find(|o| label(o) != label(&x)).unwrap();
    // Alice's share is a fixed word sequence, bob's the rest.
    let own: Vec<u64> = input(6, 1000).iter().map(|w| w.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let rest = |x: &[u64]| -> Vec<u64> { x.iter().zip(&own).map(|(x, o)| x.wrapping_sub(*o)).collect() };
    let shares = |x: &[u64]| if bob { (rest(x), own.clone()) } else { (own.clone(), rest(x)) };
    let target = s.run(&shares(&x), &HashMap::new());
    assert!(is_answer(&s, &x, &answer(reveal, &target.payloads)));
    let mut replaced = HashMap::new();
    let mut rounds = 0;
    let last = loop {
        let run = s.run(&shares(&other), &replaced);
        if !s.program(&run, &target, &mut replaced) {
            break run;
        }
        rounds += 1;
        assert!(rounds < 100, "the frames never come to agree");
    };
    assert!(rounds > 5, "another input must need other masks");
    assert!(last.view == target.view && last.dealt == target.dealt, "the view differs");
    let held = usize::from(bob);
    assert_eq!(last.payloads[held], target.payloads[held], "the party's own answer share is part of its view");
    let got = answer(reveal, &last.payloads);
    assert!(is_answer(&s, &other, &got), "{got:?} is not the other input's answer");
    assert_ne!(got, answer(reveal, &target.payloads));
    println!("{reveal:?}: view coupled after {rounds} rounds, {} draws programmed", replaced.len());
}

#[test]
fn alices_view_fits_another_input() {
    couple(Reveal::Logits, false);
    couple(Reveal::Label, false);
}

#[test]
fn bobs_view_fits_another_input() {
    couple(Reveal::Logits, true);
    couple(Reveal::Label, true);
}
