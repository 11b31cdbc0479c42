//! The way between two parties, without sockets: messages, frames, meters, networks and the link in memory.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod error;
pub mod frame;
pub mod memory;
pub mod meter;
pub mod network;

use std::time::Duration;

pub use error::LinkError;
pub use memory::{MemoryLink, pair};
pub use meter::{Counter, Meter, Phase};
pub use network::{Network, NetworkError};

/// A message of the data path: which step sent it. Both ends know what comes next, so a frame that differs is an error.
pub type Tag = u32;

/// A two-way link between two parties, owned by the thread that evaluates.
///
/// Payloads are sent from where they lie and received into place. A link meters itself.
pub trait Link: Send {
    /// Sends `parts`, one after the other, as one frame.
    fn send(&mut self, tag: Tag, parts: &[&[u8]]) -> Result<(), LinkError>;

    /// Receives one frame that must carry `tag` and exactly `into.len()` bytes.
    fn recv(&mut self, tag: Tag, into: &mut [u8]) -> Result<(), LinkError>;

    /// Sends and receives at once: one round. Reads while it writes, so that two large frames cannot deadlock.
    fn exchange(&mut self, tag: Tag, parts: &[&[u8]], into: &mut [u8]) -> Result<(), LinkError>;

    /// Receives one frame of any length up to `limit`: for control messages and for what the peer computes at length.
    /// The thread may sleep at once, where those above may spin for a while.
    fn recv_any(&mut self, tag: Tag, limit: usize) -> Result<Vec<u8>, LinkError>;

    /// Receives one frame of up to `limit` bytes, which replaces what `into` holds: its room is reused.
    fn recv_into(&mut self, tag: Tag, limit: usize, into: &mut Vec<u8>) -> Result<(), LinkError> {
        let payload = self.recv_any(tag, limit)?;
        into.clear();
        into.extend_from_slice(&payload);
        Ok(())
    }

    /// Receives one frame of up to `limit` bytes and forgets it: for bulk data of a request that is refused.
    fn skip(&mut self, tag: Tag, limit: usize) -> Result<(), LinkError> {
        self.recv_any(tag, limit).map(|_| ())
    }

    /// How long a receive may wait for the peer before it fails with [`LinkError::Timeout`]; `None`: for ever.
    fn set_timeout(&mut self, timeout: Option<Duration>);

    /// What went over this link.
    fn meter(&mut self) -> &mut Meter;
}
