//! A link over a stream: frames, timeouts, and exchanges that read while they write.

use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

use trefoil_link::frame::{HEADER, MAX_PAYLOAD, decode, encode};
use trefoil_link::{Link, LinkError, Meter, Tag};
use zeroize::{Zeroize, Zeroizing};

use crate::stream::Stream;
use crate::wait::Silence;

/// Frames that are skipped are read in pieces of this size.
const PIECE: usize = 1 << 16;
const SLICES: usize = 16;

/// A link over a stream. After a failure in the middle of a frame it stays failed: the stream is out of step.
pub(crate) struct SocketLink<S> {
    peer: String,
    stream: S,
    ahead: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
    timeout: Option<Duration>,
    failed: bool,
    meter: Meter,
}

/// What one attempt achieved.
#[derive(PartialEq)]
enum Step {
    Done,
    Moved,
    Blocked,
}

struct Outgoing<'a> {
    header: [u8; HEADER],
    parts: &'a [&'a [u8]],
    /// The part that is being written: 0 is the header.
    part: usize,
    offset: usize,
}

impl<'a> Outgoing<'a> {
    fn new(tag: Tag, parts: &'a [&'a [u8]]) -> Result<Self, LinkError> {
        let len = parts.iter().map(|p| p.len()).sum();
        if len > MAX_PAYLOAD {
            return Err(LinkError::TooLarge(len));
        }
        Ok(Self { header: encode(tag, len), parts, part: 0, offset: 0 })
    }

    fn len(&self) -> usize {
        HEADER + self.parts.iter().map(|p| p.len()).sum::<usize>()
    }

    fn get(&self, part: usize) -> Option<&[u8]> {
        match part.checked_sub(1) {
            None => Some(&self.header),
            Some(i) => self.parts.get(i).copied(),
        }
    }

    /// The next bytes to write; how many slices there are.
    fn slices<'b>(&'b self, into: &mut [IoSlice<'b>; SLICES]) -> usize {
        let mut n = 0;
        let mut skip = self.offset;
        for part in (self.part..).map_while(|i| self.get(i)) {
            let rest = &part[skip..];
            skip = 0;
            if !rest.is_empty() {
                into[n] = IoSlice::new(rest);
                n += 1;
            }
            if n == SLICES {
                break;
            }
        }
        n
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(part) = self.get(self.part) {
            let rest = part.len() - self.offset;
            if written < rest {
                self.offset += written;
                return;
            }
            written -= rest;
            self.part += 1;
            self.offset = 0;
        }
    }
}

impl<S: Stream> SocketLink<S> {
    /// A link to `peer` over `stream`.
    pub(crate) fn new(peer: String, stream: S) -> Self {
        Self {
            peer,
            stream,
            ahead: Zeroizing::new(vec![0; S::AHEAD]),
            start: 0,
            end: 0,
            timeout: None,
            failed: false,
            meter: Meter::default(),
        }
    }

    fn attempt(&self, r: io::Result<usize>) -> Result<usize, Option<LinkError>> {
        use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, NotConnected, WouldBlock};
        let peer = || self.peer.clone();
        r.map_err(|e| match e.kind() {
            WouldBlock | Interrupted => None,
            BrokenPipe | ConnectionReset | ConnectionAborted | NotConnected => Some(LinkError::Closed { peer: peer() }),
            ErrorKind::InvalidData => Some(LinkError::Garbage { peer: peer(), reason: e.to_string() }),
            _ => Some(LinkError::Transport { peer: peer(), reason: e.to_string() }),
        })
    }

    fn write_step(&mut self, out: &mut Outgoing<'_>) -> Result<Step, LinkError> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let n = out.slices(&mut slices);
        if n == 0 {
            let flushed = self.stream.flush().map(usize::from);
            return match self.attempt(flushed) {
                Ok(1) => Ok(Step::Done),
                Ok(_) | Err(None) => Ok(Step::Blocked),
                Err(Some(e)) => Err(e),
            };
        }
        let written = self.stream.write(&slices[..n]);
        match self.attempt(written) {
            Ok(0) => Err(LinkError::Closed { peer: self.peer.clone() }),
            Ok(n) => {
                out.advance(n);
                Ok(Step::Moved)
            }
            Err(None) => Ok(Step::Blocked),
            Err(Some(e)) => Err(e),
        }
    }

    /// Reads into `into`, or ahead if that is `None`.
    fn read(&mut self, into: Option<&mut [u8]>) -> Result<Option<usize>, LinkError> {
        let got = match into {
            Some(into) => self.stream.read(into),
            None => self.stream.read(&mut self.ahead[self.end..]),
        };
        match self.attempt(got) {
            Ok(0) => Err(LinkError::Closed { peer: self.peer.clone() }),
            Ok(n) => Ok(Some(n)),
            Err(None) => Ok(None),
            Err(Some(e)) => Err(e),
        }
    }

    fn read_ahead(&mut self) -> Result<Step, LinkError> {
        if self.start > 0 {
            self.ahead.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        Ok(match self.read(None)? {
            Some(n) => {
                self.end += n;
                Step::Moved
            }
            None => Step::Blocked,
        })
    }

    /// Waits for a header: until it is complete, nothing of the frame is consumed.
    fn header_step(&mut self, header: &mut Option<(Tag, usize)>) -> Result<Step, LinkError> {
        let Some(bytes) = self.ahead[self.start..self.end].first_chunk() else { return self.read_ahead() };
        let reason = match (decode(bytes), bytes) {
            (Ok(h), _) => {
                *header = Some(h);
                self.start += HEADER;
                return Ok(Step::Done);
            }
            (Err(_), [0x15..=0x17, 3, ..]) => "it speaks TLS where plain TCP was due".into(),
            (Err(e), _) => e.to_string(),
        };
        Err(LinkError::Garbage { peer: self.peer.clone(), reason })
    }

    fn payload_step(&mut self, into: &mut [u8], filled: &mut usize) -> Result<Step, LinkError> {
        let rest = &mut into[*filled..];
        let n = rest.len().min(self.end - self.start);
        rest[..n].copy_from_slice(&self.ahead[self.start..self.start + n]);
        self.start += n;
        *filled += n;
        let rest = &mut rest[n..];
        if rest.is_empty() {
            return Ok(Step::Done);
        }
        // Larger payloads are read into place.
        if rest.len() < S::AHEAD {
            return self.read_ahead();
        }
        match self.read(Some(rest))? {
            Some(n) => {
                *filled += n;
                Ok(Step::Moved)
            }
            None => Ok(Step::Blocked),
        }
    }

    /// Writes `out` and takes steps of `input` until both are done.
    fn drive(
        &mut self,
        mut out: Option<Outgoing<'_>>,
        mut input: impl FnMut(&mut Self) -> Result<Step, LinkError>,
        mut reading: bool,
        mut silence: Silence,
    ) -> Result<(), LinkError> {
        loop {
            let before = self.stream.moved();
            let mut moved = false;
            if let Some(o) = &mut out {
                match self.write_step(o)? {
                    Step::Done => out = None,
                    step => moved |= step == Step::Moved,
                }
            }
            if reading {
                match input(self)? {
                    Step::Done => reading = false,
                    step => moved |= step == Step::Moved,
                }
            }
            if out.is_none() && !reading {
                return Ok(());
            }
            if moved || self.stream.moved() != before {
                silence.broken();
                continue;
            }
            let awake = silence.endure(self.stream.socket(), reading, out.is_some(), self.timeout);
            let failed = |e: io::Error| LinkError::Transport { peer: self.peer.clone(), reason: e.to_string() };
            if !awake.map_err(failed)? {
                let waited = self.timeout.unwrap_or_default();
                return Err(LinkError::Timeout { peer: self.peer.clone(), waited });
            }
        }
    }

    /// Runs `f`; a failure is final, save a timeout before anything of the next frame was consumed.
    fn guarded<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, LinkError>) -> Result<T, LinkError> {
        if self.failed {
            let reason = "the link failed before: a new connection is due".into();
            return Err(LinkError::Transport { peer: self.peer.clone(), reason });
        }
        self.failed = true;
        let done = f(self)?;
        self.failed = false;
        Ok(done)
    }

    fn receive_header(&mut self, silence: Silence) -> Result<(Tag, usize), LinkError> {
        let mut header = None;
        let result = self.drive(None, |l| l.header_step(&mut header), true, silence);
        if matches!(result, Err(LinkError::Timeout { .. })) {
            self.failed = false;
        }
        result?;
        header.ok_or_else(|| LinkError::Closed { peer: self.peer.clone() })
    }

    fn check(&self, due: (Tag, usize), got: (Tag, usize), fits: bool) -> Result<(), LinkError> {
        if due.0 == got.0 && fits {
            return Ok(());
        }
        Err(LinkError::Unexpected { peer: self.peer.clone(), tag: due.0, len: due.1, got_tag: got.0, got_len: got.1 })
    }

    fn receive_payload(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        self.receive_piece(into)?;
        self.meter.received(HEADER + into.len());
        Ok(())
    }

    fn receive_piece(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        let mut filled = 0;
        self.drive(None, |l| l.payload_step(into, &mut filled), true, Silence::brief())
    }
}

impl<S: Stream> Link for SocketLink<S> {
    fn send(&mut self, tag: Tag, parts: &[&[u8]]) -> Result<(), LinkError> {
        let out = Outgoing::new(tag, parts)?;
        let len = out.len();
        self.guarded(|l| l.drive(Some(out), |_| Ok(Step::Done), false, Silence::brief()))?;
        self.meter.sent(len);
        Ok(())
    }

    fn recv(&mut self, tag: Tag, into: &mut [u8]) -> Result<(), LinkError> {
        self.guarded(|l| {
            let got = l.receive_header(Silence::brief())?;
            l.check((tag, into.len()), got, got.1 == into.len())?;
            l.receive_payload(into)
        })
    }

    fn exchange(&mut self, tag: Tag, parts: &[&[u8]], into: &mut [u8]) -> Result<(), LinkError> {
        let out = Outgoing::new(tag, parts)?;
        let len = out.len();
        let (mut header, mut filled) = (None, 0);
        self.meter.round();
        self.guarded(|l| {
            let step = |l: &mut Self| {
                if header.is_none() {
                    let step = l.header_step(&mut header)?;
                    let Some(got) = header else { return Ok(step) };
                    l.check((tag, into.len()), got, got.1 == into.len())?;
                }
                l.payload_step(into, &mut filled)
            };
            l.drive(Some(out), step, true, Silence::brief())
        })?;
        self.meter.sent(len);
        self.meter.received(HEADER + into.len());
        Ok(())
    }

    fn recv_any(&mut self, tag: Tag, limit: usize) -> Result<Vec<u8>, LinkError> {
        let mut payload = Vec::new();
        self.recv_into(tag, limit, &mut payload)?;
        Ok(payload)
    }

    fn recv_into(&mut self, tag: Tag, limit: usize, into: &mut Vec<u8>) -> Result<(), LinkError> {
        self.guarded(|l| {
            let got = l.receive_header(Silence::long())?;
            l.check((tag, limit), got, got.1 <= limit)?;
            if into.capacity() < got.1 {
                into.zeroize();
                *into = vec![0; got.1];
            }
            into.resize(got.1, 0);
            l.receive_payload(into)
        })
    }

    fn skip(&mut self, tag: Tag, limit: usize) -> Result<(), LinkError> {
        self.guarded(|l| {
            let got = l.receive_header(Silence::long())?;
            l.check((tag, limit), got, got.1 <= limit)?;
            let mut piece = Zeroizing::new(vec![0; got.1.min(PIECE)]);
            let mut left = got.1;
            while left > 0 {
                let n = left.min(PIECE);
                l.receive_piece(&mut piece[..n])?;
                left -= n;
            }
            l.meter.received(HEADER + got.1);
            Ok(())
        })
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}
