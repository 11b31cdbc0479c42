//! The short form of the endurance run: servers killed in the middle of training lose nothing, and seeds decide all bits.
//!
//! The hour is `cargo run --release -p trefoil-testkit --example endurance`.
#![allow(clippy::unwrap_used)]

mod cluster;
#[allow(dead_code)]
#[path = "../examples/endurance/draws.rs"]
mod draws;
#[allow(dead_code)]
#[path = "../examples/endurance/drive.rs"]
mod drive;
#[allow(dead_code)]
#[path = "../examples/endurance/reproduce.rs"]
mod reproduce;
mod sockets;
#[allow(dead_code)]
#[path = "../examples/endurance/task.rs"]
mod task;

use std::process::Command;
use std::time::Duration;

use cluster::party;
use drive::{Plan, drive, servers};
use task::Task;
use trefoil_proto::Transport;
use trefoil_testkit::Random;

#[test]
#[ignore = "the body of the other tests' servers"]
fn party_process() {
    party::run();
}

fn small() -> Task {
    Task::new("A", 64, 16, true).unwrap()
}

#[test]
#[ignore = "started by another test with other numbers of threads"]
fn fingerprint() {
    println!("{}", reproduce::fingerprint(&small()).unwrap());
}

#[test]
fn seeds_decide_every_bit_of_training() {
    let again = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "fingerprint", "--ignored", "--nocapture"]);
        command
    };
    let lines = reproduce::compare(&small(), again).unwrap();
    assert!(lines.iter().all(|(_, same)| *same), "{lines:?}");
}

#[test]
fn a_run_with_kills_uses_every_row_as_often() {
    let task = small();
    let mut processes = servers(Transport::Tls, Duration::from_secs(2), &task);
    let mut random = Random::new(5);
    let kill_every = Some(Duration::from_millis(1500));
    let plan = Plan { epochs: 2000, limit: Some(Duration::from_secs(7)), kill_every, drawn: true };
    let tried = drive(&mut processes, &task, ("interrupted", &plan), &mut random, |t| println!("{t}")).unwrap();
    assert!(tried.kills.iter().all(|k| *k > 0), "{:?}", tried.kills);
    assert!(tried.faults.is_empty(), "{:?}", tried.faults);
    let ledger = draws::read(processes.trial.dir.path()).unwrap();
    assert!(ledger.faults.is_empty() && ledger.drawn.iter().all(|n| *n > 1000), "{:?}", ledger.faults);
}

#[test]
fn without_kills_a_run_is_not_taken_up_again() {
    let task = small();
    let mut processes = servers(Transport::Tcp, Duration::from_secs(5), &task);
    let plan = Plan { epochs: 2, limit: None, kill_every: None, drawn: false };
    let calm = drive(&mut processes, &task, ("calm", &plan), &mut Random::new(1), |_| {}).unwrap();
    assert_eq!((calm.resumed, calm.epochs, &calm.faults), (0, 2, &vec![]));
}
