//! The link in memory: two ends of a pair of channels, for parties that are threads of one process.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::frame::{HEADER, MAX_PAYLOAD, decode, encode};
use crate::{Link, LinkError, Meter, Tag};

/// One end of a link in memory. It carries whole frames, byte for byte those of a socket.
pub struct MemoryLink {
    peer: String,
    to: Sender<Vec<u8>>,
    from: Receiver<Vec<u8>>,
    timeout: Option<Duration>,
    meter: Meter,
}

/// The two ends of a link between the parties `a` and `b`: the first is `a`'s.
pub fn pair(a: &str, b: &str) -> (MemoryLink, MemoryLink) {
    let (ab, from_a) = channel();
    let (ba, from_b) = channel();
    let end = |peer: &str, to, from| MemoryLink { peer: peer.into(), to, from, timeout: None, meter: Meter::default() };
    (end(b, ab, from_b), end(a, ba, from_a))
}

impl MemoryLink {
    fn next(&mut self) -> Result<Vec<u8>, LinkError> {
        let closed = || LinkError::Closed { peer: self.peer.clone() };
        match self.timeout {
            None => self.from.recv().map_err(|_| closed()),
            Some(t) => self.from.recv_timeout(t).map_err(|e| match e {
                RecvTimeoutError::Timeout => LinkError::Timeout { peer: self.peer.clone(), waited: t },
                RecvTimeoutError::Disconnected => closed(),
            }),
        }
    }

    fn frame(&mut self, tag: Tag, fits: impl Fn(usize) -> bool, due: usize) -> Result<Vec<u8>, LinkError> {
        let f = self.next()?;
        let garbage = |reason: String| LinkError::Garbage { peer: self.peer.clone(), reason };
        let header: &[u8; HEADER] = f.first_chunk().ok_or_else(|| garbage("a frame without a header".into()))?;
        let (got_tag, got_len) = decode(header).map_err(|e| garbage(e.to_string()))?;
        if got_len != f.len() - HEADER {
            return Err(garbage(format!("a frame of {} bytes says it has {got_len}", f.len() - HEADER)));
        }
        if got_tag != tag || !fits(got_len) {
            return Err(LinkError::Unexpected { peer: self.peer.clone(), tag, len: due, got_tag, got_len });
        }
        self.meter.received(f.len());
        Ok(f)
    }
}

impl Link for MemoryLink {
    fn send(&mut self, tag: Tag, parts: &[&[u8]]) -> Result<(), LinkError> {
        let len = parts.iter().map(|p| p.len()).sum();
        if len > MAX_PAYLOAD {
            return Err(LinkError::TooLarge(len));
        }
        let mut f = Vec::with_capacity(HEADER + len);
        f.extend_from_slice(&encode(tag, len));
        for p in parts {
            f.extend_from_slice(p);
        }
        self.meter.sent(f.len());
        self.to.send(f).map_err(|_| LinkError::Closed { peer: self.peer.clone() })
    }

    fn recv(&mut self, tag: Tag, into: &mut [u8]) -> Result<(), LinkError> {
        let due = into.len();
        let f = self.frame(tag, |n| n == due, due)?;
        into.copy_from_slice(&f[HEADER..]);
        Ok(())
    }

    fn exchange(&mut self, tag: Tag, parts: &[&[u8]], into: &mut [u8]) -> Result<(), LinkError> {
        self.meter.round();
        self.send(tag, parts)?;
        self.recv(tag, into)
    }

    fn recv_any(&mut self, tag: Tag, limit: usize) -> Result<Vec<u8>, LinkError> {
        let mut f = self.frame(tag, |n| n <= limit, limit)?;
        f.drain(..HEADER);
        Ok(f)
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phase;

    #[test]
    fn exchange_is_one_round_and_bytes_count_headers() {
        let (mut a, mut b) = pair("alice", "bob");
        let t = std::thread::spawn(move || {
            let mut got = [0; 3];
            b.exchange(5, &[&[1, 2]], &mut got).unwrap();
            got
        });
        a.meter().enter(Phase::Online, 4);
        let mut got = [0; 2];
        a.exchange(5, &[&[7], &[8, 9]], &mut got).unwrap();
        assert_eq!((got, t.join().unwrap()), ([1, 2], [7, 8, 9]));
        let c = a.meter().total(Phase::Online);
        assert_eq!((c.sent, c.received, c.messages, c.rounds), (15, 14, 1, 1));
    }

    #[test]
    fn wrong_tag_length_silence_and_death_are_named() {
        let (mut a, mut b) = pair("alice", "bob");
        a.send(1, &[&[0; 4]]).unwrap();
        assert!(matches!(b.recv(2, &mut [0; 4]), Err(LinkError::Unexpected { got_tag: 1, .. })));
        a.send(2, &[&[0; 4]]).unwrap();
        assert!(matches!(b.recv(2, &mut [0; 5]), Err(LinkError::Unexpected { got_len: 4, .. })));
        b.set_timeout(Some(Duration::from_millis(1)));
        assert!(matches!(b.recv(2, &mut [0; 5]), Err(LinkError::Timeout { .. })));
        drop(a);
        assert!(matches!(b.recv(2, &mut [0; 5]), Err(LinkError::Closed { .. })));
    }
}
