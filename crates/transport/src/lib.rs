//! Links over sockets: TCP on loopback, TLS 1.3 with pinned certificates everywhere else.
//!
//! The thread that evaluates owns its socket: it spins briefly, then blocks. There are no other threads.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod connect;
mod emulated;
mod error;
mod handshake;
mod listen;
mod pin;
mod record;
mod security;
mod socket_link;
mod stream;
mod tls;
mod wait;

pub use connect::{connect, connect_with_backoff};
pub use emulated::Emulated;
pub use error::TransportError;
pub use listen::{Incoming, Listener};
pub use security::{Security, Tls};

use std::net::{Shutdown, SocketAddr, TcpStream};

use trefoil_link::Link;
use trefoil_proto::Fingerprint;

/// An open connection to a peer.
pub struct Connection {
    /// The way to the peer.
    pub link: Box<dyn Link>,
    /// Who the peer is.
    pub peer: PeerIdentity,
    /// Shuts the link down from another thread.
    pub closer: Closer,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its name in the cluster file. On plain TCP an accepted peer is not known: its address stands here.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// The certificate it proved to own; `None` on plain TCP.
    pub fingerprint: Option<Fingerprint>,
}

/// Shuts a connection down from another thread: whoever waits on its link gets an error at once.
#[derive(Debug)]
pub struct Closer(TcpStream);

impl Closer {
    /// Ends the connection in both directions. A connection that is already down stays so.
    pub fn close(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
