//! The views of `views.rs` on the frames of real links, TCP and TLS, and the same bits over every link.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::{Sessions, check, memory};
use trefoil_mpc::program::Reveal;
use trefoil_proto::Identity;
use trefoil_testkit::World;
use trefoil_testkit::record::frames;
use trefoil_testkit::small::{input, network, weights};
use trefoil_testkit::world::Links;
use trefoil_transport::{Connection, Listener, Security, Tls, connect};

/// This file's tests spend two of the eight shares of the 1e-6 that `views.rs` divides.
const SHARES: f64 = 8.0;
const LIMIT: Duration = Duration::from_secs(20);

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

fn tcp() -> Links {
    links(|_| Security::Plain)
}

fn tls() -> Links {
    let identities = ["alice", "bob", "carol"].map(|name| Identity::generate(name, 2).unwrap());
    let trusted: Vec<_> = identities.iter().map(|i| (i.name().to_owned(), i.fingerprint())).collect();
    links(|name| {
        Security::Tls(Tls::new(identities.iter().find(|i| i.name() == name).unwrap(), trusted.clone()).unwrap())
    })
}

#[test]
fn every_view_is_uniform_over_tcp_and_tls() {
    for (over, reveal) in [(tcp as fn() -> Links, Reveal::Logits), (tls, Reveal::Label)] {
        let report = check(&Sessions::fresh(reveal, 96, over));
        let named: Vec<String> = report.findings.iter().take(5).map(ToString::to_string).collect();
        assert!(named.is_empty(), "{} findings: {named:#?}", report.findings.len());
        assert!(report.alarm < 1e-6 / SHARES, "a false alarm has probability {}", report.alarm);
    }
}

/// One plan and the same injected seeds: the same frames and the same answer over memory, TCP and TLS.
#[test]
fn the_same_bits_over_every_link() {
    let run = |over: fn() -> Links| {
        let p = network(Reveal::Logits).unwrap();
        let mut world = World::new(77);
        let shared = world.share(&p, &weights(&p, 1).unwrap()).unwrap();
        let (mut links, t) = over().recorded();
        let answer = world.run_over(&shared, 3, &input(18, 1), &mut links).unwrap();
        (answer.alice.payload.to_vec(), answer.bob.payload.to_vec(), frames(&t.alice), frames(&t.bob), frames(&t.carol))
    };
    let first = run(memory);
    assert!(first == run(tcp) && first == run(tls));
}
