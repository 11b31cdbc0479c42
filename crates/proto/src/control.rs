//! Control messages: between clients and servers, and between the servers about requests, models and lots.
//!
//! Encoded with postcard, each in one frame; bulk data follows in frames of its own. Whoever decodes one has bounded
//! its length first, and nothing in it is trusted before it is checked.

use std::fmt;

use postcard::ser_flavors::Size;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use trefoil_mpc::program::{Program, Reveal, Window};
use trefoil_nn::graph::Post;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::dataset::{Declaration, SetInfo};
use crate::run::{Resumed, RunInfo, RunSpec, Training};

/// Frame tags of the control plane. Steps of a program use lower numbers.
pub mod tag {
    /// The first frame on a connection.
    pub const OPENING: u32 = 0xffff_0001;
    /// A client's request.
    pub const REQUEST: u32 = 0xffff_0002;
    /// A server's reply.
    pub const REPLY: u32 = 0xffff_0003;
    /// Bulk data of a request: shares.
    pub const SHARES: u32 = 0xffff_0004;
    /// Bulk data of a reply: one evaluator's part of the answer.
    pub const ANSWER: u32 = 0xffff_0005;
    /// Alice's command to bob or carol.
    pub const COMMAND: u32 = 0xffff_0006;
    /// Their reply.
    pub const STATUS: u32 = 0xffff_0007;
    /// Session set-up between servers.
    pub const HELLO: u32 = 0xffff_0008;
    /// Confirmation of a session's secrets.
    pub const CONFIRM: u32 = 0xffff_0009;
}

/// Longest control message: programs included, bulk data not.
pub const MAX_CONTROL: usize = 4 << 20;
/// Longest bulk data in one request: one input batch, or one model's shares.
pub const MAX_BULK: usize = 1 << 30;

/// A control message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a {what}: {reason}")]
pub struct DecodeError {
    /// What it should have been.
    pub what: &'static str,
    /// Why it is not.
    pub reason: String,
}

/// Encodes a control message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    encode_after(&[], message).unwrap_or_default()
}

/// Encodes a value behind other bytes, in one piece: a buffer that grows would leave copies of what it held behind.
pub fn encode_after<T: Serialize>(start: &[u8], value: &T) -> Result<Vec<u8>, postcard::Error> {
    let len = postcard::serialize_with_flavor(value, Size::default())?;
    let mut bytes = Vec::with_capacity(start.len() + len);
    bytes.extend_from_slice(start);
    postcard::to_extend(value, bytes)
}

/// Decodes a control message; left-over bytes are an error.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(DecodeError { what, reason: format!("{} bytes left over", rest.len()) }),
        Err(e) => Err(DecodeError { what, reason: e.to_string() }),
    }
}

/// Who calls and why: the first frame on every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// Another server, for one lane.
    Lane {
        /// The caller's name: "bob" or "carol".
        party: String,
        /// The lane.
        lane: u32,
    },
    /// A client or owner. Under TLS the name must be the certificate's in the cluster file.
    Client {
        /// The caller's name.
        name: String,
    },
}

/// How real inputs become fixed point: encoded = x * scale + offset, which must lie in `low ..= high`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InputEncoding {
    /// Factor (1/255 for pixels).
    pub scale: f64,
    /// Added after the factor.
    pub offset: f64,
    /// Lowest value after scaling.
    pub low: f64,
    /// Highest value after scaling.
    pub high: f64,
}

impl Default for InputEncoding {
    fn default() -> Self {
        Self { scale: 1.0 / 255.0, offset: 0.0, low: 0.0, high: 1.0 }
    }
}

/// Who may ask what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// A client's name, or `*` for every client of the cluster file.
    pub client: String,
    /// What may be revealed to it.
    pub reveals: Vec<Reveal>,
}

/// Material to be kept ready for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// Requests of this batch size.
    pub batch: u32,
    /// That reveal this.
    pub reveal: Reveal,
    /// How many.
    pub count: u32,
}

/// Everything public about a shared model. Owners write it, both evaluators hold and enforce it, clients read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The model's name.
    pub name: String,
    /// The compiled network, without its reveal.
    pub program: Program,
    /// Bits that a comparison of one value reads.
    pub window: Window,
    /// How inputs are encoded.
    pub input: InputEncoding,
    /// What the client applies to the logits.
    pub post: Post,
    /// Who may query it.
    pub grants: Vec<Grant>,
    /// Material to keep ready.
    pub ahead: Vec<Ahead>,
}

impl Manifest {
    /// What may be revealed to `client`.
    pub fn reveals_to(&self, client: &str) -> Vec<Reveal> {
        let mine = self.grants.iter().filter(|g| g.client == client || g.client == "*");
        let mut all: Vec<Reveal> = mine.flat_map(|g| g.reveals.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A model as the servers list it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Number of the upload: fresh for each.
    pub epoch: u64,
    /// Who shared it.
    pub owner: String,
    /// Its public description.
    pub manifest: Manifest,
    /// Requests for which this server has material ready.
    pub ready: u32,
}

/// The seed of alice's share on its way to her. Erased on drop, not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SecretSeed(Vec<u8>);

impl SecretSeed {
    /// The secret bytes, as many as the sender gave.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SecretSeed {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SecretSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSeed({} bytes)", self.0.len())
    }
}

/// A label that the client chose: repeats of an answered request get the stored bytes again.
pub type RequestId = [u8; 16];

/// What a client or owner asks of alice and of bob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// The models this client may query or owns.
    Models,
    /// One private prediction. Alice gets a seed in `share`; to bob the share itself follows in its own frame.
    Predict {
        /// Same for both evaluators.
        id: RequestId,
        /// Name of the model.
        model: String,
        /// Its upload, as listed: a model that changed in between is refused.
        epoch: u64,
        /// Samples.
        batch: u32,
        /// What is to be revealed.
        reveal: Reveal,
        /// Alice: the seed of her share. Bob: empty.
        seed: SecretSeed,
    },
    /// Share a model. Shares go as in `Predict`, all tensors one after the other.
    Share {
        /// Same for both evaluators.
        id: RequestId,
        /// The public description.
        manifest: Box<Manifest>,
        /// Alice: the seed of her shares. Bob: empty.
        seed: SecretSeed,
    },
    /// To bob: a request that alice did not admit.
    Forget {
        /// Its id.
        id: RequestId,
    },
    /// Remove a model and everything prepared for it. To alice only.
    Remove {
        /// Its name.
        model: String,
    },
    /// The data sets that this client declared or contributes to.
    Sets,
    /// Declare a data set. To alice only: everyone who contributes compares her list with bob's.
    Declare {
        /// Its public description.
        declaration: Box<Declaration>,
    },
    /// One part of a data set. Bob is asked first: he replies `Ready` or refuses, then the share itself follows, piece
    /// by piece ([`crate::dataset::pieces`]), each in its own frame. Once he is `Ready` again alice is asked, who gets a
    /// seed, and both reply.
    Contribute {
        /// Same for both evaluators.
        id: RequestId,
        /// The set, as listed.
        set: u64,
        /// Hash of its declaration, as the owner read it.
        declaration: [u8; 32],
        /// The part, by its place in the declaration.
        part: u32,
        /// Alice: the seed of her share. Bob: empty.
        seed: SecretSeed,
    },
    /// Remove a data set. To alice only.
    RemoveSet {
        /// Its name.
        set: String,
    },
    /// Train: the specification and the states' first values. Shares go as in `Share`.
    Train {
        /// Same for both evaluators.
        id: RequestId,
        /// The specification.
        spec: Box<RunSpec>,
        /// Alice: the seed of her shares. Bob: empty.
        seed: SecretSeed,
    },
    /// The runs that this client has to do with.
    Runs,
    /// The specification of one of them.
    Spec {
        /// The run.
        run: u64,
    },
    /// Agree to a run. To both: each keeps who has told it so.
    Agree {
        /// The run.
        run: u64,
        /// Hash of the specification that the client has read.
        hash: [u8; 32],
    },
    /// End a run with its epoch. To both.
    Stop {
        /// The run.
        run: u64,
    },
    /// Take an agreement back. To both: the run stops where it is until the client agrees again.
    Withdraw {
        /// The run.
        run: u64,
    },
    /// Remove a run and all its states. To alice only.
    DropRun {
        /// The run.
        run: u64,
    },
    /// This evaluator's part of a value that was revealed to the client.
    Revealed {
        /// The run.
        run: u64,
        /// Number of the value in the specification.
        index: u32,
        /// Epochs that were over.
        epoch: u32,
    },
}

/// Why a request was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The queue is full: try again later.
    Busy,
    /// No such model, or not for this client.
    UnknownModel,
    /// The client may not do this.
    Denied,
    /// The request makes no sense.
    Invalid,
    /// A server or the link to it failed; the request was not answered and may be sent again.
    Unavailable,
    /// The servers disagree on what is to be run.
    Mismatch,
    /// Between the servers: bob's half of the request has not arrived yet.
    NotYet,
    /// No such data set, or not for this client.
    UnknownSet,
    /// No such run, or not for this client.
    UnknownRun,
}

/// What one step of a request took at alice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StepReport {
    /// Online wall time in nanoseconds.
    pub nanos: u64,
    /// Rounds with bob.
    pub rounds: u64,
    /// Bytes with bob, both directions.
    pub online: u64,
    /// Bytes from carol to bob (known to bob).
    pub offline: u64,
}

/// What a request took, as measured at one evaluator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunReport {
    /// The lot that was used up.
    pub lot: u64,
    /// Whether material was ready.
    pub ahead: bool,
    /// Waiting for a lane, in nanoseconds.
    pub queued: u64,
    /// Preparing material, in nanoseconds (when it was prepared ahead: then).
    pub offline: u64,
    /// Evaluating, in nanoseconds.
    pub online: u64,
    /// From both halves being there to the answer, in nanoseconds.
    pub total: u64,
    /// Each step.
    pub steps: Vec<StepReport>,
    /// Peak resident memory of the process, in bytes; 0 where unknown.
    pub peak_rss: u64,
}

/// A server's reply to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Models`.
    Models(Vec<ModelInfo>),
    /// To `Predict`: this evaluator's part of the answer follows in its own frame.
    Answer(Box<RunReport>),
    /// To `Share`, `Remove` and what changes a data set or a run.
    Done,
    /// Not served.
    Refused {
        /// The kind of reason.
        why: Refusal,
        /// In words, without secrets.
        reason: String,
    },
    /// To `Sets`.
    Sets(Vec<SetInfo>),
    /// Bob's to `Contribute`: send the pieces; and when he has them all: tell alice.
    Ready,
    /// To `Runs`.
    Runs(Vec<RunInfo>),
    /// To `Spec`.
    Spec(Box<RunSpec>),
}

/// What the evaluators and the producer must agree on before anything is drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The client; empty where material is dealt ahead.
    pub client: String,
    /// The model's upload.
    pub epoch: u64,
    /// Hash of the program with its reveal.
    pub plan: [u8; 32],
    /// Samples.
    pub batch: u32,
    /// What is revealed.
    pub reveal: Reveal,
    /// The lot.
    pub lot: u64,
}

impl Terms {
    /// Names the first field in which `other` differs, with both values.
    pub fn difference(&self, other: &Terms) -> Option<String> {
        let hex = |h: &[u8; 32]| h[..8].iter().map(|b| format!("{b:02x}")).collect::<String>();
        let differ = |what: &str, a: String, b: String| Some(format!("{what}: {a} here, {b} there"));
        if self.client != other.client {
            return differ("client", self.client.clone(), other.client.clone());
        }
        if self.epoch != other.epoch {
            return differ("model epoch", self.epoch.to_string(), other.epoch.to_string());
        }
        if self.batch != other.batch {
            return differ("batch", self.batch.to_string(), other.batch.to_string());
        }
        if self.reveal != other.reveal {
            return differ("reveal", format!("{:?}", self.reveal), format!("{:?}", other.reveal));
        }
        if self.lot != other.lot {
            return differ("lot", self.lot.to_string(), other.lot.to_string());
        }
        if self.plan != other.plan {
            return differ("plan", hex(&self.plan), hex(&other.plan));
        }
        None
    }
}

/// Alice's commands to bob and carol on one lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Nothing to do: are you there?
    Ping,
    /// Agree on fresh seeds: three hellos, then three confirmations follow.
    Session,
    /// What alice holds: what is staged among `epochs` and `sets` is kept for good, what else is staged dropped.
    Inventory {
        /// Epochs of the models that exist.
        epochs: Vec<u64>,
        /// Epochs of the data sets and of their parts that exist.
        sets: Vec<u64>,
        /// Numbers of the runs that exist.
        runs: Vec<u64>,
        /// Numbers of those that lack an agreement or data: nothing of their rows stays in memory.
        halted: Vec<u64>,
        /// Epochs of uploads under way.
        uploading: Vec<u64>,
        /// What is staged with this epoch or a higher one is younger than this inventory: it stays.
        below: u64,
        /// To bob: lots whose material alice still has; he drops the others.
        ready: Vec<u64>,
    },
    /// Get ready for a lot: bob with the half of request `id` (none where material is dealt ahead), carol to deal.
    Run {
        /// The client's request; `None` to prepare ahead.
        id: Option<RequestId>,
        /// What is run.
        terms: Terms,
        /// Whether bob uses the material of this lot that he prepared ahead. He then begins as he agrees.
        ahead: bool,
    },
    /// Everyone agreed: begin.
    Go,
    /// Someone did not: forget the last `Run` or `Upload`; nothing was drawn.
    Cancel,
    /// Open a model's weights under fresh masks and stage the result.
    Upload {
        /// The owner's request, for bob's half.
        id: RequestId,
        /// The owner.
        owner: String,
        /// Number of the upload; also the lot of its masks.
        epoch: u64,
        /// BLAKE3 of the encoded manifest, as bob must have received it too.
        manifest_hash: [u8; 32],
        /// To carol, who meets no owner: the program and its window.
        program: Option<Box<(Program, Window)>>,
    },
    /// Keep the staged model.
    Commit {
        /// Its epoch.
        epoch: u64,
    },
    /// Erase a model.
    Erase {
        /// Its epoch.
        epoch: u64,
    },
    /// Stage a data set's declaration.
    Declare {
        /// Number of the declaration.
        epoch: u64,
        /// Who declares it.
        coordinator: String,
        /// What.
        declaration: Box<Declaration>,
    },
    /// Stage a part of a data set: bob his half of request `id`, carol that it is there.
    Contribute {
        /// The owner's request.
        id: RequestId,
        /// The owner.
        owner: String,
        /// The set.
        set: u64,
        /// The part, by its place in the declaration.
        part: u32,
        /// Number of the upload.
        epoch: u64,
    },
    /// Keep the staged declaration or part.
    Keep {
        /// Its epoch.
        epoch: u64,
    },
    /// Erase a data set and its parts.
    EraseSet {
        /// Its epoch.
        epoch: u64,
    },
    /// About a training run.
    Training(Box<Training>),
}

/// Bob's and carol's replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Done, or ready for what comes next.
    Ok,
    /// To `Session`: ready for the hellos; no lot below this number will be accepted.
    Mark(u64),
    /// To `Inventory`: epochs that this party lacks.
    Missing(Vec<u64>),
    /// To `Training::Resume`.
    Resumed(Box<Resumed>),
    /// Not done: nothing was drawn.
    Refused {
        /// The kind of reason.
        why: Refusal,
        /// In words.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_over_bytes_are_refused() {
        let mut bytes = encode(&Status::Missing(vec![3]));
        assert_eq!(decode::<Status>("status", &bytes), Ok(Status::Missing(vec![3])));
        bytes.push(0);
        assert!(decode::<Status>("status", &bytes).unwrap_err().reason.contains("left over"));
        assert!(decode::<Status>("status", &[77]).is_err());
    }

    #[test]
    fn a_seed_is_not_shown() {
        let manifest = b"the seed".to_vec();
        let seed = SecretSeed::from(manifest.clone());
        assert_eq!(format!("{seed:?}"), "SecretSeed(8 bytes)");
        assert_eq!(decode::<SecretSeed>("seed", &encode(&seed)).unwrap().expose(), manifest);
        assert_eq!(encode(&seed), encode(&manifest));
    }

    #[test]
    fn a_difference_is_named_with_both_values() {
        let a = Terms { client: "c".into(), epoch: 1, plan: [0; 32], batch: 2, reveal: Reveal::Logits, lot: 3 };
        assert_eq!(a.difference(&a), None);
        let b = Terms { batch: 4, ..a.clone() };
        assert_eq!(a.difference(&b).unwrap(), "batch: 2 here, 4 there");
        let b = Terms { plan: [1; 32], ..a.clone() };
        assert!(a.difference(&b).unwrap().starts_with("plan: 0000000000000000 here, 01"));
    }

    #[test]
    fn grants_add_up() {
        let grant = |client: &str, reveals: &[Reveal]| Grant { client: client.into(), reveals: reveals.to_vec() };
        let m = Manifest {
            name: "m".into(),
            program: Program {
                fraction_bits: 16,
                input_shape: vec![1],
                weights: vec![],
                states: vec![],
                rates: 0,
                steps: vec![],
            },
            window: Window { lo: 16, k: 32 },
            input: InputEncoding::default(),
            post: Post::None,
            grants: vec![grant("*", &[Reveal::Label]), grant("ann", &[Reveal::Logits])],
            ahead: vec![],
        };
        assert_eq!(m.reveals_to("ann"), [Reveal::Logits, Reveal::Label]);
        assert_eq!(m.reveals_to("bert"), [Reveal::Label]);
    }
}
