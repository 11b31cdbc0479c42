//! Training with injected seeds agrees bit for bit: with itself, over other links, with other numbers of threads.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;

use trefoil_nn::train::order::batches;
use trefoil_testkit::{Links, SharedStates, World};

use super::sockets::{tcp, tls};
use super::task::Task;

/// Steps of each run.
const STEPS: usize = 12;
/// The variable that says how many threads the kernels use.
const THREADS: &str = "RAYON_NUM_THREADS";

/// Alice's and bob's shares of all states after some steps. `in_step`: as the servers do it, both phases together.
fn trained(task: &Task, in_step: bool, mut links: Links) -> Result<SharedStates, String> {
    let world = World::unlogged(9);
    let mut world = if in_step { world.in_step() } else { world };
    let model = world.share(&task.program, &[]).map_err(|e| e.to_string())?;
    let all: Vec<u64> = (0..task.count()).flat_map(|r| task.row(r)).collect();
    let rows = world.share_rows(&all).map_err(|e| e.to_string())?;
    let mut states = world.split_states(&task.initial());
    let epochs = 0..STEPS.div_ceil(task.count() / task.batch);
    let order = epochs.flat_map(|e| batches(1, e, task.count(), task.batch).into_iter().map(move |b| (e, b)));
    for (epoch, batch) in order.take(STEPS) {
        let rates = task.rates(epoch as u32);
        let step = world.step_over(&model, &rows, &batch, &mut states, &rates, &mut links);
        step.map_err(|e| e.to_string())?;
    }
    Ok(states)
}

fn same(a: &SharedStates, b: &SharedStates) -> bool {
    let equal = |a: &[trefoil_ring::Words], b: &[trefoil_ring::Words]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a[..] == b[..])
    };
    equal(&a.alice, &b.alice) && equal(&a.bob, &b.bob)
}

/// One number that stands for both parties' shares of all states at the end of a run in memory.
pub(crate) fn fingerprint(task: &Task) -> Result<String, String> {
    let states = trained(task, false, Links::memory())?;
    let mut h = DefaultHasher::new();
    states.alice.iter().chain(&states.bob).for_each(|s| s[..].hash(&mut h));
    Ok(format!("fingerprint {:016x}", h.finish()))
}

/// Compares runs. `again` starts this program so that it prints the fingerprint; each line says one comparison's result.
pub(crate) fn compare(task: &Task, again: impl Fn() -> Command) -> Result<Vec<(String, bool)>, String> {
    let first = trained(task, false, Links::memory())?;
    let others = [
        ("again in memory", false, Links::memory as fn() -> Links),
        ("both phases in step", true, Links::memory),
        ("over TCP", false, tcp),
        ("over TLS, both phases in step", true, tls),
    ];
    let mut lines = Vec::new();
    for (what, in_step, links) in others {
        lines.push((what.to_owned(), same(&first, &trained(task, in_step, links())?)));
    }
    let want = fingerprint(task)?;
    for threads in ["1", "2", "5"] {
        let output = again().env(THREADS, threads).output().map_err(|e| e.to_string())?;
        let same = String::from_utf8_lossy(&output.stdout).lines().any(|l| l.contains(&want));
        lines.push((format!("{threads} threads"), same));
    }
    Ok(lines)
}
