//! Clients and owners at an evaluator: one thread a connection, one request at a time, every reply bounded in time.

mod runs;
mod sets;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use trefoil_link::Link;
use trefoil_mpc::masked::EvaluatorWeights;
use trefoil_mpc::masked::input::alice_share;
use trefoil_mpc::program::Reveal;
use trefoil_prg::{Party, Seed};
use trefoil_proto::Role;
use trefoil_proto::control::{
    MAX_BULK, MAX_CONTROL, Manifest, ModelInfo, Refusal, Reply, Request, RequestId, SecretSeed, decode, encode, tag,
};
use trefoil_proto::identity::check_name;
use trefoil_ring::{Tensor, Words};
use zeroize::Zeroizing;

use crate::alice::{Desk, NO_LANE};
use crate::core::{Core, IDLE};
use crate::error::LaneError;
use crate::halves::{Answered, Half, Halves};
use crate::jobs::{Answer, Given, Job, Payload, Predict, Upload, Work};
use crate::models::{Model, check_manifest, plans};
use crate::session::say;

/// A connection without a request is closed after this.
const UNUSED: Duration = Duration::from_secs(600);
/// Shares must come without a longer pause than this.
const PAUSE: Duration = Duration::from_secs(30);
/// Characters of a refusal's reason, in logs and replies: it may quote what the client sent.
const REASON: usize = 1000;
/// The longest a request may take, queueing included.
const LONGEST: Duration = Duration::from_secs(600);

/// Why a request is refused whose shares do not fit beside the others'.
const MEMORY: &str = "busy: too many large requests at once, try again later";

/// What an evaluator needs to serve clients.
pub(crate) struct Counter<'a> {
    pub(crate) core: &'a Core,
    pub(crate) desk: &'a Desk,
    pub(crate) halves: &'a Halves,
    pub(crate) answered: &'a Answered,
}

type Refused = (Refusal, String);

fn refused<T>(why: Refusal, reason: impl Into<String>) -> Result<T, Refused> {
    Err((why, reason.into()))
}

/// What is sent back: a reply, and the answer's bytes where there is one.
type Response = (Reply, Option<Payload>);

impl Counter<'_> {
    /// Serves one client until it leaves, misbehaves, or the server ends.
    pub(crate) fn serve(&self, link: &mut dyn Link, client: &str) {
        loop {
            link.set_timeout(Some(UNUSED));
            let Ok(bytes) = link.recv_any(tag::REQUEST, MAX_CONTROL).map(Zeroizing::new) else { return };
            let _working = self.core.work();
            link.set_timeout(Some(PAUSE));
            let outcome = match decode("request", &bytes) {
                Ok(request) => self.request(link, client, request),
                Err(e) => Ok(refused(Refusal::Invalid, e.to_string())),
            };
            let response = match outcome {
                Ok(Ok(response)) => response,
                Ok(Err((why, reason))) => {
                    let reason: String = reason.chars().take(REASON).collect();
                    tracing::warn!(client, ?why, reason, "refused");
                    (Reply::Refused { why, reason }, None)
                }
                Err(e) => {
                    tracing::warn!(client, reason = %e, "client lost");
                    return;
                }
            };
            let sent = say(link, tag::REPLY, &response.0).and_then(|()| match &response.1 {
                Some(payload) => Ok(link.send(tag::ANSWER, &[payload])?),
                None => Ok(()),
            });
            if sent.is_err() {
                return;
            }
        }
    }

    fn request(
        &self,
        link: &mut dyn Link,
        client: &str,
        request: Request,
    ) -> Result<Result<Response, Refused>, LaneError> {
        Ok(match request {
            Request::Models => Ok((Reply::Models(self.models(client)), None)),
            Request::Predict { id, model, epoch, batch, reveal, seed } => {
                let admitted = self.may_query(client, &model, epoch, batch, reveal);
                if self.core.party == Party::Bob {
                    self.bob_receive(link, admitted, client, id, (epoch, batch, reveal))?
                } else {
                    admitted.and_then(|model| self.alice_predict(client, id, model, batch, reveal, seed))
                }
            }
            Request::Share { id, manifest, seed } => {
                let allowed = self.may_share(client, &manifest);
                if self.core.party == Party::Bob {
                    // Without a valid program the shares' sizes are unknown: the connection cannot go on.
                    plans(&manifest.program, manifest.window).map_err(LaneError::Protocol)?;
                    let bytes = 8 * elements(&manifest).unwrap_or(MAX_BULK / 8) as u64;
                    let reserved = self.core.in_flight.reserve(bytes).filter(|_| allowed.is_ok());
                    match (allowed, reserved) {
                        (Ok(()), Some(_reserved)) => {
                            let shares = read_tensors(link, &manifest)?;
                            self.bob_upload(client, id, manifest, shares)
                        }
                        (allowed, _) => {
                            for _ in &manifest.program.weights {
                                link.skip(tag::SHARES, MAX_BULK)?;
                            }
                            allowed.and_then(|()| refused(Refusal::Busy, MEMORY))
                        }
                    }
                } else {
                    allowed.and_then(|()| self.alice_upload(client, id, manifest, seed))
                }
            }
            Request::Forget { id } => {
                self.halves.forget(&id, client);
                Ok((Reply::Done, None))
            }
            Request::Remove { model } => self.remove(client, &model),
            Request::Sets => Ok((Reply::Sets(self.sets(client)), None)),
            Request::Declare { declaration } => self.declare(client, declaration),
            Request::Contribute { id, set, declaration, part, seed } => {
                let named = (set, declaration, part);
                match self.core.party {
                    Party::Bob => self.bob_contribute(link, client, id, named)?,
                    _ => self.alice_contribute(client, id, named, seed),
                }
            }
            Request::RemoveSet { set } => self.remove_set(client, &set),
            Request::Train { id, spec, seed } => self.train(link, client, id, spec, seed)?,
            Request::Runs => Ok((Reply::Runs(self.runs(client)), None)),
            Request::Spec { run } => self.run(client, run).map(|run| (Reply::Spec(Box::new(run.spec.clone())), None)),
            Request::Agree { run, hash } => self.agree(client, run, hash),
            Request::Stop { run } => self.stop_run(client, run),
            Request::Withdraw { run } => self.withdraw(client, run),
            Request::DropRun { run } => self.drop_run(client, run),
            Request::Revealed { run, index, epoch } => self.revealed(client, run, index, epoch),
        })
    }

    /// At bob: the share comes in any case and must be read, or nothing after it can be.
    fn bob_receive(
        &self,
        link: &mut dyn Link,
        admitted: Result<Arc<Model<EvaluatorWeights>>, Refused>,
        client: &str,
        id: RequestId,
        request: (u64, u32, Reveal),
    ) -> Result<Result<Response, Refused>, LaneError> {
        let size =
            |m: &Model<EvaluatorWeights>| request.1 as usize * m.public.program.input_shape.iter().product::<usize>();
        let refusal = match admitted {
            Ok(model) => match self.core.in_flight.reserve(8 * size(&model) as u64) {
                Some(_reserved) => {
                    let mut share = Words::zeros(size(&model));
                    link.recv(tag::SHARES, share.bytes_mut())?;
                    return Ok(self.bob_predict(client, id, request, share));
                }
                None => refused(Refusal::Busy, MEMORY),
            },
            Err(refusal) => Err(refusal),
        };
        link.skip(tag::SHARES, MAX_BULK)?;
        Ok(refusal)
    }

    fn models(&self, client: &str) -> Vec<ModelInfo> {
        let all = self.core.models.all().into_iter();
        let visible = all.filter(|m| m.owner == client || !m.public.reveals_to(client).is_empty());
        let info = |m: Arc<Model<EvaluatorWeights>>| ModelInfo {
            epoch: m.epoch,
            owner: m.owner.clone(),
            manifest: m.public.clone(),
            ready: self.core.pool.ready(m.epoch),
        };
        visible.map(info).collect()
    }

    fn may_query(
        &self,
        client: &str,
        name: &str,
        epoch: u64,
        batch: u32,
        reveal: Reveal,
    ) -> Result<Arc<Model<EvaluatorWeights>>, Refused> {
        let model =
            self.core.models.named(name).filter(|m| m.owner == client || !m.public.reveals_to(client).is_empty());
        let Some(model) = model else {
            return refused(Refusal::UnknownModel, format!("no model {name} for {client}"));
        };
        if model.epoch != epoch {
            return refused(Refusal::UnknownModel, format!("the model {name} was shared anew: ask for the list again"));
        }
        if !model.public.reveals_to(client).contains(&reveal) {
            return refused(Refusal::Denied, format!("{client} may not be shown {reveal:?} of {name}"));
        }
        let Some(plan) = model.plan(reveal) else {
            return refused(Refusal::Invalid, format!("the model {name} cannot reveal {reveal:?}"));
        };
        plan.fits(batch).map_err(|fault| fault.refusal())?;
        Ok(model)
    }

    fn may_share(&self, client: &str, manifest: &Manifest) -> Result<(), Refused> {
        if !self.core.cluster.client(client).is_some_and(|c| c.roles.contains(&Role::Owner)) {
            return refused(
                Refusal::Denied,
                format!("{client} may not share models: the cluster file does not name it an owner"),
            );
        }
        check_name(&manifest.name).or_else(|e| refused(Refusal::Invalid, e.to_string()))?;
        check_manifest(manifest).or_else(|e| refused(Refusal::Invalid, e))?;
        // Every client must be able to read the list of all models in one message.
        let listed = |m: &Manifest| encode(m).len() + 1024;
        let all: usize = self.core.models.all().iter().map(|m| listed(&m.public)).sum();
        if all + listed(manifest) > MAX_CONTROL {
            return refused(
                Refusal::Invalid,
                "the servers' list of models is full: share a smaller one or remove some",
            );
        }
        if elements(manifest).is_none_or(|n| n > MAX_BULK / 8) {
            return refused(Refusal::Invalid, format!("more than {} weights", MAX_BULK / 8));
        }
        Ok(())
    }

    fn answer(&self, client: &str, id: RequestId, answer: Receiver<Answer>) -> Result<Response, Refused> {
        let (payload, report) = self.wait(client, id, &answer)?;
        self.answered.keep(client, id, (payload.clone(), report.clone()));
        Ok((Reply::Answer(Box::new(report)), Some(payload)))
    }

    /// Waits for a lane's answer; at bob no longer than alice is there to ask for it.
    fn wait(&self, client: &str, id: RequestId, answer: &Receiver<Answer>) -> Result<Given, Refused> {
        let began = Instant::now();
        let mut alone: Option<Instant> = None;
        loop {
            match answer.recv_timeout(IDLE) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => {
                    return refused(Refusal::Unavailable, "the request was given up");
                }
                Err(RecvTimeoutError::Timeout) if began.elapsed() > LONGEST => {
                    self.halves.forget(&id, client);
                    return refused(Refusal::Unavailable, "no answer in time");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.core.party == Party::Alice || self.core.connected.load(Ordering::Acquire) > 0 {
                alone = None;
            } else if alone.get_or_insert_with(Instant::now).elapsed() > NO_LANE {
                self.halves.forget(&id, client);
                return refused(Refusal::Unavailable, "alice is not connected to bob");
            }
        }
    }

    fn repeat(&self, client: &str, id: &RequestId) -> Option<Response> {
        self.answered.get(client, id).map(|(payload, report)| (Reply::Answer(Box::new(report)), Some(payload)))
    }

    fn alice_predict(
        &self,
        client: &str,
        id: RequestId,
        model: Arc<Model<EvaluatorWeights>>,
        batch: u32,
        reveal: Reveal,
        seed: SecretSeed,
    ) -> Result<Response, Refused> {
        if let Some(response) = self.repeat(client, &id) {
            return Ok(response);
        }
        let seed = read_seed(&seed)?;
        let work = Predict { id, client: client.into(), model, batch, reveal, seed };
        let answer = self.enqueue(client, Work::Predict(Box::new(work)))?;
        self.answer(client, id, answer)
    }

    fn enqueue(&self, client: &str, work: Work) -> Result<Receiver<Answer>, Refused> {
        if self.core.draining() {
            return refused(Refusal::Unavailable, "alice is shutting down");
        }
        let (answer, receiver) = channel();
        match self.desk.queue.push(Job { work, client: client.into(), answer, admitted: Instant::now() }) {
            Ok(()) => Ok(receiver),
            Err(full) => refused(Refusal::Busy, full.to_string()),
        }
    }

    fn bob_predict(
        &self,
        client: &str,
        id: RequestId,
        (epoch, batch, reveal): (u64, u32, Reveal),
        share: Words,
    ) -> Result<Response, Refused> {
        if let Some(response) = self.repeat(client, &id) {
            return Ok(response);
        }
        let (answer, receiver) = channel();
        if !self.halves.put(id, client.into(), Half::Predict { epoch, batch, reveal, share }, answer) {
            return refused(Refusal::Busy, "busy: too many requests wait, or this one is already under way");
        }
        self.answer(client, id, receiver)
    }

    fn alice_upload(
        &self,
        client: &str,
        id: RequestId,
        manifest: Box<Manifest>,
        seed: SecretSeed,
    ) -> Result<Response, Refused> {
        let total = elements(&manifest).unwrap_or(0);
        let all = alice_share(&read_seed(&seed)?, total);
        let mut left = &all[..];
        let mut shares = Vec::with_capacity(manifest.program.weights.len());
        for spec in &manifest.program.weights {
            let (data, more) = left.split_at(spec.shape.iter().product());
            let tensor = Tensor::new(spec.shape.clone(), data.to_vec());
            shares.push(tensor.or_else(|e| refused(Refusal::Invalid, e.to_string()))?);
            left = more;
        }
        let answer = self.enqueue(client, Work::Upload(Upload { id, owner: client.into(), manifest, shares }))?;
        self.finish(client, id, &answer)
    }

    fn bob_upload(
        &self,
        client: &str,
        id: RequestId,
        manifest: Box<Manifest>,
        shares: Vec<Tensor>,
    ) -> Result<Response, Refused> {
        let (answer, receiver) = channel();
        if !self.halves.put(id, client.into(), Half::Upload { manifest, shares }, answer) {
            return refused(Refusal::Busy, "busy: too many requests wait, or this one is already under way");
        }
        self.finish(client, id, &receiver)
    }

    fn finish(&self, client: &str, id: RequestId, answer: &Receiver<Answer>) -> Result<Response, Refused> {
        self.wait(client, id, answer).map(|_| (Reply::Done, None))
    }

    fn remove(&self, client: &str, name: &str) -> Result<Response, Refused> {
        if self.core.party != Party::Alice {
            return refused(Refusal::Invalid, "models are removed at alice");
        }
        let Some(model) = self.core.models.named(name).filter(|m| m.owner == client) else {
            return refused(Refusal::UnknownModel, format!("{client} has shared no model {name}"));
        };
        let answer = self.enqueue(client, Work::Remove(model))?;
        self.finish(client, RequestId::default(), &answer)
    }
}

fn read_seed(seed: &SecretSeed) -> Result<Seed, Refused> {
    match <[u8; 32]>::try_from(seed.expose()) {
        Ok(bytes) => Ok(Seed::from_bytes(bytes)),
        Err(_) => refused(Refusal::Invalid, format!("a seed of {} bytes where 32 are due", seed.expose().len())),
    }
}

/// Elements of all tensors of a model.
fn elements(manifest: &Manifest) -> Option<usize> {
    manifest
        .program
        .weights
        .iter()
        .try_fold(0usize, |sum, w| sum.checked_add(trefoil_ring::tensor::elements(&w.shape).ok()?))
}

fn read_tensors(link: &mut dyn Link, manifest: &Manifest) -> Result<Vec<Tensor>, LaneError> {
    let protocol = |e: trefoil_ring::ShapeError| LaneError::Protocol(e.to_string());
    if elements(manifest).is_none_or(|n| n > MAX_BULK / 8) {
        return Err(LaneError::Protocol("too many weights".into()));
    }
    let mut tensors = Vec::with_capacity(manifest.program.weights.len());
    for spec in &manifest.program.weights {
        let mut words = Words::zeros(spec.shape.iter().product());
        link.recv(tag::SHARES, words.bytes_mut())?;
        tensors.push(Tensor::new(spec.shape.clone(), words.into_vec()).map_err(protocol)?);
    }
    Ok(tensors)
}
