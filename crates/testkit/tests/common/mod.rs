//! Sessions of the small network, and the checks that clean and planted views go through alike.
#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;

use trefoil_mpc::Compare;
use trefoil_mpc::ideal;
use trefoil_mpc::masked::output::{open_labels, open_values};
use trefoil_mpc::program::{Op, Program, Reveal};
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{Address, Pair, Purpose};
use trefoil_ring::Tensor;
use trefoil_testkit::record::{Frame, frames};
use trefoil_testkit::small::{F, input, judge, network, weights};
use trefoil_testkit::uniform::{Report, Samples};
use trefoil_testkit::view::{Shape, elements, opened, shape, words};
use trefoil_testkit::{Links, Seen, World};

/// False-alarm level of one check of one view.
pub const ALARM: f64 = 2.1e-9;

/// Elements of the network's input.
pub const INPUTS: usize = 6;

/// Links in memory.
pub fn memory() -> Links {
    Links::memory()
}

/// What the parties saw of one request.
pub struct Request {
    pub alice: Vec<Frame>,
    pub bob: Vec<Frame>,
    pub payloads: [Vec<u8>; 2],
    /// Alice's and bob's parts of the mask of the wire opened at each `Open`, by step.
    pub masks: Vec<Vec<u64>>,
}

/// One session: an upload, a request, a request with another input, and the first one again.
pub struct Session {
    pub group: u64,
    pub alice: Vec<Frame>,
    pub bob: Vec<Frame>,
    pub requests: Vec<Request>,
    pub shapes: Vec<Shape>,
    pub carol: usize,
    pub input: Vec<u64>,
    pub weights: Vec<Tensor>,
}

pub struct Sessions {
    pub reveal: Reveal,
    /// Bits of a request's frames that only fill up words.
    padding: u32,
    pub program: Program,
    pub all: Vec<Session>,
}

/// How a session's world departs from an honest one.
#[derive(Default)]
pub struct Plan {
    pub interceptor: Option<Arc<dyn Interceptor>>,
    pub repeat_lot: bool,
    pub compare: Compare,
    /// Sessions of the judge of pairs instead of the network.
    pub judge: bool,
}

/// Narrows windows to what the network's values need: keys are as long as windows are wide. What the keys of all
/// comparisons leave unused of their words, in bits.
fn keyed(program: &mut Program) -> u32 {
    let mut padding = 0;
    let infos = program.infer().unwrap();
    for (step, info) in program.steps.iter_mut().zip(infos) {
        let (selections, shift, k) = match &mut step.op {
            Op::Relu { window, shift, .. } => {
                window.k = 24;
                (vec![info.elements() as u32], *shift, 24)
            }
            Op::MaxPool { window, .. } => {
                window.k = 25;
                (vec![2 * info.elements() as u32, info.elements() as u32], 0, 25)
            }
            _ => continue,
        };
        let rest = |bits: u32| bits.next_multiple_of(64) - bits;
        // Each level has two planes of control bits and the values of so many bits; so has the leaf, without the planes.
        padding += selections.iter().map(|n| (k - 1) * 2 * rest(*n) + k * rest(n * shift)).sum::<u32>();
    }
    padding
}

impl Sessions {
    /// Sessions with fresh seeds for everybody.
    pub fn fresh(reveal: Reveal, sessions: u64, links: fn() -> Links) -> Self {
        Self::run(reveal, sessions, links, |s| World::new(0x5e55_0000 + s), |_| 0..4, &Plan::default())
    }

    /// The same, comparing in another way.
    pub fn comparing(compare: Compare, reveal: Reveal, sessions: u64) -> Self {
        Self::planted(reveal, sessions, &Plan { compare, ..Plan::default() })
    }

    /// Sessions that compare by keys, as [`Sessions::given`].
    pub fn keyed_given(sessions: u64, pair: Pair, interceptor: Option<Arc<dyn Interceptor>>) -> Self {
        let plan = Plan { compare: Compare::Keys, interceptor, ..Plan::default() };
        Self::planted_given(Reveal::Logits, sessions, 4, pair, memory, &plan)
    }

    /// Sessions in which only the seed of `pair` is fresh, everything else and the input stays.
    pub fn given(reveal: Reveal, sessions: u64, seed: u64, pair: Pair, links: fn() -> Links) -> Self {
        Self::planted_given(reveal, sessions, seed, pair, links, &Plan::default())
    }

    pub fn planted_given(
        reveal: Reveal,
        sessions: u64,
        seed: u64,
        pair: Pair,
        links: fn() -> Links,
        plan: &Plan,
    ) -> Self {
        Self::run(reveal, sessions, links, |s| World::new(seed).reseeded(pair, s), |_| 0..1, plan)
    }

    pub fn planted(reveal: Reveal, sessions: u64, plan: &Plan) -> Self {
        Self::run(reveal, sessions, memory, |s| World::new(0x5e55_0000 + s), |_| 0..4, plan)
    }

    fn run(
        reveal: Reveal,
        sessions: u64,
        links: fn() -> Links,
        world: impl Fn(u64) -> World,
        groups: impl Fn(u64) -> std::ops::Range<u64>,
        plan: &Plan,
    ) -> Self {
        let mut program = if plan.judge { judge(reveal) } else { network(reveal) }.unwrap();
        program.steps.iter_mut().for_each(|s| s.op = s.op.comparing(plan.compare));
        let by_keys = plan.compare == Compare::Keys;
        let padding = if by_keys { keyed(&mut program) } else { 0 };
        // Where something is planted, more bits may never be set.
        let padding = if plan.interceptor.is_none() { padding } else { 0 };
        let session = |s: u64| {
            let range = groups(s);
            let group = range.start + s % (range.end - range.start);
            let (first, model) = (group & 1, group >> 1);
            let mut world = world(s);
            if let Some(i) = &plan.interceptor {
                world.intercept(i.clone());
            }
            let weights = weights(&program, model).unwrap();
            let (mut upload, t) = links().recorded();
            let shared = world.share_over(&program, &weights, &mut upload).unwrap();
            let mut session = Session {
                group,
                alice: frames(&t.alice),
                bob: frames(&t.bob),
                requests: vec![],
                shapes: vec![],
                carol: 0,
                input: input(INPUTS, first),
                weights,
            };
            for (n, which) in [first, first ^ 1, first].into_iter().enumerate() {
                if n == 1 && plan.repeat_lot {
                    world.repeat_lot();
                }
                let x = input(INPUTS, which);
                let mut seen = Seen::run(&mut world, &shared, 1, &x, links()).unwrap();
                // What bob passes on as carol dealt it, he sees once.
                seen.bob.retain(|f| !(by_keys && f.sent && f.tag & 0xfff == 0xfff));
                let [alice, _, bob, ..] = world.last_sources();
                let opened = program.steps.iter().enumerate().filter(|(_, s)| matches!(s.op, Op::Open { .. }));
                let infos = program.infer().unwrap();
                let mask = |i: usize| {
                    let part = |s: &trefoil_prg::Source| {
                        s.draw(Address::new(0, i as u32, 0, Purpose::Lambda)).words(infos[i].elements())
                    };
                    part(&alice).iter().zip(part(&bob)).map(|(a, b)| a.wrapping_add(b)).collect()
                };
                let masks = opened.map(|(i, _)| mask(i)).collect();
                session.shapes.push(shape(&[&seen.alice[..], &seen.bob[..]].concat()));
                session.carol += seen.carol.len();
                session.requests.push(Request {
                    alice: seen.alice,
                    bob: seen.bob,
                    payloads: [seen.answer.alice.payload.to_vec(), seen.answer.bob.payload.to_vec()],
                    masks,
                });
                let request = session.requests.last().unwrap();
                if !plan.repeat_lot && plan.interceptor.is_none() {
                    answer_is_right(&program, reveal, &session.weights, &x, &request.payloads);
                }
            }
            session
        };
        Self { reveal, padding, all: (0..sessions).map(session).collect(), program: program.clone() }
    }

    /// Positions of a request's frames over all sessions, with what the party sent and the upload or without.
    fn frames(&self, sent: bool, bob: bool, upload: bool, n: usize) -> Samples {
        let mut samples = None;
        for s in &self.all {
            let r = &s.requests[n];
            let (uploaded, frames) = if bob { (&s.bob, &r.bob) } else { (&s.alice, &r.alice) };
            let before = if upload { &uploaded[..] } else { &[] };
            let (places, words) = words(&[before, frames].concat(), sent);
            samples.get_or_insert_with(|| Samples::new(places)).push(s.group, &words);
        }
        let samples: Samples = samples.unwrap();
        if self.padding > 0 { samples.unpadded(self.padding) } else { samples }
    }

    /// Checks what alice or bob receives in the upload and in the first request, and what is opened to them: for
    /// sessions in which only the others' randomness is fresh.
    pub fn check_received(&self, bob: bool) -> Report {
        let mut report = Checked(self.frames(false, bob, true, 0)).check();
        self.opened(0).iter().for_each(|o| report.add(o.check()));
        report
    }

    /// Everything alice or bob sees of the upload and of the first request.
    pub fn view(&self, bob: bool) -> Checked {
        Checked(self.frames(true, bob, true, 0))
    }

    /// What the evaluators opened in request `n`: sums and XORs of the frames that they exchanged.
    pub fn opened(&self, n: usize) -> [Checked; 2] {
        let (places, ..) = opened(&self.all[0].requests[n].alice);
        let mut both = [Samples::new(places.clone()), Samples::new(places)];
        for s in &self.all {
            let (_, sums, xors) = opened(&s.requests[n].alice);
            both[0].push(s.group, &sums);
            both[1].push(s.group, &xors);
        }
        both.map(Checked)
    }

    /// Request `n` without the upload, to compare requests with each other.
    pub fn request(&self, bob: bool, n: usize) -> Samples {
        self.frames(true, bob, false, n)
    }

    /// The client's message of request `n` from alice (0) or bob (1).
    pub fn payload(&self, from: usize, n: usize) -> Checked {
        let bits = if self.reveal == Reveal::Logits { 64 - F } else { 64 };
        let name = ["alice", "bob"][from];
        let mut samples = None;
        for s in &self.all {
            let (places, words) = elements(&s.requests[n].payloads[from], bits, name);
            samples.get_or_insert_with(|| Samples::new(places)).push(s.group, &words);
        }
        Checked(samples.unwrap())
    }

    /// The coins of the first ReLU's truncation: for each of its elements, 0 or 1 for every session.
    pub fn hidden_coins(&self) -> Vec<Vec<u8>> {
        // Steps 4 (ReLU) and 6 (its re-opening); the third wire opened.
        let open = 6u32;
        let coins = |s: &Session| -> Vec<u8> {
            let clear: Vec<&[u64]> = s.weights.iter().map(Tensor::data).collect();
            let want = &ideal::evaluate(&self.program, 1, &s.input, &clear).unwrap()[4];
            let r = &s.requests[0];
            let at = |f: &&Frame| f.tag == open << 12;
            let mut parts = r.alice.iter().filter(at).map(|f| -> Vec<u64> {
                f.bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
            });
            let (a, b) = (parts.next().unwrap(), parts.next().unwrap());
            let value = |i: usize| a[i].wrapping_add(b[i]).wrapping_sub(r.masks[2][i]);
            (0..want.len()).map(|i| u8::try_from(value(i).wrapping_sub(want[i])).unwrap()).collect()
        };
        let by_session: Vec<Vec<u8>> = self.all.iter().map(coins).collect();
        (0..by_session[0].len()).map(|i| by_session.iter().map(|c| c[i]).collect()).collect()
    }
}

/// Positions to be checked alone and pair by pair.
pub struct Checked(pub Samples);

impl Checked {
    pub fn check(&self) -> Report {
        let mut report = self.0.singles(ALARM);
        for group in self.0.by_group() {
            report.add(group.singles(ALARM / 4.0));
        }
        report.add(self.0.pairs(ALARM));
        report
    }
}

/// Every check of every view of fresh sessions: alice's, bob's and the client's.
pub fn check(s: &Sessions) -> Report {
    let mut report = Report::default();
    for bob in [false, true] {
        report.add(s.view(bob).check());
        let request: Vec<Samples> = (0..3).map(|n| s.request(bob, n)).collect();
        for (n, m) in [(0, 1), (0, 2), (1, 2)] {
            report.add(request[n].against(&request[m], ALARM));
        }
    }
    let opened: Vec<[Checked; 2]> = (0..3).map(|n| s.opened(n)).collect();
    for kind in [0, 1] {
        report.add(opened[0][kind].check());
        for (n, m) in [(0, 1), (0, 2), (1, 2)] {
            report.add(opened[n][kind].0.against(&opened[m][kind].0, ALARM));
        }
    }
    // The two shares of different elements; those of one element add up to the answer.
    let [alice, bob] = [0, 1].map(|from| s.payload(from, 0).0);
    for by in 1..alice.positions() {
        report.add(alice.against(&bob.rotated(by, &alice), ALARM));
    }
    for from in [0, 1] {
        report.add(s.payload(from, 0).check());
        report.add(s.payload(from, 0).0.against(&s.payload(from, 2).0, ALARM));
    }
    report
}

fn answer_is_right(p: &Program, reveal: Reveal, weights: &[Tensor], x: &[u64], payloads: &[Vec<u8>; 2]) {
    let clear: Vec<&[u64]> = weights.iter().map(Tensor::data).collect();
    let want = ideal::evaluate(p, 1, x, &clear).unwrap();
    let want = want.last().unwrap();
    match reveal {
        Reveal::Logits => {
            let got = open_values(&payloads[0], &payloads[1], want.len(), F).unwrap();
            // Hidden truncations may each be a unit off, times weights below two.
            assert!(got.iter().zip(want.iter()).all(|(g, w)| (g - *w as i64).abs() <= 16), "{got:?}");
        }
        Reveal::Label => {
            let bits = p.infer().unwrap()[p.steps.len() - 2].shape[0];
            let got = open_labels(&payloads[0], &payloads[1], 1, 1 << bits).unwrap();
            assert_eq!(u64::from(got[0]), want[0]);
        }
    }
}
