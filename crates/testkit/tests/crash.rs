//! Servers that die, are killed or hang in the middle of requests and uploads, as processes over sockets.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cluster::{LIMIT, PATIENT, Processes, check, compare, compiled, eventually, inputs, manifest, network, party};
use cluster::{recovers, share, within};
use rustix::process::{Pid, Signal, kill_process};
use trefoil_mpc::Reveal;
use trefoil_prg::Party;
use trefoil_proto::Transport;
use trefoil_proto::control::Ahead;
use trefoil_testkit::Random;

#[test]
#[ignore = "the body of the other tests' servers"]
fn party_process() {
    party::run();
}

const HOLDER: &str = "TREFOIL_TEST_HOLDER";

#[test]
#[ignore = "started and killed by another test"]
fn holder() {
    if std::env::var_os(HOLDER).is_none() {
        println!("skipped: another test starts this one and kills it");
        return;
    }
    let processes = Processes::start(Transport::Tcp, "lanes = 1", PATIENT);
    println!("\nservers {:?}", processes.ids());
    loop {
        std::thread::park();
    }
}

#[test]
fn servers_end_with_whoever_started_them() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "holder", "--ignored", "--nocapture"]).env(HOLDER, "1").stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let lines = BufReader::new(holder.stdout.take().unwrap()).lines().map(Result::unwrap);
        let ids = lines.filter_map(|l| l.strip_prefix("servers ").map(str::to_owned)).next().unwrap();
        let ids: Vec<&str> = ids.trim_matches(['[', ']']).split(", ").collect();
        assert_eq!(ids.len(), 3);
        kill_process(Pid::from_child(&holder), signal).unwrap();
        holder.wait().unwrap();
        // One that nobody waits for stays as a zombie.
        let ended = |id: &&str| std::fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |s| s.contains(") Z"));
        eventually("its servers end", || ids.iter().all(ended));
    }
}

/// How often each party has said in its log that a lane, or the session with carol, ended.
fn reports(processes: &Processes) -> [usize; 3] {
    Party::ALL.map(|p| {
        let log = processes.log(p);
        log.matches("lane down").count() + log.matches("session with carol ended").count()
    })
}

/// The others live on and say in their logs that a lane, or the session with carol, ended. (Carol calls bob and says
/// nothing unless alice wants something of both: he may learn of her death from her next call.)
fn others_report(processes: &mut Processes, dead: Party, before: [usize; 3]) {
    for (other, before) in Party::ALL.into_iter().zip(before).filter(|(p, _)| *p != dead) {
        assert!(processes.alive(other), "{other} ended with {dead}");
        if (other, dead) == (Party::Bob, Party::Carol) {
            continue;
        }
        eventually(&format!("{other} reports that {dead} is gone"), || reports(processes)[other as usize] > before);
    }
}

/// A party dies at a point of a request, comes back, and serves: once for each point.
fn dies_in_a_request(transport: Transport, dead: Party, points: &[&str]) {
    let mut processes = Processes::start(transport, "lanes = 1", PATIENT);
    let graph = network(1);
    let model = share(&processes, &graph);
    let mut ann = processes.client("ann");
    let mut last = recovers(&mut ann, &model, &graph);
    for point in points {
        processes.kill(dead);
        let before = processes.sessions();
        processes.launch(dead, Some(&format!("{point}:1")));
        processes.met(before);
        ann = processes.client("ann");
        let before = reports(&processes);
        let x = inputs(3, 2);
        let answer = within(point, || ann.predict(&model, Reveal::Logits, &x, 3));
        let reason = answer.unwrap_err().to_string();
        assert!(reason.contains(dead.name()) || reason.contains("carol"), "{dead} at {point}: {reason}");
        assert_eq!(processes.ended(dead).signal(), Some(Signal::ABORT.as_raw()), "{dead} at {point}");
        // What was drawn is burnt on disk, at whoever lives and at the dead.
        let used = processes.lots(Party::Alice).last().copied().unwrap();
        for evaluator in [Party::Alice, Party::Bob] {
            processes.lots(evaluator);
            if *point == "evaluated" {
                assert!(used > last && processes.mark(evaluator) > used, "{evaluator} after {dead} at {point}");
            }
        }
        others_report(&mut processes, dead, before);
        processes.launch(dead, None);
        let next = recovers(&mut ann, &model, &graph);
        assert!(next > used.max(last), "lot {next} after {used} and {last}");
        last = next;
        check(&mut ann, &model, &graph, 2, 5);
    }
    Party::ALL.iter().for_each(|p| assert!(!processes.lots(*p).is_empty()));
}

#[test]
fn alice_dies_in_a_request() {
    dies_in_a_request(Transport::Tcp, Party::Alice, &["agreed", "burnt", "begun", "evaluated"]);
}

#[test]
fn bob_dies_in_a_request() {
    dies_in_a_request(Transport::Tcp, Party::Bob, &["agreed", "burnt", "begun", "evaluated"]);
}

#[test]
fn carol_dies_in_a_request() {
    dies_in_a_request(Transport::Tcp, Party::Carol, &["agreed", "burnt"]);
}

#[test]
fn they_die_in_requests_over_tls() {
    dies_in_a_request(Transport::Tls, Party::Alice, &["begun"]);
    dies_in_a_request(Transport::Tls, Party::Bob, &["evaluated"]);
}

/// A party dies at a point of an upload: afterwards all hold the model or none, and the name can be shared (again).
fn dies_in_an_upload(dead: Party, points: &[&str]) {
    let graph = network(2);
    let compiled = compiled(&graph);
    for point in points {
        let mut processes = Processes::new(Transport::Tcp, "lanes = 2", PATIENT);
        for p in Party::ALL {
            let crash = format!("{point}:1");
            processes.launch(p, (p == dead).then_some(crash.as_str()));
        }
        processes.met(0);
        let mut owner = processes.client("owner");
        let before = reports(&processes);
        let shared = within(point, || owner.share(&manifest("m", &compiled, vec![]), &compiled.weights));
        assert!(shared.is_err(), "{dead} died at {point}");
        assert_eq!(processes.ended(dead).signal(), Some(Signal::ABORT.as_raw()), "{dead} at {point}");
        others_report(&mut processes, dead, before);
        processes.launch(dead, None);
        // All or none, and nothing half done, once everyone has met again.
        let held = |p: &Processes| Party::ALL.map(|party| p.models(party));
        eventually(&format!("all hold the model or none, after {dead} at {point}"), || {
            matches!(held(&processes), [(1, 0), (1, 0), (1, 0)] | [(0, 0), (0, 0), (0, 0)])
        });
        let all = held(&processes)[0].0 == 1;
        // What alice committed is there; what she did not is not.
        assert_eq!(all, *point == "committed", "{dead} at {point}");
        let mut ann = processes.client("ann");
        if all {
            let mut known = None;
            eventually("the model is listed", || {
                known = ann.model("m").ok();
                known.is_some()
            });
            recovers(&mut ann, &known.unwrap(), &graph);
            owner = processes.client("owner");
            owner.remove("m").unwrap();
        }
        let model = share(&processes, &graph);
        recovers(&mut ann, &model, &graph);
        Party::ALL.iter().for_each(|p| assert!(!processes.lots(*p).is_empty()));
    }
}

#[test]
fn alice_dies_in_an_upload() {
    dies_in_an_upload(Party::Alice, &["staged", "committed"]);
}

#[test]
fn bob_dies_in_an_upload() {
    dies_in_an_upload(Party::Bob, &["agreed", "burnt", "staged", "committed"]);
}

#[test]
fn carol_dies_in_an_upload() {
    dies_in_an_upload(Party::Carol, &["agreed", "burnt", "staged", "committed"]);
}

#[test]
fn carol_dies_between_a_request_and_an_upload() {
    let mut processes = Processes::start(Transport::Tcp, "lanes = 1", PATIENT);
    let graph = network(6);
    let other = compiled(&graph);
    let model = share(&processes, &graph);
    let mut ann = processes.client("ann");
    for _ in 0..4 {
        let mut owner = processes.client("owner");
        // Alice has just heard from carol, and asks bob first.
        recovers(&mut ann, &model, &graph);
        processes.kill(Party::Carol);
        let e = within("an upload", || owner.share(&manifest("other", &other, vec![]), &other.weights));
        assert!(e.unwrap_err().is_unavailable());
        processes.launch(Party::Carol, None);
        recovers(&mut ann, &model, &graph);
        check(&mut ann, &model, &graph, 2, 3);
        eventually("nothing is left of it", || Party::ALL.iter().all(|p| processes.models(*p) == (1, 0)));
    }
}

#[test]
fn killed_at_random_moments() {
    let mut processes = Processes::start(Transport::Tcp, "lanes = 2", PATIENT);
    let graph = network(3);
    let model = share(&processes, &graph);
    let mut ann = processes.client("ann");
    let mut last = recovers(&mut ann, &model, &graph);
    let mut random = Random::new(7);
    let (mut answered, mut failed) = (0, 0);
    let x = inputs(4000, 4);
    for round in 0..12 {
        let victim = Party::ALL[round % 3];
        let pause = Duration::from_millis(random.below(150));
        std::thread::scope(|s| {
            let asked = s.spawn(|| within("a batch", || ann.predict(&model, Reveal::Logits, &x, 4000)));
            std::thread::sleep(pause);
            processes.kill(victim);
            let killed = Instant::now();
            let outcome = asked.join().unwrap();
            assert!(killed.elapsed() < LIMIT, "{victim} killed after {pause:?}: {:?}", killed.elapsed());
            match outcome {
                Ok(p) => {
                    answered += 1;
                    compare(&graph, 4000, &x, &p.logits.unwrap());
                }
                Err(e) => {
                    failed += 1;
                    assert!(e.is_unavailable(), "{victim} killed after {pause:?}: {e}");
                }
            }
        });
        processes.launch(victim, None);
        let lot = recovers(&mut ann, &model, &graph);
        assert!(lot > last, "lot {lot} after {last}");
        last = lot;
    }
    println!("{answered} answered, {failed} failed");
    Party::ALL.iter().for_each(|p| assert!(!processes.lots(*p).is_empty()));
}

#[test]
fn carol_may_die_while_material_lasts() {
    let mut processes = Processes::start(Transport::Tls, "lanes = 2", PATIENT);
    let graph = network(4);
    share(&processes, &graph);
    let mut owner = processes.client("owner");
    owner.remove("m").unwrap();
    let compiled = compiled(&graph);
    let ahead = vec![Ahead { batch: 2, reveal: Reveal::Logits, count: 5 }];
    owner.share(&manifest("m", &compiled, ahead), &compiled.weights).unwrap();
    let mut ann = processes.client("ann");
    eventually("material for five requests", || ann.model("m").unwrap().ready == 5);
    let model = ann.model("m").unwrap();
    processes.kill(Party::Carol);
    for i in 0..5 {
        let x = inputs(2, i);
        let p = ann.predict(&model, Reveal::Logits, &x, 2).unwrap();
        assert!(p.alice.ahead);
        compare(&graph, 2, &x, &p.logits.unwrap());
    }
    let none = within("no material", || ann.predict(&model, Reveal::Logits, &inputs(2, 5), 2)).unwrap_err();
    assert!(none.to_string().contains("carol"), "{none}");
    processes.launch(Party::Carol, None);
    recovers(&mut ann, &model, &graph);
    Party::ALL.iter().for_each(|p| assert!(!processes.lots(*p).is_empty()));
}

#[test]
fn a_server_that_hangs_is_given_up_and_taken_back() {
    let mut processes = Processes::start(Transport::Tcp, "lanes = 1", Duration::from_secs(2));
    let graph = network(5);
    let model = share(&processes, &graph);
    let mut ann = processes.client("ann");
    let mut last = recovers(&mut ann, &model, &graph);
    for hung in [Party::Carol, Party::Bob, Party::Alice] {
        processes.signal(hung, Signal::STOP);
        let e = within(hung.name(), || ann.predict(&model, Reveal::Logits, &inputs(1, 1), 1)).unwrap_err();
        assert!(e.is_unavailable() && e.to_string().contains(hung.name()), "{hung}: {e}");
        processes.signal(hung, Signal::CONT);
        let lot = recovers(&mut ann, &model, &graph);
        assert!(lot > last);
        last = lot;
        Party::ALL.iter().for_each(|p| assert!(processes.alive(*p)));
    }
    Party::ALL.iter().for_each(|p| assert!(!processes.lots(*p).is_empty()));
}
