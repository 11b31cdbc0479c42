//! One step of training beside the same step in the clear.

use trefoil_link::Phase;
use trefoil_mpc::cost::cost;
use trefoil_mpc::ideal;
use trefoil_mpc::program::{Form, Op, Program, Step, WeightSpec};
use trefoil_ring::Words;
use trefoil_testkit::{Answer, Random, World};

pub(crate) const F: u32 = 16;

/// A program from its operations after the rows.
pub(crate) fn program(input_shape: Vec<usize>, states: &[(&[usize], u32)], ops: Vec<Op>) -> Program {
    let steps = std::iter::once(Op::Rows).chain(ops).map(|op| Step { layer: op.name().into(), op }).collect();
    let spec = |(i, (shape, scale)): (usize, &(&[usize], u32))| WeightSpec {
        name: format!("state {i}"),
        shape: shape.to_vec(),
        scale: *scale,
    };
    let states = states.iter().enumerate().map(spec).collect();
    Program { fraction_bits: F, input_shape, weights: vec![], states, rates: 0, steps }
}

/// Values of all states, within +-`size`.
pub(crate) fn states(p: &Program, r: &mut Random, size: i64) -> Vec<Words> {
    p.states.iter().map(|s| values(r, s.shape.iter().product(), size).into()).collect()
}

pub(crate) fn values(r: &mut Random, n: usize, size: i64) -> Vec<u64> {
    (0..n).map(|_| r.between(-size, size + 1) as u64).collect()
}

/// What one step gave, and what it should have given.
pub(crate) struct Ran {
    /// The last value, put together.
    pub(crate) got: Vec<i64>,
    pub(crate) want: Vec<i64>,
    pub(crate) states: Vec<Vec<u64>>,
    pub(crate) want_states: Vec<Words>,
}

impl Ran {
    /// Whether the last value and all states are exactly the ideal ones.
    #[track_caller]
    pub(crate) fn exact(&self) {
        self.within(0);
    }

    /// Whether they are at most `units` from the ideal ones.
    #[track_caller]
    pub(crate) fn within(&self, units: i64) {
        let near = |(g, w): (&i64, &i64)| g.wrapping_sub(*w).abs() <= units;
        assert_eq!(self.got.len(), self.want.len());
        assert!(self.got.iter().zip(&self.want).all(near), "{:?}\n{:?}", self.got, self.want);
        for (got, want) in self.states.iter().zip(&self.want_states) {
            let far = |(g, w): (&u64, &u64)| (g.wrapping_sub(*w) as i64).abs() > units;
            assert!(got.len() == want.len() && !got.iter().zip(want.iter()).any(far));
        }
    }
}

/// Runs one step on all of `x`, on random states, and in the clear; checks the meters.
pub(crate) fn run(seed: u64, p: &Program, batch: usize, x: &[u64], rates: &[i64]) -> Ran {
    run_on(seed, p, batch, x, rates, states(p, &mut Random::new(seed), 1 << 18))
}

/// The same on given states.
pub(crate) fn run_on(seed: u64, p: &Program, batch: usize, x: &[u64], rates: &[i64], clear: Vec<Words>) -> Ran {
    let mut world = World::new(seed);
    let model = world.share(p, &[]).unwrap();
    let rows = world.share_rows(x).unwrap();
    let mut shared = world.split_states(&clear);
    let indices: Vec<usize> = (0..batch).collect();
    let answer = world.step(&model, &rows, &indices, &mut shared, rates).unwrap();
    metered(p, batch, &answer);
    for log in [&world.alice_draws, &world.bob_draws, &world.carol_draws] {
        assert_eq!(log.repeated(), []);
    }
    let mut want_states = clear;
    let want = ideal::step(p, batch, x, &[], &mut want_states, rates, &world.last_common()).unwrap();
    assert_eq!(p.infer().unwrap().last().unwrap().form, Form::Additive);
    let got = answer.value();
    let want = want.last().unwrap().iter().map(|v| *v as i64).collect();
    Ran { got, want, states: shared.values(), want_states }
}

/// What the meters counted is what was predicted, step by step; what carol and the helper were shown and
/// answered counts as online.
#[track_caller]
pub(crate) fn metered(p: &Program, batch: usize, answer: &Answer) {
    for (i, predicted) in cost(p, batch).unwrap().iter().enumerate() {
        let online = answer.online.get(&(Phase::Online, i)).copied().unwrap_or_default();
        let offline = answer.offline.get(&(Phase::Offline, i)).copied().unwrap_or_default();
        let forwarded = answer.online.get(&(Phase::Offline, i)).copied().unwrap_or_default();
        let [seen, asked] = [&answer.seen, &answer.offline].map(|m| m.get(&(Phase::Online, i)).copied());
        let (seen, asked) = (seen.unwrap_or_default(), asked.unwrap_or_default());
        let [a, b] = answer.asking.each_ref().map(|m| m.get(&(Phase::Online, i)).copied().unwrap_or_default());
        let rounds = online.rounds + asked.messages + u64::from(asked.received > 0) + b.rounds;
        let shown = seen.received + asked.sent + asked.received + a.sent + b.sent + b.received;
        let bytes = online.sent + online.received + shown;
        assert_eq!(
            (rounds, bytes, offline.sent, forwarded.received),
            (predicted.rounds, predicted.online, predicted.offline, predicted.forwarded),
            "step {i} ({})",
            p.steps[i].op.name()
        );
    }
}
