//! The client: what it asks of the servers and what it makes of their answers.

use std::time::{Duration, Instant};

use trefoil_link::frame::HEADER;
use trefoil_mpc::masked::output::{open_labels, open_values};
use trefoil_mpc::program::{Op, Program, Reveal};
use trefoil_nn::graph::Post;
use trefoil_prg::seed::random_bytes;
use trefoil_prg::{Party, Seed};
use trefoil_proto::control::{
    MAX_BULK, Manifest, ModelInfo, Refusal, Reply, Request, RequestId, RunReport, SecretSeed,
};
use trefoil_proto::{Cluster, Identity, Transport};
use trefoil_ring::{Tensor, Words};
use trefoil_transport::{Security, Tls};

use crate::ClientError;
use crate::encoding::{EncodeError, encode_samples};
use crate::evaluator::Evaluator;
use crate::listing::{Listing, listed};
use crate::request::{Asked, Got, accepted, ask_both};
use crate::share::{Shared, split};

/// How long a first connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection may take in the middle of a request: failures are reported within 5 s.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long alice may take to remove a model, or to change a data set.
const CHANGE: Duration = Duration::from_secs(60);

/// Whom to call, and as whom.
#[derive(Debug)]
pub struct ClientConfig {
    /// Where the servers are and whose certificates are trusted.
    pub cluster: Cluster,
    /// This client's key and certificate; needed under TLS.
    pub identity: Option<Identity>,
    /// This client's name in the cluster file.
    pub name: String,
    /// How long to try again while the servers are busy.
    pub patience: Duration,
}

impl ClientConfig {
    /// A configuration with a minute's patience.
    pub fn new(cluster: Cluster, identity: Option<Identity>, name: impl Into<String>) -> Self {
        Self { cluster, identity, name: name.into(), patience: Duration::from_secs(60) }
    }
}

/// The answer to a private prediction, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The logits of all samples, if they were asked for; of pairs their squared distances.
    pub logits: Option<Vec<f32>>,
    /// One label for each sample, if they were asked for; of pairs 1 where they are similar, else 0.
    pub labels: Option<Vec<u32>>,
    /// Outputs of one sample.
    pub outputs: usize,
    /// What alice measured.
    pub alice: RunReport,
    /// What bob measured.
    pub bob: RunReport,
    /// Bytes that the evaluators sent to open the answer, frame headers included.
    pub revealed: u64,
}

/// A client of alice and bob.
pub struct Client {
    config: ClientConfig,
    security: Security,
    pub(crate) open: Option<[Evaluator; 2]>,
}

impl Client {
    /// Connects to alice and bob.
    pub fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let cluster = &config.cluster;
        if cluster.client(&config.name).is_none() {
            let known = cluster.client.iter().map(|c| c.name.clone()).collect();
            return Err(ClientError::UnknownClient { name: config.name, known });
        }
        let security = match (cluster.transport, &config.identity) {
            (Transport::Tcp, _) => Security::Plain,
            (Transport::Tls, None) => return Err(ClientError::NoIdentity),
            (Transport::Tls, Some(identity)) => {
                Security::Tls(Tls::new(identity, cluster.trusted()).map_err(ClientError::Identity)?)
            }
        };
        let mut client = Self { config, security, open: None };
        client.open = Some(client.call_both(CONNECT)?);
        Ok(client)
    }

    /// This client's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The models that this client may ask or owns, as both evaluators hold them.
    pub fn models(&mut self) -> Result<Vec<ModelInfo>, ClientError> {
        Ok(self.list_models()?.agreed)
    }

    /// The same, and what the evaluators differ in.
    pub fn list_models(&mut self) -> Result<Listing<ModelInfo>, ClientError> {
        let ask = || {
            let requests = [&Request::Models, &Request::Models];
            let lists = self.both(&Asked { requests, id: RequestId::default(), shares: &[], longest: 0 })?;
            named(lists, "a list of models", |reply| match reply {
                Reply::Models(list) => Some(list),
                _ => None,
            })
        };
        let same = |a: &ModelInfo, b: &ModelInfo| (a.epoch, &a.owner, &a.manifest) == (b.epoch, &b.owner, &b.manifest);
        // Ready is what both have ready.
        let join = |a: ModelInfo, b: ModelInfo| same(&a, &b).then(|| ModelInfo { ready: a.ready.min(b.ready), ..a });
        listed(ask, "model", |m| &m.manifest.name, |m| m.manifest.name.clone(), join)
    }

    /// The model of this name.
    pub fn model(&mut self, name: &str) -> Result<ModelInfo, ClientError> {
        let mut all = self.list_models()?;
        all.find(name, |m| &m.manifest.name)?.ok_or_else(|| {
            let known = all.agreed.into_iter().map(|m| m.manifest.name).collect();
            ClientError::UnknownModel { name: name.into(), known }
        })
    }

    /// The private prediction of `batch` samples lying one after the other: values as the user has them, which the
    /// model's input encoding brings to its scale.
    pub fn predict(
        &mut self,
        model: &ModelInfo,
        reveal: Reveal,
        samples: &[f32],
        batch: usize,
    ) -> Result<Prediction, ClientError> {
        let Manifest { name, program, window, input, post, .. } = &model.manifest;
        let granted = model.manifest.reveals_to(self.name());
        if !granted.contains(&reveal) {
            let client = self.name().to_owned();
            return Err(ClientError::NotGranted { model: name.clone(), client, reveal, granted });
        }
        let values = program.infer()?;
        let size = values[0].elements();
        let outputs = values[values.len() - 1].elements();
        let program = program.ending_in(reveal, *window)?;
        let Some(announced) =
            u32::try_from(batch).ok().filter(|b| *b > 0 && batch.checked_mul(size) == Some(samples.len()))
        else {
            return Err(EncodeError::Count { got: samples.len(), batch, size }.into());
        };
        within("the batch", samples.len(), "send fewer samples at once")?;
        let words = encode_samples(input, program.fraction_bits, samples, size)?;
        let began = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let Shared { id, seed, rest } = split(&words)?;
            let request =
                |seed| Request::Predict { id, model: name.clone(), epoch: model.epoch, batch: announced, reveal, seed };
            // Logits have at most 8 bytes each, labels at most 8 planes of bits.
            let longest = MAX_BULK.min(batch.saturating_mul(8 * outputs.max(8)));
            match self.send_shared(id, &seed, request, &[rest.bytes()], longest) {
                Ok(replies) => return prediction(&program, (reveal, *post), batch, outputs, replies),
                Err(ClientError::Refused { why: Refusal::Busy, .. }) => {}
                Err(e) => return Err(e),
            }
            if began.elapsed() >= self.config.patience {
                return Err(ClientError::Busy { waited: began.elapsed() });
            }
            std::thread::sleep(jittered(pause)?);
            pause = (2 * pause).min(Duration::from_secs(2));
        }
    }

    /// Shares a model: its public description and its encoded weights in the order of the program. All servers hold it
    /// afterwards, or none.
    pub fn share(&mut self, manifest: &Manifest, weights: &[Tensor]) -> Result<(), ClientError> {
        let specs = &manifest.program.weights;
        if weights.len() != specs.len() {
            return Err(ClientError::Weights { expected: specs.len(), got: weights.len() });
        }
        if let Some((spec, w)) = specs.iter().zip(weights).find(|(spec, w)| spec.shape != w.shape()) {
            let (expected, got) = (spec.shape.clone(), w.shape().to_vec());
            return Err(ClientError::Weight { name: spec.name.clone(), expected, got });
        }
        let total = weights.iter().map(Tensor::len).sum();
        within("the model's weights", total, "share a smaller network")?;
        let mut words = Words::with_capacity(total);
        weights.iter().for_each(|w| words.extend(w.data()));
        let Shared { id, seed, rest } = split(&words)?;
        drop(words);
        let mut left = rest.bytes();
        let mut frames = Vec::with_capacity(weights.len());
        for w in weights {
            let (frame, more) = left.split_at(8 * w.len());
            frames.push(frame);
            left = more;
        }
        let request = |seed| Request::Share { id, manifest: Box::new(manifest.clone()), seed };
        let replies = self.send_shared(id, &seed, request, &frames, 0)?;
        named(replies, "a model", |reply| matches!(reply, Reply::Done).then_some(())).map(drop)
    }

    /// Removes a model and everything prepared for it: alice tells the others.
    pub fn remove(&mut self, name: &str) -> Result<(), ClientError> {
        self.ask_alice(&Request::Remove { model: name.into() }, "a removal")
    }

    /// Asks alice for something that she has the others do.
    pub(crate) fn ask_alice(&mut self, request: &Request, asked: &'static str) -> Result<(), ClientError> {
        let mut open = self.take()?;
        let alice = &mut open[0];
        alice.ask(request, &[], 0)?;
        let got = alice.reply_by(Instant::now() + CHANGE)?;
        let answer = accepted(alice, got);
        self.open = Some(open);
        match answer?.0 {
            Reply::Done => Ok(()),
            other => Err(ClientError::Unfit { party: Party::Alice, asked, got: kind(&other) }),
        }
    }

    /// Sends alice the seed and bob the rest of the same request.
    pub(crate) fn send_shared(
        &mut self,
        id: RequestId,
        seed: &Seed,
        request: impl Fn(SecretSeed) -> Request,
        shares: &[&[u8]],
        longest: usize,
    ) -> Result<[Got; 2], ClientError> {
        let to_alice = request(seed.expose().to_vec().into());
        let to_bob = request(Vec::new().into());
        self.both(&Asked { requests: [&to_alice, &to_bob], id, shares, longest })
    }

    /// Asks both, and once more on new connections if one was lost: the same label gets the same answer.
    pub(crate) fn both(&mut self, asked: &Asked<'_>) -> Result<[Got; 2], ClientError> {
        let mut first_failure = None;
        loop {
            let mut open = match first_failure {
                None => self.take()?,
                Some(e) => match self.call_both(RECONNECT) {
                    Ok(open) => {
                        first_failure = Some(e);
                        open
                    }
                    Err(_) => {
                        self.forget(asked.id);
                        return Err(e);
                    }
                },
            };
            let replies = ask_both(&mut open, asked, || self.forget(asked.id));
            if replies.usable {
                self.open = Some(open);
            }
            match replies.outcome {
                Err(e) if e.is_lost() && first_failure.is_none() => first_failure = Some(e),
                outcome => return outcome,
            }
        }
    }

    /// Tells bob that alice did not admit a request. He answers where he waits: on the request's own connection.
    pub(crate) fn forget(&self, id: RequestId) {
        let Ok(mut bob) = self.call(Party::Bob, RECONNECT) else { return };
        if bob.ask(&Request::Forget { id }, &[], 0).is_ok() {
            // Whatever he says: he has read it.
            let _ = bob.reply(RECONNECT);
        }
    }

    pub(crate) fn take(&mut self) -> Result<[Evaluator; 2], ClientError> {
        match self.open.take() {
            Some(open) => Ok(open),
            None => self.call_both(CONNECT),
        }
    }

    fn call_both(&self, limit: Duration) -> Result<[Evaluator; 2], ClientError> {
        Ok([self.call(Party::Alice, limit)?, self.call(Party::Bob, limit)?])
    }

    fn call(&self, party: Party, limit: Duration) -> Result<Evaluator, ClientError> {
        Evaluator::connect(party, &self.config.cluster, &self.security, &self.config.name, limit)
    }
}

/// Between half of `pause` and all of it.
fn jittered(pause: Duration) -> Result<Duration, ClientError> {
    let mut random = [0];
    random_bytes(&mut random)?;
    Ok(pause.mul_f64(0.5 + f64::from(random[0]) / 510.0))
}

pub(crate) fn within(what: &'static str, words: usize, advice: &'static str) -> Result<(), ClientError> {
    let bytes = words.saturating_mul(8);
    if bytes > MAX_BULK { Err(ClientError::TooLarge { what, bytes, limit: MAX_BULK, advice }) } else { Ok(()) }
}

pub(crate) fn kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Models(_) => "a list of models",
        Reply::Answer(_) => "an answer",
        Reply::Done => "a confirmation",
        Reply::Refused { .. } => "a refusal",
        Reply::Sets(_) => "a list of data sets",
        Reply::Ready => "a call for pieces",
        Reply::Runs(_) => "a list of runs",
        Reply::Spec(_) => "a run's specification",
    }
}

/// Both replies as what they should be.
pub(crate) fn named<T>(
    [(alice, _), (bob, _)]: [Got; 2],
    asked: &'static str,
    read: impl Fn(Reply) -> Option<T>,
) -> Result<[T; 2], ClientError> {
    let one = |party, reply: Reply| {
        let got = kind(&reply);
        read(reply).ok_or(ClientError::Unfit { party, asked, got })
    };
    Ok([one(Party::Alice, alice)?, one(Party::Bob, bob)?])
}

fn prediction(
    program: &Program,
    (reveal, post): (Reveal, Post),
    batch: usize,
    outputs: usize,
    [(alice, from_alice), (bob, from_bob)]: [Got; 2],
) -> Result<Prediction, ClientError> {
    let asked = "a prediction";
    let report = |party, reply| match reply {
        Reply::Answer(report) => Ok(*report),
        other => Err(ClientError::Unfit { party, asked, got: kind(&other) }),
    };
    let (alice, bob) = (report(Party::Alice, alice)?, report(Party::Bob, bob)?);
    if alice.lot != bob.lot {
        return Err(ClientError::Disagree { what: "the lot of the answer".into() });
    }
    let revealed = (from_alice.len() + from_bob.len() + 2 * HEADER) as u64;
    let (mut logits, mut labels) = (None, None);
    match (reveal, program.steps.last().map(|s| &s.op)) {
        (Reveal::Logits, Some(Op::Reveal { shift, .. })) => {
            let values = open_values(&from_alice, &from_bob, batch * outputs, *shift)?;
            let scale = program.infer()?.last().map_or(0, |v| v.scale);
            let unit = (-f64::from(scale)).exp2();
            logits = Some(values.into_iter().map(|v| post.answer(v as f64 * unit) as f32).collect());
        }
        _ => labels = Some(open_labels(&from_alice, &from_bob, batch, outputs)?),
    }
    Ok(Prediction { logits, labels, outputs, alice, bob, revealed })
}
