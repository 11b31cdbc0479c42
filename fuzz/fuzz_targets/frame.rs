//! Bytes from a peer through the link's frame reader, over a socket, against a reader of three lines.
#![no_main]

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use trefoil_link::Link;
use trefoil_link::frame::{HEADER, decode, encode};
use trefoil_transport::{Listener, Security};

/// What the reader expects, byte by byte of the script.
const TAGS: [u32; 4] = [0, 1, 7, 0xffff_0001];
const LIMIT: usize = 1 << 16;

/// What a frame reader must find next in `bytes`: the payload, and what is left.
fn next(bytes: &[u8], tag: u32, fits: impl Fn(usize) -> bool) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let (got, len) = decode(header).ok()?;
    assert_eq!(encode(got, len), *header);
    (got == tag && fits(len)).then(|| rest.split_at_checked(len)).flatten()
}

/// A link whose peer sends `bytes` and then leaves, or falls silent.
fn link(bytes: &[u8], leaves: bool) -> (Box<dyn Link>, TcpStream) {
    static LISTENER: OnceLock<Listener> = OnceLock::new();
    let listener = LISTENER.get_or_init(|| Listener::bind("127.0.0.1:0", &Security::Plain).unwrap());
    let mut peer = TcpStream::connect(listener.address()).unwrap();
    // A reset at the end: no port waits for late packets.
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    let incoming = listener.accept(Duration::from_secs(5)).unwrap().unwrap();
    let mut link = incoming.handshake(&Security::Plain, Duration::from_secs(5)).unwrap().link;
    link.set_timeout(Some(Duration::from_micros(100)));
    peer.write_all(bytes).unwrap();
    if leaves {
        peer.shutdown(Shutdown::Write).unwrap();
    }
    (link, peer)
}

fuzz_target!(|data: &[u8]| {
    let Some(([how, script @ ..], bytes)) = data.split_first_chunk::<5>() else { return };
    let (mut link, _peer) = link(&bytes[..bytes.len().min(LIMIT)], how & 1 == 0);
    let mut left = &bytes[..bytes.len().min(LIMIT)];
    for op in script {
        let (tag, len) = (TAGS[usize::from(op & 3)], usize::from(op >> 3));
        let (due, got) = if op & 4 == 0 {
            (next(left, tag, |n| n <= LIMIT), link.recv_any(tag, LIMIT))
        } else {
            let mut into = vec![0; len];
            let got = if how & 2 == 0 { link.recv(tag, &mut into) } else { link.exchange(tag, &[&[1; 9]], &mut into) };
            (next(left, tag, |n| n == len), got.map(|()| into))
        };
        match (due, got) {
            (Some((payload, rest)), Ok(got)) => {
                assert_eq!(payload, got);
                left = rest;
            }
            (None, Err(_)) => return,
            (due, got) => panic!("{due:?} was due, {got:?} came"),
        }
    }
});
