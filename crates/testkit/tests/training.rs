//! Training runs whose servers die, as processes over sockets: they end with the same steps, and no mask is drawn twice.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use cluster::run::{EPOCHS, begun, ends, status};
use cluster::{PATIENT, Processes, eventually, party, training};
use rustix::process::Signal;
use training::{
    TRUTH, agree, close, contribute, finished, ideal, initial, initial_with_features, on_features, publication, shown,
    spec,
};
use trefoil_client::{Reveal, Stage};
use trefoil_mpc::program::Shown;
use trefoil_prg::Party;
use trefoil_proto::Transport;
use trefoil_testkit::Random;

#[test]
#[ignore = "the body of the other tests' servers"]
fn party_process() {
    party::run();
}

fn dies_in_a_run(transport: Transport, to: Option<Shown>, dead: Party, points: &[&str]) {
    for point in points {
        let mut processes = begun(transport, to);
        let mut ann = processes.client("ann");
        eventually("it has begun", || status(&mut ann).is_some_and(|s| s.done > 3));
        processes.kill(dead);
        processes.launch(dead, Some(point));
        assert_eq!(processes.ended(dead).signal(), Some(Signal::ABORT.as_raw()), "{dead} at {point}");
        processes.launch(dead, None);
        ends(&processes, to, 200);
    }
}

/// A party dies while the trained model is opened: it is served in the end, once, and the run is over at all three.
fn dies_while_publishing(dead: Party, points: &[&str]) {
    for point in points {
        let mut processes = Processes::start(Transport::Tcp, "lanes = 2", PATIENT);
        let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| processes.client(n));
        contribute(&mut owner, &mut ann, &mut bert);
        let mut run = spec(&mut owner, "prices", EPOCHS);
        (run.reveals, run.publish) = (vec![], Some(publication("prices")));
        owner.train(&run, &initial()).unwrap();
        agree(&mut [&mut ann, &mut bert], "prices");
        eventually("it has learned", || status(&mut ann).is_some_and(|s| s.at.epoch > 100));
        processes.kill(dead);
        processes.launch(dead, Some(point));
        eventually("it is told to stop", || owner.stop("prices").is_ok());
        assert_eq!(processes.ended(dead).signal(), Some(Signal::ABORT.as_raw()), "{dead} at {point}");
        processes.launch(dead, None);
        let mut bert = processes.client("bert");
        let mut over = None;
        eventually("the run is over", || {
            over = status(&mut bert);
            over.as_ref().is_some_and(|s| s.stage == Stage::Done)
        });
        assert_eq!(over.unwrap().note, "stopped early");
        let x = [0.5, -0.25, 1.0, 0.0];
        let want: f32 = x.iter().zip(TRUTH).map(|(a, t)| a * t as f32).sum();
        let mut got = 0.0;
        eventually("the model answers", || {
            let model = bert.model("prices").unwrap();
            let answer = bert.predict(&model, Reveal::Logits, &x, 1);
            got = answer.as_ref().map_or(0.0, |p| p.logits.as_ref().unwrap()[0]);
            answer.is_ok()
        });
        assert!((got - want).abs() < 0.01, "{got}, should be {want}");
        eventually("one model, and no more", || Party::ALL.iter().all(|p| processes.models(*p) == (1, 0)));
        Party::ALL.iter().for_each(|p| assert!(!processes.lots(*p).is_empty()));
    }
}

/// A party dies in the middle of the extraction: it begins anew under new lots, and the run ends as if nothing had been.
fn dies_while_features_are_made(dead: Party) {
    let epochs = 40;
    let mut processes = Processes::start(Transport::Tcp, "lanes = 1", PATIENT);
    let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| processes.client(n));
    contribute(&mut owner, &mut ann, &mut bert);
    let run = on_features(spec(&mut owner, "prices", epochs), 2);
    owner.train(&run, &initial_with_features()).unwrap();
    // Without bert's word it does not begin: whoever is to die does so in the first extraction.
    agree(&mut [&mut ann], "prices");
    processes.kill(dead);
    processes.launch(dead, Some("extracted:19"));
    let mut bert = processes.client("bert");
    eventually("everyone agrees", || {
        let read = bert.run_status("prices").and_then(|s| bert.run_spec(&s).map(|spec| (s, spec)));
        read.is_ok_and(|(status, spec)| bert.agree(&status, &spec).is_ok())
    });
    assert_eq!(processes.ended(dead).signal(), Some(Signal::ABORT.as_raw()), "{dead}");
    processes.launch(dead, None);
    let mut owner = processes.client("owner");
    let last = finished(&mut owner, "prices");
    let want = ideal(&run, epochs);
    assert_eq!((last.done, last.at.epoch), (run.all_steps(), epochs));
    close(&shown(&mut owner, "prices", 1)[0], &want.weights, 200);
    // Whoever lived counts the rows of both attempts.
    let survivor = if dead == Party::Alice { &last.bob } else { &last.alice };
    assert!((48 + 32..=96).contains(&survivor.extracted.rows), "{:?}", survivor.extracted);
    Party::ALL.iter().for_each(|p| assert!(!processes.lots(*p).is_empty()));
}

#[test]
fn they_die_while_features_are_made() {
    Party::ALL.into_iter().for_each(dies_while_features_are_made);
}

#[test]
fn they_die_while_publishing() {
    dies_while_publishing(Party::Alice, &["staged:1", "committed:1"]);
    dies_while_publishing(Party::Bob, &["staged:1", "committed:1"]);
    dies_while_publishing(Party::Carol, &["staged:1", "committed:1"]);
}

#[test]
fn alice_dies_in_a_run() {
    dies_in_a_run(
        Transport::Tcp,
        None,
        Party::Alice,
        &["agreed:1", "burnt:2", "begun:5", "stepped:9", "saved:2", "shown:3"],
    );
}

#[test]
fn bob_dies_in_a_run() {
    dies_in_a_run(
        Transport::Tcp,
        None,
        Party::Bob,
        &["agreed:2", "burnt:1", "begun:5", "stepped:9", "saved:2", "shown:3"],
    );
}

#[test]
fn carol_dies_in_a_run() {
    dies_in_a_run(Transport::Tcp, None, Party::Carol, &["agreed:2", "burnt:2", "stepped:7"]);
}

#[test]
fn they_die_in_a_run_over_tls() {
    dies_in_a_run(Transport::Tls, None, Party::Alice, &["shown:1"]);
    dies_in_a_run(Transport::Tls, None, Party::Bob, &["shown:1"]);
}

/// Each dies while another waits in the middle of a step: for logits that carol is to be shown, or for her answer.
#[test]
fn they_die_in_a_run_that_shows_carol_likelihoods() {
    let to = Some(Shown::Carol);
    dies_in_a_run(Transport::Tls, to, Party::Alice, &["begun:5"]);
    dies_in_a_run(Transport::Tcp, to, Party::Bob, &["begun:5"]);
    dies_in_a_run(Transport::Tcp, to, Party::Carol, &["burnt:2", "stepped:7"]);
}

fn killed_at_random(to: Option<Shown>, victims: &[Party]) {
    let mut processes = begun(Transport::Tls, to);
    let mut random = Random::new(11);
    for victim in victims {
        std::thread::sleep(Duration::from_millis(100 + random.below(300)));
        processes.kill(*victim);
        processes.launch(*victim, None);
    }
    println!("killed {} times", victims.len());
    ends(&processes, to, 200);
}

#[test]
fn killed_at_random_moments_of_a_run() {
    killed_at_random(None, &Party::ALL.repeat(3));
}

#[test]
fn carol_is_killed_at_random_moments_while_she_is_shown_likelihoods() {
    killed_at_random(Some(Shown::Carol), &[Party::Carol; 5]);
}
