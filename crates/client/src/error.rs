//! What can stop a request, whose fault it is, and what to do.

use std::time::Duration;

use thiserror::Error;
use trefoil_link::LinkError;
use trefoil_mpc::MpcError;
use trefoil_mpc::program::{ProgramError, Reveal};
use trefoil_prg::{Party, RandomError};
use trefoil_proto::control::{DecodeError, Refusal};
use trefoil_transport::TransportError;

use crate::{EncodeError, RunUseError, SetError, TrainingError};

/// "logits, label".
fn asked(reveals: &[Reveal]) -> String {
    let words = reveals.iter().map(|r| match r {
        Reveal::Logits => "logits",
        Reveal::Label => "labels",
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A request that was not answered.
#[derive(Debug, Error)]
pub enum ClientError {
    /// TLS needs an identity.
    #[error(
        "the cluster uses TLS and there is no identity: make one with `trefoil keygen` and have it put in the cluster file"
    )]
    NoIdentity,
    /// The cluster file does not know this client.
    #[error("the cluster file names no client {name:?} (it has: {})", known.join(", "))]
    UnknownClient {
        /// The name.
        name: String,
        /// The clients it names.
        known: Vec<String>,
    },
    /// No connection to a server.
    #[error("no connection to {party}: {source}{}", if source.is_transient() { "; is it running, and is its address right?" } else { "" })]
    Connect {
        /// The server.
        party: Party,
        /// The cause.
        source: TransportError,
    },
    /// This side's key cannot be used.
    #[error(transparent)]
    Identity(TransportError),
    /// A connection was lost in the middle of a request.
    #[error(
        "the connection to {party} was lost: {source}; the request was not answered, send it again once {party} is back"
    )]
    Lost {
        /// The server.
        party: Party,
        /// The cause.
        source: LinkError,
    },
    /// A server does not answer in time, or although the other one has.
    #[error("{party} does not answer: is it alive?")]
    Silent {
        /// The server.
        party: Party,
    },
    /// A server's message cannot be read.
    #[error("{party} misbehaved: {source}")]
    Reply {
        /// The server.
        party: Party,
        /// The cause.
        source: DecodeError,
    },
    /// A server answered something else than was asked.
    #[error("{party} misbehaved: {got} is no answer to {asked}")]
    Unfit {
        /// The server.
        party: Party,
        /// What was asked.
        asked: &'static str,
        /// What came.
        got: &'static str,
    },
    /// A server refused.
    #[error("{party} refused: {reason}{}", advice(*why))]
    Refused {
        /// The server.
        party: Party,
        /// The kind of reason.
        why: Refusal,
        /// In words.
        reason: String,
    },
    /// The queue stayed full.
    #[error("the servers were busy for {waited:.1?}: try again later")]
    Busy {
        /// How long was tried.
        waited: Duration,
    },
    /// Alice and bob hold different things.
    #[error("alice and bob disagree on {what}: do not use it; ask their operators")]
    Disagree {
        /// On what.
        what: String,
    },
    /// No such model.
    #[error("no model {name:?} for this client (there is: {})", if known.is_empty() { "none".into() } else { known.join(", ") })]
    UnknownModel {
        /// The name.
        name: String,
        /// The names of those there are.
        known: Vec<String>,
    },
    /// The owner did not grant this reveal.
    #[error("{client} may not ask model {model} for {} (granted: {}); ask its owner", asked(&[*reveal]), asked(granted))]
    NotGranted {
        /// The model.
        model: String,
        /// The client.
        client: String,
        /// What was asked.
        reveal: Reveal,
        /// What is granted.
        granted: Vec<Reveal>,
    },
    /// A value that the model does not take.
    #[error(transparent)]
    Input(#[from] EncodeError),
    /// More than one request carries.
    #[error("{what}: {bytes} bytes are more than the {limit} that one request carries; {advice}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The most.
        limit: usize,
        /// What to do.
        advice: &'static str,
    },
    /// Not the program's number of weights.
    #[error("{got} weights given: the program has {expected}")]
    Weights {
        /// Tensors due.
        expected: usize,
        /// Tensors given.
        got: usize,
    },
    /// A weight that does not belong to the program.
    #[error("weight {name}: shape {expected:?} is due, got {got:?}")]
    Weight {
        /// Its name.
        name: String,
        /// The program's shape.
        expected: Vec<usize>,
        /// The shape given.
        got: Vec<usize>,
    },
    /// The model's program cannot be run.
    #[error("the model's program: {0}")]
    Program(#[from] ProgramError),
    /// The two halves of an answer do not fit.
    #[error("the answer: {0}")]
    Answer(#[from] MpcError),
    /// A data set, or a part of one, that does not fit.
    #[error(transparent)]
    Set(#[from] SetError),
    /// A training run that does not fit, or none of this name.
    #[error(transparent)]
    Run(#[from] RunUseError),
    /// Training that cannot be given to the servers.
    #[error(transparent)]
    Training(#[from] Box<TrainingError>),
    /// No randomness, no shares.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl From<TrainingError> for ClientError {
    fn from(e: TrainingError) -> Self {
        Self::Training(Box::new(e))
    }
}

fn advice(why: Refusal) -> &'static str {
    match why {
        Refusal::Busy => "; try again later",
        Refusal::UnknownModel => "; `trefoil models` lists those you may query",
        Refusal::UnknownSet => "; `trefoil data list` lists those you declared or contribute to",
        Refusal::UnknownRun => "; `trefoil runs` lists those you have to do with",
        Refusal::Denied => "; ask its owner or the cluster's operators",
        Refusal::Invalid => "",
        Refusal::Unavailable | Refusal::NotYet => "; the request was not answered, send it again",
        Refusal::Mismatch => "; nothing was computed; ask the operators",
    }
}

impl ClientError {
    /// Whether a server or the way to it failed, so that the same request may do better on a new connection.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, ClientError::Lost { .. } | ClientError::Silent { .. })
    }

    /// Whether the servers are not ready (yet): the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            ClientError::Refused { why, .. } => *why == Refusal::Unavailable,
            ClientError::Connect { source, .. } => source.is_transient(),
            ClientError::Lost { .. } | ClientError::Silent { .. } | ClientError::Busy { .. } => true,
            _ => false,
        }
    }
}
