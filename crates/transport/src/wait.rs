//! Waiting for a socket: spin briefly, then block in poll.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the evaluating thread spins before it blocks: longer than a round on loopback takes.
const SPIN: Duration = Duration::from_micros(40);
/// Blocks until the socket can be read or written. `false`: nothing happened within `timeout`.
pub(crate) fn ready(socket: &impl AsFd, read: bool, write: bool, timeout: Option<Duration>) -> io::Result<bool> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, read);
    flags.set(PollFlags::OUT, write);
    let limit = match timeout {
        Some(t) => Some(Timespec::try_from(t).map_err(io::Error::other)?),
        None => None,
    };
    match poll(&mut [PollFd::new(socket, flags)], limit.as_ref()) {
        Ok(n) => Ok(n > 0),
        // A signal: the caller looks at the socket and the clock again.
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Sets what every connection needs: no delay for small frames, keep-alive so that a vanished host is noticed.
pub(crate) fn prepare(socket: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    set_socket_keepalive(socket, true)?;
    set_tcp_keepidle(socket, Duration::from_secs(60))?;
    set_tcp_keepintvl(socket, Duration::from_secs(15))?;
    set_tcp_keepcnt(socket, 4)?;
    Ok(())
}

/// Blocks until somebody calls; `false` after `timeout`.
pub(crate) fn called(listener: &TcpListener, timeout: Duration) -> io::Result<bool> {
    ready(listener, true, false, Some(timeout))
}

/// How long nothing has moved.
#[derive(Default)]
pub(crate) struct Silence {
    since: Option<Instant>,
}

impl Silence {
    /// Something moved.
    pub(crate) fn broken(&mut self) {
        self.since = None;
    }

    /// Nothing can be done now: spins or blocks. `false` when the silence has lasted `timeout`.
    pub(crate) fn endure(
        &mut self,
        socket: &TcpStream,
        read: bool,
        write: bool,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let silent = self.since.get_or_insert_with(Instant::now).elapsed();
        if silent < SPIN {
            std::hint::spin_loop();
            // Three parties may share two cores. Yielding every time measured no slower than every fourth.
            std::thread::yield_now();
            return Ok(true);
        }
        let left = timeout.map(|t| t.saturating_sub(silent));
        if left.is_some_and(|l| l.is_zero()) {
            return Ok(false);
        }
        ready(socket, read, write, left)?;
        Ok(true)
    }
}
