//! Waiting for a socket: spin briefly, then block in poll.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the evaluating thread spins before it blocks: longer than a round on loopback takes.
const SPIN: Duration = Duration::from_micros(40);
/// A yield that takes longer gave the core to a thread with work of its own: spinning on would only keep its turns from
/// it, while a thread that sleeps is woken on whichever core is free.
const TURN: Duration = Duration::from_micros(4);

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

/// How long nothing has moved, and what to do meanwhile.
pub(crate) struct Silence {
    since: Option<Instant>,
    spin: Duration,
}

impl Silence {
    /// Of a wait in the middle of a round: the peer is at work on the same, so that spinning is shorter than sleeping.
    pub(crate) fn brief() -> Self {
        Self { since: None, spin: SPIN }
    }

    /// Of a wait for the peer's decision or for long work of its own: the core is left to others at once.
    pub(crate) fn long() -> Self {
        Self { since: None, spin: Duration::ZERO }
    }

    /// Something moved.
    pub(crate) fn broken(&mut self) {
        self.since = None;
    }

    /// A yield took so long.
    fn yielded(&mut self, took: Duration) {
        if took > TURN {
            self.spin = Duration::ZERO;
        }
    }

    /// Nothing can be done now: spins or blocks. `false` when the silence has lasted `timeout`.
    pub(crate) fn endure(
        &mut self,
        socket: &TcpStream,
        read: bool,
        write: bool,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let now = Instant::now();
        let silent = now - *self.since.get_or_insert(now);
        if silent < self.spin {
            // Three parties may share two cores. Yielding every time measured no slower than every fourth.
            std::thread::yield_now();
            self.yielded(now.elapsed());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    const WAIT: Duration = Duration::from_millis(2);

    /// Turns until the silence has lasted [`WAIT`].
    fn turns(mut silence: Silence) -> usize {
        let (near, _far) = socket();
        let turns = (1..).find(|_| !silence.endure(&near, true, false, Some(WAIT)).unwrap());
        turns.unwrap_or_default()
    }

    #[test]
    fn a_long_wait_blocks_at_once() {
        let began = Instant::now();
        let turns = turns(Silence::long());
        // Blocks until the time is up, and again if the kernel's clock is a little ahead.
        assert!(turns <= 4, "{turns} turns");
        assert!(began.elapsed() >= WAIT);
    }

    #[test]
    fn a_slow_yield_ends_the_spinning_of_its_wait() {
        let mut silence = Silence::brief();
        silence.yielded(TURN);
        assert_eq!(silence.spin, SPIN);
        silence.yielded(TURN + Duration::from_nanos(1));
        silence.broken();
        assert!(silence.spin.is_zero() && turns(silence) <= 4);
    }

    #[test]
    fn what_arrives_ends_a_long_wait() {
        use std::io::Write;
        let (near, mut far) = socket();
        let waiting =
            std::thread::spawn(move || Silence::long().endure(&near, true, false, Some(10 * SECOND)).unwrap());
        far.write_all(&[1]).unwrap();
        let began = Instant::now();
        assert!(waiting.join().unwrap() && began.elapsed() < 5 * SECOND);
    }

    const SECOND: Duration = Duration::from_secs(1);
}
