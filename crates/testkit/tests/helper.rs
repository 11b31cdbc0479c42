//! The helper, as a process over sockets, killed or stopped before, in and after steps of a run that shows it likelihoods:
//! the run waits, says so, and goes on; no lot is asked about twice.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::time::{Duration, Instant};

use cluster::fourth::Held;
use cluster::run::{begin, ends, status};
use cluster::{LIMIT, PATIENT, Processes, eventually, party};
use rustix::process::Signal;
use trefoil_client::{Client, Stage};
use trefoil_mpc::program::Shown;
use trefoil_prg::Party;
use trefoil_proto::Transport;
use trefoil_testkit::Random;

const TO: Option<Shown> = Some(Shown::Helper);

#[test]
#[ignore = "the body of the other tests' servers"]
fn party_process() {
    party::run();
}

/// The three others are up; the helper is not.
fn three(processes: &mut Processes) {
    Party::ALL.iter().for_each(|p| processes.launch(*p, None));
    processes.met(0);
}

/// Clients hear that the run waits for the helper, and what the run has done by then.
fn hear(client: &mut Client) -> u64 {
    let mut heard = None;
    eventually("clients hear of it", || {
        heard = status(client).filter(|s| s.note.contains("helper"));
        heard.is_some()
    });
    let heard = heard.unwrap();
    assert_eq!(heard.stage, Stage::Running, "{heard:?}");
    heard.done
}

#[test]
fn killed_before_in_and_after_a_step() {
    let mut processes = Processes::four(Transport::Tcp, "lanes = 1", PATIENT);
    let proxy = processes.proxy();
    // Before any step: it is dead when the run begins.
    processes.launch_helper();
    three(&mut processes);
    processes.kill_helper();
    begin(&processes, TO);
    let mut ann = processes.client("ann");
    assert_eq!(hear(&mut ann), 0);
    processes.launch_helper();
    for (n, held) in [Held::Second, Held::Answer, Held::Next].into_iter().cycle().take(6).enumerate() {
        // Within a stretch, and in another each time.
        proxy.at(held, 7 + 9 * n, || processes.kill_helper());
        let asked = proxy.check();
        let done = hear(&mut ann);
        assert!(Party::ALL.iter().all(|p| processes.alive(*p)), "{held:?}");
        // Nothing is shown or done without it.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!((status(&mut ann).unwrap().done, proxy.check()), (done, asked), "{held:?}");
        processes.launch_helper();
        eventually("it goes on", || status(&mut ann).is_some_and(|s| s.done > done));
    }
    ends(&processes, TO, 200);
    assert!(proxy.check() > proxy.answers());
}

#[test]
fn one_that_hangs_is_reported_within_the_silence_limit() {
    let silence = Duration::from_secs(2);
    let mut processes = Processes::four(Transport::Tcp, "lanes = 1", silence);
    let proxy = processes.proxy();
    processes.launch_helper();
    three(&mut processes);
    begin(&processes, TO);
    let mut ann = processes.client("ann");
    for held in [Held::Second, Held::Next] {
        let mut stopped = Instant::now();
        proxy.at(held, 20, || {
            processes.signal_helper(Signal::STOP);
            stopped = Instant::now();
        });
        hear(&mut ann);
        // Two seconds, and what a loaded machine needs: by waiting for anything else it would be minutes.
        let took = stopped.elapsed();
        println!("{held:?}: heard after {took:.1?}");
        assert!(took < LIMIT / 4, "{held:?}: {took:.1?}");
        processes.signal_helper(Signal::CONT);
        let answers = proxy.answers();
        eventually("it goes on", || proxy.answers() > answers + 20);
    }
    ends(&processes, TO, 200);
    proxy.check();
}

#[test]
fn killed_at_random_moments_over_tls() {
    let mut processes = Processes::four(Transport::Tls, "lanes = 1", PATIENT);
    processes.launch_helper();
    three(&mut processes);
    begin(&processes, TO);
    let mut random = Random::new(13);
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(100 + random.below(300)));
        processes.kill_helper();
        processes.launch_helper();
    }
    ends(&processes, TO, 200);
}
