//! The online phase's one primitive: both evaluators send what they opened, masked, and receive the other's.

use trefoil_link::{Link, Phase, Tag};
use trefoil_ring::Words;

use super::local::add;
use crate::error::MpcError;

/// Which evaluator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Alice: adds the public terms.
    A,
    /// Bob: receives the producer's corrections.
    B,
}

impl Role {
    /// All ones at A, zero at B: the public term of an XOR sharing.
    pub(crate) fn ones(self) -> u64 {
        match self {
            Role::A => u64::MAX,
            Role::B => 0,
        }
    }

    /// `value` at A, zero at B: the public term of an additive sharing.
    pub(crate) fn public(self, value: u64) -> u64 {
        value & self.ones()
    }
}

/// Exchanges that one step may have: one bit more than a comparison of 2^32 rounds would be absurd.
const EXCHANGES: Tag = 1 << 12;

/// Tag of what bob passes on to alice in the offline phase of a step: the exchange that no step has.
pub(crate) fn forwarded(step: usize) -> Tag {
    step as Tag * EXCHANGES + EXCHANGES - 1
}

/// The same link for a while.
pub(crate) fn shorter<'a>(link: &'a mut Option<&mut dyn Link>) -> Option<&'a mut dyn Link> {
    match link {
        Some(link) => Some(&mut **link),
        None => None,
    }
}

/// Words that both evaluators may send before either receives: 16 KiB, which fit into any socket's buffers.
const EAGER: usize = 1 << 11;

/// An opening that was sent.
pub(crate) struct Opening {
    words: usize,
    /// The tag under which the peer's shares are still to be received.
    due: Option<Tag>,
}

/// An evaluator's end of the link, numbering the exchanges of each step.
pub(crate) struct Online<'a> {
    pub(crate) role: Role,
    link: &'a mut dyn Link,
    step: usize,
    exchange: Tag,
    /// What the peer sent last; room reused from one exchange to the next.
    theirs: Words,
}

impl<'a> Online<'a> {
    pub(crate) fn new(role: Role, link: &'a mut dyn Link) -> Self {
        Self { role, link, step: 0, exchange: 0, theirs: Words::default() }
    }

    pub(crate) fn begin_step(&mut self, step: usize) {
        self.step = step;
        self.exchange = 0;
        self.link.meter().enter(Phase::Online, step);
    }

    /// The tag of the step's next exchange.
    fn tag(&mut self) -> Tag {
        let tag = self.step as Tag * EXCHANGES + self.exchange;
        self.exchange += 1;
        tag
    }

    /// Room for what the peer sends.
    fn room(&mut self, n: usize) {
        if self.theirs.len() < n {
            self.theirs = Words::zeros(n);
        }
    }

    /// One round: sends `mine`, which must be masked, and gives what the peer sent.
    fn exchange(&mut self, mine: &[&[u64]]) -> Result<&[u64], MpcError> {
        let n = mine.iter().map(|m| m.len()).sum();
        self.room(n);
        let tag = self.tag();
        let theirs = &mut self.theirs[..n];
        let parts: Vec<&[u8]> = mine.iter().map(|m| bytemuck::cast_slice(m)).collect();
        self.link.exchange(tag, &parts, bytemuck::cast_slice_mut(theirs))?;
        Ok(theirs)
    }

    /// One round in which bob alone sends something: `own` is his message, `theirs` where alice receives it.
    pub(crate) fn tell_alice(&mut self, own: &[u8], theirs: &mut [u8]) -> Result<(), MpcError> {
        let tag = self.tag();
        match self.role {
            Role::A => self.link.exchange(tag, &[], theirs)?,
            Role::B => self.link.exchange(tag, &[own], &mut [])?,
        }
        Ok(())
    }

    /// Opens additive shares towards a mask: `share` plus this party's part `lambda` of it; delta comes back.
    pub(crate) fn open(&mut self, mut share: Words, lambda: &[u64]) -> Result<Words, MpcError> {
        self.open_all(std::slice::from_mut(&mut share), &[lambda])?;
        Ok(share)
    }

    /// The same for several values in one round: the shares become deltas.
    fn open_all(&mut self, shares: &mut [Words], lambdas: &[&[u64]]) -> Result<(), MpcError> {
        let opening = self.begin(shares, lambdas)?;
        self.complete(shares, opening)
    }

    /// The first half of an opening: masks the shares and sends them, so that there is time for something else before
    /// the peer's are needed. Shares too large for the buffers between two parties that both send first are
    /// exchanged, which is the whole round.
    pub(crate) fn begin(&mut self, shares: &mut [Words], lambdas: &[&[u64]]) -> Result<Opening, MpcError> {
        shares.iter_mut().zip(lambdas).for_each(|(share, lambda)| add(share, lambda));
        let mine: Vec<&[u64]> = shares.iter().map(|s| &s[..]).collect();
        let words = mine.iter().map(|m| m.len()).sum();
        if words > EAGER {
            self.exchange(&mine)?;
            return Ok(Opening { words, due: None });
        }
        let tag = self.tag();
        let parts: Vec<&[u8]> = mine.iter().map(|m| bytemuck::cast_slice(m)).collect();
        self.link.meter().round();
        self.link.send(tag, &parts)?;
        Ok(Opening { words, due: Some(tag) })
    }

    /// The second half: the shares become deltas.
    pub(crate) fn complete(&mut self, shares: &mut [Words], opening: Opening) -> Result<(), MpcError> {
        if let Some(tag) = opening.due {
            self.room(opening.words);
            self.link.recv(tag, bytemuck::cast_slice_mut(&mut self.theirs[..opening.words]))?;
        }
        let mut theirs = &self.theirs[..opening.words];
        for share in shares {
            let (own, rest) = theirs.split_at(share.len());
            add(share, own);
            theirs = rest;
        }
        Ok(())
    }

    /// Opens XOR shares towards bit masks: `share` XOR this party's part; the public bits come back.
    pub(crate) fn open_bits(&mut self, mut share: Words, mask: &[u64]) -> Result<Words, MpcError> {
        share.iter_mut().zip(mask).for_each(|(z, m)| *z ^= m);
        let theirs = self.exchange(&[&share])?;
        share.iter_mut().zip(theirs).for_each(|(z, t)| *z ^= t);
        Ok(share)
    }
}
