//! Alice, bob and carol as threads of one process with injected seeds, over any links.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use trefoil_link::{Counter, Link, MemoryLink, Phase, pair};
use trefoil_mpc::masked::weights::{draw_weight_masks, open_weights};
use trefoil_mpc::masked::{EvaluatorWeights, Outcome, ProducerWeights, Role, deal, evaluate, prepare, run};
use trefoil_mpc::{MpcError, Prediction, Program};
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{Address, Ledger, Pair, Purpose, Seed, Source};
use trefoil_ring::{Tensor, Words};

use crate::ledger::DrawLog;
use crate::record::{Recorder, Transcript, Transcripts};

mod training;

pub use training::{SharedRows, SharedStates};

/// Counters of one link end by phase and step.
pub type Metered = BTreeMap<(Phase, usize), Counter>;

/// The links of a run, two ends each: alice-bob, carol-bob, alice-carol, and the helper's with alice and with bob.
pub struct Links {
    /// Alice's end towards bob.
    pub alice: Box<dyn Link>,
    /// Bob's end towards alice.
    pub bob: Box<dyn Link>,
    /// Carol's end towards bob.
    pub carol: Box<dyn Link>,
    /// Bob's end towards carol.
    pub dealt: Box<dyn Link>,
    /// Alice's end towards carol.
    pub shown: Box<dyn Link>,
    /// Carol's end towards alice.
    pub seen: Box<dyn Link>,
    /// Alice's and bob's ends towards the helper.
    pub asking: [Box<dyn Link>; 2],
    /// The helper's ends towards alice and bob.
    pub helper: [Box<dyn Link>; 2],
}

impl Links {
    /// Links in memory. A party whose peer has failed gives up after a minute.
    pub fn memory() -> Self {
        let (alice, bob) = pair("alice", "bob");
        let (carol, dealt) = pair("carol", "bob");
        let (shown, seen) = pair("alice", "carol");
        let end = |mut link: MemoryLink| -> Box<dyn Link> {
            link.set_timeout(Some(Duration::from_secs(60)));
            Box::new(link)
        };
        let [alice, bob, carol, dealt, shown, seen] = [alice, bob, carol, dealt, shown, seen].map(end);
        let [(a, to_a), (b, to_b)] = [pair("alice", "helper"), pair("bob", "helper")];
        let (asking, helper) = ([end(a), end(b)], [end(to_a), end(to_b)]);
        Self { alice, bob, carol, dealt, shown, seen, asking, helper }
    }

    /// The same links, every end recording what it sees.
    pub fn recorded(self) -> (Self, Transcripts) {
        let t = Transcripts::default();
        let end =
            |link, transcript: &Transcript| -> Box<dyn Link> { Box::new(Recorder::new(link, transcript.clone())) };
        let links = Self {
            alice: end(self.alice, &t.alice),
            bob: end(self.bob, &t.bob),
            carol: end(self.carol, &t.carol),
            dealt: end(self.dealt, &t.dealt),
            shown: end(self.shown, &t.shown),
            seen: end(self.seen, &t.seen),
            asking: self.asking,
            helper: self.helper.map(|link| end(link, &t.helper)),
        };
        (links, t)
    }
}

/// The result of one request.
pub struct Answer {
    /// What alice has at the end.
    pub alice: Outcome,
    /// What bob has at the end.
    pub bob: Outcome,
    /// What alice's end of the link to bob counted.
    pub online: Metered,
    /// What carol's end of the link to bob counted.
    pub offline: Metered,
    /// What carol's end of the link to alice counted.
    pub seen: Metered,
    /// What alice's and bob's ends of the links to the helper counted.
    pub asking: [Metered; 2],
}

impl Answer {
    /// The last value where the program reveals nothing.
    pub fn value(&self) -> Vec<i64> {
        let sum = |(a, b): (&u64, &u64)| a.wrapping_add(*b) as i64;
        self.alice.share.iter().zip(self.bob.share.iter()).map(sum).collect()
    }
}

/// Three parties with injected seeds. Each request is a fresh lot.
pub struct World {
    alice_carol: Seed,
    bob_carol: Seed,
    alice_bob: Seed,
    owner: Seed,
    common: Seed,
    epoch: [u8; 32],
    lot: u64,
    split: u64,
    logged: bool,
    in_step: bool,
    interceptor: Option<Arc<dyn Interceptor>>,
    /// Every draw alice made.
    pub alice_draws: Arc<DrawLog>,
    /// Every draw bob made.
    pub bob_draws: Arc<DrawLog>,
    /// Every draw carol made.
    pub carol_draws: Arc<DrawLog>,
}

/// A model as the three parties hold it.
pub struct Shared {
    /// The program.
    pub program: Program,
    /// Alice's weights.
    pub alice: EvaluatorWeights,
    /// Bob's weights.
    pub bob: EvaluatorWeights,
    /// Carol's masks.
    pub carol: ProducerWeights,
}

impl World {
    /// A world whose every draw follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let root = Seed::from_bytes([0x54; 32]).derive("test world", &seed.to_le_bytes());
        Self {
            alice_carol: root.derive("alice carol", b""),
            bob_carol: root.derive("bob carol", b""),
            alice_bob: root.derive("alice bob", b""),
            owner: root.derive("owner", b""),
            common: root.derive("common", b""),
            epoch: *root.derive("epoch", b"").expose(),
            lot: 0,
            split: 0,
            logged: true,
            in_step: false,
            interceptor: None,
            alice_draws: Arc::default(),
            bob_draws: Arc::default(),
            carol_draws: Arc::default(),
        }
    }

    /// A world without a ledger, for runs by the million.
    pub fn unlogged(seed: u64) -> Self {
        Self { logged: false, ..Self::new(seed) }
    }

    /// The same world, whose evaluators prepare and evaluate in step.
    pub fn in_step(mut self) -> Self {
        self.in_step = true;
        self
    }

    /// The same world with another seed for one pair: what everyone else holds stays as it is.
    pub fn reseeded(mut self, pair: Pair, seed: u64) -> Self {
        let held = match pair {
            Pair::AliceCarol => &mut self.alice_carol,
            Pair::BobCarol => &mut self.bob_carol,
            Pair::AliceBob => &mut self.alice_bob,
            Pair::OwnerAlice => &mut self.owner,
            Pair::Common => &mut self.common,
            // Their key is drawn from alice's seed with carol.
            Pair::AliceHelper => &mut self.alice_carol,
        };
        *held = held.derive("another", &seed.to_le_bytes());
        self
    }

    /// From now on every draw, of servers and owners, is seen, and may be replaced, by `interceptor`.
    pub fn intercept(&mut self, interceptor: Arc<dyn Interceptor>) {
        self.interceptor = Some(interceptor);
    }

    /// A planted mistake: the next request uses the last one's lot again.
    pub fn repeat_lot(&mut self) {
        self.lot -= 1;
    }

    /// What a restart does: a new epoch for new draws, lots from the start.
    pub fn new_epoch(&mut self) {
        self.epoch = *Seed::from_bytes(self.epoch).derive("next epoch", b"").expose();
        self.lot = 0;
    }

    /// Counts the lots on, as if `lots` had been used: what a restart finds in its durable counter.
    pub fn skip_lots(&mut self, lots: u64) {
        self.lot += lots;
    }

    /// The lot used last.
    pub fn lot(&self) -> u64 {
        self.lot
    }

    /// The sources of the last request, unrecorded and untouched: alice's with carol and with bob, bob's with carol
    /// and with alice, carol's with alice and with bob.
    pub fn last_sources(&self) -> [Source; 6] {
        self.sources_of(None).map(|s| s.with_ledger(None))
    }

    fn sources(&mut self) -> [Source; 6] {
        self.lot += 1;
        self.sources_of(self.interceptor.clone())
    }

    fn sources_of(&self, interceptor: Option<Arc<dyn Interceptor>>) -> [Source; 6] {
        let source = |seed: &Seed, pair: Pair, log: &Arc<DrawLog>| {
            let ledger: Arc<dyn Ledger> = log.clone();
            Source::new(seed, pair, self.epoch, self.lot)
                .with_ledger(self.logged.then_some(ledger))
                .with_interceptor(interceptor.clone())
        };
        [
            source(&self.alice_carol, Pair::AliceCarol, &self.alice_draws),
            source(&self.alice_bob, Pair::AliceBob, &self.alice_draws),
            source(&self.bob_carol, Pair::BobCarol, &self.bob_draws),
            source(&self.alice_bob, Pair::AliceBob, &self.bob_draws),
            source(&self.alice_carol, Pair::AliceCarol, &self.carol_draws),
            source(&self.bob_carol, Pair::BobCarol, &self.carol_draws),
        ]
    }

    /// Shares values as a client or owner does: alice's share comes from a seed.
    pub fn split(&mut self, values: &[u64]) -> (Words, Words) {
        self.split += 1;
        let owner = self.owner.derive("owner", &self.split.to_le_bytes());
        let source =
            Source::new(&owner, Pair::OwnerAlice, self.epoch, self.split).with_interceptor(self.interceptor.clone());
        let mut a = Words::zeros(values.len());
        source.draw(Address::new(0, 0, 0, Purpose::Share)).fill(&mut a);
        let b: Vec<u64> = values.iter().zip(a.iter()).map(|(v, a)| v.wrapping_sub(*a)).collect();
        (a, b.into())
    }

    /// Shares a model's encoded weights.
    pub fn share(&mut self, program: &Program, weights: &[Tensor]) -> Result<Shared, MpcError> {
        self.share_over(program, weights, &mut Links::memory())
    }

    /// Shares a model's encoded weights; alice and bob open them over the given links.
    pub fn share_over(&mut self, program: &Program, weights: &[Tensor], links: &mut Links) -> Result<Shared, MpcError> {
        let (mut to_alice, mut to_bob) = (vec![], vec![]);
        for w in weights {
            let (a, b) = self.split(w.data());
            for (to, share) in [(&mut to_alice, a), (&mut to_bob, b)] {
                to.push(
                    Tensor::new(w.shape().to_vec(), share.into_vec()).map_err(|e| MpcError::Material(e.to_string()))?,
                );
            }
        }
        self.open_weights_over(program, (to_alice, to_bob), links)
    }

    /// Opens a model's weights of which these are alice's and bob's shares.
    pub fn open_weights_over(
        &mut self,
        program: &Program,
        (to_alice, to_bob): (Vec<Tensor>, Vec<Tensor>),
        links: &mut Links,
    ) -> Result<Shared, MpcError> {
        let [ac, _, bc, _, ca, cb] = self.sources();
        thread::scope(|s| {
            let alice = s.spawn(|| open_weights(Role::A, program, to_alice, &ac, links.alice.as_mut()));
            let bob = open_weights(Role::B, program, to_bob, &bc, links.bob.as_mut())?;
            let carol = draw_weight_masks(program, &ca, &cb)?;
            Ok(Shared { program: program.clone(), alice: join(alice)?, bob, carol })
        })
    }

    /// Runs one request on shared input over links in memory.
    pub fn run(&mut self, model: &Shared, batch: usize, input: &[u64]) -> Result<Answer, MpcError> {
        self.run_over(model, batch, input, &mut Links::memory())
    }

    /// Runs one request on shared input over the given links.
    pub fn run_over(
        &mut self,
        model: &Shared,
        batch: usize,
        input: &[u64],
        links: &mut Links,
    ) -> Result<Answer, MpcError> {
        let shares = self.split(input);
        self.run_shares(model, batch, shares, links)
    }

    /// Runs one request on the two shares of the input that alice and bob hold.
    pub fn run_shares(
        &mut self,
        model: &Shared,
        batch: usize,
        (xa, xb): (Words, Words),
        links: &mut Links,
    ) -> Result<Answer, MpcError> {
        let [ac, aab, bc, bab, ca, cb] = self.sources();
        let (program, in_step) = (&Prediction::new(model.program.clone())?, self.in_step);
        let evaluator =
            |x, weights, carol: &Source, peer: &Source, link: &mut dyn Link, dealt: Option<&mut dyn Link>| {
                if in_step {
                    return run(program, batch, x, weights, carol, peer, link, dealt);
                }
                let material = prepare(program, batch, weights, carol, peer, link, dealt)?;
                evaluate(program, x, weights, material, link)
            };
        let Links { alice, bob, carol, dealt, .. } = links;
        let (alice, bob, online, offline) = thread::scope(|s| {
            let carol = s.spawn(|| {
                deal(program, batch, &model.carol, &ca, &cb, carol.as_mut())?;
                Ok(carol.meter().take())
            });
            let alice = s.spawn(|| {
                let out = evaluator(xa, &model.alice, &ac, &aab, alice.as_mut(), None)?;
                Ok((out, alice.meter().take()))
            });
            let bob = evaluator(xb, &model.bob, &bc, &bab, bob.as_mut(), Some(dealt.as_mut()))?;
            let (alice, online) = join(alice)?;
            Ok::<_, MpcError>((alice, bob, online, join(carol)?))
        })?;
        Ok(Answer { alice, bob, online, offline, seen: Metered::new(), asking: Default::default() })
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T, MpcError>>) -> Result<T, MpcError> {
    thread.join().unwrap_or_else(|_| Err(MpcError::Material("a party's thread panicked".into())))
}
