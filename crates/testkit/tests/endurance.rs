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
use trefoil_prg::Party;
use trefoil_proto::Transport;
use trefoil_testkit::{Random, World};

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
fn a_batch_used_twice_in_place_of_another_is_found() {
    let task = small();
    let all: Vec<u64> = (0..task.count()).flat_map(|r| task.row(r)).collect();
    let witness = |batches: [usize; 4]| -> Vec<i64> {
        let mut world = World::unlogged(3);
        let model = world.share(&task.program, &[]).unwrap();
        let rows = world.share_rows(&all).unwrap();
        let mut states = world.split_states(&task.initial());
        for b in batches {
            let batch: Vec<usize> = (b * task.batch..(b + 1) * task.batch).collect();
            world.step(&model, &rows, &batch, &mut states, &task.rates(0)).unwrap();
        }
        states.values().pop().unwrap().into_iter().map(|v| v as i64).collect()
    };
    assert_eq!(witness([2, 0, 3, 1]), task.due(1));
    assert_ne!(witness([2, 0, 2, 1]), task.due(1));
}

#[test]
fn repeated_draws_and_lots_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |lines: [&str; 3]| {
        for (party, line) in Party::ALL.into_iter().zip(lines) {
            std::fs::write(folder.path().join(format!("{party}.draws")), line).unwrap();
        }
        draws::read(folder.path()).unwrap()
    };
    let clean = write(["1 aa AliceBob 0 0 0 Mask\n2 bb AliceBob 0 0 0 Mask\n", "1 aa AliceBob 0 0 0 Mask\n", ""]);
    assert_eq!((clean.drawn, clean.lots, clean.faults), ([2, 1, 0], 2, vec![]));
    let twice = write(["", "1 aa AliceBob 0 0 0 Mask\n1 aa AliceBob 0 0 0 Mask\n", ""]);
    assert_eq!(twice.faults, ["bob drew 1 addresses twice"]);
    let sessions = write(["1 aa AliceBob 0 0 0 Mask\n", "", "1 bb BobCarol 0 0 0 Mask\n"]);
    assert_eq!(sessions.faults, ["carol used lot 1 in another session too"]);
}

#[test]
fn without_kills_a_run_is_not_taken_up_again() {
    let task = small();
    let mut processes = servers(Transport::Tcp, Duration::from_secs(5), &task);
    let plan = Plan { epochs: 2, limit: None, kill_every: None, drawn: false };
    let calm = drive(&mut processes, &task, ("calm", &plan), &mut Random::new(1), |_| {}).unwrap();
    assert_eq!((calm.resumed, calm.epochs, &calm.faults), (0, 2, &vec![]));
}
