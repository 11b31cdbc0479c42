//! Three threads of one process over links in memory, without servers: the protocol alone.

use std::thread;
use std::time::Instant;

use anyhow::anyhow;
use indicatif::ProgressBar;
use trefoil_client::encode_samples;
use trefoil_link::frame::HEADER;
use trefoil_link::{Link, Meter, Network, Phase, pair};
use trefoil_mpc::masked::input::{alice_share, bob_share};
use trefoil_mpc::masked::weights::{draw_weight_masks, open_weights};
use trefoil_mpc::masked::{EvaluatorWeights, Material, ProducerWeights, Role, deal, evaluate, prepare};
use trefoil_mpc::{MpcError, Prediction, Program};
use trefoil_prg::{Pair, Seed, Source};
use trefoil_ring::{Tensor, Words};
use trefoil_transport::Emulated;

use super::case::Case;
use super::{Args, Measured, Split, Total};
use crate::trial::peak_rss;

/// The seeds of the three pairs and the lot in use.
pub(super) struct Seeds {
    alice_carol: Seed,
    bob_carol: Seed,
    alice_bob: Seed,
    lot: u64,
}

impl Seeds {
    pub(super) fn random() -> anyhow::Result<Self> {
        Ok(Self { alice_carol: Seed::random()?, bob_carol: Seed::random()?, alice_bob: Seed::random()?, lot: 0 })
    }

    /// The next lot's sources.
    pub(super) fn next(&mut self) -> Sources {
        self.lot += 1;
        let source = |seed, pair| Source::new(seed, pair, [0; 32], self.lot);
        Sources {
            alice_carol: source(&self.alice_carol, Pair::AliceCarol),
            bob_carol: source(&self.bob_carol, Pair::BobCarol),
            alice_bob: source(&self.alice_bob, Pair::AliceBob),
        }
    }
}

pub(super) struct Sources {
    pub(super) alice_carol: Source,
    pub(super) bob_carol: Source,
    pub(super) alice_bob: Source,
}

pub(super) struct Links {
    pub(super) alice: Box<dyn Link>,
    pub(super) bob: Box<dyn Link>,
    pub(super) carol: Box<dyn Link>,
    pub(super) dealt: Box<dyn Link>,
}

impl Links {
    pub(super) fn new(network: Option<Network>) -> Self {
        let joined = |a: &str, b: &str| -> (Box<dyn Link>, Box<dyn Link>) {
            let (at_a, at_b) = pair(a, b);
            match network {
                Some(n) => {
                    (Box::new(Emulated::new(Box::new(at_a), b, n)), Box::new(Emulated::new(Box::new(at_b), a, n)))
                }
                None => (Box::new(at_a), Box::new(at_b)),
            }
        };
        let (alice, bob) = joined("alice", "bob");
        let (carol, dealt) = joined("carol", "bob");
        Self { alice, bob, carol, dealt }
    }
}

/// The weights as the parties hold them.
pub(super) struct Held {
    pub(super) alice: EvaluatorWeights,
    pub(super) bob: EvaluatorWeights,
    pub(super) carol: ProducerWeights,
}

pub(super) fn measure(case: &Case, args: &Args, bar: &ProgressBar) -> anyhow::Result<Measured> {
    let program = Prediction::new(case.program()?)?;
    let mut links = Links::new(args.network);
    let mut seeds = Seeds::random()?;
    let held = hold(&program, &case.weights, &seeds.next(), &mut links)?;
    let size = program.input_shape.iter().product();
    let x = encode_samples(&case.input, program.fraction_bits, &case.samples, size)?;
    let batch = case.batch as usize;
    let mut m = Measured::default();
    for run in 0..=args.runs {
        let seed = Seed::random()?;
        let shares = (alice_share(&seed, x.len()), bob_share(&x, &seed));
        *links.alice.meter() = Meter::default();
        *links.carol.meter() = Meter::default();
        let began = Instant::now();
        let s = seeds.next();
        let revealed = thread::scope(|t| {
            let (Links { alice, bob, carol, dealt }, h, s, p) = (&mut links, &held, &s, &program);
            let dealing = t.spawn(move || deal(p, batch, &h.carol, &s.alice_carol, &s.bob_carol, carol.as_mut()));
            let other = t.spawn(move || {
                let material = prepare(p, batch, &h.alice, &s.alice_carol, &s.alice_bob, alice.as_mut(), None)?;
                evaluate(p, shares.0, &h.alice, material, alice.as_mut())
            });
            let material = prepare(p, batch, &h.bob, &s.bob_carol, &s.alice_bob, bob.as_mut(), Some(dealt.as_mut()))?;
            let outcome = evaluate(p, shares.1, &h.bob, material, bob.as_mut())?;
            join(dealing)??;
            Ok::<_, anyhow::Error>(outcome.payload.len() + join(other)??.payload.len())
        })?;
        let total_s = began.elapsed().as_secs_f64();
        if run == 0 {
            continue;
        }
        bar.inc(1);
        m.totals.push(Total { total_s, client_s: total_s });
        let online = links.alice.meter().total(Phase::Online);
        m.rounds = online.rounds;
        m.bytes_online = online.sent + online.received + if revealed > 0 { (revealed + 2 * HEADER) as u64 } else { 0 };
        m.bytes_offline = links.carol.meter().total(Phase::Offline).sent;
    }
    for run in 0..=args.runs {
        let seed = Seed::random()?;
        let shares = (alice_share(&seed, x.len()), bob_share(&x, &seed));
        let s = seeds.next();
        let began = Instant::now();
        let (for_alice, for_bob) = prepared(&program, batch, &held, &s, &mut links)?;
        let offline_s = began.elapsed().as_secs_f64();
        let began = Instant::now();
        thread::scope(|t| {
            let (Links { alice, bob, .. }, h, p) = (&mut links, &held, &program);
            let other = t.spawn(move || evaluate(p, shares.0, &h.alice, for_alice, alice.as_mut()));
            evaluate(p, shares.1, &h.bob, for_bob, bob.as_mut())?;
            join(other)??;
            Ok::<_, anyhow::Error>(())
        })?;
        if run > 0 {
            bar.inc(1);
            let online_s = began.elapsed().as_secs_f64();
            m.splits.push(Split { online_s, offline_s, client_s: online_s });
        }
    }
    m.peak_rss_bytes = peak_rss("self");
    Ok(m)
}

pub(super) fn join<T>(
    thread: thread::ScopedJoinHandle<'_, Result<T, MpcError>>,
) -> anyhow::Result<Result<T, MpcError>> {
    thread.join().map_err(|_| anyhow!("a party's thread panicked"))
}

/// Both evaluators' material of one lot.
fn prepared(
    p: &Prediction,
    batch: usize,
    h: &Held,
    s: &Sources,
    links: &mut Links,
) -> anyhow::Result<(Material, Material)> {
    let Links { alice, bob, carol, dealt } = links;
    thread::scope(|t| {
        let dealing = t.spawn(move || deal(p, batch, &h.carol, &s.alice_carol, &s.bob_carol, carol.as_mut()));
        let other = t.spawn(move || prepare(p, batch, &h.alice, &s.alice_carol, &s.alice_bob, alice.as_mut(), None));
        let bob = prepare(p, batch, &h.bob, &s.bob_carol, &s.alice_bob, bob.as_mut(), Some(dealt.as_mut()))?;
        join(dealing)??;
        Ok((join(other)??, bob))
    })
}

/// The weights, shared and opened to masked wires.
pub(super) fn hold(p: &Program, weights: &[Tensor], s: &Sources, links: &mut Links) -> anyhow::Result<Held> {
    let (mut to_alice, mut to_bob) = (Vec::new(), Vec::new());
    for w in weights {
        let seed = Seed::random()?;
        let tensor = |words: Words| Tensor::new(w.shape().to_vec(), words.into_vec());
        to_alice.push(tensor(alice_share(&seed, w.len()))?);
        to_bob.push(tensor(bob_share(w.data(), &seed))?);
    }
    let Links { alice, bob, .. } = links;
    thread::scope(|t| {
        let other = t.spawn(move || open_weights(Role::A, p, to_alice, &s.alice_carol, alice.as_mut()));
        let bob = open_weights(Role::B, p, to_bob, &s.bob_carol, bob.as_mut())?;
        let carol = draw_weight_masks(p, &s.alice_carol, &s.bob_carol)?;
        Ok(Held { alice: join(other)??, bob, carol })
    })
}
