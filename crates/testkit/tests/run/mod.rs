//! Sessions of a whole small training run, phase by phase, and the checks that clean and planted views go through alike.
//!
//! A session: owners' rows and the model owner's states reach the evaluators as shares; training rows are shuffled and
//! the set is opened, before the second epoch anew; two epochs of two steps and a validation check, each with a
//! checkpoint and its metric revealed; the last step of the first epoch is computed twice, as after a crash; then the
//! weights are revealed and published. Six rows of two features and a label, four hidden units.
#![allow(dead_code, reason = "every test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod programs;

use std::sync::Arc;

use programs::{HIDDEN, SERVED, TRAINING, WIDTH, WINDOW, check, finish, initial, reveal, served, step, table};
use trefoil_mpc::Compare;
use trefoil_mpc::ideal;
use trefoil_mpc::masked::output::open_values;
use trefoil_mpc::masked::{EvaluatorWeights, ProducerWeights};
use trefoil_mpc::program::Program;
use trefoil_prg::Pair;
use trefoil_prg::replay::Interceptor;
use trefoil_ring::{Tensor, Words};
use trefoil_testkit::record::{Frame, Transcripts, frames};
use trefoil_testkit::uniform::{Place, Report, Samples};
use trefoil_testkit::view::{Shape, opened, shape, words};
use trefoil_testkit::world::Answer;
use trefoil_testkit::{Links, Shared, SharedRows, SharedStates, World};

pub(crate) use programs::{LOSS, W};

/// False-alarm level of one check of one view.
pub(crate) const ALARM: f64 = 2e-9;

/// How a session departs from an honest one.
#[derive(Default)]
pub(crate) struct Plan {
    /// How steps and checks compare, in turn; none: as they do by default.
    pub(crate) ways: Vec<Compare>,
    pub(crate) interceptor: Option<Arc<dyn Interceptor>>,
    /// The step that is computed again uses the lot that it had.
    pub(crate) same_lot: bool,
    /// What alice keeps as the checkpoint of the second epoch is the states themselves.
    pub(crate) whole: bool,
}

/// What the parties saw of one phase.
pub(crate) struct Seen {
    pub(crate) phase: String,
    /// The lot used last.
    pub(crate) lot: u64,
    pub(crate) alice: Vec<Frame>,
    pub(crate) bob: Vec<Frame>,
    /// What they hold afterwards for good: alice's words and bob's.
    pub(crate) kept: [Vec<u64>; 2],
    /// What they hand out, to one recipient.
    pub(crate) payloads: [Vec<u8>; 2],
}

/// One run.
pub(crate) struct Session {
    pub(crate) group: u64,
    pub(crate) seen: Vec<Seen>,
    pub(crate) carol: usize,
}

/// Many runs, and the bits that fill up what carol deals in each.
pub(crate) struct Sessions(pub(crate) Vec<Session>, u32);

/// Times that a run compares: in five steps and two checks.
const COMPARING: usize = 7;

/// Bits of a compared number for which a leaf of a key's tree stands.
const LEAF: u32 = 7;

/// Bits of all frames of keys that are never set: at each level above the leaves, two planes of control bits and one of
/// values, a bit for each of two rows' hidden units.
fn padding(plan: &Plan) -> u32 {
    let keyed = plan.ways.iter().cycle().take(COMPARING).filter(|w| **w == Compare::Keys).count() as u32;
    keyed * 3 * (WINDOW.k - 1 - LEAF) * (64 - 2 * HIDDEN as u32)
}

/// A run under way.
struct Run {
    world: World,
    seen: Vec<Seen>,
    carol: usize,
}

impl Run {
    fn note(&mut self, phase: impl Into<String>, t: &Transcripts, kept: [Vec<u64>; 2], payloads: [Vec<u8>; 2]) {
        let mut bob = frames(&t.dealt);
        bob.extend(frames(&t.bob));
        // What he passes on as he received it is in his view once.
        let dealt: Vec<Vec<u8>> = bob.iter().filter(|f| !f.sent).map(|f| f.bytes.clone()).collect();
        let was_dealt = |bytes: &[u8]| dealt.iter().any(|d| d.windows(bytes.len()).step_by(8).any(|w| w == bytes));
        bob.retain(|f| !(f.sent && f.tag & 0xfff == 0xfff && was_dealt(&f.bytes)));
        self.carol += frames(&t.carol).iter().filter(|f| !f.sent).count();
        let lot = self.world.lot();
        self.seen.push(Seen { phase: phase.into(), lot, alice: frames(&t.alice), bob, kept, payloads });
    }

    /// Shuffles the training rows of which these are the shares, and opens all; the rows in their new order.
    fn take_up(&mut self, again: &str, (xa, xb): (&Words, &Words)) -> (SharedRows, Vec<u64>) {
        let (mut xa, mut xb) = (xa.clone(), xb.clone());
        let (mut links, t) = Links::memory().recorded();
        let part = ..TRAINING * WIDTH;
        let [mut a, mut b] = [&xa, &xb].map(|x| Words::from(&x[part]));
        self.world.shuffle_over((&mut a, &mut b), WIDTH, &mut links).unwrap();
        xa[part].copy_from_slice(&a);
        xb[part].copy_from_slice(&b);
        // What they hold now they have received in this phase or drawn, but for its order.
        self.note(format!("shuffle{again}"), &t, Default::default(), Default::default());
        let clear = xa.iter().zip(xb.iter()).map(|(a, b)| a.wrapping_add(*b)).collect();
        let (mut links, t) = Links::memory().recorded();
        let rows = self.world.open_rows_over((xa, xb), &mut links).unwrap();
        self.note(format!("opening of rows{again}"), &t, Default::default(), Default::default());
        (rows, clear)
    }

    fn program(
        &mut self,
        (phase, program): (&str, &Program),
        rows: &SharedRows,
        indices: &[usize],
        states: &mut SharedStates,
    ) -> Answer {
        let (mut links, t) = Links::memory().recorded();
        let none = || EvaluatorWeights::new(program, vec![]).unwrap();
        let carol = ProducerWeights::new(program, vec![]).unwrap();
        let model = Shared { program: program.clone(), alice: none(), bob: none(), carol };
        let rates = vec![-(1 << 6); program.rates];
        let answer = self.world.step_over(&model, rows, indices, states, &rates, &mut links).unwrap();
        let payloads = [answer.alice.payload.to_vec(), answer.bob.payload.to_vec()];
        self.note(phase, &t, [vec![], vec![]], payloads);
        answer
    }
}

fn both(shares: (&Words, &Words)) -> [Vec<u64>; 2] {
    [shares.0.to_vec(), shares.1.to_vec()]
}

/// The shares of the states number `slots`, one after the other.
fn held(states: &SharedStates, slots: &[usize]) -> [Vec<u64>; 2] {
    [&states.alice, &states.bob].map(|s| slots.iter().flat_map(|i| s[*i].to_vec()).collect())
}

fn session(mut world: World, group: u64, plan: &Plan) -> Session {
    if let Some(i) = &plan.interceptor {
        world.intercept(i.clone());
    }
    let honest = plan.interceptor.is_none() && !plan.same_lot;
    let mut ways = plan.ways.iter().copied().cycle();
    let mut way = || ways.next().unwrap_or_default();
    let mut run = Run { world, seen: vec![], carol: 0 };
    let nothing = || Links::memory().recorded();
    let clear = table(group & 1);
    let (xa, xb) = run.world.split(&clear);
    run.note("upload of rows", &nothing().1, both((&xa, &xb)), Default::default());
    let mut own = initial(group >> 1);
    let mut states = run.world.split_states(&own);
    run.note("upload of states", &nothing().1, held(&states, &[W, LOSS]), Default::default());

    let (mut rows, mut shuffled) = run.take_up("", (&xa, &xb));
    for epoch in 0..2 {
        if epoch == 1 {
            // All memory was lost: the rows are shuffled and opened anew.
            (rows, shuffled) = run.take_up(" again", (&xa, &xb));
        }
        own[LOSS].fill(0);
        states.alice[LOSS].fill(0);
        states.bob[LOSS].fill(0);
        for (n, batch) in [[0, 1], [2, 3]].into_iter().enumerate() {
            let before = SharedStates { alice: states.alice.clone(), bob: states.bob.clone() };
            let due = step(way());
            run.program((&format!("epoch {epoch} step {n}"), &due), &rows, &batch, &mut states);
            if (epoch, n) == (0, 1) {
                // A crash before the checkpoint: the step begins anew where the last one ended.
                states = before;
                if plan.same_lot {
                    run.world.repeat_lot();
                }
                run.program(("step again", &step(way())), &rows, &batch, &mut states);
            }
            ideally(&due, &shuffled, &batch, &mut own, &run.world);
        }
        let due = check(way());
        run.program((&format!("epoch {epoch} check"), &due), &rows, &[4, 5], &mut states);
        ideally(&due, &shuffled, &[4, 5], &mut own, &run.world);
        let at = format!("epoch {epoch} checkpoint");
        let mut kept = held(&states, &[W, LOSS]);
        if plan.whole && epoch == 1 {
            kept[0] = kept[0].iter().zip(&kept[1]).map(|(a, b)| a.wrapping_add(*b)).collect();
        }
        run.note(at, &nothing().1, kept, Default::default());
        let shown = run.program((&format!("epoch {epoch} metric"), &reveal(LOSS)), &rows, &[0], &mut states);
        assert!(!honest || near(&shown, &own[LOSS], 1 << 8), "the metric");
    }
    let shown = run.program(("weights", &reveal(W)), &rows, &[0], &mut states);
    assert!(!honest || near(&shown, &own[W], 1 << 8), "the weights");
    run.program(("finish", &finish()), &rows, &[0], &mut states);

    let (mut links, t) = nothing();
    let tensors = |s: &[Words]| vec![Tensor::new(served().weights[0].shape.clone(), s[SERVED].to_vec()).unwrap()];
    let shares = (tensors(&states.alice), tensors(&states.bob));
    run.world.open_weights_over(&served(), shares, &mut links).unwrap();
    run.note("publication", &t, Default::default(), Default::default());
    assert!(!honest || [&run.world.alice_draws, &run.world.bob_draws].iter().all(|d| d.repeated().is_empty()));
    Session { group, seen: run.seen, carol: run.carol }
}

/// The same step on clear values.
fn ideally(program: &Program, rows: &[u64], indices: &[usize], states: &mut [Words], world: &World) {
    let x: Vec<u64> = indices.iter().flat_map(|i| rows[i * WIDTH..(i + 1) * WIDTH].to_vec()).collect();
    let rates = vec![-(1 << 6); program.rates];
    ideal::step(program, indices.len(), &x, &[], states, &rates, &world.last_common()).unwrap();
}

fn near(answer: &Answer, want: &[u64], units: i64) -> bool {
    let got = open_values(&answer.alice.payload, &answer.bob.payload, want.len(), 0).unwrap();
    got.iter().zip(want).all(|(g, w)| (g - *w as i64).abs() <= units)
}

impl Sessions {
    /// Runs with fresh seeds for everybody: two tables and two models in turn.
    pub(crate) fn fresh(sessions: u64, plan: &Plan) -> Self {
        let all = (0..sessions).map(|s| session(World::new(0x7261_0000 + s), s % 4, plan));
        Self(all.collect(), padding(plan))
    }

    /// Runs in which only the seed of `pair` is fresh; everything else stays, rows and first weights too.
    pub(crate) fn given(sessions: u64, pair: Pair, plan: &Plan) -> Self {
        let all = (0..sessions).map(|s| session(World::new(5).reseeded(pair, s), 0, plan));
        Self(all.collect(), padding(plan))
    }

    /// Everything that a party sees, phase by phase, with what it sent and keeps or without.
    pub(crate) fn view(&self, bob: bool, own: bool) -> Samples {
        let of = |s: &Seen| {
            let (mut places, mut all) = words(if bob { &s.bob } else { &s.alice }, own);
            if own {
                let kept = &s.kept[usize::from(bob)];
                places.extend((0..kept.len()).map(|i| Place { name: format!("kept word {i}"), width: 64 }));
                all.extend(kept);
            }
            places.iter_mut().for_each(|p| p.name = format!("{}: {}", s.phase, p.name));
            (places, all)
        };
        match self.1 {
            0 => self.samples(of),
            bits => self.samples(of).unpadded(bits),
        }
    }

    /// Sums (0) and XORs (1) of the frames that the evaluators exchanged.
    pub(crate) fn opened(&self) -> [Samples; 2] {
        let of = |s: &Seen, xor: bool| {
            let (mut places, sums, xors) = opened(&s.alice);
            places.iter_mut().for_each(|p| p.name = format!("{}: {}", s.phase, p.name));
            (places, if xor { xors } else { sums })
        };
        [self.samples(|s| of(s, false)), self.samples(|s| of(s, true))]
    }

    /// What alice (0) or bob (1) hands out to recipients.
    pub(crate) fn handed_out(&self, from: usize) -> Samples {
        self.samples(|s| {
            let all = s.payloads[from].as_chunks().0.iter().map(|w| u64::from_le_bytes(*w)).collect::<Vec<u64>>();
            let place = |i| Place { name: format!("{}: handed out word {i}", s.phase), width: 64 };
            ((0..all.len()).map(place).collect(), all)
        })
    }

    fn samples(&self, of: impl Fn(&Seen) -> (Vec<Place>, Vec<u64>)) -> Samples {
        let mut samples = None;
        for s in &self.0 {
            let (places, words): (Vec<Vec<Place>>, Vec<Vec<u64>>) = s.seen.iter().map(&of).unzip();
            samples.get_or_insert_with(|| Samples::new(places.concat())).push(s.group, &words.concat());
        }
        samples.unwrap()
    }

    /// Tags and lengths of all frames of a session.
    pub(crate) fn shapes(&self) -> Vec<Shape> {
        self.0
            .iter()
            .map(|s| s.seen.iter().flat_map(|p| shape(&[&p.alice[..], &p.bob[..]].concat())).collect())
            .collect()
    }
}

/// Positions alone, for each table and model by themselves too, and pair by pair over the whole run.
pub(crate) fn checked(samples: &Samples) -> Report {
    let mut report = samples.singles(ALARM);
    for group in samples.by_group() {
        report.add(group.singles(ALARM / 4.0));
    }
    report.add(samples.pairs(ALARM));
    report
}
