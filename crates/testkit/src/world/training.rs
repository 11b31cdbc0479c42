//! Steps of training over any links: data sets, states, and what all three parties know.

use std::thread;

use trefoil_mpc::masked::Role;
use trefoil_mpc::masked::helper::help;
use trefoil_mpc::masked::rows::{HeldRows, draw_row_masks, open_rows, pick_rows};
use trefoil_mpc::masked::shuffle::{deal_shuffle, shuffle_at_alice, shuffle_at_bob};
use trefoil_mpc::masked::training::{Batch, Seat, evaluate_step, prepare_step, run_step, serve_step};

use super::*;
use trefoil_mpc::program::{Op, Shown};

/// A data set as the three parties hold it.
pub struct SharedRows {
    /// Alice's deltas and part of the masks.
    pub alice: HeldRows,
    /// Bob's deltas and part of the masks.
    pub bob: HeldRows,
    /// Carol's masks.
    pub carol: Words,
}

/// The states of a program that trains: alice's and bob's additive shares.
pub struct SharedStates {
    /// Alice's shares.
    pub alice: Vec<Words>,
    /// Bob's shares.
    pub bob: Vec<Words>,
}

impl SharedStates {
    /// The values of all states.
    pub fn values(&self) -> Vec<Vec<u64>> {
        let sum = |(a, b): (&Words, &Words)| a.iter().zip(b.iter()).map(|(a, b)| a.wrapping_add(*b)).collect();
        self.alice.iter().zip(&self.bob).map(sum).collect()
    }
}

impl World {
    /// Shares states as an owner does.
    pub fn split_states(&mut self, states: &[Words]) -> SharedStates {
        let (alice, bob) = states.iter().map(|s| self.split(s)).unzip();
        SharedStates { alice, bob }
    }

    /// Shares a data set; alice and bob open it.
    pub fn share_rows(&mut self, values: &[u64]) -> Result<SharedRows, MpcError> {
        let shares = self.split(values);
        self.open_rows_over(shares, &mut Links::memory())
    }

    /// Opens a data set of which these are alice's and bob's shares.
    pub fn open_rows_over(&mut self, (xa, xb): (Words, Words), links: &mut Links) -> Result<SharedRows, MpcError> {
        let [ac, _, bc, _, ca, cb] = self.sources();
        let n = xa.len();
        thread::scope(|s| {
            let alice = s.spawn(|| open_rows(Role::A, xa, &ac, links.alice.as_mut()));
            let bob = open_rows(Role::B, xb, &bc, links.bob.as_mut())?;
            let carol = draw_row_masks(n, &ca, &cb)?;
            Ok(SharedRows { alice: join(alice)?, bob, carol })
        })
    }

    /// Shuffles the rows of a data set, of which these are alice's and bob's shares. What alice's end of the link to bob
    /// and carol's end of hers counted.
    pub fn shuffle_over(
        &mut self,
        (xa, xb): (&mut Words, &mut Words),
        width: usize,
        links: &mut Links,
    ) -> Result<(Metered, Metered), MpcError> {
        let [ac, aab, bc, bab, ca, cb] = self.sources();
        let words = xa.len();
        let Links { alice, bob, carol, dealt, .. } = links;
        thread::scope(|s| {
            let carol = s.spawn(|| {
                deal_shuffle(words, width, &ca, &cb, carol.as_mut())?;
                Ok(carol.meter().take())
            });
            let alice = s.spawn(|| {
                shuffle_at_alice(xa, width, &ac, &aab, alice.as_mut())?;
                Ok(alice.meter().take())
            });
            shuffle_at_bob(xb, width, &bc, &bab, bob.as_mut(), dealt.as_mut())?;
            Ok((join(alice)?, join(carol)?))
        })
    }

    /// The last lot's source of what all three parties know, unrecorded.
    pub fn last_common(&self) -> Source {
        Source::new(&self.common, Pair::Common, self.epoch, self.lot)
    }

    fn common(&self, log: &Arc<DrawLog>) -> Source {
        let ledger: Arc<dyn Ledger> = log.clone();
        self.last_common().with_ledger(self.logged.then_some(ledger)).with_interceptor(self.interceptor.clone())
    }

    /// One step of training on rows number `indices`, over links in memory. The states are what they were if it fails.
    pub fn step(
        &mut self,
        model: &Shared,
        rows: &SharedRows,
        indices: &[usize],
        states: &mut SharedStates,
        rates: &[i64],
    ) -> Result<Answer, MpcError> {
        self.step_over(model, rows, indices, states, rates, &mut Links::memory())
    }

    /// The same over the given links.
    pub fn step_over(
        &mut self,
        model: &Shared,
        rows: &SharedRows,
        indices: &[usize],
        states: &mut SharedStates,
        rates: &[i64],
        links: &mut Links,
    ) -> Result<Answer, MpcError> {
        let [ac, aab, bc, bab, ca, cb] = self.sources();
        let common = [&self.alice_draws, &self.bob_draws, &self.carol_draws].map(|log| self.common(log));
        let program = &model.program;
        let size = program.input_shape.iter().product();
        let batch = |party: usize, lambda: &[u64]| {
            let lambda = pick_rows(lambda, size, indices)?;
            Ok::<_, MpcError>(Batch { size: indices.len(), lambda, rates, common: &common[party] })
        };
        let batches = [batch(0, &rows.alice.lambda)?, batch(1, &rows.bob.lambda)?, batch(2, &rows.carol)?];
        let [batch_a, batch_b, batch_c] = batches;
        let xa = pick_rows(&rows.alice.delta, size, indices)?;
        let xb = pick_rows(&rows.bob.delta, size, indices)?;
        let in_step = self.in_step;
        let evaluator = |batch,
                         x,
                         states: &mut [Words],
                         weights,
                         carol: &Source,
                         peer: &Source,
                         link: &mut dyn Link,
                         seat: Seat,
                         helper: &mut dyn Link| {
            if in_step {
                return run_step(program, batch, x, states, weights, carol, peer, link, seat, Some(helper));
            }
            let (material, to_carol): (_, Option<&mut dyn Link>) = match seat {
                Seat::Alice(shown) => {
                    let material = prepare_step(program, batch, weights, carol, peer, link, None)?;
                    (material, shown.map(|link| -> &mut dyn Link { link }))
                }
                Seat::Bob(dealt) => {
                    let material = prepare_step(program, batch, weights, carol, peer, link, Some(&mut *dealt))?;
                    (material, Some(dealt))
                }
            };
            evaluate_step(program, x, states, weights, material, link, [to_carol, Some(helper)])
        };
        let asked =
            program.steps.iter().filter(|s| matches!(s.op, Op::Likelihoods { shown: Shown::Helper, .. })).count();
        let Links { alice, bob, carol, dealt, shown, seen, asking: [asking_a, asking_b], helper: [to_a, to_b] } = links;
        let SharedStates { alice: states_a, bob: states_b } = states;
        let (alice, bob, online, (offline, seen)) = thread::scope(|s| {
            let helper = s.spawn(|| (0..asked).try_for_each(|_| help(to_a.as_mut(), to_b.as_mut())));
            let carol = s.spawn(|| {
                serve_step(program, batch_c, &model.carol, [&ca, &cb], [seen.as_mut(), carol.as_mut()], !in_step)?;
                Ok((carol.meter().take(), seen.meter().take()))
            });
            let alice = s.spawn(|| {
                let seat = Seat::Alice(Some(shown.as_mut()));
                let (link, helper) = (alice.as_mut(), asking_a.as_mut());
                let out = evaluator(batch_a, xa, states_a, &model.alice, &ac, &aab, link, seat, helper)?;
                Ok((out, alice.meter().take()))
            });
            let seat = Seat::Bob(dealt.as_mut());
            let (link, to_helper) = (bob.as_mut(), asking_b.as_mut());
            let bob = evaluator(batch_b, xb, states_b, &model.bob, &bc, &bab, link, seat, to_helper)?;
            let (alice, online) = join(alice)?;
            join(helper)?;
            Ok::<_, MpcError>((alice, bob, online, join(carol)?))
        })?;
        let asking = [asking_a.meter().take(), asking_b.meter().take()];
        Ok(Answer { alice, bob, online, offline, seen, asking })
    }
}
