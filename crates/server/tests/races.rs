//! Uploads side by side, uploads withdrawn, and requests of which one evaluator never hears.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Barrier};
use std::time::Duration;

use common::{LIMIT, Trial, check, compiled, eventually, manifest, network};
use trefoil_link::Link;
use trefoil_mpc::Reveal;
use trefoil_mpc::masked::input::bob_share;
use trefoil_prg::{Ledger, Party, Seed};
use trefoil_proto::Transport;
use trefoil_proto::control::{Ahead, MAX_CONTROL, Opening, Refusal, Reply, Request, decode, encode, tag};
use trefoil_server::probe::{Point, Probe};
use trefoil_transport::{Security, connect};

/// Holds bob where a model is staged until both uploads are there.
struct Meet(Barrier);

impl Probe for Meet {
    fn reached(&self, point: Point) {
        if point == Point::Staged {
            self.0.wait();
        }
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        None
    }
}

/// A client's connection to one evaluator, without the client's good manners.
struct Raw(Box<dyn Link>);

impl Raw {
    fn new(trial: &Trial, party: Party, name: &str) -> Self {
        let address = trial.cluster.party(party).address.as_str();
        let mut link = connect(address, party.name(), &Security::Plain, LIMIT).unwrap().link;
        link.set_timeout(Some(LIMIT));
        link.send(tag::OPENING, &[&encode(&Opening::Client { name: name.into() })]).unwrap();
        Self(link)
    }

    fn ask(&mut self, request: &Request) {
        self.0.send(tag::REQUEST, &[&encode(request)]).unwrap();
    }

    fn reply(&mut self) -> Reply {
        decode("reply", &self.0.recv_any(tag::REPLY, MAX_CONTROL).unwrap()).unwrap()
    }

    fn ready(&mut self) -> u32 {
        self.ask(&Request::Models);
        match self.reply() {
            Reply::Models(models) => models[0].ready,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_uploads_at_once_both_arrive() {
    let mut trial = Trial::new(Transport::Tcp, "lanes = 2");
    trial.probes.insert(Party::Bob, Arc::new(Meet(Barrier::new(2))));
    Party::ALL.iter().for_each(|p| trial.launch(*p));
    trial.wait();
    let graphs = [network(1), network(2)];
    std::thread::scope(|s| {
        for (name, graph) in ["a", "b"].iter().zip(&graphs) {
            let trial = &trial;
            s.spawn(move || {
                let compiled = compiled(graph);
                trial.client("owner").share(&manifest(name, &compiled, vec![]), &compiled.weights).unwrap();
            });
        }
    });
    let mut ann = trial.client("ann");
    for (name, graph) in ["a", "b"].iter().zip(&graphs) {
        let model = ann.model(name).unwrap();
        check(&mut ann, &model, graph, 2, 5);
    }
}

#[test]
fn a_withdrawn_upload_leaves_the_lane_in_step() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 1");
    let graph = network(1);
    let compiled = compiled(&graph);
    let ahead = vec![Ahead { batch: 1, reveal: Reveal::Logits, count: 1 }];
    trial.client("owner").share(&manifest("m", &compiled, ahead), &compiled.weights).unwrap();
    let mut ann = trial.client("ann");
    eventually("material", || ann.model("m").unwrap().ready == 1);
    let model = ann.model("m").unwrap();
    let (mut alice, mut bob) = (Raw::new(&trial, Party::Alice, "owner"), Raw::new(&trial, Party::Bob, "owner"));
    let (id, seed) = ([9; 16], [7; 32]);
    let manifest = Box::new(manifest("n", &compiled, vec![]));
    alice.ask(&Request::Share { id, manifest: manifest.clone(), seed: seed.to_vec().into() });
    // Alice has called on bob, who waits for the owner; then carol goes away.
    std::thread::sleep(Duration::from_millis(500));
    trial.stop(Party::Carol);
    bob.ask(&Request::Share { id, manifest, seed: vec![].into() });
    let words: Vec<u64> = compiled.weights.iter().flat_map(|w| w.data().to_vec()).collect();
    let rest = bob_share(&words, &Seed::from_bytes(seed));
    let mut left = rest.bytes();
    for w in &compiled.weights {
        let (frame, more) = left.split_at(8 * w.len());
        bob.0.send(tag::SHARES, &[frame]).unwrap();
        left = more;
    }
    for reply in [alice.reply(), bob.reply()] {
        assert!(matches!(reply, Reply::Refused { why: Refusal::Unavailable, .. }), "{reply:?}");
    }
    check(&mut ann, &model, &graph, 1, 3);
}

#[test]
fn requests_that_bob_never_hears_of_leave_no_material_with_him() {
    let trial = Trial::start(Transport::Tcp, "lanes = 1");
    let graph = network(1);
    let compiled = compiled(&graph);
    let ahead = vec![Ahead { batch: 1, reveal: Reveal::Logits, count: 2 }];
    trial.client("owner").share(&manifest("m", &compiled, ahead), &compiled.weights).unwrap();
    let mut ann = trial.client("ann");
    eventually("material", || ann.model("m").unwrap().ready == 2);
    let epoch = ann.model("m").unwrap().epoch;
    let (mut alice, mut bob) = (Raw::new(&trial, Party::Alice, "ann"), Raw::new(&trial, Party::Bob, "ann"));
    let (model, seed) = ("m".into(), vec![1; 32].into());
    alice.ask(&Request::Predict { id: [3; 16], model, epoch, batch: 1, reveal: Reveal::Logits, seed });
    // The only lane serves others meanwhile.
    let model = ann.model("m").unwrap();
    for i in 0..5 {
        check(&mut ann, &model, &graph, 1, i);
    }
    assert!(matches!(alice.reply(), Reply::Refused { why: Refusal::Unavailable, .. }));
    eventually("material again", || alice.ready() == 2);
    assert_eq!(bob.ready(), 2);
}

#[test]
fn halves_that_differ_cost_no_material() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 1");
    let graph = network(1);
    let compiled = compiled(&graph);
    let ahead = vec![Ahead { batch: 1, reveal: Reveal::Logits, count: 3 }];
    trial.client("owner").share(&manifest("m", &compiled, ahead), &compiled.weights).unwrap();
    let mut ann = trial.client("ann");
    eventually("material", || ann.model("m").unwrap().ready == 3);
    // Nothing is dealt any more.
    trial.stop(Party::Carol);
    let model = ann.model("m").unwrap();
    let (mut alice, mut bob) = (Raw::new(&trial, Party::Alice, "ann"), Raw::new(&trial, Party::Bob, "ann"));
    let request = |batch, reveal, seed: &[u8]| Request::Predict {
        id: [batch as u8; 16],
        model: "m".into(),
        epoch: model.epoch,
        batch,
        reveal,
        seed: seed.to_vec().into(),
    };
    for (batch, reveal) in [(2, Reveal::Logits), (1, Reveal::Label)] {
        bob.ask(&request(batch, reveal, &[]));
        bob.0.send(tag::SHARES, &[&vec![0; 48 * batch as usize]]).unwrap();
        let mut to_alice = request(1, Reveal::Logits, &[2; 32]);
        if let Request::Predict { id, .. } = &mut to_alice {
            *id = [batch as u8; 16];
        }
        alice.ask(&to_alice);
        for from in [&mut alice, &mut bob] {
            let reply = from.reply();
            assert!(matches!(reply, Reply::Refused { why: Refusal::Invalid, .. }), "{reply:?}");
        }
    }
    assert_eq!((alice.ready(), bob.ready()), (3, 3));
    (0..3).for_each(|i| check(&mut ann, &model, &graph, 1, i));
    assert_eq!((alice.ready(), bob.ready()), (0, 0));
}

#[test]
fn a_half_may_come_late() {
    let trial = Trial::start(Transport::Tcp, "lanes = 1");
    let compiled = compiled(&network(1));
    trial.client("owner").share(&manifest("m", &compiled, vec![]), &compiled.weights).unwrap();
    let epoch = trial.client("ann").model("m").unwrap().epoch;
    let (mut alice, mut bob) = (Raw::new(&trial, Party::Alice, "ann"), Raw::new(&trial, Party::Bob, "ann"));
    let request = |seed: &[u8]| Request::Predict {
        id: [4; 16],
        model: "m".into(),
        epoch,
        batch: 1,
        reveal: Reveal::Logits,
        seed: seed.to_vec().into(),
    };
    alice.ask(&request(&[2; 32]));
    std::thread::sleep(Duration::from_millis(1500));
    bob.ask(&request(&[]));
    bob.0.send(tag::SHARES, &[&[0; 48]]).unwrap();
    for from in [&mut alice, &mut bob] {
        let reply = from.reply();
        assert!(matches!(reply, Reply::Answer(_)), "{reply:?}");
    }
}

#[test]
fn manifests_that_would_harm_others_are_refused() {
    let trial = Trial::start(Transport::Tcp, "lanes = 1");
    let graph = network(1);
    let compiled = compiled(&graph);
    let mut owner = trial.client("owner");
    let ahead = |batch, count| vec![Ahead { batch, reveal: Reveal::Logits, count }];
    let good = manifest("m", &compiled, vec![]);
    let mut no_number = good.clone();
    no_number.input.low = f64::NAN;
    let mut endless = good.clone();
    endless.program.weights[0].name = "x".repeat(100_000);
    let mut revealing = good.clone();
    revealing.program = compiled.ending_in(Reveal::Logits).unwrap();
    for (bad, why) in [
        (manifest("m", &compiled, ahead(0, 1)), "a batch of 0"),
        (manifest("m", &compiled, ahead(u32::MAX, 1)), "a batch of 4294967295"),
        (manifest("m", &compiled, ahead(1, u32::MAX)), "to keep ready"),
        (no_number, "input encoding"),
        (endless, "a name of 100000 bytes"),
        (revealing, "last step"),
    ] {
        let refused = owner.share(&bad, &compiled.weights).unwrap_err().to_string();
        assert!(refused.contains(why) || refused.contains("lost"), "{why}: {refused}");
        assert!(trial.client("ann").models().unwrap().is_empty());
    }
    owner.share(&good, &compiled.weights).unwrap();
    let mut ann = trial.client("ann");
    let model = ann.model("m").unwrap();
    check(&mut ann, &model, &graph, 1, 1);
}
