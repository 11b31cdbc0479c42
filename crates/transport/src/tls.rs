//! TLS 1.3 over a non-blocking socket, with bounded buffers.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::Connection;

use crate::error::TransportError;
use crate::stream::Stream;
use crate::wait::ready;

/// Ciphertext that may wait for the socket.
const OUTBOX: usize = 128 * 1024;
/// Ciphertext read with one system call.
const INBOX: usize = 64 * 1024;
/// What the accepting side sends once it has accepted the caller's certificate: in TLS 1.3 the caller is done before.
const ACCEPTED: u8 = 1;

/// A TLS connection.
pub(crate) struct TlsStream {
    connection: Connection,
    socket: TcpStream,
    inbox: Box<[u8]>,
    start: usize,
    end: usize,
    moved: u64,
}

impl TlsStream {
    /// Does the handshake within `limit`, over a non-blocking socket. `peer` is for messages.
    pub(crate) fn handshake(
        connection: impl Into<Connection>,
        socket: TcpStream,
        peer: &str,
        limit: Duration,
    ) -> Result<Self, TransportError> {
        let mut connection = connection.into();
        connection.set_buffer_limit(Some(OUTBOX));
        let inbox = vec![0; INBOX].into_boxed_slice();
        let mut s = Self { connection, socket, inbox, start: 0, end: 0, moved: 0 };
        let until = Instant::now() + limit;
        while s.connection.is_handshaking() {
            let flushed = s.flush();
            let step = flushed.and_then(|all| if s.connection.is_handshaking() { s.pull() } else { Ok(all) });
            s.keep_going(step, until).map_err(|e| explain(&e, peer, limit))?;
        }
        let mut answer = [ACCEPTED];
        let mut done = false;
        while !done {
            let step = match &s.connection {
                Connection::Client(_) => s.read(&mut answer).and_then(|n| eof_unless(n > 0)),
                Connection::Server(_) => s.write(&[IoSlice::new(&answer)]).map(|n| n > 0),
            };
            done = matches!(step, Ok(true));
            s.keep_going(step, until).map_err(|e| explain(&e, peer, limit))?;
        }
        if answer != [ACCEPTED] {
            return Err(TransportError::Tls { peer: peer.into(), reason: format!("an answer of {answer:?}") });
        }
        loop {
            match s.flush() {
                Ok(true) => return Ok(s),
                step => s.keep_going(step, until).map_err(|e| explain(&e, peer, limit))?,
            }
        }
    }

    /// The certificate that the peer proved to own.
    pub(crate) fn peer_certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates()?.first().map(AsRef::as_ref)
    }

    fn keep_going(&self, step: io::Result<bool>, until: Instant) -> io::Result<()> {
        match step {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
            Ok(_) => return Ok(()),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        ready(&self.socket, true, self.connection.wants_write(), Some(left)).map(drop)
    }

    /// Feeds what the socket has to TLS. `WouldBlock` if it has nothing.
    fn pull(&mut self) -> io::Result<bool> {
        if self.start == self.end {
            let n = self.socket.read(&mut self.inbox)?;
            eof_unless(n > 0)?;
            (self.start, self.end) = (0, n);
            self.moved += n as u64;
        }
        self.start += self.connection.read_tls(&mut &self.inbox[self.start..self.end])?;
        if let Err(e) = self.connection.process_new_packets() {
            // The peer learns why, if it still listens.
            let _ = self.flush();
            return Err(io::Error::new(ErrorKind::InvalidData, e));
        }
        // What TLS itself answers: the end of the handshake, new keys.
        self.flush()?;
        Ok(true)
    }
}

impl Stream for TlsStream {
    fn write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let n = self.connection.writer().write_vectored(bufs)?;
        self.flush()?;
        // Nothing taken: the outbox was full.
        if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(n) => self.moved += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(into) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            match self.pull() {
                // Frames carry their lengths: an end without a farewell cannot shorten one.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                step => step?,
            };
        }
    }

    fn moved(&self) -> u64 {
        self.moved
    }

    fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.connection.send_close_notify();
        let _ = self.flush();
    }
}

fn eof_unless(more: bool) -> io::Result<bool> {
    if more { Ok(true) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// What a failed handshake was about.
fn explain(e: &io::Error, peer: &str, limit: Duration) -> TransportError {
    let peer = peer.to_owned();
    if let Some(tls) = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return crate::pin::explain(tls, peer);
    }
    match e.kind() {
        ErrorKind::TimedOut => TransportError::Timeout { peer, limit },
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            TransportError::Closed { peer }
        }
        kind => TransportError::Io { peer, source: io::Error::new(kind, e.to_string()) },
    }
}
