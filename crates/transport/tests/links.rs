//! One test body for every link: memory, TCP and TLS behave alike.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, connections, links};
use trefoil_link::frame::encode;
use trefoil_link::{Link, LinkError, Phase};
use trefoil_transport::{Listener, Security};

fn bytes(n: usize, seed: u64) -> Vec<u8> {
    (0..n as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed).to_le_bytes()[3]).collect()
}

#[test]
fn large_frames_cross_both_ways_at_once() {
    for (name, mut a, mut b) in links() {
        let n = 64 << 20;
        let other = thread::spawn(move || {
            b.set_timeout(Some(LIMIT));
            let mut got = vec![0; n + 1];
            b.exchange(9, &[&bytes(n, 2)], &mut got).unwrap();
            got == bytes(n + 1, 1)
        });
        a.set_timeout(Some(LIMIT));
        let (sent, mut got) = (bytes(n + 1, 1), vec![0; n]);
        a.exchange(9, &[&sent[..7], &[], &sent[7..]], &mut got).unwrap();
        assert!(got == bytes(n, 2) && other.join().unwrap(), "{name}");
    }
}

#[test]
fn many_frames_of_all_sizes_arrive_in_order_and_meters_agree() {
    let mut counted = Vec::new();
    for (name, mut a, mut b) in links() {
        let sizes = [0, 1, 11, 12, 13, 16_383, 16_384, 65_523, 65_524, 65_536, 65_537, 200_000, 0, 3];
        let other = thread::spawn(move || {
            for (i, n) in sizes.into_iter().enumerate() {
                let data = bytes(n, i as u64);
                let parts: Vec<&[u8]> = data.chunks(n / 40 + 1).collect();
                b.send(i as u32, &parts).unwrap();
            }
            for (i, n) in sizes.into_iter().enumerate() {
                let mut got = vec![0; 2 * n];
                b.exchange(i as u32, &[&bytes(n, 5)], &mut got).unwrap();
            }
            b.meter().total(Phase::Control)
        });
        a.meter().enter(Phase::Online, 3);
        for (i, n) in sizes.into_iter().enumerate() {
            let got = if i % 2 == 0 {
                a.recv_any(i as u32, n).unwrap()
            } else {
                let mut got = vec![0; n];
                a.recv(i as u32, &mut got).unwrap();
                got
            };
            assert!(got == bytes(n, i as u64), "{name} {n}");
        }
        for (i, n) in sizes.into_iter().enumerate() {
            let mut got = vec![0; n];
            a.exchange(i as u32, &[&bytes(2 * n, 4)], &mut got).unwrap();
            assert!(got == bytes(n, 5), "{name} {n}");
        }
        counted.push((a.meter().total(Phase::Online), other.join().unwrap()));
    }
    assert!(counted[0] == counted[1] && counted[0] == counted[2], "{counted:?}");
    assert_eq!(counted[0].0.rounds, 14);
}

#[test]
fn wrong_tags_and_lengths_are_named() {
    type Case = (u32, fn(&mut dyn Link) -> LinkError);
    let cases: [Case; 4] = [
        (2, |l| l.recv(1, &mut [0; 4]).unwrap_err()),
        (1, |l| l.recv(1, &mut [0; 5]).unwrap_err()),
        (1, |l| l.recv_any(1, 3).unwrap_err()),
        (2, |l| l.exchange(1, &[], &mut [0; 4]).unwrap_err()),
    ];
    for (tag, receive) in cases {
        for (name, mut a, mut b) in links() {
            a.send(tag, &[&[0; 4]]).unwrap();
            let e = receive(&mut *b);
            assert!(matches!(&e, LinkError::Unexpected { got_len: 4, got_tag, .. } if *got_tag == tag), "{name}: {e}");
        }
    }
}

#[test]
fn a_frame_can_be_skipped_whole() {
    for (name, mut a, mut b) in links() {
        std::thread::scope(|s| {
            s.spawn(|| {
                a.send(1, &[&bytes(300_000, 1)]).unwrap();
                a.send(1, &[]).unwrap();
                a.send(2, &[&[7]]).unwrap();
            });
            b.skip(1, 300_000).unwrap();
            b.skip(1, 0).unwrap();
            assert_eq!(b.recv_any(2, 1).unwrap(), [7], "{name}");
        });
        assert_eq!(b.meter().total(trefoil_link::Phase::Control).received, 300_001 + 3 * 12, "{name}");
    }
}

#[test]
fn silence_times_out_and_the_link_can_go_on() {
    for (name, mut a, mut b) in links() {
        b.set_timeout(Some(Duration::from_millis(30)));
        let began = Instant::now();
        let e = b.recv(1, &mut [0; 2]).unwrap_err();
        assert!(matches!(e, LinkError::Timeout { .. }) && began.elapsed() >= Duration::from_millis(30), "{name}: {e}");
        a.send(1, &[&[4, 2]]).unwrap();
        assert_eq!(b.recv_any(1, 2).unwrap(), [4, 2], "{name}");
    }
}

#[test]
fn a_peer_that_does_not_read_times_out_a_large_send() {
    for (name, mut a, b) in connections() {
        a.link.set_timeout(Some(Duration::from_millis(50)));
        let e = a.link.send(1, &[&vec![0; 64 << 20]]).unwrap_err();
        assert!(matches!(e, LinkError::Timeout { .. }), "{name}: {e}");
        let e = a.link.send(1, &[]).unwrap_err().to_string();
        assert!(e.contains("failed before"), "{name}: {e}");
        drop(b);
    }
}

#[test]
fn a_closed_link_is_named_at_both_ends() {
    for (name, mut a, b) in links() {
        drop(b);
        let e = a.recv(1, &mut [0; 2]).unwrap_err();
        assert!(matches!(e, LinkError::Closed { .. }), "{name}: {e}");
    }
    for (name, a, mut b) in connections() {
        let waiting = thread::spawn(move || b.link.recv(1, &mut [0; 2]).unwrap_err());
        thread::sleep(Duration::from_millis(20));
        a.closer.close();
        let e = waiting.join().unwrap();
        assert!(matches!(e, LinkError::Closed { .. }), "{name}: {e}");
    }
}

/// What a plain link makes of raw bytes, sent in two pieces, and then the end.
fn raw(sent: &[u8]) -> LinkError {
    let listener = Listener::bind("127.0.0.1:0", &Security::Plain).unwrap();
    let mut peer = TcpStream::connect(listener.address()).unwrap();
    let mut b = listener.accept(LIMIT).unwrap().unwrap().handshake(&Security::Plain, LIMIT).unwrap().link;
    b.set_timeout(Some(LIMIT));
    let (first, second) = sent.split_at(sent.len() / 2);
    peer.write_all(first).unwrap();
    peer.flush().unwrap();
    thread::sleep(Duration::from_millis(5));
    peer.write_all(second).unwrap();
    drop(peer);
    b.recv_any(1, 1 << 30).unwrap_err()
}

#[test]
fn bytes_that_are_no_frame_are_refused() {
    let tls_hello = [[0x16, 3, 1, 2, 0].as_slice(), &[1; 20]].concat();
    let mut oversized = encode(1, 0);
    oversized[8..].copy_from_slice(&u32::MAX.to_le_bytes());
    let garbage = |sent: &[u8], part: &str| {
        let e = raw(sent);
        assert!(matches!(e, LinkError::Garbage { .. }) && e.to_string().contains(part), "{e}");
    };
    garbage(b"GET / HTTP/1.1\r\n\r\n", "not this protocol");
    garbage(&tls_hello, "speaks TLS");
    garbage(&oversized, "at most");
    for cut in [encode(1, 8)[..7].to_vec(), [encode(1, 8).as_slice(), &[0; 7]].concat(), vec![]] {
        assert!(matches!(raw(&cut), LinkError::Closed { .. }));
    }
}

#[test]
fn bytes_that_are_tampered_with_break_tls() {
    let (alice, bob) = common::both(&common::identity("alice"), &common::identity("bob"));
    let listener = Listener::bind("127.0.0.1:0", &bob).unwrap();
    let between = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (to, via) = (listener.address(), between.local_addr().unwrap().to_string());
    let called = thread::spawn(move || {
        let mut c = listener.accept(LIMIT).unwrap().unwrap().handshake(&bob, LIMIT).unwrap();
        c.link.set_timeout(Some(LIMIT));
        c.link.recv(1, &mut [0; 40_000]).unwrap_err()
    });
    // Forwards both ways, but flips a bit far behind the handshake.
    thread::spawn(move || {
        let (from, _) = between.accept().unwrap();
        let to = TcpStream::connect(to).unwrap();
        let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let (mut from, mut to, mut seen) = (from, to, 0);
        let mut b = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut b) {
            if (seen..seen + n).contains(&20_000) {
                b[20_000 - seen] ^= 1;
            }
            seen += n;
            if to.write_all(&b[..n]).is_err() {
                return;
            }
        }
    });
    let mut a = trefoil_transport::connect(&via, "bob", &alice, LIMIT).unwrap();
    a.link.send(1, &[&[7; 40_000]]).unwrap();
    let e = called.join().unwrap();
    assert!(matches!(e, LinkError::Garbage { .. }), "{e}");
}
