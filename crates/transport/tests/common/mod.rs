//! Pairs of links for tests: over memory, TCP and TLS.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "helpers of tests; each test file uses some of them"
)]

use std::thread;
use std::time::Duration;

use trefoil_link::{Link, Network, pair};
use trefoil_proto::{Fingerprint, Identity};
use trefoil_transport::{Connection, Emulated, Listener, Security, Tls, TransportError, connect};

/// What has not happened after this will not: far more than a loaded machine needs.
pub const LIMIT: Duration = Duration::from_secs(300);

/// A fresh identity of this name.
pub fn identity(name: &str) -> Identity {
    Identity::generate(name, 30).unwrap()
}

/// TLS as `me`, trusting `others`.
pub fn tls(me: &Identity, others: &[(&str, Fingerprint)]) -> Security {
    Security::Tls(Tls::new(me, others.iter().map(|(n, f)| (n.to_string(), *f))).unwrap())
}

/// Alice's and bob's security, trusting each other.
pub fn both(a: &Identity, b: &Identity) -> (Security, Security) {
    (tls(a, &[("bob", b.fingerprint())]), tls(b, &[("alice", a.fingerprint())]))
}

/// What both sides got when alice called bob.
pub fn meet(
    alice: Security,
    bob: Security,
) -> (Result<Connection, TransportError>, Result<Connection, TransportError>) {
    let listener = Listener::bind("127.0.0.1:0", &bob).unwrap();
    let address = listener.address().to_string();
    let called = thread::spawn(move || listener.accept(LIMIT).unwrap().unwrap().handshake(&bob, LIMIT));
    (connect(&address, "bob", &alice, LIMIT), called.join().unwrap())
}

/// Connections over TCP and TLS, by name.
pub fn connections() -> Vec<(&'static str, Connection, Connection)> {
    let (alice, bob) = both(&identity("alice"), &identity("bob"));
    let made = [("tcp", meet(Security::Plain, Security::Plain)), ("tls", meet(alice, bob))];
    made.map(|(name, (a, b))| (name, a.unwrap(), b.unwrap())).into()
}

/// A kind of link and its two ends.
pub type Ends = (&'static str, Box<dyn Link>, Box<dyn Link>);

/// Links over memory, TCP, TLS and an emulated network, by name.
pub fn links() -> Vec<Ends> {
    let (a, b) = pair("alice", "bob");
    let mut all: Vec<Ends> = vec![("memory", Box::new(a), Box::new(b))];
    all.extend(connections().into_iter().map(|(name, a, b)| (name, a.link, b.link)));
    let (a, b) = meet(Security::Plain, Security::Plain);
    let slow = |link, peer| -> Box<dyn Link> { Box::new(Emulated::new(link, peer, Network::LAN)) };
    all.push(("emulated", slow(a.unwrap().link, "bob"), slow(b.unwrap().link, "alice")));
    all
}
