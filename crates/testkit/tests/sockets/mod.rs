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
    let (seen, shown) = connected(&security("carol"), &security("alice"), "alice");
    let [(asking_a, helper_a), (asking_b, helper_b)] =
        ["alice", "bob"].map(|name| connected(&security(name), &security("helper"), "helper"));
    let end = |mut connection: Connection| {
        connection.link.set_timeout(Some(LIMIT));
        connection.link
    };
    let [alice, bob, carol, dealt, shown, seen] = [alice, bob, carol, dealt, shown, seen].map(end);
    let (asking, helper) = ([asking_a, asking_b].map(end), [helper_a, helper_b].map(end));
    Links { alice, bob, carol, dealt, shown, seen, asking, helper }
}

/// Links over TCP.
pub fn tcp() -> Links {
    links(|_| Security::Plain)
}

/// Links over TLS.
pub fn tls() -> Links {
    let identities = ["alice", "bob", "carol", "helper"].map(|name| Identity::generate(name, 2).unwrap());
    let trusted: Vec<_> = identities.iter().map(|i| (i.name().to_owned(), i.fingerprint())).collect();
    links(|name| {
        Security::Tls(Tls::new(identities.iter().find(|i| i.name() == name).unwrap(), trusted.clone()).unwrap())
    })
}
