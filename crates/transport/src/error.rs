//! Why a connection was not made, and whose fault it is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use trefoil_proto::Fingerprint;

/// A connection that was not made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// An address that names no host.
    #[error("{address}: {source}")]
    Address {
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// Plain TCP to or from another host.
    #[error("{address} is not on this host: plain TCP is for trials on loopback, other hosts need TLS")]
    PlainOffLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// A socket could not be opened for listening.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("cannot reach {peer} at {address}: {source}")]
    Unreachable {
        /// The peer.
        peer: String,
        /// Its address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// No certificate is pinned for this peer.
    #[error("no certificate is pinned for {peer} in the cluster file")]
    NoPin {
        /// The peer.
        peer: String,
    },
    /// The peer owns another certificate than the one pinned.
    #[error("{peer}'s certificate is not the one pinned in the cluster file: got {}, pinned {}", got.short(), pinned.short())]
    WrongCertificate {
        /// The peer.
        peer: String,
        /// What it showed.
        got: Fingerprint,
        /// What was due.
        pinned: Fingerprint,
    },
    /// A caller whose certificate is nowhere in the cluster file.
    #[error("{peer}'s certificate is not in the cluster file: got {}", got.short())]
    UnknownCertificate {
        /// The caller.
        peer: String,
        /// What it showed.
        got: Fingerprint,
    },
    /// The peer's certificate is pinned but not valid now.
    #[error("{peer}'s certificate {} is expired or not yet valid (or the clocks differ)", got.short())]
    NotValidNow {
        /// The peer.
        peer: String,
        /// What it showed.
        got: Fingerprint,
    },
    /// The peer answers with something that is not TLS.
    #[error("{peer} does not speak TLS: is its transport \"tcp\"?")]
    NotTls {
        /// The peer.
        peer: String,
    },
    /// The peer refused this side.
    #[error("{peer} refused the connection ({alert}): is our certificate in its cluster file?")]
    Refused {
        /// The peer.
        peer: String,
        /// The TLS alert.
        alert: String,
    },
    /// The handshake failed otherwise.
    #[error("TLS with {peer}: {reason}")]
    Tls {
        /// The peer.
        peer: String,
        /// The cause.
        reason: String,
    },
    /// The peer is gone in the middle of the handshake.
    #[error("{peer} closed the connection during the handshake")]
    Closed {
        /// The peer.
        peer: String,
    },
    /// The handshake takes too long.
    #[error("{peer} did not finish the handshake within {limit:?}")]
    Timeout {
        /// The peer.
        peer: String,
        /// The time allowed.
        limit: Duration,
    },
    /// This side's key or certificate cannot be used.
    #[error("the identity {name} cannot be used for TLS: {reason}")]
    Identity {
        /// Its name.
        name: String,
        /// The cause.
        reason: String,
    },
    /// The operating system failed.
    #[error("{peer}: {source}")]
    Io {
        /// The peer, or what was being done.
        peer: String,
        /// The cause.
        source: io::Error,
    },
    /// The caller gave up waiting for the peer.
    #[error("gave up connecting to {peer}{}", last.as_ref().map(|e| format!(": {e}")).unwrap_or_default())]
    Cancelled {
        /// The peer.
        peer: String,
        /// The last failure, if there was one.
        last: Option<Box<TransportError>>,
    },
}

impl TransportError {
    /// Whether trying again later may help: the peer is not up yet or went down.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Address { .. }
                | Self::Unreachable { .. }
                | Self::Closed { .. }
                | Self::Timeout { .. }
                | Self::Io { .. }
        )
    }
}
