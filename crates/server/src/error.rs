//! Why a server cannot start, and what can go wrong on one lane.

use thiserror::Error;
use trefoil_link::LinkError;
use trefoil_mpc::MpcError;
use trefoil_prg::Party;
use trefoil_proto::cluster::HELPER;
use trefoil_proto::control::{DecodeError, Refusal};
use trefoil_transport::TransportError;

use crate::store::StoreError;

/// A server that cannot start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The network.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cluster file and the identity do not belong together.
    #[error("{0}")]
    Configuration(String),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

/// What ended a piece of work on a lane.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The other evaluator, or the link to it: the lane must be set up again.
    Evaluator(String),
    /// The producer, or the link to her: the session with her must be set up again.
    Producer(String),
    /// This party itself failed after the others agreed: lane and session must be set up again.
    Own(String),
    /// Refused before anything was drawn: the lane goes on.
    Refused(Refusal, String),
}

impl Fault {
    /// How a client hears of it.
    pub(crate) fn refusal(&self) -> (Refusal, String) {
        match self {
            Fault::Evaluator(why) | Fault::Producer(why) | Fault::Own(why) => (Refusal::Unavailable, why.clone()),
            Fault::Refused(why, reason) => (*why, reason.clone()),
        }
    }

    /// A failed evaluation or preparation at an evaluator whose peer is `other`; a link to anyone else is the producer's,
    /// unless it is the helper's, of which the others know nothing.
    /// (On plain TCP a party that called is known by its address.)
    pub(crate) fn of(error: &MpcError, other: Party) -> Self {
        let peer = match error {
            MpcError::Link(
                LinkError::Closed { peer }
                | LinkError::Timeout { peer, .. }
                | LinkError::Unexpected { peer, .. }
                | LinkError::Garbage { peer, .. }
                | LinkError::Transport { peer, .. },
            ) => peer,
            MpcError::Dealt(_) => return Fault::Producer(error.to_string()),
            _ => return Fault::Own(error.to_string()),
        };
        if peer == HELPER {
            return Fault::Own(error.to_string());
        }
        // Alice's one other link in these phases is bob's; bob called alice, so he knows her by name.
        if other == Party::Bob || peer == other.name() {
            Fault::Evaluator(format!("{other}: {error}"))
        } else {
            Fault::Producer(format!("carol: {error}"))
        }
    }
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Fault::Own(e.to_string())
    }
}

/// Something unreadable or out of place on a lane's link.
#[derive(Debug, Error)]
pub(crate) enum LaneError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Protocol(String),
}
