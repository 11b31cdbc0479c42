//! Being called: listening, and the handshake with a caller as a step of its own.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use trefoil_proto::Fingerprint;

use crate::error::TransportError;
use crate::security::Security;
use crate::socket_link::SocketLink;
use crate::stream::Plain;
use crate::tls::{End, TlsStream};
use crate::wait::{called, prepare};
use crate::{Closer, Connection, PeerIdentity};

/// A socket that callers connect to.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address` (`host:port`; port 0 takes a free one). Without TLS it must be on loopback.
    pub fn bind(address: &str, security: &Security) -> Result<Self, TransportError> {
        let unknown = |source| TransportError::Address { address: address.into(), source };
        let resolved: Vec<_> = address.to_socket_addrs().map_err(unknown)?.collect();
        resolved.iter().try_for_each(|a| security.allows(*a))?;
        let failed = |source| TransportError::Listen { address: address.into(), source };
        let listener = TcpListener::bind(&resolved[..]).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next caller; `None` if there is none within `wait`. Nothing is read from it yet.
    pub fn accept(&self, wait: Duration) -> Result<Option<Incoming>, TransportError> {
        let failed = |source: io::Error| TransportError::Io { peer: format!("accepting on {}", self.address), source };
        if !called(&self.listener, wait).map_err(failed)? {
            return Ok(None);
        }
        match self.listener.accept() {
            Ok((socket, address)) => Ok(Some(Incoming { socket, address })),
            Err(e) => match e.kind() {
                // The caller is gone already, or a signal came.
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Ok(None),
                _ => Err(failed(e)),
            },
        }
    }
}

/// A caller before the handshake.
#[derive(Debug)]
pub struct Incoming {
    socket: TcpStream,
    address: SocketAddr,
}

impl Incoming {
    /// Where the caller is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends this connection from another thread, during the handshake too.
    pub fn closer(&self) -> Result<Closer, TransportError> {
        closer(&self.socket, &self.address.to_string())
    }

    /// Does the handshake within `limit`: for the thread of this connection, not the one that accepts.
    pub fn handshake(self, security: &Security, limit: Duration) -> Result<Connection, TransportError> {
        let name = self.address.to_string();
        security.allows(self.address)?;
        prepare(&self.socket).map_err(|source| TransportError::Io { peer: name.clone(), source })?;
        let closer = closer(&self.socket, &name)?;
        let Security::Tls(tls) = security else {
            let peer = PeerIdentity { name: name.clone(), address: self.address, fingerprint: None };
            return Ok(Connection { link: Box::new(SocketLink::new(name, Plain::new(self.socket))), peer, closer });
        };
        let stream = TlsStream::handshake(tls.answer(&name)?, End::Called, self.socket, &name, limit)?;
        let fingerprint = stream.peer_certificate().map(Fingerprint::of).unwrap_or(Fingerprint::NONE);
        let known = tls.name(&fingerprint).map(str::to_owned);
        let name = known.ok_or(TransportError::UnknownCertificate { peer: name, got: fingerprint })?;
        let peer = PeerIdentity { name: name.clone(), address: self.address, fingerprint: Some(fingerprint) };
        Ok(Connection { link: Box::new(SocketLink::new(name, stream)), peer, closer })
    }
}

pub(crate) fn closer(socket: &TcpStream, peer: &str) -> Result<Closer, TransportError> {
    socket.try_clone().map(Closer).map_err(|source| TransportError::Io { peer: peer.into(), source })
}
