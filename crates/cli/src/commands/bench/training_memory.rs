//! Steps of training in three threads of one process over links in memory: the protocol alone.

use std::thread;
use std::time::Instant;

use indicatif::ProgressBar;
use trefoil_client::{RunSpec, SetInfo};
use trefoil_link::{Meter, Network, Phase};
use trefoil_mpc::masked::Role;
use trefoil_mpc::masked::input::{alice_share, bob_share};
use trefoil_mpc::masked::rows::{HeldRows, draw_row_masks, open_rows};
use trefoil_mpc::masked::training::{Batch, Seat, deal_step, evaluate_step, prepare_step, run_step};
use trefoil_nn::lower::{FRACTION_BITS, encode};
use trefoil_prg::{Pair, Seed, Source};
use trefoil_ring::Words;

use super::Args;
use super::memory::{Held, Links, Seeds, hold, join};
use super::training::{Step, description, records};
use crate::trial::peak_rss;

/// A batch of rows under masks, and the masks.
struct Opened {
    alice: HeldRows,
    bob: HeldRows,
    masks: Words,
}

/// Everything that stays from step to step.
struct Trainer {
    spec: RunSpec,
    rates: Vec<i64>,
    /// The rows of a batch in fixed point.
    rows: Words,
    states: [Vec<Words>; 2],
    held: Held,
    links: Links,
    seeds: Seeds,
}

pub(super) fn measure(net: &str, batch: u32, args: &Args, bar: &ProgressBar) -> anyhow::Result<(Vec<Step>, u64)> {
    let mut trainer = Trainer::new(net, batch, args.network)?;
    let mut steps = Vec::new();
    for run in 0..=args.runs {
        let seconds = trainer.together()?;
        let online = trainer.links.alice.meter().total(Phase::Online);
        let offline = trainer.links.carol.meter().total(Phase::Offline);
        let (offline_s, online_s) = trainer.apart()?;
        if run > 0 {
            bar.inc(1);
            let (rounds, bytes_online, bytes_offline) = (online.rounds, online.sent + online.received, offline.sent);
            steps.push(Step { seconds, online_s, offline_s, rounds, bytes_online, bytes_offline });
        }
    }
    Ok((steps, peak_rss("self")))
}

impl Trainer {
    fn new(net: &str, batch: u32, network: Option<Network>) -> anyhow::Result<Self> {
        let d = description(net, batch, "bench".into())?;
        let records = records(net, batch as usize)?;
        let declaration = records.declaration(&d.training.set);
        let set = SetInfo { epoch: 0, coordinator: "owner".into(), declaration, arrived: Vec::new() };
        let planned = d.training.plan(&set, "owner", &network.unwrap_or(Network::LOOPBACK))?;
        let values: Vec<f64> = records.matrix().into_iter().map(f64::from).collect();
        let rows = encode("rows", &values, FRACTION_BITS)?;
        let mut links = Links::new(network);
        let mut seeds = Seeds::random()?;
        let held = hold(&planned.spec.step, &[], &seeds.next(), &mut links)?;
        let mut states = [const { Vec::new() }; 2];
        for state in &planned.initial {
            let seed = Seed::random()?;
            states[0].push(alice_share(&seed, state.len()));
            states[1].push(bob_share(state.data(), &seed));
        }
        let rates = planned.spec.rates.concat();
        Ok(Self { spec: planned.spec, rates, rows, states, held, links, seeds })
    }

    /// Shares the rows and opens them under fresh masks.
    fn open(&mut self) -> anyhow::Result<Opened> {
        let n = self.rows.len();
        let seed = Seed::random()?;
        let (xa, xb) = (alice_share(&seed, n), bob_share(&self.rows, &seed));
        let s = self.seeds.next();
        let Links { alice, bob, .. } = &mut self.links;
        thread::scope(|t| {
            let other = t.spawn(|| open_rows(Role::A, xa, &s.alice_carol, alice.as_mut()));
            let bob = open_rows(Role::B, xb, &s.bob_carol, bob.as_mut())?;
            let masks = draw_row_masks(n, &s.alice_carol, &s.bob_carol)?;
            Ok(Opened { alice: join(other)??, bob, masks })
        })
    }

    /// A step with both phases side by side, as servers do it. Gives its time and leaves its meters.
    fn together(&mut self) -> anyhow::Result<f64> {
        let Opened { alice: a, bob: b, masks } = self.open()?;
        let s = self.seeds.next();
        let common = Source::new(&Seed::random()?, Pair::Common, [0; 32], 1);
        let (program, size, rates) = (&self.spec.step, self.spec.batch as usize, &self.rates[..]);
        let given = |lambda: Words| Batch { size, lambda, rates, common: &common };
        *self.links.alice.meter() = Meter::default();
        *self.links.carol.meter() = Meter::default();
        let Links { alice, bob, carol, dealt } = &mut self.links;
        let [sa, sb] = &mut self.states;
        let (h, s) = (&self.held, &s);
        let (batch_a, batch_b, batch_c) = (given(a.lambda), given(b.lambda), given(masks));
        let began = Instant::now();
        thread::scope(|t| {
            let dealing =
                t.spawn(move || deal_step(program, batch_c, &h.carol, &s.alice_carol, &s.bob_carol, carol.as_mut()));
            let other = t.spawn(move || {
                let (own, both) = (&s.alice_carol, &s.alice_bob);
                run_step(program, batch_a, a.delta, sa, &h.alice, own, both, alice.as_mut(), Seat::Alice(None), None)
            });
            let (own, both) = (&s.bob_carol, &s.alice_bob);
            run_step(program, batch_b, b.delta, sb, &h.bob, own, both, bob.as_mut(), Seat::Bob(dealt.as_mut()), None)?;
            join(dealing)??;
            join(other)??;
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// A step with one phase after the other: the time of the offline and of the online one.
    fn apart(&mut self) -> anyhow::Result<(f64, f64)> {
        let Opened { alice: a, bob: b, masks } = self.open()?;
        let s = self.seeds.next();
        let common = Source::new(&Seed::random()?, Pair::Common, [0; 32], 1);
        let (program, size, rates) = (&self.spec.step, self.spec.batch as usize, &self.rates[..]);
        let given = |lambda: Words| Batch { size, lambda, rates, common: &common };
        let Links { alice, bob, carol, dealt } = &mut self.links;
        let [sa, sb] = &mut self.states;
        let (h, s) = (&self.held, &s);
        let (batch_a, batch_b, batch_c) = (given(a.lambda), given(b.lambda), given(masks));
        let began = Instant::now();
        let (for_alice, for_bob) = thread::scope(|t| {
            let link = alice.as_mut();
            let dealing =
                t.spawn(move || deal_step(program, batch_c, &h.carol, &s.alice_carol, &s.bob_carol, carol.as_mut()));
            let other =
                t.spawn(move || prepare_step(program, batch_a, &h.alice, &s.alice_carol, &s.alice_bob, link, None));
            let (own, both) = (&s.bob_carol, &s.alice_bob);
            let bob = prepare_step(program, batch_b, &h.bob, own, both, bob.as_mut(), Some(dealt.as_mut()))?;
            join(dealing)??;
            Ok::<_, anyhow::Error>((join(other)??, bob))
        })?;
        let offline = began.elapsed().as_secs_f64();
        let began = Instant::now();
        thread::scope(|t| {
            let link = alice.as_mut();
            let other = t.spawn(move || evaluate_step(program, a.delta, sa, &h.alice, for_alice, link, [None, None]));
            evaluate_step(program, b.delta, sb, &h.bob, for_bob, bob.as_mut(), [None, None])?;
            join(other)??;
            Ok::<_, anyhow::Error>(())
        })?;
        Ok((offline, began.elapsed().as_secs_f64()))
    }
}
