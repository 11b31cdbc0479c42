//! Links of a [`World`](trefoil_testkit::World) over sockets of loopback.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "a test may fail and uses a part of it")]

use std::time::Duration;

use trefoil_proto::Identity;
use trefoil_testkit::world::Links;
use trefoil_transport::{Connection, Listener, Security, Tls, connect};

const LIMIT: Duration = Duration::from_secs(300);

/// The two ends of a connection between a caller and a party that is called.
fn connected(caller: &Security, called: &Security, name: &str) -> (Connection, Connection) {
    let listener = Listener::bind("127.0.0.1:0", called).unwrap();
    let address = listener.address().to_string();
    std::thread::scope(|s| {
        let answer = s.spawn(|| listener.accept(LIMIT).unwrap().unwrap().handshake(called, LIMIT).unwrap());
        let call = connect(&address, name, caller, LIMIT).unwrap();
        (call, answer.join().unwrap())
    })
}

fn links(security: impl Fn(&str) -> Security) -> Links {
    let (bob, alice) = connected(&security("bob"), &security("alice"), "alice");
    let (carol, dealt) = connected(&security("carol"), &security("bob"), "bob");
    let mut links = Links { alice: alice.link, bob: bob.link, carol: carol.link, dealt: dealt.link };
    for l in [&mut links.alice, &mut links.bob, &mut links.carol, &mut links.dealt] {
        l.set_timeout(Some(LIMIT));
    }
    links
}

/// Links over TCP.
pub fn tcp() -> Links {
    links(|_| Security::Plain)
}

/// Links over TLS.
pub fn tls() -> Links {
    let identities = ["alice", "bob", "carol"].map(|name| Identity::generate(name, 2).unwrap());
    let trusted: Vec<_> = identities.iter().map(|i| (i.name().to_owned(), i.fingerprint())).collect();
    links(|name| {
        Security::Tls(Tls::new(identities.iter().find(|i| i.name() == name).unwrap(), trusted.clone()).unwrap())
    })
}
