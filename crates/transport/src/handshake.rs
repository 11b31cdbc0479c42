//! The TLS handshake over a non-blocking socket. What follows it is in `record` and `tls`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::time::Instant;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeTlsData, UnbufferedConnectionCommon, UnbufferedStatus};
use rustls::{Error, ExtractedSecrets};

use crate::record::{LARGEST, Records};
use crate::wait::ready;

/// Most bytes of a handshake that may wait for the rest of their message.
const ROOM: usize = 64 * 1024;

/// The caller's or the called party's side.
pub(crate) trait Side: Deref<Target = UnbufferedConnectionCommon<Self::Data>> {
    /// rustls's own.
    type Data: Send + 'static;

    /// Looks at what was received.
    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The keys of the connection.
    fn keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

/// What is to be done next.
enum Next {
    Look,
    Receive,
    Finish,
}

/// Does the handshake until `until`. Gives the connection's records and the certificate that the peer proved to own.
pub(crate) fn handshake<S: Side>(
    mut side: S,
    socket: &TcpStream,
    until: Instant,
) -> io::Result<(Records, Option<Vec<u8>>)> {
    let (mut received, mut used, mut out) = (vec![0; ROOM], 0, Vec::new());
    loop {
        let UnbufferedStatus { discard, state } = side.process(&mut received[..used]);
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, &mut out)?;
                Next::Look
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                send(socket, &out, until)?;
                out.clear();
                data.done();
                Next::Look
            }
            Ok(ConnectionState::BlockedHandshake) => Next::Receive,
            Ok(ConnectionState::WriteTraffic(_)) => Next::Finish,
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Err(invalid(Error::General("data before the end of the handshake".into()))),
            Err(e) => {
                // The peer learns why, if it still listens. Nothing that was received is looked at again.
                while side.wants_write() {
                    match side.process(&mut received[discard..used]).state {
                        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut out)?,
                        _ => break,
                    }
                }
                let _ = (&*socket).write(&out);
                return Err(invalid(e));
            }
        };
        received.copy_within(discard..used, 0);
        used -= discard;
        match next {
            Next::Look => {}
            Next::Receive if used < ROOM => used += receive(socket, &mut received[used..], until)?,
            Next::Receive => {
                return Err(invalid(Error::General(format!("a handshake message of more than {ROOM} bytes"))));
            }
            Next::Finish if used > 0 => {
                return Err(invalid(Error::General("data before the end of the handshake".into())));
            }
            Next::Finish => break,
        }
    }
    let certificate = side.peer_certificates().and_then(|all| Some(all.first()?.to_vec()));
    let (secrets, keys) = side.keys().map_err(invalid)?;
    Ok((Records::new(secrets, keys).map_err(invalid)?, certificate))
}

/// As the failure of a stream.
pub(crate) fn invalid(e: Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, e)
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> io::Result<()> {
    let at = out.len();
    out.resize(at + LARGEST, 0);
    let n = data.encode(&mut out[at..]).map_err(io::Error::other)?;
    out.truncate(at + n);
    Ok(())
}

fn send(mut socket: &TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) => wait(e, socket, Wanted::Room, until)?,
        }
    }
    Ok(())
}

fn receive(mut socket: &TcpStream, into: &mut [u8], until: Instant) -> io::Result<usize> {
    loop {
        match socket.read(into) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => return Ok(n),
            Err(e) => wait(e, socket, Wanted::Bytes, until)?,
        }
    }
}

/// What the socket is waited for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    /// Bytes to read.
    Bytes,
    /// Room to write.
    Room,
}

/// After the failure `e`: waits if it was only that the socket could not do it now.
pub(crate) fn wait(e: io::Error, socket: &TcpStream, wanted: Wanted, until: Instant) -> io::Result<()> {
    if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
        return Err(e);
    }
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    ready(socket, wanted == Wanted::Bytes, wanted == Wanted::Room, Some(left)).map(drop)
}
