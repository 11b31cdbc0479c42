//! What does not depend on the machine's load: rounds, bytes and instructions of the benchmark networks.
//!
//! `cargo bench -p trefoil-mpc --bench counts` prints them and fails where rounds or bytes exceed what is recorded
//! below. Instructions of one request, all three parties together, are counted by valgrind's callgrind where it is
//! installed: it knows no AVX-512, so the AVX2 kernels run.
#![allow(clippy::unwrap_used)]

use std::process::{Command, ExitCode};

use trefoil_mpc::cost::{StepCost, cost};
use trefoil_mpc::{Program, Reveal};
use trefoil_nn::build::bench_net;
use trefoil_nn::compile::{CompileOptions, compile};
use trefoil_ring::Tensor;
use trefoil_testkit::World;

/// Network, batch; rounds, bytes online with the reveal, bytes offline: none may grow unnoticed.
const RECORDED: [(&str, usize, [u64; 3]); 12] = [
    ("A", 1, [11, 22360, 14188]),
    ("A", 128, [11, 2825504, 1808492]),
    ("B", 1, [32, 393584, 483644]),
    ("B", 128, [32, 50261144, 61827660]),
    ("C", 1, [32, 573152, 715424]),
    ("C", 128, [32, 73216664, 91375220]),
    ("D", 1, [11, 52984, 60764]),
    ("D", 128, [11, 6701600, 7596520]),
    ("S", 1, [16, 107264, 212146]),
    ("S", 128, [16, 13635416, 26975900]),
    ("T", 1, [6, 31648, 28212]),
    ("T", 128, [6, 4029608, 3606696]),
];
/// Tells this program, run under callgrind, which network to evaluate, and how often.
const CHILD: &str = "TREFOIL_COUNTED_REQUESTS";

fn network(name: &str) -> (Program, Vec<Tensor>) {
    let compiled = compile(&bench_net(name, 1).unwrap(), &CompileOptions::default()).unwrap();
    let program = compiled.ending_in(Reveal::Logits).unwrap();
    (program, compiled.weights)
}

fn counts(program: &Program, batch: usize) -> [u64; 3] {
    let mut sum = StepCost::default();
    cost(program, batch).unwrap().iter().for_each(|c| sum.add(c));
    [sum.rounds, sum.online + sum.revealed, sum.offline]
}

fn evaluate(name: &str, requests: usize) {
    let (program, weights) = network(name);
    let mut world = World::unlogged(1);
    let shared = world.share(&program, &weights).unwrap();
    let input = vec![1 << 12; program.input_shape.iter().product()];
    for _ in 0..requests {
        world.run(&shared, 1, &input).unwrap();
    }
}

/// Instructions of a child that evaluates `requests` requests; `None` without valgrind.
fn instructions(name: &str, requests: usize) -> Option<u64> {
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .env(CHILD, format!("{name} {requests}"))
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let collected = text.lines().find_map(|l| l.split_once("Collected :"))?.1;
    collected.trim().parse().ok()
}

fn main() -> ExitCode {
    if let Ok(child) = std::env::var(CHILD) {
        let (name, requests) = child.split_once(' ').unwrap();
        evaluate(name, requests.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    println!("{:<4} {:>5} {:>7} {:>12} {:>12}", "net", "batch", "rounds", "online", "offline");
    let mut worse = false;
    for (name, batch, recorded) in RECORDED {
        let now = counts(&network(name).0, batch);
        let grown = now.iter().zip(&recorded).any(|(n, r)| n > r);
        worse |= grown;
        let note = if grown { format!("  MORE than {recorded:?}") } else { String::new() };
        println!("{name:<4} {batch:>5} {:>7} {:>12} {:>12}{note}", now[0], now[1], now[2]);
    }
    for name in ["A", "B", "D"] {
        // The difference leaves out the network's own making and sharing.
        match instructions(name, 5).zip(instructions(name, 1)) {
            Some((five, one)) => println!("{name}: {} instructions a request (AVX2)", five.saturating_sub(one) / 4),
            None => println!("{name}: skipped: no valgrind"),
        }
    }
    if worse { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
