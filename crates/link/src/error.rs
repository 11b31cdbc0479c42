//! What can go wrong between two parties, and whose fault it is.

use std::time::Duration;

use thiserror::Error;

use crate::Tag;

/// A failed send or receive.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The peer is gone.
    #[error("{peer} closed the connection")]
    Closed {
        /// The peer's name.
        peer: String,
    },
    /// The peer was silent for too long.
    #[error("{peer} was silent for {waited:?}")]
    Timeout {
        /// The peer's name.
        peer: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The peer sent a frame that does not belong here.
    #[error(
        "{peer} misbehaved: sent a frame of step {got_tag:#x} with {got_len} bytes where step {tag:#x} with {len} bytes was due"
    )]
    Unexpected {
        /// The peer's name.
        peer: String,
        /// Tag that was due.
        tag: Tag,
        /// Length that was due (the limit, where any length was allowed).
        len: usize,
        /// Tag received.
        got_tag: Tag,
        /// Length received.
        got_len: usize,
    },
    /// Bytes that are no frame.
    #[error("{peer} misbehaved: {reason}")]
    Garbage {
        /// The peer's name.
        peer: String,
        /// What was wrong.
        reason: String,
    },
    /// A message larger than any frame.
    #[error("a message of {0} bytes: a frame holds at most {max}", max = crate::frame::MAX_PAYLOAD)]
    TooLarge(usize),
    /// The operating system or TLS failed.
    #[error("{peer}: {reason}")]
    Transport {
        /// The peer's name.
        peer: String,
        /// The cause.
        reason: String,
    },
}
