//! The views of `views.rs` on the frames of real links, TCP and TLS, and the same bits over every link.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;
mod sockets;

use common::{Sessions, check, memory};
use sockets::{tcp, tls};
use trefoil_mpc::program::Reveal;
use trefoil_testkit::World;
use trefoil_testkit::record::frames;
use trefoil_testkit::small::{input, network, weights};
use trefoil_testkit::world::Links;

/// This file's tests spend two of the eleven shares of the 1e-6 that `views.rs` divides.
const SHARES: f64 = 13.0;

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
