//! Frames that are altered in length, relabelled or lost end in an error that names the peer, never in a panic.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use trefoil_link::LinkError;
use trefoil_mpc::MpcError;
use trefoil_mpc::program::Reveal;
use trefoil_testkit::small::{input, network, weights};
use trefoil_testkit::{Links, Recorder, Tamper, Transcripts, World};

enum End {
    Alice,
    Bob,
    Carol,
}

fn run(end: End, tamper: Tamper) -> MpcError {
    let p = network(Reveal::Label).unwrap();
    let mut world = World::new(21);
    let model = world.share(&p, &weights(&p, 0).unwrap()).unwrap();
    let Links { mut alice, mut bob, mut carol, mut dealt, shown, seen, asking, helper } = Links::memory();
    for link in [&mut alice, &mut bob, &mut carol, &mut dealt] {
        link.set_timeout(Some(Duration::from_millis(300)));
    }
    let t = Transcripts::default();
    let recorder = |link, tamper| Box::new(Recorder::new(link, t.alice.clone()).tampering(tamper));
    match end {
        End::Alice => alice = recorder(alice, tamper),
        End::Bob => bob = recorder(bob, tamper),
        End::Carol => carol = recorder(carol, tamper),
    }
    let mut links = Links { alice, bob, carol, dealt, shown, seen, asking, helper };
    match world.run_over(&model, 1, &input(6, 0), &mut links) {
        Ok(_) => panic!("the tampered run went through"),
        Err(e) => e,
    }
}

#[test]
fn lost_and_relabelled_frames() {
    for n in [0, 3, 10] {
        assert!(matches!(run(End::Alice, Tamper::Drop(n)), MpcError::Link(LinkError::Unexpected { .. })));
        assert!(matches!(run(End::Bob, Tamper::Retag(n, 77)), MpcError::Link(_)));
    }
    assert!(matches!(run(End::Carol, Tamper::Drop(0)), MpcError::Link(LinkError::Unexpected { .. })));
}

#[test]
fn frames_of_another_length() {
    let longer = |b: &mut Vec<u8>| b.push(0);
    let shorter = |b: &mut Vec<u8>| b.truncate(b.len() / 2);
    for n in [0, 2, 9] {
        assert!(matches!(run(End::Alice, Tamper::Alter(n, longer)), MpcError::Link(_)));
        assert!(matches!(run(End::Bob, Tamper::Alter(n, shorter)), MpcError::Link(_)));
    }
    for n in [0, 1, 2] {
        assert!(matches!(run(End::Carol, Tamper::Alter(n, longer)), MpcError::Dealt(_)));
        assert!(matches!(run(End::Carol, Tamper::Alter(n, shorter)), MpcError::Dealt(_)));
        assert!(matches!(run(End::Carol, Tamper::Alter(n, Vec::clear)), MpcError::Dealt(_)));
    }
}
