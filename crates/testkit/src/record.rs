//! A link that keeps a copy of every frame, and can alter or lose one: the views of the tests, and their attacker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trefoil_link::{Link, LinkError, Meter, Tag};

/// One frame as a party saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether this party sent it.
    pub sent: bool,
    /// Its tag.
    pub tag: Tag,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// All frames of one link end, in this party's order.
pub type Transcript = Arc<Mutex<Vec<Frame>>>;

/// What to do to one frame that this end sends: the `n`th, counted from 0.
pub enum Tamper {
    /// Changes the payload, its length too.
    Alter(usize, fn(&mut Vec<u8>)),
    /// Sends another tag.
    Retag(usize, Tag),
    /// Sends nothing.
    Drop(usize),
}

/// A link end that records, and tampers where told to.
pub struct Recorder {
    inner: Box<dyn Link>,
    transcript: Transcript,
    tamper: Option<Tamper>,
    sent: usize,
}

impl Recorder {
    /// Records what goes over `inner`.
    pub fn new(inner: Box<dyn Link>, transcript: Transcript) -> Self {
        Self { inner, transcript, tamper: None, sent: 0 }
    }

    /// The same, tampering with one frame it sends.
    pub fn tampering(mut self, tamper: Tamper) -> Self {
        self.tamper = Some(tamper);
        self
    }

    fn keep(&self, sent: bool, tag: Tag, bytes: Vec<u8>) {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).push(Frame { sent, tag, bytes });
    }

    /// What is to be sent instead; nothing for a lost frame.
    fn outgoing(&mut self, tag: Tag, parts: &[&[u8]]) -> Option<(Tag, Vec<u8>)> {
        let mut bytes = parts.concat();
        self.keep(true, tag, bytes.clone());
        let n = self.sent;
        self.sent += 1;
        match &self.tamper {
            Some(Tamper::Alter(at, change)) if *at == n => change(&mut bytes),
            Some(Tamper::Retag(at, other)) if *at == n => return Some((*other, bytes)),
            Some(Tamper::Drop(at)) if *at == n => return None,
            _ => {}
        }
        Some((tag, bytes))
    }
}

impl Link for Recorder {
    fn send(&mut self, tag: Tag, parts: &[&[u8]]) -> Result<(), LinkError> {
        match self.outgoing(tag, parts) {
            Some((tag, bytes)) => self.inner.send(tag, &[&bytes]),
            None => Ok(()),
        }
    }

    fn recv(&mut self, tag: Tag, into: &mut [u8]) -> Result<(), LinkError> {
        self.inner.recv(tag, into)?;
        self.keep(false, tag, into.to_vec());
        Ok(())
    }

    fn exchange(&mut self, tag: Tag, parts: &[&[u8]], into: &mut [u8]) -> Result<(), LinkError> {
        match self.outgoing(tag, parts) {
            Some((t, bytes)) if t == tag => self.inner.exchange(tag, &[&bytes], into)?,
            Some((t, bytes)) => {
                self.inner.send(t, &[&bytes])?;
                self.inner.recv(tag, into)?;
            }
            None => self.inner.recv(tag, into)?,
        }
        self.keep(false, tag, into.to_vec());
        Ok(())
    }

    fn recv_any(&mut self, tag: Tag, limit: usize) -> Result<Vec<u8>, LinkError> {
        let bytes = self.inner.recv_any(tag, limit)?;
        self.keep(false, tag, bytes.clone());
        Ok(bytes)
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_timeout(timeout);
    }

    fn meter(&mut self) -> &mut Meter {
        self.inner.meter()
    }
}

/// The transcripts of a run, by link end.
#[derive(Default, Clone)]
pub struct Transcripts {
    /// Alice's end towards bob.
    pub alice: Transcript,
    /// Bob's end towards alice.
    pub bob: Transcript,
    /// Carol's end towards bob.
    pub carol: Transcript,
    /// Bob's end towards carol.
    pub dealt: Transcript,
    /// Alice's end towards carol.
    pub shown: Transcript,
    /// Carol's end towards alice.
    pub seen: Transcript,
    /// The helper's ends towards alice and bob.
    pub helper: Transcript,
}

/// The frames of a transcript.
pub fn frames(transcript: &Transcript) -> Vec<Frame> {
    transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
