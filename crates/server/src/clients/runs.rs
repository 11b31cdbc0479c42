//! Training runs at an evaluator: what owners, coordinators and recipients ask for.

use trefoil_proto::control::SecretSeed;
use trefoil_proto::run::{RunInfo, RunSpec};

use super::*;
use crate::error::LaneError;
use crate::runs::{Run, all_states, check_run};

impl Counter<'_> {
    /// The runs that `client` has to do with.
    pub(super) fn runs(&self, client: &str) -> Vec<RunInfo> {
        let all = self.core.runs.all().into_iter();
        all.filter(|r| r.concerns(self.core, client)).map(|r| r.info(self.core)).collect()
    }

    pub(super) fn run(&self, client: &str, number: u64) -> Result<Arc<Run>, Refused> {
        match self.core.runs.get(number).filter(|r| r.concerns(self.core, client)) {
            Some(run) => Ok(run),
            None => refused(Refusal::UnknownRun, format!("no run of number {number} for {client}")),
        }
    }

    /// Keeps that `client` agrees; it must have read what is to be run.
    pub(super) fn agree(&self, client: &str, number: u64, hash: [u8; 32]) -> Result<Response, Refused> {
        let run = self.run(client, number)?;
        if run.hash != hash {
            return refused(Refusal::Mismatch, "the run is not the one that the client read");
        }
        if !run.notes().agreed.iter().any(|a| a == client) {
            let noted = run.note_agreement(self.core, client, true);
            noted.or_else(|e| refused(Refusal::Unavailable, e.to_string()))?;
            tracing::info!(run = run.spec.name, client, "agreed");
        }
        Ok((Reply::Done, None))
    }

    /// Keeps that `client` agrees no longer: the run stops where it is, and its rows are let go.
    pub(super) fn withdraw(&self, client: &str, number: u64) -> Result<Response, Refused> {
        let run = self.run(client, number)?;
        let name = &run.spec.name;
        if !run.parties(self.core).iter().any(|p| p == client) {
            return refused(Refusal::Denied, format!("run {name} does not need the agreement of {client}"));
        }
        if run.notes().done.is_some() {
            return refused(Refusal::Invalid, format!("run {name} is over: there is nothing left to withdraw from"));
        }
        let agreed = run.notes().agreed.iter().any(|a| a == client);
        let noted = run.note_agreement(self.core, client, false);
        noted.or_else(|e| refused(Refusal::Unavailable, e.to_string()))?;
        run.release();
        tracing::info!(run = name, client, "agreement withdrawn");
        if agreed {
            self.desk.withdrawn.store(true, Ordering::Release);
        }
        Ok((Reply::Done, None))
    }

    /// Ends a run with its epoch.
    pub(super) fn stop_run(&self, client: &str, number: u64) -> Result<Response, Refused> {
        let run = self.run(client, number)?;
        self.leads(&run, client, "stop")?;
        let noted = run.note(self.core, |n| n.stopped = true);
        noted.or_else(|e| refused(Refusal::Unavailable, e.to_string()))?;
        tracing::info!(run = run.spec.name, client, "told to stop");
        Ok((Reply::Done, None))
    }

    pub(super) fn drop_run(&self, client: &str, number: u64) -> Result<Response, Refused> {
        if self.core.party != Party::Alice {
            return refused(Refusal::Invalid, "runs are removed at alice");
        }
        let run = self.run(client, number)?;
        self.leads(&run, client, "remove")?;
        let answer = self.enqueue(client, Work::DropRun(run))?;
        self.finish(client, RequestId::default(), &answer)
    }

    fn leads(&self, run: &Run, client: &str, what: &str) -> Result<(), Refused> {
        if client == run.spec.coordinator || client == run.spec.owner {
            return Ok(());
        }
        let (owner, coordinator) = (&run.spec.owner, &run.spec.coordinator);
        let who = if owner == coordinator {
            owner.clone()
        } else {
            format!("{owner} (owner) or {coordinator} (coordinator)")
        };
        refused(Refusal::Denied, format!("only {who} may {what} this run"))
    }

    /// This evaluator's part of what was revealed to `client`, and to nobody else.
    pub(super) fn revealed(&self, client: &str, number: u64, index: u32, epoch: u32) -> Result<Response, Refused> {
        let run = self.run(client, number)?;
        let disclosure = run.spec.reveals.get(index as usize);
        if disclosure.is_none_or(|d| d.recipient != client) {
            return refused(Refusal::Denied, format!("reveal {index} of {} is not for {client}", run.spec.name));
        }
        if !run.notes().revealed.iter().any(|r| (r.index, r.epoch) == (index, epoch)) {
            return refused(Refusal::NotYet, format!("reveal {index} after {epoch} epochs is not there yet"));
        }
        let part = self.core.store.part(run.number, (index, epoch));
        let (lot, payload) = part.or_else(|e| refused(Refusal::Unavailable, e.to_string()))?;
        let report = trefoil_proto::control::RunReport { lot, ..Default::default() };
        Ok((Reply::Answer(Box::new(report)), Some(Arc::new(payload))))
    }

    /// A new run: bob reads his share whatever comes of it.
    pub(super) fn train(
        &self,
        link: &mut dyn Link,
        client: &str,
        id: RequestId,
        spec: Box<RunSpec>,
        seed: SecretSeed,
    ) -> Result<Result<Response, Refused>, LaneError> {
        let allowed = self.may_train(client, &spec);
        if self.core.party == Party::Alice {
            return Ok(allowed.and_then(|_| self.alice_train(client, id, spec, seed)));
        }
        let admitted = allowed.and_then(|total| match self.core.in_flight.reserve(8 * total as u64) {
            Some(reserved) => Ok((total, reserved)),
            None => refused(Refusal::Busy, MEMORY),
        });
        let (total, _reserved) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                link.skip(tag::SHARES, MAX_BULK)?;
                return Ok(Err(refusal));
            }
        };
        let mut share = Words::zeros(total);
        link.recv(tag::SHARES, share.bytes_mut())?;
        let (answer, receiver) = channel();
        if !self.halves.put(id, client.into(), Half::Train { spec, share }, answer) {
            return Ok(refused(Refusal::Busy, "busy: too many requests wait, or this one is already under way"));
        }
        Ok(self.finish(client, id, &receiver))
    }

    fn alice_train(
        &self,
        client: &str,
        id: RequestId,
        spec: Box<RunSpec>,
        seed: SecretSeed,
    ) -> Result<Response, Refused> {
        read_seed(&seed)?;
        let answer = self.enqueue(client, Work::Train { id, spec, seed })?;
        self.finish(client, id, &answer)
    }

    /// Elements of all states of a run that may be staged.
    fn may_train(&self, client: &str, spec: &RunSpec) -> Result<usize, Refused> {
        if spec.owner != client {
            return refused(Refusal::Denied, format!("the run's owner is {}, not {client}", spec.owner));
        }
        check_run(self.core, spec)?;
        // Every client must be able to read the list of all runs in one message.
        let listed = |spec: &RunSpec| 2048 + 24 * spec.shown() as usize;
        let all: usize = self.core.runs.all().iter().map(|r| listed(&r.spec)).sum();
        if all + listed(spec) > MAX_CONTROL {
            return refused(Refusal::Invalid, "the servers' list of runs is full: drop some");
        }
        match all_states(spec) {
            Some(total) => Ok(total),
            None => refused(Refusal::Invalid, "too many elements in all states"),
        }
    }
}
