//! A link as it would be over a slower network: delayed and limited in user space, for benchmarks on one host.
//!
//! Each frame leaves when the frames before it have left, takes its length divided by the bandwidth to leave and half
//! the round trip to travel. The sender works out when the frame is due by the host's monotonic clock and says so in a
//! stamp, a frame of eight bytes ahead of it; the receiver takes the frame at once and hands it on when it is due.
//! Frames in flight overlap, and one that waits for a late receiver is not delayed again. Stamps are neither metered
//! nor counted as length.
//!
//! What differs from a network: a sender never waits (its buffer has no end), every link has the bandwidth to itself,
//! and there are no handshakes, packet headers, TLS records, losses or slow start. A frame is late by what the link
//! below takes and by the scheduler, never early. Both ends must be wrapped, and on one host.

use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use trefoil_link::frame::HEADER;
use trefoil_link::{Link, LinkError, Meter, Network, Tag};

/// Sleep ends this much early, as the system wakes late; the rest is spent yielding.
const LATE: Duration = Duration::from_micros(120);
/// A frame due later than this was not stamped by this host's clock.
const FARTHEST: Duration = Duration::from_secs(3600);
const STAMP: usize = 8;
/// Tag of stamps, which no step has.
const STAMP_TAG: Tag = Tag::MAX;

/// A link that delays and limits what goes over another one.
pub struct Emulated {
    inner: Box<dyn Link>,
    peer: String,
    network: Network,
    /// When the last frame sent will have left.
    free: Duration,
    /// When the frame is due whose stamp was read and which itself was not.
    due: Option<Duration>,
    meter: Meter,
}

impl Emulated {
    /// The link `inner` to `peer` as over `network`. The peer must wrap its end at the same point of the conversation.
    pub fn new(mut inner: Box<dyn Link>, peer: &str, network: Network) -> Self {
        let meter = inner.meter().clone();
        Self { inner, peer: peer.into(), network, free: Duration::ZERO, due: None, meter }
    }

    /// The stamp of the next frame, which leaves now or as soon as the line is free.
    fn stamp(&mut self, parts: &[&[u8]]) -> [u8; STAMP] {
        let len = HEADER + parts.iter().map(|p| p.len()).sum::<usize>();
        self.free = self.free.max(now()) + self.network.serialisation(len);
        let due = self.free + self.network.one_way();
        (due.as_nanos() as u64).to_le_bytes()
    }

    fn read(&mut self, stamp: [u8; STAMP]) -> Result<(), LinkError> {
        let due = Duration::from_nanos(u64::from_le_bytes(stamp));
        if due > now() + FARTHEST {
            let reason = format!("a frame due in more than {FARTHEST:?}: emulated networks need one host");
            return Err(LinkError::Garbage { peer: self.peer.clone(), reason });
        }
        self.due = Some(due);
        Ok(())
    }

    fn receive_stamp(&mut self) -> Result<(), LinkError> {
        if self.due.is_none() {
            let mut stamp = [0; STAMP];
            self.inner.recv(STAMP_TAG, &mut stamp)?;
            self.read(stamp)?;
        }
        Ok(())
    }

    /// Forgets the stamp of a frame that was not as it should be: only after a timeout the frame is still to come.
    fn spent<T>(&mut self, got: Result<T, LinkError>) -> Result<T, LinkError> {
        if got.as_ref().is_err_and(|e| !matches!(e, LinkError::Timeout { .. })) {
            self.due = None;
        }
        got
    }

    /// Counts a frame received, and waits until it is due.
    fn arrived(&mut self, len: usize) {
        self.meter.received(HEADER + len);
        let Some(due) = self.due.take() else { return };
        loop {
            let left = due.saturating_sub(now());
            if left.is_zero() {
                return;
            }
            if left > LATE {
                thread::sleep(left - LATE);
            } else {
                thread::yield_now();
            }
        }
    }

    fn count_sent(&mut self, parts: &[&[u8]]) {
        self.meter.sent(HEADER + parts.iter().map(|p| p.len()).sum::<usize>());
    }
}

/// The monotonic clock, which all processes of a host share.
fn now() -> Duration {
    let t = clock_gettime(ClockId::Monotonic);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

impl Link for Emulated {
    fn send(&mut self, tag: Tag, parts: &[&[u8]]) -> Result<(), LinkError> {
        let stamp = self.stamp(parts);
        self.inner.send(STAMP_TAG, &[&stamp])?;
        self.inner.send(tag, parts)?;
        self.count_sent(parts);
        Ok(())
    }

    fn recv(&mut self, tag: Tag, into: &mut [u8]) -> Result<(), LinkError> {
        self.receive_stamp()?;
        let got = self.inner.recv(tag, into);
        self.spent(got)?;
        self.arrived(into.len());
        Ok(())
    }

    fn exchange(&mut self, tag: Tag, parts: &[&[u8]], into: &mut [u8]) -> Result<(), LinkError> {
        self.meter.round();
        let (mine, mut theirs) = (self.stamp(parts), [0; STAMP]);
        self.inner.exchange(STAMP_TAG, &[&mine], &mut theirs)?;
        self.read(theirs)?;
        let got = self.inner.exchange(tag, parts, into);
        self.spent(got)?;
        self.count_sent(parts);
        self.arrived(into.len());
        Ok(())
    }

    fn recv_any(&mut self, tag: Tag, limit: usize) -> Result<Vec<u8>, LinkError> {
        self.receive_stamp()?;
        let got = self.inner.recv_any(tag, limit);
        let payload = self.spent(got)?;
        self.arrived(payload.len());
        Ok(payload)
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_timeout(timeout);
    }

    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use trefoil_link::{Phase, pair};

    use super::*;

    fn ends(network: &str) -> (Emulated, Emulated) {
        let (a, b) = pair("alice", "bob");
        let network = network.parse().unwrap();
        (Emulated::new(Box::new(a), "bob", network), Emulated::new(Box::new(b), "alice", network))
    }

    #[test]
    fn an_exchange_takes_half_a_round_trip() {
        let (mut a, mut b) = ends("20ms,10gbit");
        // Before the other end can send.
        let began = Instant::now();
        let other = thread::spawn(move || {
            let mut got = [0; 2];
            b.exchange(5, &[&[1, 2, 3]], &mut got).unwrap();
            got
        });
        let mut got = [0; 3];
        a.exchange(5, &[&[7], &[8]], &mut got).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(10));
        assert_eq!((got, other.join().unwrap()), ([1, 2, 3], [7, 8]));
    }

    #[test]
    fn frames_queue_for_the_line_and_travel_side_by_side() {
        let (mut a, mut b) = ends("40ms,8mbit");
        let began = Instant::now();
        for tag in 0..3 {
            a.send(tag, &[&[0; 10_000 - HEADER]]).unwrap();
        }
        // Ten milliseconds each on the line, one after the other; twenty on the way, all together.
        let stamps: Vec<u64> = (0..3)
            .map(|tag| {
                b.receive_stamp().unwrap();
                let due = b.due.unwrap();
                b.recv(tag, &mut [0; 10_000 - HEADER]).unwrap();
                due.as_nanos() as u64
            })
            .collect();
        assert!(began.elapsed() >= Duration::from_millis(50));
        let apart = |i: usize| stamps[i + 1] - stamps[i];
        assert!(apart(0) >= 10_000_000 && apart(1) >= 10_000_000, "{stamps:?}");
    }

    #[test]
    fn a_large_frame_takes_its_length_over_the_bandwidth() {
        let (mut a, mut b) = ends("0ms,80mbit");
        let began = Instant::now();
        a.send(1, &[&vec![3; 500_000]]).unwrap();
        assert_eq!(b.recv_any(1, 500_000).unwrap(), vec![3; 500_000]);
        assert!(began.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn meters_count_what_they_count_without_it() {
        let (a, b) = pair("alice", "bob");
        let (c, d) = ends("1ms,1gbit");
        let counted = |mut a: Box<dyn Link>, mut b: Box<dyn Link>| {
            let other = thread::spawn(move || {
                b.exchange(1, &[&[0; 9]], &mut [0; 5]).unwrap();
                assert_eq!(b.recv_any(2, 100).unwrap(), [4; 33]);
                b.send(3, &[]).unwrap();
            });
            a.meter().enter(Phase::Online, 2);
            a.exchange(1, &[&[0; 5]], &mut [0; 9]).unwrap();
            a.meter().enter(Phase::Offline, 3);
            a.send(2, &[&[4; 30], &[4; 3]]).unwrap();
            a.recv(3, &mut []).unwrap();
            other.join().unwrap();
            a.meter().take()
        };
        assert_eq!(counted(Box::new(a), Box::new(b)), counted(Box::new(c), Box::new(d)));
    }

    #[test]
    fn a_silent_peer_is_noticed_and_may_speak_later() {
        let (mut a, mut b) = ends("2ms,1gbit");
        b.set_timeout(Some(Duration::from_millis(1)));
        assert!(matches!(b.recv(1, &mut [0; 4]), Err(LinkError::Timeout { .. })));
        // The stamp alone comes first: the frame is read with the next call.
        let stamp = a.stamp(&[&[5; 4]]);
        a.inner.send(STAMP_TAG, &[&stamp]).unwrap();
        assert!(matches!(b.recv(1, &mut [0; 4]), Err(LinkError::Timeout { .. })));
        a.inner.send(1, &[&[5; 4]]).unwrap();
        let mut got = [0; 4];
        b.recv(1, &mut got).unwrap();
        assert_eq!(got, [5; 4]);
    }

    #[test]
    fn wrong_frames_and_foreign_clocks_are_refused() {
        let (mut a, mut b) = ends("0ms,1gbit");
        a.send(1, &[&[0; 4]]).unwrap();
        assert!(matches!(b.recv(2, &mut [0; 4]), Err(LinkError::Unexpected { got_tag: 1, .. })));
        a.send(1, &[&[0; 4]]).unwrap();
        assert!(matches!(b.recv(1, &mut [0; 5]), Err(LinkError::Unexpected { got_len: 4, .. })));
        a.inner.send(STAMP_TAG, &[&u64::MAX.to_le_bytes()]).unwrap();
        assert!(matches!(b.recv(1, &mut [0; 4]), Err(LinkError::Garbage { .. })));
    }
}
