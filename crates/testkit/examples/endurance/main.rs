//! Trains for as long as wanted at three server processes that are killed in turn, and checks what came of it.
//!
//! `cargo run --release -p trefoil-testkit --example endurance -- --minutes 60 --kill-every 300 --runs 3`
//!
//! The interrupted run must end within the spread of uninterrupted ones of the same length, have used every row as
//! often, and no party may have drawn an address twice in any of its lives. With `--reproduce`: training with injected
//! seeds must agree bit for bit over links, threads and the order of its phases.
#![allow(clippy::unwrap_used, reason = "it may fail")]

#[path = "../../tests/cluster/mod.rs"]
mod cluster;
mod draws;
mod drive;
mod reproduce;
#[path = "../../tests/sockets/mod.rs"]
mod sockets;
mod task;

use std::process::{Command, ExitCode};
use std::time::Duration;

use cluster::party;
use drive::{Outcome, Plan, drive, servers};
use task::Task;
use trefoil_proto::Transport;
use trefoil_testkit::Random;

/// The most epochs of a run that is told to stop when its time is over.
const MOST_EPOCHS: u32 = 2000;
/// Percentage points of accuracy that an interrupted run may lie outside the uninterrupted ones.
const POINTS: f64 = 0.1;
/// How many times farther from them it may lie than they from each other.
const APART: f64 = 2.0;

struct Arguments {
    minutes: f64,
    kill_every: f64,
    runs: usize,
    net: String,
    rows: usize,
    batch: usize,
    seed: u64,
    /// The servers draw the order of the rows, which then is another in every run.
    drawn: bool,
    digits: bool,
    reproduce: bool,
    fingerprint: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut a = Arguments {
        minutes: 60.0,
        kill_every: 300.0,
        runs: 3,
        net: "A".into(),
        rows: 12_800,
        batch: 128,
        seed: 1,
        drawn: false,
        digits: false,
        reproduce: false,
        fingerprint: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
        let number = |text: String| text.parse::<f64>().ok().filter(|v| *v > 0.0).ok_or(format!("{name} {text:?}"));
        let count = |text: String| text.parse::<usize>().map_err(|e| format!("{name} {text:?}: {e}"));
        match name.as_str() {
            "--minutes" => a.minutes = number(value()?)?,
            "--kill-every" => a.kill_every = number(value()?)?,
            "--runs" => a.runs = count(value()?)?,
            "--net" => a.net = value()?,
            "--rows" => a.rows = count(value()?)?,
            "--batch" => a.batch = count(value()?)?,
            "--seed" => a.seed = count(value()?)? as u64,
            "--drawn" => a.drawn = true,
            "--digits" => a.digits = true,
            "--reproduce" => a.reproduce = true,
            "--fingerprint" => a.fingerprint = true,
            _ => return Err(format!("{name:?} is not known")),
        }
    }
    if a.runs == 0 || a.batch == 0 || a.rows == 0 || !a.rows.is_multiple_of(a.batch) {
        return Err("--runs must be positive, and --rows a multiple of --batch".into());
    }
    if a.drawn && a.runs < 3 {
        return Err("--drawn needs --runs 3 or more: another order moves the accuracy by itself".into());
    }
    Ok(a)
}

fn print(name: &str, o: &Outcome, to: &str) {
    let [alice, bob, carol] = o.kills;
    let (seconds, kills) = (o.time.as_secs_f64(), format!("{alice}/{bob}/{carol}"));
    let each = 1e3 * seconds / o.steps as f64;
    let (epochs, steps, resumed, accuracy) = (o.epochs, o.steps, o.resumed, o.accuracy);
    println!(
        "{name:<14} {epochs:>6} {steps:>7} {seconds:>8.0} {each:>8.0} {kills:>9} {resumed:>7} {accuracy:>9.2} {to:>9}"
    );
}

/// The claims of an endurance run, and what was found of each.
fn endure(a: &Arguments, task: &Task) -> Result<Vec<(String, bool)>, String> {
    let mut processes = servers(Transport::Tls, Duration::from_secs(5), task);
    let mut random = Random::new(a.seed);
    let tell = |text: &str| eprintln!("{text}");
    let limit = Some(Duration::from_secs_f64(60.0 * a.minutes));
    let kill_every = Some(Duration::from_secs_f64(a.kill_every));
    let plan = Plan { epochs: MOST_EPOCHS, limit, kill_every, drawn: a.drawn };
    let tried = drive(&mut processes, task, ("interrupted", &plan), &mut random, tell)?;
    let plan = Plan { epochs: tried.epochs, limit: None, kill_every: None, ..plan };
    let mut calm = Vec::new();
    for i in 0..a.runs {
        calm.push(drive(&mut processes, task, (&format!("calm-{}", i + 1), &plan), &mut random, tell)?);
    }
    let ledger = draws::read(processes.trial.dir.path()).map_err(|e| e.to_string())?;

    println!("\nnetwork {}, {}, batches of {}, TLS; times in seconds and ms a step", a.net, task.source, a.batch);
    println!("run            epochs   steps     time     step  kills abc  resumed  accuracy  distance");
    let between = |o: &Outcome| calm.iter().map(|c| o.distance(c)).fold(0.0, f64::max);
    let farthest = calm.iter().map(between).fold(0.0, f64::max);
    let to = between(&tried);
    print("interrupted", &tried, &format!("{to:.1e}"));
    calm.iter().enumerate().for_each(|(i, c)| print(&format!("calm {}", i + 1), c, &format!("{:.1e}", between(c))));
    println!("ledger: {:?} draws of alice, bob and carol in {} lots\n", ledger.drawn, ledger.lots);

    let low = calm.iter().map(|c| c.accuracy).fold(f64::INFINITY, f64::min);
    let high = calm.iter().map(|c| c.accuracy).fold(0.0, f64::max);
    let kills: usize = tried.kills.iter().sum();
    let within = (low - POINTS - 1e-9..=high + POINTS + 1e-9).contains(&tried.accuracy);
    let mut claims = vec![
        (format!("{kills} kills, after which the run was taken up again {} times", tried.resumed), tried.resumed > 0),
        (format!("accuracy {:.2} within {POINTS} points of {low:.2} to {high:.2}", tried.accuracy), within),
    ];
    if calm.len() > 1 {
        let text = format!("weights {to:.1e} apart; uninterrupted runs up to {farthest:.1e} (times {APART})");
        claims.push((text, to <= APART * farthest));
    }
    let faults: Vec<String> = calm.iter().chain([&tried]).flat_map(|o| o.faults.clone()).collect();
    let again: u32 = calm.iter().map(|c| c.resumed).sum();
    claims.push((format!("uninterrupted runs were taken up again {again} times"), again == 0));
    claims
        .push((format!("every row used as often, every epoch's metrics revealed once {faults:?}"), faults.is_empty()));
    claims.push((format!("no mask drawn twice {:?}", ledger.faults), ledger.faults.is_empty()));
    Ok(claims)
}

fn again() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(std::env::args().skip(1)).arg("--fingerprint");
    command
}

fn run(a: &Arguments) -> Result<bool, String> {
    let rows = if a.reproduce { 4 * a.batch } else { a.rows };
    let task = Task::new(&a.net, rows, a.batch, a.digits)?;
    if a.fingerprint {
        println!("{}", reproduce::fingerprint(&task)?);
        return Ok(true);
    }
    let claims = if a.reproduce { reproduce::compare(&task, again)? } else { endure(a, &task)? };
    claims.iter().for_each(|(what, holds)| println!("{}: {what}", if *holds { "ok" } else { "FAILED" }));
    Ok(claims.iter().all(|(_, holds)| *holds))
}

fn main() -> ExitCode {
    if std::env::var_os(party::PARTY).is_some() {
        party::run();
    }
    let outcome = arguments().map_err(|e| (2, e)).and_then(|a| run(&a).map_err(|e| (1, e)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err((code, reason)) => {
            eprintln!("FAILED: {reason}");
            ExitCode::from(code)
        }
    }
}
