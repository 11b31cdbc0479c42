//! What an exchange costs over TCP and TLS between two threads on loopback: `cargo run --release --example rounds`.

use std::thread;
use std::time::{Duration, Instant};

use trefoil_link::{Link, LinkError};
use trefoil_proto::Identity;
use trefoil_transport::{Connection, Listener, Security, Tls, connect};

type Failure = Box<dyn std::error::Error + Send + Sync>;
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Failure> {
    let (a, b) = (Identity::generate("alice", 1)?, Identity::generate("bob", 1)?);
    let alice = Security::Tls(Tls::new(&a, [("bob".into(), b.fingerprint())])?);
    let bob = Security::Tls(Tls::new(&b, [("alice".into(), a.fingerprint())])?);
    println!("{:>5} {:>9} {:>12} {:>12} {:>12}", "link", "bytes", "median us", "90 % us", "MB/s a way");
    for (name, alice, bob) in [("tcp", Security::Plain, Security::Plain), ("tls", alice, bob)] {
        let (mut a, mut b) = meet(&alice, bob)?;
        for (size, times) in [(64, 20_000), (1024, 20_000), (16 << 10, 5_000), (8 << 20, 40)] {
            let other = thread::spawn(move || rounds(&mut *b.link, size, times).map(|_| b));
            let mut took = rounds(&mut *a.link, size, times)?;
            b = other.join().map_err(|_| "bob's thread died")??;
            took.sort_unstable();
            let us = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1e6;
            println!("{name:>5} {size:>9} {:>12.1} {:>12.1} {:>12.0}", us(50), us(90), size as f64 / us(50));
        }
    }
    Ok(())
}

fn meet(alice: &Security, bob: Security) -> Result<(Connection, Connection), Failure> {
    let listener = Listener::bind("127.0.0.1:0", &bob)?;
    let address = listener.address().to_string();
    let called = thread::spawn(move || -> Result<Connection, Failure> {
        Ok(listener.accept(LIMIT)?.ok_or("nobody called")?.handshake(&bob, LIMIT)?)
    });
    let a = connect(&address, "bob", alice, LIMIT)?;
    Ok((a, called.join().map_err(|_| "bob's thread died")??))
}

fn rounds(link: &mut dyn Link, size: usize, times: usize) -> Result<Vec<Duration>, LinkError> {
    let (mine, mut theirs) = (vec![1; size], vec![0; size]);
    (0..times)
        .map(|_| {
            let began = Instant::now();
            link.exchange(1, &[&mine], &mut theirs)?;
            Ok(began.elapsed())
        })
        .collect()
}
