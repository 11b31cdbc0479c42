//! Requests whose half has reached bob, waiting for alice's command; and answers kept for idempotent repeats.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use trefoil_mpc::Reveal;
use trefoil_proto::control::{Manifest, RequestId};
use trefoil_proto::run::RunSpec;
use trefoil_ring::{Tensor, Words};

use crate::core::lock;
use crate::jobs::{Answer, Given};
use crate::store::Pieces;

/// Halves that may wait at once.
const WAITING: usize = 1024;
/// A half that nobody asks for is forgotten after this.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of answers kept for repeats.
const KEPT: usize = 64 << 20;

/// What bob holds of a request.
pub(crate) enum Half {
    /// A prediction: his share of the input, and what the client told him it is for.
    Predict { epoch: u64, batch: u32, reveal: Reveal, share: Words },
    /// An upload.
    Upload { manifest: Box<Manifest>, shares: Vec<Tensor> },
    /// A part of a data set: on disk, and erased with this.
    Contribute { set: u64, part: u32, pieces: Pieces },
    /// A training run: its specification, and bob's share of the states' first values.
    Train { spec: Box<RunSpec>, share: Words },
}

/// A half and who waits for its answer.
pub(crate) struct Waiting {
    pub(crate) client: String,
    pub(crate) half: Half,
    pub(crate) answer: Sender<Answer>,
    since: Instant,
}

/// All halves at bob.
#[derive(Default)]
pub(crate) struct Halves {
    waiting: Mutex<HashMap<RequestId, Waiting>>,
    arrived: Condvar,
}

impl Halves {
    /// Adds a half; `false` if too many wait or another client uses the id. The same client's repeat takes the place
    /// of what it sent over a connection that it has lost since.
    pub(crate) fn put(&self, id: RequestId, client: String, half: Half, answer: Sender<Answer>) -> bool {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|_, w| w.since.elapsed() < PATIENCE);
        let taken = match waiting.get(&id) {
            Some(w) => w.client != client,
            None => waiting.len() >= WAITING,
        };
        if taken {
            return false;
        }
        waiting.insert(id, Waiting { client, half, answer, since: Instant::now() });
        self.arrived.notify_all();
        true
    }

    /// Takes a half, waiting for it to arrive.
    pub(crate) fn take(&self, id: &RequestId, wait: Duration) -> Option<Waiting> {
        let until = Instant::now() + wait;
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(w) = waiting.remove(id) {
                return Some(w);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            waiting = self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Puts a half back: alice may ask for it again with another lot.
    pub(crate) fn put_back(&self, id: RequestId, half: Waiting) {
        lock(&self.waiting).insert(id, half);
    }

    /// Forgets a half that its own client gave up.
    pub(crate) fn forget(&self, id: &RequestId, client: &str) {
        let mut waiting = lock(&self.waiting);
        if waiting.get(id).is_some_and(|w| w.client == client) {
            waiting.remove(id);
        }
    }
}

/// About what an answer takes in memory, its report and its places in the maps included.
fn size((payload, report): &Given) -> usize {
    payload.len() + size_of_val(&report.steps[..]) + 512
}

/// Answers given: a repeat of the same request by the same client gets the same bytes, never a new evaluation.
#[derive(Default)]
pub(crate) struct Answered(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    given: HashMap<(String, RequestId), Given>,
    order: VecDeque<(String, RequestId)>,
    bytes: usize,
}

impl Answered {
    pub(crate) fn keep(&self, client: &str, id: RequestId, answer: Given) {
        let mut kept = lock(&self.0);
        let key = (client.to_owned(), id);
        kept.bytes += size(&answer);
        match kept.given.insert(key.clone(), answer) {
            Some(older) => kept.bytes -= size(&older),
            None => kept.order.push_back(key),
        }
        while kept.bytes > KEPT {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(answer) = kept.given.remove(&oldest) {
                kept.bytes -= size(&answer);
            }
        }
    }

    pub(crate) fn get(&self, client: &str, id: &RequestId) -> Option<Given> {
        lock(&self.0).given.get(&(client.to_owned(), *id)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trefoil_proto::control::RunReport;

    use super::*;

    #[test]
    fn answers_kept_are_bounded_however_small_they_are() {
        let answered = Answered::default();
        let give = |i: u32| {
            let mut id = RequestId::default();
            id[..4].copy_from_slice(&i.to_le_bytes());
            answered.keep("ann", id, (Arc::new(vec![0; 8].into()), RunReport::default()));
        };
        let most = (KEPT / 520) as u32;
        (0..most + 1000).for_each(give);
        // The same one again counts once.
        (0..100).for_each(|_| give(most + 999));
        let kept = lock(&answered.0);
        assert!(kept.given.len() <= most as usize && kept.given.len() == kept.order.len());
        assert_eq!(kept.bytes, kept.given.values().map(size).sum::<usize>());
    }
}
