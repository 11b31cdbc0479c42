//! TLS 1.3 over a non-blocking socket, with bounded buffers.
//!
//! rustls does the handshake and protects the records. The bytes go straight between the socket and buffers of this
//! stream: a record received is opened where the socket put it and copied once, to where its reader wants it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use rustls::crypto::cipher::OutboundChunks;
use rustls::{AlertDescription, Error, PeerMisbehaved};
use zeroize::Zeroizing;

use crate::error::TransportError;
use crate::handshake::{Side, Wanted, handshake, invalid, wait};
use crate::record::{FRAGMENT, LARGEST, Opened, Records, content};
use crate::stream::Stream;

/// Ciphertext that may wait for the socket before another record is sealed.
const OUTBOX: usize = 128 * 1024;
/// Ciphertext read with one system call, at most.
const INBOX: usize = 8 * LARGEST;
const SLICES: usize = 16;
/// What the accepting side sends once it has accepted the caller's certificate: in TLS 1.3 the caller is done before.
const ACCEPTED: u8 = 1;

/// A TLS connection.
pub(crate) struct TlsStream {
    records: Records,
    certificate: Option<Vec<u8>>,
    socket: TcpStream,
    /// Records sealed and not yet written, the first of them in part.
    outbox: VecDeque<Vec<u8>>,
    written: usize,
    /// What the socket gave: data opened and not yet read, then records still to be opened.
    inbox: Zeroizing<Vec<u8>>,
    data: Range<usize>,
    sealed: Range<usize>,
    /// Nothing more is read: the peer said farewell, or sent what it should not have.
    ended: bool,
    moved: u64,
}

/// Which end of a connection.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// The party that called waits to be accepted.
    Caller,
    /// The party that was called accepts.
    Called,
}

impl TlsStream {
    /// Does the handshake within `limit`, over a non-blocking socket. `peer` is for messages.
    pub(crate) fn handshake(
        side: impl Side,
        end: End,
        socket: TcpStream,
        peer: &str,
        limit: Duration,
    ) -> Result<Self, TransportError> {
        let until = Instant::now() + limit;
        Self::agree(side, end, socket, until).map_err(|e| explain(&e, peer, limit))
    }

    fn agree(side: impl Side, end: End, socket: TcpStream, until: Instant) -> io::Result<Self> {
        let (records, certificate) = handshake(side, &socket, until)?;
        let mut s = Self {
            records,
            certificate,
            socket,
            outbox: VecDeque::new(),
            written: 0,
            inbox: Zeroizing::new(vec![0; INBOX]),
            data: 0..0,
            sealed: 0..0,
            ended: false,
            moved: 0,
        };
        match end {
            End::Called => {
                s.seal(OutboundChunks::Single(&[ACCEPTED]))?;
                while !s.flush()? {
                    wait(later(), &s.socket, Wanted::Room, until)?;
                }
            }
            End::Caller => {
                let mut answer = [0];
                let got = loop {
                    match s.read(&mut answer) {
                        Err(e) => wait(e, &s.socket, Wanted::Bytes, until)?,
                        Ok(n) => break n,
                    }
                };
                match (got, answer) {
                    (0, _) => return Err(ErrorKind::UnexpectedEof.into()),
                    (_, [ACCEPTED]) => {}
                    _ => return Err(invalid(Error::General(format!("an answer of {answer:?}")))),
                }
            }
        }
        Ok(s)
    }

    /// The certificate that the peer proved to own.
    pub(crate) fn peer_certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// Seals one record for the outbox.
    fn seal(&mut self, data: OutboundChunks<'_>) -> io::Result<()> {
        self.records.seal_data(data, |record| self.outbox.push_back(record)).map_err(invalid)
    }

    /// Ciphertext that waits for the socket.
    fn waiting(&self) -> usize {
        self.outbox.iter().map(Vec::len).sum::<usize>() - self.written
    }

    /// Opens the next record, if all of it is there.
    fn open(&mut self) -> io::Result<bool> {
        match self.try_open() {
            Ok(opened) => Ok(opened),
            Err(e) => {
                self.ended = true;
                // The peer learns why, if it still listens.
                let why = match e {
                    Error::DecryptError => AlertDescription::BadRecordMac,
                    Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
                    _ => AlertDescription::UnexpectedMessage,
                };
                self.alert(2, why);
                Err(invalid(e))
            }
        }
    }

    fn try_open(&mut self) -> Result<bool, Error> {
        let Some(inside) = content(&self.inbox[self.sealed.clone()])? else { return Ok(false) };
        let start = self.sealed.start + inside.start;
        self.sealed.start += inside.end;
        match self.records.open(&mut self.inbox[start..self.sealed.start])? {
            Opened::Data(n) => self.data = start..start + n,
            Opened::End => self.ended = true,
            Opened::KeyUpdate(asks) => {
                if asks && self.waiting() > 2 * OUTBOX {
                    return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
                }
                if asks {
                    let told = self.records.change_keys()?;
                    self.outbox.push_back(told);
                }
            }
        }
        Ok(true)
    }

    /// Fetches what the socket has. `WouldBlock` if it has nothing; false at its end.
    fn fetch(&mut self) -> io::Result<bool> {
        self.inbox.copy_within(self.sealed.clone(), 0);
        self.sealed = 0..self.sealed.len();
        let n = self.socket.read(&mut self.inbox[self.sealed.end..])?;
        self.sealed.end += n;
        self.moved += n as u64;
        Ok(n > 0)
    }

    /// Sends an alert if that can be done at once.
    fn alert(&mut self, level: u8, what: AlertDescription) {
        if let Ok(alert) = self.records.alert(level, what.into()) {
            self.outbox.push_back(alert);
            let _ = self.flush();
        }
    }
}

impl Stream for TlsStream {
    /// A frame's header: the inbox reads ahead.
    const AHEAD: usize = trefoil_link::frame::HEADER;

    fn write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let parts: Vec<&[u8]> = bufs.iter().map(|b| &**b).collect();
        let mut rest = OutboundChunks::new(&parts);
        let (all, mut room) = (rest.len(), OUTBOX.saturating_sub(self.waiting()));
        while room > 0 && !rest.is_empty() {
            let (record, more) = rest.split_at(FRAGMENT);
            room = room.saturating_sub(record.len());
            self.seal(record)?;
            rest = more;
        }
        self.flush()?;
        // Nothing taken: the outbox was full.
        if rest.len() == all { Err(later()) } else { Ok(all - rest.len()) }
    }

    fn flush(&mut self) -> io::Result<bool> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut skip = self.written;
            let n = slices
                .iter_mut()
                .zip(&self.outbox)
                .map(|(s, r)| *s = IoSlice::new(&r[std::mem::take(&mut skip)..]))
                .count();
            let n = match self.socket.write_vectored(&slices[..n]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                // What was sealed is taken: a failure here would have it sent twice.
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.moved += n as u64;
            self.written += n;
            while let Some(first) = self.outbox.front().map(Vec::len).filter(|len| self.written >= *len) {
                self.written -= first;
                self.outbox.pop_front();
            }
        }
        Ok(true)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            let n = self.data.len().min(into.len() - filled);
            into[filled..filled + n].copy_from_slice(&self.inbox[self.data.start..self.data.start + n]);
            self.data.start += n;
            filled += n;
            if filled == into.len() || self.ended {
                return Ok(filled);
            }
            if self.open()? {
                continue;
            }
            // What TLS itself answers: new keys.
            self.flush()?;
            // Frames carry their lengths: an end without a farewell cannot shorten one.
            if filled > 0 || !self.fetch()? {
                return Ok(filled);
            }
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
        self.alert(1, AlertDescription::CloseNotify);
    }
}

fn later() -> io::Error {
    ErrorKind::WouldBlock.into()
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

#[cfg(test)]
mod tests;
