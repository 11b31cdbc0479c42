//! Who is let in, who is not, and what they are told.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, both, identity, meet, tls};
use trefoil_proto::Identity;
use trefoil_transport::{Listener, Security, TransportError, connect, connect_with_backoff};

#[test]
fn pinned_peers_know_each_other() {
    let (a, b) = (identity("alice"), identity("bob"));
    let (alice, bob) = both(&a, &b);
    let (at_alice, at_bob) = meet(alice, bob);
    let (at_alice, at_bob) = (at_alice.unwrap().peer, at_bob.unwrap().peer);
    assert_eq!((at_alice.name.as_str(), at_alice.fingerprint), ("bob", Some(b.fingerprint())));
    assert_eq!((at_bob.name.as_str(), at_bob.fingerprint), ("alice", Some(a.fingerprint())));
}

#[test]
fn another_certificate_than_the_pinned_is_refused_by_the_caller() {
    let (a, b, other) = (identity("alice"), identity("bob"), identity("bob"));
    let (at_alice, at_bob) = meet(tls(&a, &[("bob", b.fingerprint())]), tls(&other, &[("alice", a.fingerprint())]));
    let e = at_alice.err().unwrap();
    assert!(!e.is_transient());
    let due = format!(
        "bob's certificate is not the one pinned in the cluster file: got {}, pinned {}",
        other.fingerprint().short(),
        b.fingerprint().short()
    );
    assert_eq!(e.to_string(), due);
    assert!(matches!(at_bob.err().unwrap(), TransportError::Refused { .. }));
}

#[test]
fn a_trusted_name_with_anothers_certificate_is_refused() {
    // Carol's certificate is in alice's cluster file, but it is not bob's.
    let (a, b, c) = (identity("alice"), identity("bob"), identity("carol"));
    let alice = tls(&a, &[("bob", b.fingerprint()), ("carol", c.fingerprint())]);
    let (at_alice, _) = meet(alice, tls(&c, &[("alice", a.fingerprint())]));
    assert!(matches!(at_alice.err().unwrap(), TransportError::WrongCertificate { got, .. } if got == c.fingerprint()));
}

#[test]
fn an_unknown_caller_is_refused_and_told() {
    let (a, b, c) = (identity("alice"), identity("bob"), identity("carol"));
    let bob = tls(&b, &[("carol", c.fingerprint()), ("ward", identity("ward").fingerprint())]);
    let (at_alice, at_bob) = meet(tls(&a, &[("bob", b.fingerprint())]), bob);
    assert!(matches!(at_bob.err().unwrap(), TransportError::UnknownCertificate { got, .. } if got == a.fingerprint()));
    let e = at_alice.err().unwrap();
    assert!(matches!(e, TransportError::Refused { .. }), "{e}");
    let (at_alice, _) = meet(tls(&a, &[]), tls(&b, &[]));
    assert!(matches!(at_alice.err().unwrap(), TransportError::NoPin { .. } | TransportError::Tls { .. }));
}

#[test]
fn an_expired_certificate_is_refused() {
    let (a, b) = (identity("alice"), Identity::generate("bob", 0).unwrap());
    let (alice, bob) = both(&a, &b);
    let listener = Listener::bind("127.0.0.1:0", &bob).unwrap();
    let address = listener.address().to_string();
    thread::sleep(Duration::from_millis(1100));
    let called = thread::spawn(move || listener.accept(LIMIT).unwrap().unwrap().handshake(&bob, LIMIT).err());
    let e = connect(&address, "bob", &alice, LIMIT).err().unwrap();
    assert!(matches!(e, TransportError::NotValidNow { .. }), "{e}");
    assert!(called.join().unwrap().is_some());
}

#[test]
fn plain_text_and_tls_do_not_mix() {
    let (alice, bob) = both(&identity("alice"), &identity("bob"));
    let listener = Listener::bind("127.0.0.1:0", &bob).unwrap();
    let mut plain = connect(&listener.address().to_string(), "bob", &Security::Plain, LIMIT).unwrap();
    plain.link.send(1, &[&[0; 100]]).unwrap();
    let e = listener.accept(LIMIT).unwrap().unwrap().handshake(&bob, LIMIT).err().unwrap();
    assert!(matches!(e, TransportError::NotTls { .. }), "{e}");

    let listener = Listener::bind("127.0.0.1:0", &Security::Plain).unwrap();
    let address = listener.address().to_string();
    let called = thread::spawn(move || {
        let mut c = listener.accept(LIMIT).unwrap().unwrap().handshake(&Security::Plain, LIMIT).unwrap();
        c.link.recv(1, &mut [0; 4]).unwrap_err().to_string()
    });
    let e = connect(&address, "bob", &alice, LIMIT).err().unwrap();
    assert!(matches!(e, TransportError::Closed { .. }), "{e}");
    assert!(called.join().unwrap().contains("speaks TLS"));
}

#[test]
fn silent_callers_are_dropped_in_time_and_do_not_hold_the_listener() {
    let (alice, bob) = both(&identity("alice"), &identity("bob"));
    let listener = Listener::bind("127.0.0.1:0", &bob).unwrap();
    let address = listener.address().to_string();
    assert!(listener.accept(Duration::from_millis(10)).unwrap().is_none());
    let silent = TcpStream::connect(&address).unwrap();
    let waiting = listener.accept(LIMIT).unwrap().unwrap();
    let server = bob.clone();
    let dropped = thread::spawn(move || waiting.handshake(&server, Duration::from_millis(200)).err().unwrap());
    let next = thread::spawn(move || connect(&address, "bob", &alice, LIMIT).is_ok());
    assert!(listener.accept(LIMIT).unwrap().unwrap().handshake(&bob, LIMIT).is_ok());
    assert!(next.join().unwrap());
    assert!(matches!(dropped.join().unwrap(), TransportError::Timeout { .. }));
    drop(silent);
}

#[test]
fn plain_tcp_stays_on_this_host() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9"] {
        assert!(matches!(Listener::bind(address, &Security::Plain), Err(TransportError::PlainOffLoopback { .. })));
        let e = connect(address, "bob", &Security::Plain, LIMIT).err().unwrap();
        assert!(matches!(e, TransportError::PlainOffLoopback { .. }), "{e}");
    }
}

#[test]
fn backoff_waits_for_a_late_peer_and_stops_when_told() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let glances = AtomicUsize::new(0);
    let stop = || glances.fetch_add(1, Ordering::Relaxed) > 5;
    let began = Instant::now();
    let e = connect_with_backoff(&free, "bob", &Security::Plain, LIMIT, stop).err().unwrap();
    assert!(matches!(&e, TransportError::Cancelled { last: Some(_), .. }) && began.elapsed() < LIMIT, "{e}");
    let (late, address) = (free.clone(), free);
    let bob = thread::spawn(move || {
        thread::sleep(Duration::from_millis(60));
        Listener::bind(&late, &Security::Plain).unwrap().accept(LIMIT).unwrap().is_some()
    });
    assert!(connect_with_backoff(&address, "bob", &Security::Plain, LIMIT, || false).is_ok());
    assert!(bob.join().unwrap());
}
