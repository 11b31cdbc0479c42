//! Random programs run as the ideal functionality says and as predicted; hostile ones are refused without a panic.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;
use trefoil_link::Phase;
use trefoil_mpc::cost::cost;
use trefoil_mpc::ideal;
use trefoil_mpc::masked::output::{open_labels, open_values};
use trefoil_mpc::program::{Form, Linear, Op, Program, Reveal, Step, WeightSpec, Window};
use trefoil_mpc::{Compare, Selecting};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};
use trefoil_ring::{Tensor, Words};
use trefoil_testkit::{Answer, Random, World};

const F: u32 = 16;

/// A program under construction: what is known of its last value.
struct Chain {
    program: Program,
    weights: Vec<Tensor>,
    /// Largest magnitude of the last value.
    size: i64,
    /// How far the protocol's last value may be from the ideal one.
    error: i64,
    random: Random,
}

impl Chain {
    fn new(shape: Vec<usize>, seed: u64) -> Self {
        let steps = vec![Step { layer: "input".into(), op: Op::Input }];
        let program =
            Program { fraction_bits: F, input_shape: shape, weights: vec![], states: vec![], rates: 0, steps };
        Self { program, weights: vec![], size: 1 << 19, error: 0, random: Random::new(seed) }
    }

    fn push(&mut self, op: Op) {
        self.program.steps.push(Step { layer: op.name().into(), op });
    }

    fn weight(&mut self, shape: &[usize], scale: u32, size: i64) -> usize {
        let n = shape.iter().product();
        let data = (0..n).map(|_| self.random.between(-size, size + 1) as u64).collect();
        self.weights.push(Tensor::new(shape.to_vec(), data).unwrap());
        let name = format!("w{}", self.weights.len());
        self.program.weights.push(WeightSpec { name, shape: shape.to_vec(), scale });
        self.weights.len() - 1
    }

    fn linear(&mut self, x: usize, map: Linear, scale: u32, terms: i64) {
        let weights = self.weight(&map.weight_shape(), F, 1 << F);
        let bias = self.weight(&[map.outputs()], scale + F, 1 << 20);
        self.size = (self.size << F) * terms + (1 << 20);
        self.error = (self.error << F) * terms;
        self.push(Op::Linear { x, weights, bias: Some(bias), map });
    }

    /// A way of comparing.
    fn compare(&mut self) -> Compare {
        let all: Vec<Compare> = Compare::all().collect();
        // Keys as often as all trees together.
        all[(self.random.below(2 * all.len() as u64) as usize).min(all.len() - 1)]
    }

    /// The window that holds the last value, or differences of two such.
    fn window(&self, lo: u32, values: i64) -> Window {
        let bits = 64 - ((self.size + self.error) * values).leading_zeros();
        Window { lo, k: (bits + 2).saturating_sub(lo).max(2) }
    }

    /// Appends one operation of the kind that `choice` and the last value allow.
    fn grow(&mut self, choice: u32) {
        let info = self.program.infer().unwrap().pop().unwrap();
        let x = self.program.steps.len() - 1;
        let pick = choice / 16;
        let image = if let [h, w, c] = info.shape[..] { Some((h, w, c)) } else { None };
        match (choice % 16, info.form, image) {
            (0..8, Form::Additive, _) => self.push(Op::Open { x }),
            (0..2, Form::Masked, None) if info.scale == F && self.size < 1 << 34 => {
                let inputs = *info.shape.last().unwrap();
                let outputs = 1 + pick as usize % 5;
                self.linear(x, Linear::Dense { inputs, outputs }, info.scale, inputs as i64);
            }
            (0..2, Form::Masked, Some((h, w, c))) if info.scale == F && self.size < 1 << 34 => {
                let (p, q) = (pick as usize % 2, pick as usize / 2 % 2);
                let map = Conv2d {
                    input: (h, w),
                    in_channels: c,
                    out_channels: c * (1 + q),
                    kernel: (h.min(2), w.min(1 + p)),
                    stride: (1, 1 + q),
                    dilation: (1, 1),
                    pads: Pads { top: p, bottom: 0, left: 0, right: q },
                    groups: if pick.is_multiple_of(3) { c } else { 1 },
                };
                self.linear(x, Linear::Conv(map), info.scale, 4 * c as i64);
            }
            (2..4, Form::Masked, _) if info.scale > F => {
                let shift = info.scale - F;
                self.push(Op::Truncate { x, shift });
                self.size >>= shift;
                self.error = (self.error >> shift) + 2;
            }
            (4..6, Form::Masked, _) => {
                let shift = info.scale.saturating_sub(F);
                let window = self.window(pick % (shift + 1), 1);
                let compare = self.compare();
                self.push(Op::Relu { x, shift, window, compare });
                self.size >>= shift;
                self.error = (self.error >> shift) + 2;
            }
            (6..8, Form::Masked, Some((h, w, c))) => {
                let window = (1 + pick as usize % h, 1 + pick as usize / 4 % w);
                let pads = Pads { top: 0, bottom: window.0 - 1, left: window.1 - 1, right: 0 };
                let pads = if pick.is_multiple_of(2) { pads } else { Pads::default() };
                let pool = Pool2d { input: (h, w), channels: c, window, stride: (1 + pick as usize / 16 % 2, 1), pads };
                let bits = self.window(0, 2);
                let compare = self.compare();
                self.push(Op::MaxPool { x, pool, window: bits, compare });
            }
            (8, _, _) if self.size < 1 << 50 => {
                self.push(Op::Scale { x, factor: i64::from(pick % 7) - 3, extra: 0 });
                self.size *= 3;
                self.error *= 3;
            }
            (9, _, _) if self.size < 1 << 50 => {
                self.push(Op::Offset { x, units: i64::from(pick) - 1000 });
                self.size += 2000 + i64::from(pick);
            }
            (10, _, _) if self.size < 1 << 50 => {
                self.push(Op::Add { x, y: x });
                self.size *= 2;
                self.error *= 2;
            }
            (11, _, _) if info.elements() < 100 => {
                self.push(Op::Concat { xs: vec![x, x], axis: pick as usize % info.shape.len() });
            }
            (12, _, Some(_)) if info.elements() < 100 => {
                self.push(Op::Pad { x, pads: Pads { top: pick as usize % 2, left: 1, ..Pads::default() } });
            }
            (13, _, Some((h, w, c))) if info.scale + 4 <= 36 && self.size < 1 << 50 => {
                let window = (h.min(2), w.min(2));
                let pool = Pool2d { input: (h, w), channels: c, window, stride: (1, 2), pads: Pads::default() };
                self.push(Op::AveragePool { x, pool, extra: 4 });
                self.size <<= 5;
                self.error <<= 5;
            }
            // Knots are jumps: the argument must be exact. All knots within what it may be, and coefficients below 8.
            (15, Form::Masked, _) if self.error == 0 => {
                let fits = |d: &u32| info.scale * d <= 60 && (64 - self.size.leading_zeros()) * d < 48;
                let Some(degree) = (1..=1 + pick % 3).rev().find(fits) else { return };
                let count = pick as usize / 3 % 5;
                let mut knots: Vec<i64> = (0..count).map(|_| self.random.between(-self.size, self.size)).collect();
                knots.sort_unstable();
                knots.dedup();
                let piece = |r: &mut Random| (0..=degree).map(|_| r.between(-8, 9)).collect();
                let pieces = (0..=knots.len()).map(|_| piece(&mut self.random)).collect();
                let (window, compare) = (self.window(0, 2), self.compare());
                let scale = info.scale * degree;
                let keys = !knots.is_empty() && pick.is_multiple_of(2);
                let select = if keys { Selecting::Keys } else { Selecting::Products };
                self.push(Op::Piecewise { x, knots, pieces, scale, window, compare, select });
                self.size = 8 * (0..=degree).map(|m| self.size.pow(m)).sum::<i64>();
            }
            (14, _, Some(_)) => self.push(Op::Reshape { x, shape: vec![info.elements()] }),
            _ => {}
        }
    }

    /// Makes the last value additive, small enough and ready to be revealed.
    fn finish(mut self, reveal: Option<Reveal>) -> Self {
        let Some(reveal) = reveal else { return self };
        let x = self.program.steps.len() - 1;
        if self.program.infer().unwrap()[x].form == Form::Masked {
            let (shift, window) = (0, self.window(0, 1));
            let compare = self.compare();
            self.push(Op::Relu { x, shift, window, compare });
        }
        let info = self.program.infer().unwrap().pop().unwrap();
        let n = info.elements();
        let reveal = if (1..=20).contains(&n) { reveal } else { Reveal::Logits };
        let mut window = self.window(0, 1);
        if reveal == Reveal::Label {
            // `ending_in` drops the low bits between the scale and the fraction bits.
            let lo = info.scale - F;
            window = Window { lo, k: window.k.saturating_sub(lo).max(2) };
            self.error += 1 << lo;
        }
        self.program = self.program.ending_in(reveal, window).unwrap();
        self
    }
}

fn run(chain: &Chain, batch: usize, seed: u64) -> (Vec<Words>, Answer) {
    let p = &chain.program;
    let mut r = Random::new(seed);
    let n = batch * p.input_shape.iter().product::<usize>();
    let x: Vec<u64> = (0..n).map(|_| r.between(-(1 << 19), 1 << 19) as u64).collect();
    let clear: Vec<&[u64]> = chain.weights.iter().map(Tensor::data).collect();
    let want = ideal::evaluate(p, batch, &x, &clear).unwrap();
    let mut world = World::new(seed);
    let model = world.share(p, &chain.weights).unwrap();
    let answer = world.run(&model, batch, &x).unwrap();
    for (i, predicted) in cost(p, batch).unwrap().iter().enumerate() {
        let online = answer.online.get(&(Phase::Online, i)).copied().unwrap_or_default();
        let offline = answer.offline.get(&(Phase::Offline, i)).copied().unwrap_or_default();
        assert_eq!(
            (online.rounds, online.sent + online.received, offline.sent),
            (predicted.rounds, predicted.online, predicted.offline),
            "step {i} of {p:?}"
        );
    }
    (want, answer)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_do_what_the_ideal_does(
        image: bool,
        sides in (1usize..5, 1usize..5, 1usize..4),
        choices in prop::collection::vec(0u32..4096, 1..24),
        end in 0u32..3,
        batch in 1usize..4,
        seed: u64,
    ) {
        let shape = if image { vec![sides.0, sides.1, sides.2] } else { vec![sides.0 * sides.1] };
        let mut chain = Chain::new(shape, seed);
        for c in choices {
            chain.grow(c);
        }
        let reveal = [None, Some(Reveal::Logits), Some(Reveal::Label)][end as usize];
        let chain = chain.finish(reveal);
        let infos = chain.program.infer().unwrap();
        let (want, answer) = run(&chain, batch, seed);
        let (last, error) = (infos.len() - 1, chain.error);
        let near = |got: i64, want: u64, error: i64| (got - want as i64).abs() <= error;
        match chain.program.steps[last].op {
            Op::Reveal { shift, x } if infos[x].form == Form::Additive => {
                let n = batch * infos[last].elements();
                let got = open_values(&answer.alice.payload, &answer.bob.payload, n, shift).unwrap();
                let error = (error >> shift) + 2;
                prop_assert!(got.iter().zip(want[last].iter()).all(|(g, w)| near(*g, *w, error)), "{:?}", chain.program);
            }
            Op::Reveal { .. } => {
                let Op::Argmax { x, .. } = chain.program.steps[last - 1].op else { unreachable!() };
                let n = infos[x].elements();
                let got = open_labels(&answer.alice.payload, &answer.bob.payload, batch, n).unwrap();
                for (label, row) in got.iter().zip(want[x].chunks_exact(n)) {
                    let best = row.iter().map(|v| *v as i64).max().unwrap();
                    prop_assert!(best - row[*label as usize] as i64 <= 2 * error, "{label} of {row:?}");
                }
            }
            _ if infos[last].form == Form::Additive => {
                let got = answer.value();
                prop_assert!(got.iter().zip(want[last].iter()).all(|(g, w)| near(*g, *w, error)), "{:?}", chain.program);
            }
            // A masked value: its delta is the same at both evaluators.
            _ => prop_assert_eq!(&answer.alice.share[..], &answer.bob.share[..]),
        }
    }
}

/// Edits of a serialised program: (place, kind, byte).
type Edit = (prop::sample::Index, u8, u8);

fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for (at, kind, byte) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match kind % 6 {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            2 => drop(bytes.remove(at)),
            3 => bytes[at] = byte % 8,
            // The largest numbers of 64 and of 32 bits, and 2^(7 n), as variable-length integers.
            4 if byte % 2 == 0 => drop(bytes.splice(at..=at, [255; 9].into_iter().chain([1]))),
            4 => drop(bytes.splice(at..=at, [255, 255, 255, 255, 15])),
            _ => drop(bytes.splice(at..=at, vec![128; usize::from(byte % 9)].into_iter().chain([1]))),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_programs_are_refused_or_run(
        choices in prop::collection::vec(0u32..4096, 1..16),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..4),
        label: bool,
    ) {
        let mut chain = Chain::new(vec![3, 2, 2], 1);
        for c in choices {
            chain.grow(c);
        }
        let chain = chain.finish(Some(if label { Reveal::Label } else { Reveal::Logits }));
        let bytes = edited(postcard::to_stdvec(&chain.program).unwrap(), &edits);
        let Ok(p) = postcard::from_bytes::<Program>(&bytes) else { return Ok(()) };
        prop_assert_eq!(p == chain.program, p.hash() == chain.program.hash());
        let fits = p.infer().is_ok();
        for batch in [0, 1, 64, 1 << 20, 1 << 31, usize::MAX] {
            let predicted = cost(&p, batch);
            prop_assert!(fits || predicted.is_err());
            prop_assert!(batch > 0 || predicted.is_err());
        }
        let _ = p.ending_in(Reveal::Label, Window { lo: u32::MAX, k: u32::MAX });
        // Whatever is accepted and small must run to its end.
        let Ok(predicted) = cost(&p, 1) else { return Ok(()) };
        let words: usize = p.weights.iter().map(|w| w.shape.iter().product::<usize>()).sum();
        let values: usize = p.infer().unwrap().iter().map(|v| v.elements()).sum();
        if predicted.iter().map(|c| c.online + c.offline).sum::<u64>() > 1 << 20 || words + values > 1 << 14 {
            return Ok(());
        }
        let predicts = p.check_prediction().is_ok();
        let weights: Vec<Tensor> = p.weights.iter().map(|w| Tensor::zeros(w.shape.clone()).unwrap()).collect();
        let mut world = World::new(1);
        let model = world.share(&p, &weights).unwrap();
        let n: usize = p.input_shape.iter().product();
        prop_assert_eq!(world.run(&model, 1, &vec![5; n]).is_ok(), predicts);
    }
}
