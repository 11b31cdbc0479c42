//! Three servers over real sockets: sharing, querying, refusing, restarting.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Trial, check, compare, compiled, eventually, inputs, manifest, network};
use trefoil_mpc::cost::cost;
use trefoil_mpc::{Compare, Reveal};
use trefoil_prg::{Ledger, Party};
use trefoil_proto::Transport;
use trefoil_proto::control::Ahead;
use trefoil_server::probe::{Point, Probe};

#[test]
fn an_emulated_network_costs_time_and_changes_nothing_else() {
    let one_way = Duration::from_millis(5);
    let graph = network(1);
    let compiled = compiled(&graph);
    let x = inputs(2, 9);
    let mut counted = Vec::new();
    for network in [None, Some("10ms,1gbit".parse().unwrap())] {
        let mut trial = Trial::new(Transport::Tls, "lanes = 1");
        trial.network = network;
        Party::ALL.iter().for_each(|p| trial.launch(*p));
        trial.wait();
        trial.client("owner").share(&manifest("m", &compiled, vec![]), &compiled.weights).unwrap();
        let mut ann = trial.client("ann");
        let model = ann.model("m").unwrap();
        check(&mut ann, &model, &graph, 3, 3);
        let p = ann.predict(&model, Reveal::Logits, &x, 2).unwrap();
        let steps: Vec<_> = p.alice.steps.iter().map(|s| (s.rounds, s.online, s.offline)).collect();
        let rounds: u64 = steps.iter().map(|s| s.0).sum();
        if network.is_some() {
            assert!(u128::from(p.alice.online) >= u128::from(rounds) * one_way.as_nanos());
        }
        counted.push(steps);
    }
    assert_eq!(counted[0], counted[1]);
}

#[test]
fn a_model_is_shared_queried_and_removed_over_tls_and_tcp() {
    for transport in [Transport::Tls, Transport::Tcp] {
        let trial = Trial::start(transport, "lanes = 2");
        let graph = network(1);
        let compiled = compiled(&graph);
        let mut owner = trial.client("owner");
        owner.share(&manifest("m", &compiled, vec![]), &compiled.weights).unwrap();
        let again = owner.share(&manifest("m", &compiled, vec![]), &compiled.weights).unwrap_err();
        assert!(again.to_string().contains("remove it first"), "{again}");
        let mut ann = trial.client("ann");
        let model = ann.model("m").unwrap();
        for batch in [1, 3, 70] {
            check(&mut ann, &model, &graph, batch, batch);
        }
        // What was predicted and what was metered agree, step by step.
        let x = inputs(5, 9);
        let p = ann.predict(&model, Reveal::Logits, &x, 5).unwrap();
        let program = compiled.ending_in(Reveal::Logits).unwrap();
        for (i, c) in cost(&program, 5).unwrap().iter().enumerate() {
            assert_eq!(
                (p.alice.steps[i].rounds, p.alice.steps[i].online, p.bob.steps[i].offline),
                (c.rounds, c.online, c.offline)
            );
        }
        let labels = ann.predict(&model, Reveal::Label, &x, 5).unwrap().labels.unwrap();
        let logits = graph.forward(5, &x).unwrap();
        for (label, row) in labels.iter().zip(logits.chunks_exact(3)) {
            assert!(row.iter().all(|v| *v <= row[*label as usize] + 1e-3));
        }
        let mut bert = trial.client("bert");
        // A client that believes it may have more is told by the evaluators that it may not.
        let mut hopeful = model.clone();
        hopeful.manifest.grants.iter_mut().for_each(|g| g.reveals = vec![Reveal::Logits, Reveal::Label]);
        let denied = bert.predict(&hopeful, Reveal::Logits, &x, 5).unwrap_err();
        assert!(denied.to_string().contains("may not be shown"), "{denied}");
        assert!(bert.predict(&model, Reveal::Label, &x, 5).is_ok());
        let unknown = ann.remove("m").unwrap_err();
        assert!(unknown.to_string().contains("shared no model"), "{unknown}");
        owner.remove("m").unwrap();
        assert!(ann.models().unwrap().is_empty());
        let gone = ann.predict(&model, Reveal::Logits, &x, 5).unwrap_err();
        assert!(gone.to_string().contains("no model m"), "{gone}");
        for party in Party::ALL {
            assert_eq!(std::fs::read_dir(trial.store(party).join("models")).unwrap().count(), 0);
        }
    }
}

#[test]
fn comparisons_by_keys_are_served_at_once_and_ahead() {
    for count in [0, 2] {
        let trial = Trial::start(Transport::Tls, "lanes = 2");
        let graph = network(4);
        let mut compiled = compiled(&graph);
        for step in &mut compiled.program.steps {
            step.op = step.op.comparing(Compare::Keys);
        }
        let ahead = if count > 0 { vec![Ahead { batch: 2, reveal: Reveal::Logits, count }] } else { vec![] };
        trial.client("owner").share(&manifest("m", &compiled, ahead), &compiled.weights).unwrap();
        let mut ann = trial.client("ann");
        eventually("material", || ann.model("m").unwrap().ready == count);
        let model = ann.model("m").unwrap();
        let program = compiled.ending_in(Reveal::Logits).unwrap();
        for seed in 0..4 {
            let x = inputs(2, seed);
            let p = ann.predict(&model, Reveal::Logits, &x, 2).unwrap();
            compare(&graph, 2, &x, &p.logits.unwrap());
            assert!(p.alice.ahead == p.bob.ahead && (count == 0 || seed > 0 || p.alice.ahead));
            for (i, c) in cost(&program, 2).unwrap().iter().enumerate() {
                assert_eq!((p.alice.steps[i].rounds, p.alice.steps[i].online), (c.rounds, c.online));
                assert!(p.bob.ahead || p.bob.steps[i].offline == c.offline);
            }
        }
        let x = inputs(3, 9);
        let labels = ann.predict(&model, Reveal::Label, &x, 3).unwrap().labels.unwrap();
        for (label, row) in labels.iter().zip(graph.forward(3, &x).unwrap().chunks_exact(3)) {
            assert!(row.iter().all(|v| *v <= row[*label as usize] + 1e-3));
        }
    }
}

#[test]
fn material_ready_lets_carol_be_away() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 2");
    let graph = network(2);
    let compiled = compiled(&graph);
    let ahead = vec![Ahead { batch: 2, reveal: Reveal::Logits, count: 4 }];
    trial.client("owner").share(&manifest("m", &compiled, ahead), &compiled.weights).unwrap();
    let mut ann = trial.client("ann");
    eventually("four requests' material", || ann.model("m").unwrap().ready == 4);
    let model = ann.model("m").unwrap();
    trial.stop(Party::Carol);
    for i in 0..4 {
        let x = inputs(2, i);
        let p = ann.predict(&model, Reveal::Logits, &x, 2).unwrap();
        assert!(p.alice.ahead && p.bob.ahead && p.alice.lot == p.bob.lot);
        compare(&graph, 2, &x, &p.logits.unwrap());
    }
    let none = ann.predict(&model, Reveal::Logits, &inputs(2, 5), 2).unwrap_err();
    assert!(none.to_string().contains("carol"), "{none}");
    trial.launch(Party::Carol);
    trial.wait();
    check(&mut ann, &model, &graph, 2, 6);
}

#[test]
fn models_and_lots_survive_restarts() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 1");
    let graph = network(3);
    let compiled = compiled(&graph);
    trial.client("owner").share(&manifest("m", &compiled, vec![]), &compiled.weights).unwrap();
    let mut last = 0;
    for party in Party::ALL {
        trial.stop(party);
        trial.launch(party);
        trial.wait();
        let mut ann = trial.client("ann");
        let model = ann.model("m").unwrap();
        let x = inputs(1, 1);
        let p = ann.predict(&model, Reveal::Logits, &x, 1).unwrap();
        assert!(p.alice.lot > last);
        last = p.alice.lot;
        compare(&graph, 1, &x, &p.logits.unwrap());
    }
}

#[test]
fn eight_clients_at_once_get_the_answers_of_a_serial_run() {
    let trial = Trial::start(Transport::Tls, "lanes = 3\nqueue = 4");
    let graph = network(4);
    let compiled = compiled(&graph);
    let ahead = vec![Ahead { batch: 1, reveal: Reveal::Logits, count: 3 }];
    trial.client("owner").share(&manifest("m", &compiled, ahead), &compiled.weights).unwrap();
    std::thread::scope(|s| {
        for c in 0..8 {
            let (trial, graph) = (&trial, &graph);
            s.spawn(move || {
                let mut ann = trial.client("ann");
                let model = ann.model("m").unwrap();
                for i in 0..6 {
                    check(&mut ann, &model, graph, 1 + (c + i) % 2, 10 * c + i);
                }
            });
        }
    });
}

#[test]
fn uploads_at_once_do_not_disturb_each_other() {
    let trial = Trial::start(Transport::Tcp, "lanes = 4");
    let graph = network(6);
    let compiled = compiled(&graph);
    std::thread::scope(|s| {
        for name in ["a", "b", "c", "d"] {
            let (trial, compiled, graph) = (&trial, &compiled, &graph);
            s.spawn(move || {
                let (mut owner, mut ann) = (trial.client("owner"), trial.client("ann"));
                for i in 0..8 {
                    owner.share(&manifest(name, compiled, vec![]), &compiled.weights).unwrap();
                    let infos = ann.models().unwrap();
                    let model = infos.iter().find(|m| m.manifest.name == name).unwrap();
                    check(&mut ann, model, graph, 1, i);
                    owner.remove(name).unwrap();
                }
            });
        }
    });
    for party in Party::ALL {
        assert_eq!(std::fs::read_dir(trial.store(party).join("models")).unwrap().count(), 0);
    }
}

/// Panics the first time that a point is reached.
struct Stumbles(Point, AtomicBool);

impl Probe for Stumbles {
    fn reached(&self, point: Point) {
        assert!(point != self.0 || self.1.swap(true, Ordering::SeqCst), "a fault planted at {point:?}");
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        None
    }
}

#[test]
fn a_lane_that_panics_is_set_up_again() {
    for party in Party::ALL {
        let mut trial = Trial::new(Transport::Tcp, "lanes = 1");
        let point = if party == Party::Carol { Point::Burnt } else { Point::Begun };
        trial.probes.insert(party, Arc::new(Stumbles(point, AtomicBool::new(party == Party::Carol))));
        Party::ALL.iter().for_each(|p| trial.launch(*p));
        trial.wait();
        let graph = network(7);
        let compiled = compiled(&graph);
        trial.client("owner").share(&manifest("m", &compiled, vec![]), &compiled.weights).unwrap();
        if party == Party::Carol {
            // The upload passed the point; the request is to stumble.
            trial.stop(party);
            trial.probes.insert(party, Arc::new(Stumbles(point, AtomicBool::new(false))));
            trial.launch(party);
            trial.wait();
        }
        let mut ann = trial.client("ann");
        let model = ann.model("m").unwrap();
        let e = ann.predict(&model, Reveal::Logits, &inputs(1, 1), 1).unwrap_err();
        assert!(e.is_unavailable(), "{party}: {e}");
        trial.wait();
        eventually("it serves again", || ann.predict(&model, Reveal::Logits, &inputs(1, 1), 1).is_ok());
    }
}

#[test]
fn a_drained_server_finishes_what_it_began() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 1");
    let graph = network(5);
    let compiled = compiled(&graph);
    trial.client("owner").share(&manifest("m", &compiled, vec![]), &compiled.weights).unwrap();
    let mut ann = trial.client("ann");
    let model = ann.model("m").unwrap();
    let asked = std::thread::spawn(move || {
        let x = inputs(200, 3);
        (ann.predict(&model, Reveal::Logits, &x, 200), x)
    });
    std::thread::sleep(Duration::from_millis(30));
    trial.stop(Party::Alice);
    let (answer, x) = asked.join().unwrap();
    match answer {
        Ok(p) => compare(&graph, 200, &x, &p.logits.unwrap()),
        Err(e) => assert!(e.to_string().contains("alice"), "{e}"),
    }
}

#[test]
fn a_server_that_ends_hangs_up_on_who_has_not_said_who_he_is() {
    let mut trial = Trial::start(Transport::Tls, "lanes = 1");
    let mut mute = TcpStream::connect(trial.cluster.party(Party::Bob).address.as_str()).unwrap();
    mute.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // He is being waited for: in his silence a handshake is given up only after five seconds.
    std::thread::sleep(Duration::from_millis(500));
    trial.stop(Party::Bob);
    match mute.read(&mut [0]) {
        Ok(n) => assert_eq!(n, 0),
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn alice_on_another_store_gets_nothing_done_and_harms_nothing() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 2");
    let graph = network(1);
    let compiled = compiled(&graph);
    trial.client("owner").share(&manifest("m", &compiled, vec![]), &compiled.weights).unwrap();
    let (store, away) = (trial.store(Party::Alice), trial.dir.path().join("away"));
    trial.stop(Party::Alice);
    std::fs::rename(&store, &away).unwrap();
    trial.launch(Party::Alice);
    let refused = trial.client("owner").share(&manifest("n", &compiled, vec![]), &compiled.weights).unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    trial.stop(Party::Alice);
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    trial.launch(Party::Alice);
    trial.wait();
    let mut ann = trial.client("ann");
    let model = ann.model("m").unwrap();
    check(&mut ann, &model, &graph, 1, 1);
    assert_eq!(ann.models().unwrap().len(), 1);
}
