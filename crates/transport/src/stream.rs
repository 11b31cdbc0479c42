//! What a link needs of a connection: non-blocking reads and writes, encrypted or not.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;

/// A non-blocking byte stream. `WouldBlock` means: later.
pub(crate) trait Stream: Send {
    /// Bytes that a link reads ahead of what it needs, in its own buffer.
    const AHEAD: usize;

    /// Takes a part of `bufs` (not all of them empty).
    fn write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Hands what was taken to the operating system; `true` once nothing is left.
    fn flush(&mut self) -> io::Result<bool>;

    /// Reads what is there; 0: the peer closed.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Bytes that went over the socket so far: whether the peer is silent.
    fn moved(&self) -> u64;

    /// The socket, to wait for.
    fn socket(&self) -> &TcpStream;
}

/// TCP without encryption.
pub(crate) struct Plain {
    socket: TcpStream,
    moved: u64,
}

impl Plain {
    /// A stream over a non-blocking socket.
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, moved: 0 }
    }
}

impl Stream for Plain {
    /// A header and a small payload come with one system call.
    const AHEAD: usize = 64 * 1024;

    fn write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let n = self.socket.write_vectored(bufs)?;
        self.moved += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.socket.read(into)?;
        self.moved += n as u64;
        Ok(n)
    }

    fn moved(&self) -> u64 {
        self.moved
    }

    fn socket(&self) -> &TcpStream {
        &self.socket
    }
}
