//! TLS against rustls's own connections, changes of keys, and records that should not be.

use std::ops::DerefMut;
use std::thread;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ConnectionCommon, ContentType, ServerConnection, SideData};
use trefoil_proto::Identity;

use super::*;
use crate::security::Tls;
use crate::wait::{prepare, ready};

const LIMIT: Duration = Duration::from_secs(20);

fn sides() -> (Tls, Tls) {
    let (a, b) = (Identity::generate("alice", 1).unwrap(), Identity::generate("bob", 1).unwrap());
    let tls = |me: &Identity, peer: &Identity, name: &str| Tls::new(me, [(name.into(), peer.fingerprint())]).unwrap();
    (tls(&a, &b, "bob"), tls(&b, &a, "alice"))
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn call(tls: &Tls, socket: TcpStream) -> TlsStream {
    prepare(&socket).unwrap();
    let host = socket.peer_addr().unwrap().ip();
    TlsStream::handshake(tls.call("bob", host).unwrap(), End::Caller, socket, "bob", LIMIT).unwrap()
}

fn answer(tls: &Tls, socket: TcpStream) -> TlsStream {
    prepare(&socket).unwrap();
    TlsStream::handshake(tls.answer("alice").unwrap(), End::Called, socket, "alice", LIMIT).unwrap()
}

fn streams() -> (TlsStream, TlsStream) {
    let (alice, bob) = sides();
    let (near, far) = sockets();
    let called = thread::spawn(move || answer(&bob, far));
    (call(&alice, near), called.join().unwrap())
}

/// Writes `out` and reads until `into` is full or nothing more comes, as a link does.
fn exchange(s: &mut TlsStream, mut out: &[u8], into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    let (mut flushed, mut ended) = (false, false);
    while !(out.is_empty() && flushed && (filled == into.len() || ended)) {
        let before = s.moved();
        if !out.is_empty() {
            match s.write(&[IoSlice::new(out)]) {
                Ok(n) => out = &out[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        flushed = s.flush()?;
        if filled < into.len() && !ended {
            match s.read(&mut into[filled..]) {
                Ok(0) => ended = true,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        if s.moved() == before {
            ready(s.socket(), true, !flushed, Some(Duration::from_millis(5)))?;
        }
    }
    Ok(filled)
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// What rustls's own connection does with a blocking socket: reads `n` bytes, sends them back and says farewell.
fn echo<D: SideData>(
    mut tls: impl DerefMut<Target = ConnectionCommon<D>>,
    mut socket: TcpStream,
    n: usize,
    accepts: bool,
) {
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    let mut s = rustls::Stream::new(&mut tls, &mut socket);
    let mut got = vec![0; n];
    if accepts {
        s.write_all(&[ACCEPTED]).unwrap();
        s.flush().unwrap();
    } else {
        s.read_exact(&mut [0]).unwrap();
    }
    s.read_exact(&mut got).unwrap();
    let (first, second) = got.split_at(n / 2);
    s.write_all(first).unwrap();
    // Asks the other end for new keys as well.
    s.conn.refresh_traffic_keys().unwrap();
    s.write_all(second).unwrap();
    s.flush().unwrap();
    // Under the other end's new keys.
    s.read_exact(&mut got[..10]).unwrap();
    assert_eq!(got[..10], *b"new keys??");
    tls.send_close_notify();
    tls.complete_io(&mut socket).unwrap();
}

#[test]
fn it_speaks_with_rustls_itself_on_either_side() {
    let (alice, bob) = sides();
    let data = bytes(300_001);
    for called in [true, false] {
        let (near, far) = sockets();
        let (n, host) = (data.len(), near.peer_addr().unwrap().ip());
        let (mut s, other) = if called {
            let config = alice.calling("bob").unwrap();
            let tls = ClientConnection::new(config, ServerName::from(host)).unwrap();
            let other = thread::spawn(move || echo(tls, near, n, false));
            (answer(&bob, far), other)
        } else {
            let tls = ServerConnection::new(bob.server.clone()).unwrap();
            let other = thread::spawn(move || echo(tls, far, n, true));
            (call(&alice, near), other)
        };
        let mut got = vec![0; n];
        assert_eq!(exchange(&mut s, &data, &mut got).unwrap(), n);
        assert!(got == data);
        assert_eq!(s.records.sealed, 0, "new keys");
        assert_eq!(exchange(&mut s, b"new keys??", &mut [0; 9]).unwrap(), 0, "a farewell ends it");
        assert!(s.ended);
        other.join().unwrap();
    }
}

#[test]
fn keys_change_before_they_are_used_up() {
    let (mut a, mut b) = streams();
    (a.records.limit, b.records.limit) = (4, 7);
    let data = bytes(40 * FRAGMENT + 5);
    let sent = data.clone();
    let other = thread::spawn(move || {
        let mut got = vec![0; sent.len()];
        exchange(&mut b, &sent, &mut got).unwrap();
        assert!(got == sent && b.records.sealed < 7);
        b
    });
    let mut got = vec![0; data.len()];
    exchange(&mut a, &data, &mut got).unwrap();
    assert!(got == data && a.records.sealed < 4);
    drop(other.join().unwrap());
    // The farewell has its number too.
    assert_eq!(exchange(&mut a, &[], &mut [0]).unwrap(), 0);
    assert!(a.ended);
}

/// What `a` makes of what `b` sends: records by `f`, then data.
fn after(f: impl FnOnce(&mut TlsStream)) -> io::Result<usize> {
    let (mut a, mut b) = streams();
    f(&mut b);
    b.seal(OutboundChunks::Single(b"data")).unwrap();
    assert!(b.flush().unwrap());
    exchange(&mut a, &[], &mut [0; 4])
}

fn push(s: &mut TlsStream, typ: ContentType, content: &[u8]) {
    let record = s.records.seal(typ, OutboundChunks::Single(content)).unwrap();
    s.outbox.push_back(record);
}

#[test]
fn records_without_data_are_borne_for_a_while() {
    let update = |s: &mut TlsStream| {
        let told = s.records.change_keys().unwrap();
        s.outbox.push_back(told);
    };
    let empty = |s: &mut TlsStream| push(s, ContentType::ApplicationData, &[]);
    for few in [0, 1, 31] {
        assert_eq!(after(|s| (0..few).for_each(|_| update(s))).unwrap(), 4);
        assert_eq!(after(|s| (0..few).for_each(|_| empty(s))).unwrap(), 4);
    }
    assert!(after(|s| (0..33).for_each(|_| update(s))).is_err());
    assert!(after(|s| (0..33).for_each(|_| empty(s))).is_err());
}

#[test]
fn records_that_should_not_be_end_it() {
    let asked = after(|s| push(s, ContentType::Handshake, &[24, 0, 0, 1, 2])).unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::InvalidData);
    for (typ, content) in [
        (ContentType::Handshake, [4, 0, 0, 0].as_slice()),
        (ContentType::Handshake, &[24, 0, 0, 1]),
        (ContentType::Handshake, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]),
        (ContentType::Alert, &[2]),
        (ContentType::Alert, &[2, 40]),
        (ContentType::ChangeCipherSpec, &[1]),
        (ContentType::Heartbeat, &[1]),
    ] {
        let e = after(|s| push(s, typ, content)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidData, "{typ:?} {content:?}: {e}");
    }
    let raw: [&[u8]; 5] = [
        &[23, 3, 3, 0, 0],
        &[23, 3, 3, 0, 16, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        &[23, 3, 3, 0x41, 1],
        &[22, 3, 3, 0, 1, 0],
        &[21, 3, 3, 0, 2, 1, 0],
    ];
    for raw in raw {
        let e = after(|s| s.outbox.push_back(raw.to_vec())).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidData, "{raw:?}: {e}");
    }
    // Twice the same record: its number is another's.
    let twice = |s: &mut TlsStream| {
        push(s, ContentType::ApplicationData, &[]);
        s.outbox.push_back(s.outbox[0].clone());
    };
    assert!(after(twice).is_err());
}

#[test]
fn nothing_is_read_after_a_record_that_cannot_be_opened() {
    let (mut a, mut b) = streams();
    let forged = [[23, 3, 3, 0, 17].as_slice(), &[1; 17]].concat();
    for bad in [forged, vec![22, 3, 3, 0, 1, 0]] {
        b.outbox.push_back(bad);
        b.seal(OutboundChunks::Single(b"data")).unwrap();
        assert!(b.flush().unwrap());
        let first = exchange(&mut a, &[], &mut [0; 4]);
        assert!(!matches!(first, Ok(1..)), "{first:?}");
        assert_eq!(exchange(&mut a, &[], &mut [0; 4]).unwrap(), 0);
    }
}

#[test]
fn nothing_counts_after_the_farewell() {
    let farewell = |s: &mut TlsStream| push(s, ContentType::Alert, &[1, 0]);
    assert_eq!(after(farewell).unwrap(), 0);
}

#[test]
fn the_other_end_learns_why() {
    let (mut a, mut b) = streams();
    b.outbox.push_back(vec![23, 3, 3, 0x41, 1]);
    assert!(b.flush().unwrap());
    assert!(exchange(&mut a, &[], &mut [0]).is_err());
    let e = exchange(&mut b, &[], &mut [0]).unwrap_err();
    assert!(e.to_string().contains("RecordOverflow"), "{e}");
}
