//! Hostile bytes, requests and models against live servers, as processes over plain TCP: each is refused or hung up
//! on in time, and the servers go on serving.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::time::Duration;

use cluster::wire::Wire;
use cluster::{PATIENT, Processes, check, compiled, eventually, manifest, network, party, recovers, share};
use trefoil_client::{Client, ModelInfo};
use trefoil_link::frame::encode as frame;
use trefoil_mpc::Compare;
use trefoil_mpc::Reveal;
use trefoil_mpc::program::{Linear, Op, Window};
use trefoil_nn::graph::{Graph, Post};
use trefoil_prg::Party;
use trefoil_proto::Transport;
use trefoil_proto::control::{Ahead, Manifest, Opening, Refusal, Reply, Request, encode, tag};
use trefoil_ring::geometry::{Pads, Pool2d};
use trefoil_testkit::Random;

#[test]
#[ignore = "the body of the other tests' servers"]
fn party_process() {
    party::run();
}

/// Three servers with a model, and a client that shows that they serve.
struct Stage {
    processes: Processes,
    graph: Graph,
    model: ModelInfo,
    ann: Client,
}

impl Stage {
    fn new() -> Self {
        let processes = Processes::start(Transport::Tcp, "lanes = 2", PATIENT);
        let graph = network(1);
        let model = share(&processes, &graph);
        let ann = processes.client("ann");
        Self { processes, graph, model, ann }
    }

    fn address(&self, party: Party) -> String {
        self.processes.trial.cluster.party(party).address.as_str().to_owned()
    }

    fn serves(&mut self) {
        check(&mut self.ann, &self.model, &self.graph, 3, 1);
        Party::ALL.iter().for_each(|p| assert!(self.processes.alive(*p), "{p} died"));
    }

    fn predict(&self, id: u8) -> Request {
        let (model, epoch) = (self.model.manifest.name.clone(), self.model.epoch);
        Request::Predict { id: [id; 16], model, epoch, batch: 1, reveal: Reveal::Logits, seed: vec![7; 32].into() }
    }
}

#[test]
fn what_is_no_opening_is_hung_up_on() {
    let mut stage = Stage::new();
    let mut random = Random::new(3);
    let noise: Vec<u8> = (0..500).map(|_| random.word() as u8).collect();
    let opening = encode(&Opening::Client { name: "ann".into() });
    let framed = |tag, payload: &[u8]| [&frame(tag, payload.len())[..], payload].concat();
    let said = |o: &Opening| framed(tag::OPENING, &encode(o));
    let lane = |party: &str, lane| said(&Opening::Lane { party: party.into(), lane });
    let mut giant = frame(tag::OPENING, 0);
    giant[8..].copy_from_slice(&u32::MAX.to_le_bytes());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("noise", noise),
        ("zeros", vec![0; 64]),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: alice\r\n\r\n".to_vec()),
        ("a frame of 4 GiB", giant.to_vec()),
        ("a frame of 1 GiB", frame(tag::OPENING, 1 << 30).to_vec()),
        ("another frame", framed(tag::REQUEST, &opening)),
        ("an opening of no kind", framed(tag::OPENING, &[9; 20])),
        ("an opening with more behind", framed(tag::OPENING, &[&opening[..], &[0]].concat())),
        ("an empty opening", framed(tag::OPENING, &[])),
        ("an unknown client", said(&Opening::Client { name: "mallory".into() })),
        ("an unknown party", lane("dave", 0)),
        ("alice, who calls nobody", lane("alice", 0)),
        ("a lane that is not there", lane("carol", 2)),
    ];
    for party in Party::ALL {
        let address = stage.address(party);
        for (what, bytes) in &cases {
            let mut wire = Wire::open(&address);
            wire.bytes(bytes);
            wire.hangs_up(&format!("{what} to {party}"));
        }
        // Cut short, once by the end of the stream and once by silence.
        let whole = framed(tag::OPENING, &opening);
        let cut: Vec<_> = [4, whole.len() - 1].into_iter().flat_map(|n| [(n, true), (n, false)]).collect();
        let wires = cut.into_iter().map(|(n, end)| {
            let mut wire = Wire::open(&address);
            wire.bytes(&whole[..n]);
            if end {
                wire.finish();
            }
            wire
        });
        wires.collect::<Vec<_>>().into_iter().for_each(|w| w.hangs_up(&format!("a cut opening to {party}")));
    }
    let carol = Wire::client(&stage.address(Party::Carol), "ann");
    carol.hangs_up("a client at carol");
    stage.serves();
}

#[test]
fn a_trickled_request_is_served() {
    let mut stage = Stage::new();
    let mut wire = Wire::open(&stage.address(Party::Alice));
    let opening = encode(&Opening::Client { name: "ann".into() });
    let request = encode(&Request::Models);
    let frames = [&frame(tag::OPENING, opening.len())[..], &opening, &frame(tag::REQUEST, request.len()), &request];
    for b in frames.concat() {
        wire.bytes(&[b]);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(wire.reply(), Reply::Models(list) if list.len() == 1));
    stage.serves();
}

#[test]
fn silent_connections_are_closed_and_disturb_nobody() {
    let mut stage = Stage::new();
    let addresses = Party::ALL.map(|p| stage.address(p));
    let silent: Vec<Wire> = (0..900).map(|i| Wire::open(&addresses[i % 3])).collect();
    stage.serves();
    // More than a server holds: the last are refused, and it serves again when the silent ones have been closed.
    let flood: Vec<Wire> = (0..1500).map(|_| Wire::open(&addresses[0])).collect();
    for (i, wire) in silent.into_iter().chain(flood).enumerate() {
        wire.hangs_up(&format!("silent connection {i}"));
    }
    stage.serves();
    let mut another = stage.processes.client("ann");
    check(&mut another, &stage.model, &stage.graph, 1, 2);
}

#[test]
fn senseless_requests_are_refused_with_a_reason() {
    let mut stage = Stage::new();
    let mut alice = Wire::client(&stage.address(Party::Alice), "ann");
    let Request::Predict { id, model, epoch, reveal, seed, .. } = stage.predict(1) else { unreachable!() };
    let seed = seed.expose();
    let predict = |model: &str, epoch, batch, seed: &[u8]| Request::Predict {
        id,
        model: model.into(),
        epoch,
        batch,
        reveal,
        seed: seed.to_vec().into(),
    };
    let cases = [
        (predict("none", epoch, 1, seed), Refusal::UnknownModel, "no model none"),
        (predict(&model, epoch + 1, 1, seed), Refusal::UnknownModel, "shared anew"),
        (predict(&model, epoch, 0, seed), Refusal::Invalid, "a batch of 0"),
        (predict(&model, epoch, u32::MAX, seed), Refusal::Invalid, "a batch of 4294967295"),
        (predict(&model, epoch, 20_000_000, seed), Refusal::Invalid, "a batch of 20000000"),
        (predict(&model, epoch, 1, &seed[..16]), Refusal::Invalid, "a seed of 16 bytes"),
        (predict(&model, epoch, 1, &[0; 4096]), Refusal::Invalid, "a seed of 4096 bytes"),
        (Request::Remove { model: model.clone() }, Refusal::UnknownModel, "shared no model"),
    ];
    for (request, why, reason) in cases {
        let got = alice.refusal(&request);
        assert!(got.0 == why && got.1.contains(reason), "{got:?} to {request:?}");
    }
    alice.frame(tag::REQUEST, &[200; 50]);
    assert!(alice.refused().1.contains("not a request"));
    let mut bert = Wire::client(&stage.address(Party::Alice), "bert");
    assert_eq!(bert.refusal(&predict(&model, epoch, 1, seed)).0, Refusal::Denied);
    // To bob, shares of a refused request are read and dropped: the connection goes on.
    let mut bob = Wire::client(&stage.address(Party::Bob), "ann");
    for (request, part) in [(predict("none", epoch, 1, &[]), "no model"), (predict(&model, epoch, 0, &[]), "batch")] {
        bob.message(tag::REQUEST, &request);
        bob.frame(tag::SHARES, &[1; 77]);
        assert!(bob.refused().1.contains(part));
    }
    assert!(bob.refusal(&Request::Remove { model: model.clone() }).1.contains("at alice"));
    // Shares of another size cannot be followed by anything.
    bob.message(tag::REQUEST, &predict(&model, epoch, 1, &[]));
    bob.frame(tag::SHARES, &[1; 47]);
    bob.hangs_up("a share of 47 bytes for 48");
    alice.frame(tag::SHARES, &[0; 10]);
    alice.hangs_up("shares to alice");
    stage.serves();
}

#[test]
fn an_id_of_somebody_else_gives_nothing_away() {
    let mut stage = Stage::new();
    let request = stage.predict(9);
    // Bert sends bob a half under the id that ann will use: he cannot take her place, nor learn her answer.
    let mut labels = request.clone();
    if let Request::Predict { reveal, seed, .. } = &mut labels {
        (*reveal, *seed) = (Reveal::Label, vec![].into());
    }
    // Sent twice: one of them is refused, and then the other is there.
    let mut halves = [0, 1].map(|_| {
        let mut wire = Wire::client(&stage.address(Party::Bob), "bert");
        wire.message(tag::REQUEST, &labels);
        wire.frame(tag::SHARES, &[0; 48]);
        wire
    });
    eventually("a half is there", || halves.iter().any(Wire::is_answered));
    halves.sort_by_key(Wire::is_answered);
    let [mut thief, mut second] = halves;
    // While the first is being received, or its place is taken by the second.
    assert!(matches!(second.refused().0, Refusal::Busy | Refusal::Unavailable));
    let mut bob = Wire::client(&stage.address(Party::Bob), "ann");
    bob.message(tag::REQUEST, &request);
    bob.frame(tag::SHARES, &[0; 48]);
    assert_eq!(bob.refused().0, Refusal::Busy);
    let mut alice = Wire::client(&stage.address(Party::Alice), "ann");
    let (why, reason) = alice.refusal(&request);
    assert!(why == Refusal::Invalid && reason.contains("client: bert here, ann there"), "{reason}");
    assert_eq!(thief.refused().0, Refusal::Invalid);
    stage.serves();
}

/// Manifests that no server may accept, and what they are refused for.
fn hostile_manifests(good: &Manifest) -> Vec<(&'static str, Manifest)> {
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut m = good.clone();
        m.name = "evil".into();
        change(&mut m);
        m
    };
    let ops = |ops: Vec<Op>| {
        with(&|m| {
            m.program.steps.truncate(1);
            let step = m.program.steps[0].clone();
            m.program.steps.extend(ops.iter().map(|op| trefoil_mpc::program::Step { op: op.clone(), ..step.clone() }));
        })
    };
    let ahead = |batch| with(&|m| m.ahead = vec![Ahead { batch, reveal: Reveal::Logits, count: 1 }]);
    let image = |m: &mut Manifest| {
        m.program.input_shape = vec![1, 1, 1];
        m.program.weights.clear();
    };
    let mut grown = ops(vec![Op::Pad { x: 0, pads: Pads { top: 1 << 29, bottom: 0, left: 0, right: 0 } }]);
    image(&mut grown);
    let mut many = ops(vec![Op::Pad { x: 0, pads: Pads { top: 1 << 24, bottom: 0, left: 0, right: 0 } }; 2000]);
    image(&mut many);
    let huge = Pool2d { input: (6, 1), channels: 1, window: (usize::MAX, 1), stride: (1, 1), pads: Pads::default() };
    let dense = |weights| Op::Linear { x: 1, weights, bias: None, map: Linear::Dense { inputs: 6, outputs: 8 } };
    vec![
        ("no step", with(&|m| m.program.steps.clear())),
        ("no such value", ops(vec![Op::Open { x: 77 }])),
        ("its own value", ops(vec![Op::Open { x: 1 }])),
        ("no such weights", ops(vec![Op::Open { x: 0 }, dense(99)])),
        ("other weights", ops(vec![Op::Open { x: 0 }, dense(2)])),
        ("the input twice", ops(vec![Op::Input])),
        ("a reveal in the middle", ops(vec![Op::Reveal { x: 0, shift: 0 }, Op::Open { x: 1 }])),
        ("a shape that overflows", with(&|m| m.program.input_shape = vec![usize::MAX, usize::MAX])),
        ("an empty shape", with(&|m| m.program.input_shape = vec![0])),
        ("weights that overflow", with(&|m| m.program.weights[0].shape = vec![usize::MAX, 2])),
        ("weights without end", with(&|m| m.program.weights[0].shape = vec![6, 1 << 40])),
        ("a scale that overflows", ops(vec![Op::Scale { x: 0, factor: 1, extra: u32::MAX }])),
        ("no fraction bits", with(&|m| m.program.fraction_bits = 0)),
        ("an endless window", ops(vec![Op::AveragePool { x: 0, pool: huge, extra: 0 }])),
        ("a huge value", grown),
        ("many large values", many),
        (
            "a comparison of no bits",
            ops(vec![
                Op::Open { x: 0 },
                Op::Relu { x: 1, shift: 16, window: Window { lo: u32::MAX, k: u32::MAX }, compare: Compare::default() },
            ]),
        ),
        ("pairs of no two inputs", with(&|m| m.post = Post::distance(0.5))),
        ("a bad name", with(&|m| m.name = "../evil".into())),
        ("material for no sample", ahead(0)),
        ("material without end", ahead(u32::MAX)),
    ]
}

#[test]
fn hostile_manifests_are_refused_by_both() {
    let mut stage = Stage::new();
    let good = manifest("m", &compiled(&stage.graph), vec![]);
    for (what, evil) in hostile_manifests(&good) {
        let request = |seed| Request::Share { id: [4; 16], manifest: Box::new(evil.clone()), seed };
        let mut alice = Wire::client(&stage.address(Party::Alice), "owner");
        let (why, reason) = alice.refusal(&request(vec![1; 32].into()));
        assert!(why == Refusal::Invalid && !reason.is_empty(), "{what}: {why:?} {reason}");
        // Bob reads no shares whose sizes make no sense: he hangs up, or refuses what alice refuses.
        let mut bob = Wire::client(&stage.address(Party::Bob), "owner");
        bob.message(tag::REQUEST, &request(vec![].into()));
        for w in &good.program.weights {
            bob.frame(tag::SHARES, &vec![0; 8 * w.shape.iter().product::<usize>()]);
        }
        bob.finish();
        Party::ALL.iter().for_each(|p| assert!(stage.processes.alive(*p), "{what}"));
    }
    let denied = Request::Share { id: [5; 16], manifest: Box::new(good.clone()), seed: vec![1; 32].into() };
    let mut ann = Wire::client(&stage.address(Party::Alice), "ann");
    assert_eq!(ann.refusal(&denied).0, Refusal::Denied);
    stage.serves();
}

#[test]
fn an_upload_with_shares_of_another_size_leaves_nothing() {
    let mut stage = Stage::new();
    let mut half = manifest("m", &compiled(&stage.graph), vec![]);
    half.name = "half".into();
    let request = |seed| Request::Share { id: [6; 16], manifest: Box::new(half.clone()), seed };
    let mut bob = Wire::client(&stage.address(Party::Bob), "owner");
    bob.message(tag::REQUEST, &request(vec![].into()));
    bob.frame(tag::SHARES, &[0; 8]);
    bob.hangs_up("a share of 8 bytes");
    // Alice asks bob, who has no half, and gives up.
    let mut alice = Wire::client(&stage.address(Party::Alice), "owner");
    alice.message(tag::REQUEST, &request(vec![1; 32].into()));
    let (why, reason) = alice.refused();
    assert!(why == Refusal::Unavailable && reason.contains("half"), "{reason}");
    // Another manifest to bob than to alice.
    let mut other = half.clone();
    other.grants.clear();
    bob = Wire::client(&stage.address(Party::Bob), "owner");
    bob.message(tag::REQUEST, &Request::Share { id: [7; 16], manifest: Box::new(other), seed: vec![].into() });
    for w in &half.program.weights {
        bob.frame(tag::SHARES, &vec![0; 8 * w.shape.iter().product::<usize>()]);
    }
    let both = Request::Share { id: [7; 16], manifest: Box::new(half.clone()), seed: vec![1; 32].into() };
    let (why, reason) = alice.refusal(&both);
    assert!(why == Refusal::Mismatch && reason.contains("different things"), "{reason}");
    for party in Party::ALL {
        eventually("nothing is left", || stage.processes.models(party) == (1, 0));
    }
    stage.serves();
}

#[test]
fn lanes_of_impostors_are_given_up() {
    let mut stage = Stage::new();
    let mut impostors = Vec::new();
    // On plain TCP a name is believed. While the true ones are connected, an impostor waits and is never heard.
    for (callee, caller) in [(Party::Alice, "bob"), (Party::Alice, "carol"), (Party::Bob, "carol")] {
        for lane in 0..2 {
            let mut wire = Wire::open(&stage.address(callee));
            wire.message(tag::OPENING, &Opening::Lane { party: caller.into(), lane });
            wire.frame(tag::STATUS, &[99; 30]);
            impostors.push(wire);
        }
    }
    stage.serves();
    // The true one leaves: the impostor's turn comes, and passes.
    for gone in [Party::Carol, Party::Bob] {
        stage.processes.kill(gone);
        std::thread::sleep(Duration::from_millis(300));
        stage.processes.launch(gone, None);
        recovers(&mut stage.ann, &stage.model, &stage.graph);
    }
    stage.serves();
}
