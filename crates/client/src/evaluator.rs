//! The connection to one evaluator: a request out, a reply in.

use std::time::{Duration, Instant};

use trefoil_link::{Link, LinkError};
use trefoil_prg::Party;
use trefoil_proto::Cluster;
use trefoil_proto::control::{MAX_CONTROL, Opening, Reply, Request, decode, encode, tag};
use trefoil_ring::Words;
use trefoil_transport::{Security, connect};
use zeroize::Zeroizing;

use crate::ClientError;

/// How long a server may take to accept bytes of a request.
const ACCEPT: Duration = Duration::from_secs(5);

/// An open connection to alice or bob.
pub(crate) struct Evaluator {
    pub(crate) party: Party,
    link: Box<dyn Link>,
    /// Longest answer that the last request can have.
    longest: usize,
}

impl Evaluator {
    /// Calls `party` and says who calls.
    pub(crate) fn connect(
        party: Party,
        cluster: &Cluster,
        security: &Security,
        name: &str,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        let address = cluster.party(party).address.as_str();
        let made = connect(address, party.name(), security, limit);
        let link = made.map_err(|source| ClientError::Connect { party, source })?.link;
        let mut e = Self { party, link, longest: 0 };
        e.send(tag::OPENING, &encode(&Opening::Client { name: name.into() }))?;
        Ok(e)
    }

    fn lost(&self) -> impl Fn(LinkError) -> ClientError + use<> {
        let party = self.party;
        move |source| ClientError::Lost { party, source }
    }

    fn send(&mut self, tag: u32, payload: &[u8]) -> Result<(), ClientError> {
        self.link.set_timeout(Some(ACCEPT));
        self.link.send(tag, &[payload]).map_err(self.lost())
    }

    /// Sends a request and the frames of shares that belong to it. Its answer must not be longer than `longest`.
    pub(crate) fn ask(&mut self, request: &Request, shares: &[&[u8]], longest: usize) -> Result<(), ClientError> {
        self.longest = longest;
        let bytes = Zeroizing::new(encode(request));
        if bytes.len() > MAX_CONTROL {
            let (what, advice) = ("the model's description", "share a smaller network");
            return Err(ClientError::TooLarge { what, bytes: bytes.len(), limit: MAX_CONTROL, advice });
        }
        self.send(tag::REQUEST, &bytes)?;
        for share in shares {
            self.send(tag::SHARES, share)?;
        }
        Ok(())
    }

    /// Sends one piece of a share.
    pub(crate) fn send_share(&mut self, share: &Words) -> Result<(), ClientError> {
        self.send(tag::SHARES, share.bytes())
    }

    /// The reply if it comes within `wait`, with the payload that belongs to an answer.
    pub(crate) fn reply(&mut self, wait: Duration) -> Result<Option<(Reply, Vec<u8>)>, ClientError> {
        self.link.set_timeout(Some(wait));
        let bytes = match self.link.recv_any(tag::REPLY, MAX_CONTROL) {
            Ok(bytes) => bytes,
            Err(LinkError::Timeout { .. }) => return Ok(None),
            Err(e) => return Err(self.lost()(e)),
        };
        let party = self.party;
        let reply = decode("reply", &bytes).map_err(|source| ClientError::Reply { party, source })?;
        let mut payload = Vec::new();
        if matches!(reply, Reply::Answer(_)) {
            self.link.set_timeout(Some(ACCEPT));
            payload = self.link.recv_any(tag::ANSWER, self.longest).map_err(self.lost())?;
        }
        Ok(Some((reply, payload)))
    }

    /// The reply, waited for until `deadline`.
    pub(crate) fn reply_by(&mut self, deadline: Instant) -> Result<(Reply, Vec<u8>), ClientError> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.reply(left)?.ok_or(ClientError::Silent { party: self.party })
    }
}
