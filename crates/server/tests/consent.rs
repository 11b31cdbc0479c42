//! Owners who take their agreement back, memory that runs wait for, and checkpoints that do not belong together.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{LIMIT, Trial, eventually, training};
use training::{agree, contribute, finished, initial, publication, shown, spec};
use trefoil_client::{Client, ClientError, Publication, RunSpec, Stage};
use trefoil_mpc::program::{Reveal, WeightSpec};
use trefoil_prg::{Ledger, Party};
use trefoil_proto::Transport;
use trefoil_proto::control::{MAX_CONTROL, Opening, Reply, Request, decode, encode, tag};
use trefoil_ring::Tensor;
use trefoil_server::probe::{Point, Probe};
use trefoil_transport::{Security, connect};

fn clients(trial: &Trial) -> [Client; 3] {
    ["owner", "ann", "bert"].map(|n| trial.client(n))
}

fn said<T: std::fmt::Debug>(outcome: Result<T, ClientError>, what: &str) {
    let e = outcome.unwrap_err().to_string();
    assert!(e.contains(what), "{what:?} not in {e:?}");
}

/// A run that takes 8 bytes of memory for each of so many elements more.
fn heavy(owner: &mut Client, name: &str, epochs: u32, elements: usize) -> (RunSpec, Vec<Tensor>) {
    let mut spec = spec(owner, name, epochs);
    let ballast = WeightSpec { name: "ballast".into(), shape: vec![elements], scale: 16 };
    let check = spec.check.iter_mut().map(|c| &mut c.program);
    let reveals = spec.reveals.iter_mut().map(|d| &mut d.program);
    check.chain(reveals).chain([&mut spec.step]).for_each(|p| p.states.push(ballast.clone()));
    let mut first = initial();
    first.push(Tensor::new(vec![elements], vec![0; elements]).unwrap());
    (spec, first)
}

fn withdraw(client: &mut Client, name: &str) {
    let status = client.run_status(name).unwrap();
    client.withdraw(&status).unwrap();
}

#[test]
fn an_owner_withdraws_and_the_run_stops_where_it_is() {
    let mut trial = Trial::start(Transport::Tls, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let run = spec(&mut owner, "prices", 800);
    owner.train(&run, &initial()).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
    eventually("some epochs are over", || ann.run_status("prices").unwrap().at.epoch > 2);
    withdraw(&mut ann, "prices");
    let revealed = shown(&mut ann, "prices", 0).len();
    // Everyone sees that it stopped and who withdrew; nothing more is revealed, not even after a restart.
    let stands = |client: &mut Client| {
        let status = client.run_status("prices").unwrap();
        assert_eq!((status.stage, &status.missing[..]), (Stage::Waiting, &["ann".to_owned()][..]));
        assert_eq!(status.withdrawn, ["ann"]);
        assert_eq!(status.note, "without the agreement of ann, who withdrew it");
    };
    stands(&mut bert);
    std::thread::sleep(Duration::from_millis(500));
    stands(&mut owner);
    assert_eq!(shown(&mut ann, "prices", 0).len(), revealed);
    drop((owner, ann, bert));
    Party::ALL.iter().for_each(|p| trial.stop(*p));
    Party::ALL.iter().for_each(|p| trial.launch(*p));
    trial.wait();
    let [mut owner, mut ann, mut bert] = clients(&trial);
    stands(&mut owner);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(shown(&mut ann, "prices", 0).len(), revealed);
    // Others may withdraw too; it goes on once all have agreed again, and ends as if nothing had been.
    withdraw(&mut bert, "prices");
    agree(&mut [&mut ann], "prices");
    assert_eq!(owner.run_status("prices").unwrap().withdrawn, ["bert"]);
    agree(&mut [&mut bert], "prices");
    eventually("it goes on", || shown(&mut ann, "prices", 0).len() > revealed);
    owner.stop("prices").unwrap();
    let status = finished(&mut owner, "prices");
    assert_eq!((status.note.as_str(), status.missing.len()), ("stopped early", 0));
    said(ann.withdraw(&status), "run prices is over");
}

#[test]
fn whoever_is_not_asked_cannot_withdraw() {
    let trial = Trial::start(Transport::Tls, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let mut run = spec(&mut owner, "prices", 2);
    run.coordinator = "ann".into();
    owner.train(&run, &initial()).unwrap();
    let status = owner.run_status("prices").unwrap();
    // The model's owner agreed by sending it; it may withdraw like the others.
    owner.withdraw(&status).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
    let status = ann.run_status("prices").unwrap();
    assert_eq!((status.stage, status.withdrawn, status.done), (Stage::Waiting, vec!["owner".to_owned()], 0));
    agree(&mut [&mut owner], "prices");
    finished(&mut owner, "prices");
}

#[test]
fn runs_wait_for_memory_and_let_it_go_at_once() {
    let trial = Trial::start(Transport::Tcp, "lanes = 2\nrun_memory_mb = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let (spec, first) = heavy(&mut owner, "huge", 2, 150_000);
    said(
        owner.train(&spec, &first),
        "the run takes 1.20 MB of memory for its rows and states, alice allows runs 1.00 MB",
    );
    for (name, epochs) in [("one", 9_000), ("two", 3)] {
        let (mut spec, first) = heavy(&mut owner, name, epochs, 80_000);
        spec.reveals.truncate(1);
        owner.train(&spec, &first).unwrap();
    }
    agree(&mut [&mut ann, &mut bert], "one");
    eventually("the first is under way", || ann.run_status("one").unwrap().done > 5);
    agree(&mut [&mut ann, &mut bert], "two");
    let waits = "run two waits: it takes 0.64 MB of memory, alice has 0.36 MB left for runs";
    eventually("the second waits", || ann.run_status("two").unwrap().note == waits);
    // All three let the first one's rows go, or the second could not open its own.
    withdraw(&mut ann, "one");
    finished(&mut owner, "two");
    agree(&mut [&mut ann], "one");
    let done = ann.run_status("one").unwrap().done;
    eventually("the first goes on", || ann.run_status("one").unwrap().done > done + 5);
    // So they do where the data set is removed.
    owner.remove_set("houses").unwrap();
    assert_eq!(bert.runs().unwrap().len(), 2, "who agreed still sees what was revealed");
    contribute(&mut owner, &mut ann, &mut bert);
    let (mut spec, first) = heavy(&mut owner, "three", 3, 80_000);
    spec.reveals.truncate(1);
    owner.train(&spec, &first).unwrap();
    agree(&mut [&mut ann, &mut bert], "three");
    finished(&mut owner, "three");
    assert_eq!(owner.run_status("one").unwrap().note, "the data set of run one is gone");
}

/// The checkpoints of the one run that an evaluator has.
fn checkpoints(trial: &Trial, party: Party) -> Vec<PathBuf> {
    let runs = fs::read_dir(trial.store(party).join("runs")).unwrap().map(|e| e.unwrap().path());
    let files = runs.filter(|p| p.is_dir()).flat_map(|p| fs::read_dir(p).unwrap().map(|e| e.unwrap().path()));
    let mut found: Vec<PathBuf> = files.filter(|p| p.display().to_string().contains("checkpoint-")).collect();
    found.sort();
    found
}

#[test]
fn halves_of_different_attempts_are_not_put_together() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let mut run = spec(&mut owner, "prices", 2);
    (run.reveals, run.publish) = (vec![], Some(publication("served")));
    owner.train(&run, &initial()).unwrap();
    // Somebody takes the model's name: the run stands still before its end, always at the same place.
    let compiled = common::compiled(&common::network(1));
    owner.share(&common::manifest("served", &compiled, vec![]), &compiled.weights).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
    let note = |client: &mut Client| client.run_status("prices").unwrap().note;
    eventually("it is to be served", || note(&mut owner).contains("a model named served exists"));
    drop((owner, ann, bert));
    Party::ALL.iter().for_each(|p| trial.stop(*p));
    let backup: Vec<(PathBuf, Vec<u8>)> =
        checkpoints(&trial, Party::Bob).into_iter().map(|p| (p.clone(), fs::read(p).unwrap())).collect();
    assert_eq!(backup.len(), 2);
    // Another attempt, from the beginning.
    let all = [Party::Alice, Party::Bob].map(|p| checkpoints(&trial, p)).concat();
    all.iter().for_each(|p| fs::remove_file(p).unwrap());
    Party::ALL.iter().for_each(|p| trial.launch(*p));
    trial.wait();
    let mut owner = trial.client("owner");
    eventually("it is to be served again", || note(&mut owner).contains("a model named served exists"));
    assert_eq!(checkpoints(&trial, Party::Bob), backup.iter().map(|(p, _)| p.clone()).collect::<Vec<_>>());
    // Bob is put back to his backup: his shares are of the first attempt, alice's of the second.
    drop(owner);
    trial.stop(Party::Bob);
    let proper: Vec<Vec<u8>> = backup.iter().map(|(p, _)| fs::read(p).unwrap()).collect();
    backup.iter().for_each(|(p, bytes)| fs::write(p, bytes).unwrap());
    trial.launch(Party::Bob);
    trial.wait();
    let mut owner = trial.client("owner");
    eventually("the halves are refused", || note(&mut owner).contains("are of different attempts"));
    // With one file of the right attempt, it goes on from there.
    drop(owner);
    trial.stop(Party::Bob);
    backup.iter().zip(&proper).for_each(|((p, _), bytes)| fs::write(p, bytes).unwrap());
    trial.launch(Party::Bob);
    trial.wait();
    let mut owner = trial.client("owner");
    owner.remove("served").unwrap();
    let status = finished(&mut owner, "prices");
    assert_eq!(status.note, "all epochs done");
    assert_eq!(owner.model("served").unwrap().manifest.program.input_shape, [training::FEATURES]);
}

#[test]
fn a_run_that_has_revealed_everything_goes_on_to_its_publication() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let mut run = spec(&mut owner, "prices", 2);
    // Nothing is left to compute after the last reveal.
    run.publish = Some(Publication { weights: vec![0], finish: None, ..publication("served") });
    owner.train(&run, &initial()).unwrap();
    let compiled = common::compiled(&common::network(1));
    owner.share(&common::manifest("served", &compiled, vec![]), &compiled.weights).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
    let stands = |client: &mut Client| {
        let note = client.run_status("prices").unwrap().note;
        note.contains("a model named served exists")
    };
    eventually("it is to be served", || stands(&mut owner));
    drop((owner, ann, bert));
    Party::ALL.iter().for_each(|p| trial.stop(*p));
    Party::ALL.iter().for_each(|p| trial.launch(*p));
    trial.wait();
    let mut owner = trial.client("owner");
    eventually("it is to be served again", || stands(&mut owner));
    owner.remove("served").unwrap();
    finished(&mut owner, "prices");
    assert_eq!(owner.model("served").unwrap().manifest.program.input_shape, [training::FEATURES]);
}

/// Holds a server the so manieth time that it passes a point, until it is told to go on.
struct Gate {
    point: Point,
    left: AtomicUsize,
    here: Mutex<Sender<()>>,
    go: Mutex<Receiver<()>>,
}

impl Probe for Gate {
    fn reached(&self, point: Point) {
        let left = |n: usize| n.checked_sub(1);
        if point == self.point && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) == Ok(1) {
            self.here.lock().unwrap().send(()).unwrap();
            self.go.lock().unwrap().recv_timeout(LIMIT).unwrap();
        }
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        None
    }
}

/// A run that publishes, about to begin, whose `party` has a gate at the next `nth` passing of `point`.
fn gated(party: Party, point: Point, nth: usize) -> (Trial, u64, Receiver<()>, Sender<()>) {
    let mut trial = Trial::new(Transport::Tcp, "lanes = 1");
    let ((here, arrived), (open, go)) = (channel(), channel());
    let gate = Gate { point, left: AtomicUsize::new(0), here: Mutex::new(here), go: Mutex::new(go) };
    let gate = Arc::new(gate);
    trial.probes.insert(party, gate.clone());
    Party::ALL.iter().for_each(|p| trial.launch(*p));
    trial.wait();
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let mut run = spec(&mut owner, "prices", 1);
    run.publish = Some(publication("served"));
    owner.train(&run, &initial()).unwrap();
    gate.left.store(nth, Ordering::SeqCst);
    agree(&mut [&mut ann, &mut bert], "prices");
    let number = owner.run_status("prices").unwrap().run;
    (trial, number, arrived, open)
}

/// Ann withdraws at one evaluator alone.
fn withdraw_at(trial: &Trial, party: Party, run: u64) {
    let address = trial.cluster.party(party).address.as_str();
    let mut link = connect(address, party.name(), &Security::Plain, LIMIT).unwrap().link;
    link.set_timeout(Some(LIMIT));
    link.send(tag::OPENING, &[&encode(&Opening::Client { name: "ann".into() })]).unwrap();
    link.send(tag::REQUEST, &[&encode(&Request::Withdraw { run })]).unwrap();
    let reply: Reply = decode("reply", &link.recv_any(tag::REPLY, MAX_CONTROL).unwrap()).unwrap();
    assert!(matches!(reply, Reply::Done), "{reply:?}");
}

/// Files of an evaluator's store, under a folder, whose names hold `what`.
fn files(trial: &Trial, party: Party, folder: &str, what: &str) -> usize {
    let entries = fs::read_dir(trial.store(party).join(folder)).unwrap();
    entries.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(what)).count()
}

#[test]
fn a_part_that_is_refused_is_not_kept() {
    // Five steps, a check, and the first reveal.
    let (mut trial, run, arrived, open) = gated(Party::Bob, Point::Stepped, 7);
    arrived.recv_timeout(LIMIT).unwrap();
    withdraw_at(&trial, Party::Bob, run);
    open.send(()).unwrap();
    trial.stop(Party::Bob);
    let folder = format!("runs/{run}");
    assert!(files(&trial, Party::Bob, &folder, "checkpoint-") > 0);
    assert_eq!(files(&trial, Party::Bob, &folder, "reveal-"), 0);
}

#[test]
fn bob_gives_no_word_to_a_publication_after_a_withdrawal() {
    let (mut trial, run, arrived, open) = gated(Party::Bob, Point::Staged, 1);
    arrived.recv_timeout(LIMIT).unwrap();
    withdraw_at(&trial, Party::Bob, run);
    open.send(()).unwrap();
    [Party::Bob, Party::Alice].iter().for_each(|p| trial.stop(*p));
    assert_eq!(files(&trial, Party::Alice, "models", "sealed"), 0);
}

#[test]
fn who_withdraws_waits_for_a_publication_under_way() {
    let (trial, run, arrived, open) = gated(Party::Alice, Point::Committed, 1);
    arrived.recv_timeout(LIMIT).unwrap();
    std::thread::scope(|s| {
        let withdrawal = s.spawn(|| withdraw_at(&trial, Party::Alice, run));
        std::thread::sleep(Duration::from_millis(500));
        let waits = !withdrawal.is_finished();
        open.send(()).unwrap();
        withdrawal.join().unwrap();
        assert!(waits, "withdrawn while the model was on its way");
    });
    assert_eq!(trial.client("owner").models().unwrap().len(), 1);
}

/// Alice goes on as if nothing had been: neither her word that the model exists nor her inventory makes bob keep it.
#[test]
fn bob_keeps_no_model_that_alice_commits_after_a_withdrawal() {
    let (mut trial, run, arrived, open) = gated(Party::Alice, Point::Committed, 1);
    arrived.recv_timeout(LIMIT).unwrap();
    withdraw_at(&trial, Party::Bob, run);
    open.send(()).unwrap();
    let held = |trial: &Trial, party| ["sealed", "staged"].map(|what| files(trial, party, "models", what));
    let refused = |trial: &Trial| {
        assert_eq!([Party::Alice, Party::Bob].map(|p| held(trial, p)), [[1, 0], [0, 1]]);
        let mut bert = trial.client("bert");
        let info = bert.model("served");
        let asked = info.and_then(|m| bert.predict(&m, Reveal::Logits, &[0.5; training::FEATURES], 1));
        assert!(asked.is_err());
    };
    // One command after the other: when bob answers about another model, he has answered about this one.
    let compiled = common::compiled(&common::network(1));
    let mut owner = trial.client("owner");
    eventually("the lane is up again", || {
        owner.share(&common::manifest("m", &compiled, vec![]), &compiled.weights).is_ok()
    });
    owner.remove("m").unwrap();
    refused(&trial);
    drop(owner);
    for party in [Party::Bob, Party::Alice] {
        trial.stop(party);
        trial.launch(party);
        trial.wait();
        refused(&trial);
    }
    // Once ann agrees again, the model is there and the run over.
    let mut ann = trial.client("ann");
    agree(&mut [&mut ann], "prices");
    finished(&mut ann, "prices");
    assert_eq!([Party::Alice, Party::Bob, Party::Carol].map(|p| held(&trial, p)), [[1, 0]; 3]);
    let mut bert = trial.client("bert");
    let model = bert.model("served").unwrap();
    bert.predict(&model, Reveal::Logits, &[0.5; training::FEATURES], 1).unwrap();
}
