//! Runs truncations and comparisons by the thousand million, on the values where they would go wrong first.
//!
//! `cargo run --release -p trefoil-testkit --example soak -- --count 1000000000 --seed 1 --threads 2`

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use trefoil_testkit::soak::{COMPARISONS, Case, SoakError, TRUNCATIONS};

/// Values of one run of the protocol: its working set stays in the caches.
const RUN: u64 = 1 << 15;

fn arguments() -> Result<[u64; 3], String> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut values = [1_000_000_000, 1, threads];
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let at = ["--count", "--seed", "--threads"].iter().position(|n| *n == name);
        let at = at.ok_or_else(|| format!("{name:?}: only --count, --seed and --threads are known"))?;
        let value = args.next().ok_or_else(|| format!("{name} needs a number"))?;
        values[at] = value.parse().map_err(|e| format!("{name} {value:?}: {e}"))?;
    }
    if values[0] == 0 || values[2] == 0 {
        return Err("--count and --threads must be positive".into());
    }
    Ok(values)
}

/// Runs `count` values of the cases in turn; gives how many were run and the first failure.
fn soak(name: &str, cases: &[Case], count: u64, seed: u64, threads: u64) -> (u64, Option<SoakError>) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let runs = count.div_ceil(RUN);
    let began = Instant::now();
    let work = || -> Result<(), SoakError> {
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return Ok(());
            }
            let n = RUN.min(count - run * RUN);
            let case = cases[(run % cases.len() as u64) as usize];
            if let Err(e) = case.run(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(run), n as usize) {
                next.store(runs, Ordering::Relaxed);
                return Err(e);
            }
            let done = done.fetch_add(n, Ordering::Relaxed) + n;
            if run % 64 == 63 || done == count {
                let rate = done as f64 / began.elapsed().as_secs_f64() / 1e6;
                eprint!("\r{name}: {done} of {count}, {rate:.2} million a second ");
                let _ = std::io::stderr().flush();
            }
        }
    };
    let failure = thread::scope(|s| {
        let workers: Vec<_> = (0..threads).map(|_| s.spawn(work)).collect();
        workers.into_iter().find_map(|w| w.join().ok().and_then(Result::err))
    });
    eprintln!();
    (done.into_inner(), failure)
}

fn main() -> ExitCode {
    let [count, seed, threads] = match arguments() {
        Ok(values) => values,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    for (name, cases) in [("truncations", &TRUNCATIONS[..]), ("comparisons", &COMPARISONS[..])] {
        let began = Instant::now();
        let (done, failure) = soak(name, cases, count, seed, threads);
        if let Some(e) = failure {
            println!("FAILED after {done} {name} (seed {seed}): {e}");
            return ExitCode::FAILURE;
        }
        if done != count {
            println!("FAILED: {done} of {count} {name} were run (seed {seed})");
            return ExitCode::FAILURE;
        }
        let rate = done as f64 / began.elapsed().as_secs_f64() / 1e6;
        println!("ok: {done} {name}, none wrong, {rate:.2} million a second (seed {seed}, {threads} threads)");
    }
    ExitCode::SUCCESS
}
