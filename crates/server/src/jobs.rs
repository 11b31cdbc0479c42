//! Admitted work at alice: a bounded queue that the lanes empty.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use trefoil_mpc::Reveal;
use trefoil_mpc::masked::EvaluatorWeights;
use trefoil_prg::Seed;
use trefoil_proto::control::{Manifest, Refusal, RequestId, RunReport, SecretSeed};
use trefoil_proto::dataset::Declaration;
use trefoil_proto::run::RunSpec;
use trefoil_ring::Tensor;
use zeroize::Zeroizing;

use crate::core::lock;
use crate::models::Model;
use crate::runs::Run;

/// One evaluator's part of an answer, and what it took.
pub(crate) type Given = (Payload, RunReport);

/// An evaluator's part of an answer, erased with its last owner.
pub(crate) type Payload = Arc<Zeroizing<Vec<u8>>>;

/// What a client hears: this evaluator's part of the answer, or why there is none.
pub(crate) type Answer = Result<Given, (Refusal, String)>;

/// One prediction that alice admitted.
pub(crate) struct Predict {
    pub(crate) id: RequestId,
    pub(crate) client: String,
    pub(crate) model: Arc<Model<EvaluatorWeights>>,
    pub(crate) batch: u32,
    pub(crate) reveal: Reveal,
    /// Of alice's share, which a lane draws when it begins: what waits takes no room.
    pub(crate) seed: Seed,
}

/// One upload that alice admitted.
pub(crate) struct Upload {
    pub(crate) id: RequestId,
    pub(crate) owner: String,
    pub(crate) manifest: Box<Manifest>,
    pub(crate) shares: Vec<Tensor>,
}

/// One part of a data set that alice admitted.
pub(crate) struct Contribution {
    pub(crate) id: RequestId,
    pub(crate) owner: String,
    pub(crate) set: u64,
    pub(crate) part: u32,
    /// Of alice's share, which is kept as it is.
    pub(crate) seed: SecretSeed,
}

/// Work for a lane.
pub(crate) enum Work {
    Predict(Box<Predict>),
    Upload(Upload),
    Remove(Arc<Model<EvaluatorWeights>>),
    /// A coordinator's declaration of a data set.
    Declare(String, Box<Declaration>),
    Contribute(Contribution),
    RemoveSet(u64),
    /// An owner's training run, and the seed of alice's share of the states' first values.
    Train {
        id: RequestId,
        spec: Box<RunSpec>,
        seed: SecretSeed,
    },
    DropRun(Arc<Run>),
}

/// Why the queue takes no job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Full {
    /// Of all clients' jobs.
    #[error("busy: the queue is full, try again later")]
    All,
    /// Of this client's, who is to leave room for others.
    #[error("busy: half of the queue are requests of this client, try again later")]
    Client,
}

/// Work and who waits for it.
pub(crate) struct Job {
    pub(crate) work: Work,
    /// Who sent it.
    pub(crate) client: String,
    pub(crate) answer: Sender<Answer>,
    pub(crate) admitted: Instant,
}

/// The bounded queue.
pub(crate) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    filled: Condvar,
    capacity: usize,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { jobs: Mutex::default(), filled: Condvar::new(), capacity }
    }

    /// Admits a job. One client's may take half of the queue.
    pub(crate) fn push(&self, job: Job) -> Result<(), Full> {
        let mut jobs = lock(&self.jobs);
        if jobs.len() >= self.capacity {
            return Err(Full::All);
        }
        if jobs.iter().filter(|j| j.client == job.client).count() >= self.capacity.div_ceil(2) {
            return Err(Full::Client);
        }
        jobs.push_back(job);
        self.filled.notify_one();
        Ok(())
    }

    /// The next job; `None` if there is none within `wait`.
    pub(crate) fn pop(&self, wait: Duration) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        if jobs.is_empty() && !wait.is_zero() {
            jobs = self.filled.wait_timeout(jobs, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        jobs.pop_front()
    }

    /// Puts a job back in front: its lane went down before it began.
    pub(crate) fn put_back(&self, job: Job) {
        lock(&self.jobs).push_front(job);
        self.filled.notify_one();
    }

    /// Puts a job behind the others: it cannot begin yet.
    pub(crate) fn requeue(&self, job: Job) {
        lock(&self.jobs).push_back(job);
        self.filled.notify_one();
    }

    /// Takes out the jobs that have waited longer than `patience`.
    pub(crate) fn overdue(&self, patience: Duration) -> Vec<Job> {
        let mut jobs = lock(&self.jobs);
        let (late, rest): (VecDeque<Job>, VecDeque<Job>) =
            jobs.drain(..).partition(|j| j.admitted.elapsed() > patience);
        *jobs = rest;
        Vec::from(late)
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.jobs).is_empty()
    }

    /// Takes everything out.
    pub(crate) fn clear(&self) -> Vec<Job> {
        lock(&self.jobs).drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn one_client_leaves_room_for_others() {
        let queue = Queue::new(4);
        let push = |client: &str| {
            let (work, answer) = (Work::RemoveSet(1), channel().0);
            queue.push(Job { work, client: client.into(), answer, admitted: Instant::now() })
        };
        assert_eq!(["ann", "ann"].map(push), [Ok(()); 2]);
        // What waits for its other half still counts.
        queue.requeue(queue.pop(Duration::ZERO).unwrap());
        assert_eq!(["ann", "bert", "eve", "mia"].map(push), [Err(Full::Client), Ok(()), Ok(()), Err(Full::All)]);
    }
}
