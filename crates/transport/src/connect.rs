//! Calling a peer, once or until it is up.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use trefoil_proto::Fingerprint;

use crate::error::TransportError;
use crate::listen::closer;
use crate::security::Security;
use crate::socket_link::SocketLink;
use crate::stream::Plain;
use crate::tls::{End, TlsStream};
use crate::wait::prepare;
use crate::{Connection, PeerIdentity};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often a pause looks whether it was cancelled.
const GLANCE: Duration = Duration::from_millis(50);

/// Calls `peer` at `address` (`host:port`); connection and handshake together may take `limit`.
pub fn connect(address: &str, peer: &str, security: &Security, limit: Duration) -> Result<Connection, TransportError> {
    let until = Instant::now() + limit;
    let unknown = |source| TransportError::Address { address: address.into(), source };
    let resolved: Vec<_> = address.to_socket_addrs().map_err(unknown)?.collect();
    resolved.iter().try_for_each(|a| security.allows(*a))?;
    let unreachable = |source| TransportError::Unreachable { peer: peer.into(), address: address.into(), source };
    let (socket, at) = open(&resolved, until).map_err(unreachable)?;
    prepare(&socket).map_err(unreachable)?;
    let closer = closer(&socket, peer)?;
    let identity = |fingerprint| PeerIdentity { name: peer.into(), address: at, fingerprint };
    let Security::Tls(tls) = security else {
        let link = Box::new(SocketLink::new(peer.into(), Plain::new(socket)));
        return Ok(Connection { link, peer: identity(None), closer });
    };
    let left = until.saturating_duration_since(Instant::now());
    let stream = TlsStream::handshake(tls.call(peer, at.ip())?, End::Caller, socket, peer, left)?;
    let fingerprint = stream.peer_certificate().map(Fingerprint::of);
    Ok(Connection { link: Box::new(SocketLink::new(peer.into(), stream)), peer: identity(fingerprint), closer })
}

/// Calls `peer` until it answers: pauses double up to two seconds, with jitter. Each attempt may take `limit`.
/// Failures that waiting does not cure (a wrong certificate, a refusal) end it, and so does `cancelled`.
pub fn connect_with_backoff(
    address: &str,
    peer: &str,
    security: &Security,
    limit: Duration,
    cancelled: impl Fn() -> bool,
) -> Result<Connection, TransportError> {
    let mut pause = FIRST_PAUSE;
    let mut last = None;
    loop {
        if cancelled() {
            return Err(TransportError::Cancelled { peer: peer.into(), last });
        }
        match connect(address, peer, security, limit) {
            Err(e) if e.is_transient() => last = Some(Box::new(e)),
            done => return done,
        }
        let until = Instant::now() + jittered(pause);
        while !cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(GLANCE));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn open(addresses: &[SocketAddr], until: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for a in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(a, left) {
            Ok(socket) => return Ok((socket, *a)),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Between half of `pause` and all of it. Without randomness, all of it.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + (pause / 2).mul_f64(getrandom::u32().map_or(1.0, |r| f64::from(r) / f64::from(u32::MAX)))
}
