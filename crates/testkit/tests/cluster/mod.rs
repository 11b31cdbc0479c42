//! Three servers, each a process of its own, on loopback; killed, stopped and started again by the tests.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, unused_imports)]

#[path = "../../../server/tests/common/mod.rs"]
mod common;
pub mod fourth;
pub mod party;
pub mod run;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use common::{LIMIT, Trial, check, compare, compiled, eventually, inputs, manifest, network, training};
use rustix::process::{Pid, Signal, kill_process};
use trefoil_client::{Client, ClientError, ModelInfo};
use trefoil_mpc::Reveal;
use trefoil_nn::graph::Graph;
use trefoil_prg::Party;
use trefoil_proto::Transport;

/// How long a server bears with another's silence where deaths are to be noticed by what they close, not by waiting.
pub const PATIENT: Duration = Duration::from_secs(3600);

/// A cluster of processes. They end with it.
pub struct Processes {
    pub trial: Trial,
    children: BTreeMap<Party, Child>,
    helper: Option<Child>,
    silence: Duration,
}

impl Processes {
    /// Three servers that are connected.
    pub fn start(transport: Transport, settings: &str, silence: Duration) -> Self {
        let mut p = Self::new(transport, settings, silence);
        Party::ALL.iter().for_each(|party| p.launch(*party, None));
        p.met(0);
        p
    }

    /// Sessions that alice has set up so far.
    pub fn sessions(&self) -> usize {
        self.log(Party::Alice).matches("session with carol set up").count()
    }

    /// Waits until every lane has a session, `before` of them not counted.
    pub fn met(&self, before: usize) {
        let lanes = self.trial.cluster.server.lanes;
        eventually("all lanes are up", || self.sessions() >= before + lanes);
    }

    /// A cluster whose servers have not started.
    pub fn new(transport: Transport, settings: &str, silence: Duration) -> Self {
        let trial = Trial::new(transport, settings);
        fs::write(trial.dir.path().join("cluster.toml"), trial.cluster.to_toml()).unwrap();
        Self { trial, children: BTreeMap::new(), helper: None, silence }
    }

    /// Starts a party, which dies at `crash` (a point and how often it must be reached) if that is given.
    pub fn launch(&mut self, party: Party, crash: Option<&str>) {
        let mut command = self.server(party.name());
        if let Some(crash) = crash {
            command.env(party::CRASH, crash);
        }
        self.children.insert(party, command.spawn().unwrap());
        let address = self.trial.cluster.party(party).address.as_str().to_owned();
        // One that is to die may have done so before it is called.
        let child = self.children.get_mut(&party).unwrap();
        eventually("a server listens", || {
            std::net::TcpStream::connect(&address).is_ok() || child.try_wait().unwrap().is_some()
        });
    }

    /// A server of this name, as a process that ends when this one does, however that comes about: its standard input
    /// closes then.
    fn server(&self, name: &str) -> Command {
        let log = self.trial.dir.path().join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "party_process", "--ignored", "--nocapture"]);
        command.env(party::PARTY, name).env(party::FOLDER, self.trial.dir.path());
        command.env(party::SILENCE, self.silence.as_millis().to_string()).env_remove(party::CRASH);
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    fn path(&self, party: Party, what: &str) -> std::path::PathBuf {
        self.trial.dir.path().join(format!("{party}.{what}"))
    }

    pub fn log(&self, party: Party) -> String {
        fs::read_to_string(self.path(party, "log")).unwrap()
    }

    pub fn signal(&self, party: Party, signal: Signal) {
        let pid = Pid::from_raw(self.children[&party].id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
        if signal == Signal::STOP {
            // The signal takes each thread when it is next scheduled.
            let threads = || std::fs::read_dir(format!("/proc/{}/task", self.children[&party].id())).unwrap();
            let stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('T'));
            let all = || threads().all(|t| stopped(std::fs::read_to_string(t.unwrap().path().join("stat")).unwrap()));
            eventually("every thread is stopped", all);
        }
    }

    /// Waits for a party's process to end.
    pub fn ended(&mut self, party: Party) -> ExitStatus {
        let child = self.children.get_mut(&party).unwrap();
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "{party} lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self, party: Party) {
        self.signal(party, Signal::KILL);
        self.ended(party);
    }

    /// The processes' ids.
    pub fn ids(&self) -> Vec<u32> {
        self.children.values().map(Child::id).collect()
    }

    pub fn alive(&mut self, party: Party) -> bool {
        self.children.get_mut(&party).unwrap().try_wait().unwrap().is_none()
    }

    /// The mark on a party's disk: every lot below it is burnt.
    pub fn mark(&self, party: Party) -> u64 {
        fs::read_to_string(self.trial.store(party).join("mark")).map_or(1, |m| m.trim().parse().unwrap())
    }

    /// How many models lie in a party's store, and how many of them are only staged.
    pub fn models(&self, party: Party) -> (usize, usize) {
        let names = fs::read_dir(self.trial.store(party).join("models")).unwrap();
        let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        (names.len(), names.iter().filter(|n| !n.ends_with(".sealed")).count())
    }

    /// A client, once both evaluators take its calls.
    pub fn client(&self, name: &str) -> Client {
        self.trial.client(name)
    }

    /// The lots drawn by a party so far. No address was drawn twice, no lot in two sessions, and all are burnt on disk.
    pub fn lots(&self, party: Party) -> BTreeSet<u64> {
        let log = fs::read_to_string(self.path(party, "draws")).unwrap_or_default();
        let (mut seen, mut epochs) = (BTreeSet::new(), HashMap::new());
        for line in log.lines() {
            assert!(seen.insert(line), "{party} drew twice: {line}");
            let mut words = line.split(' ');
            let lot: u64 = words.next().unwrap().parse().unwrap();
            let epoch = words.next().unwrap();
            assert_eq!(*epochs.entry(lot).or_insert(epoch), epoch, "{party} used lot {lot} in two sessions");
        }
        let lots: BTreeSet<u64> = epochs.into_keys().collect();
        let last = lots.last().copied().unwrap_or(0);
        assert!(self.mark(party) > last, "{party} drew lot {last}, burnt below {} on disk", self.mark(party));
        lots
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let parties = self.children.iter_mut().map(|(party, child)| (party.name(), child));
        for (party, child) in parties.chain(self.helper.iter_mut().map(|child| ("helper", child))) {
            // One that has ended needs no killing.
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(self.trial.dir.path().join(format!("{party}.log"))).unwrap_or_default();
            if std::thread::panicking() {
                eprintln!("--- {party}\n{log}");
            } else {
                assert!(!log.contains("panicked"), "a thread of {party} panicked:\n{log}");
            }
        }
    }
}

/// A prediction that succeeds as soon as the servers are connected again; its lot.
pub fn recovers(client: &mut Client, model: &ModelInfo, graph: &Graph) -> u64 {
    let until = Instant::now() + LIMIT;
    let x = inputs(1, 1);
    loop {
        match client.predict(model, Reveal::Logits, &x, 1) {
            Ok(p) => {
                compare(graph, 1, &x, &p.logits.unwrap());
                return p.alice.lot;
            }
            Err(e) => assert!(e.is_unavailable() && Instant::now() < until, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Shares a model as soon as the servers are connected.
pub fn share(processes: &Processes, graph: &Graph) -> ModelInfo {
    let compiled = compiled(graph);
    let until = Instant::now() + LIMIT;
    let mut owner = processes.client("owner");
    loop {
        match owner.share(&manifest("m", &compiled, vec![]), &compiled.weights) {
            Ok(()) => return processes.client("ann").model("m").unwrap(),
            Err(e) => assert!(e.is_unavailable() && Instant::now() < until, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The outcome, which must come long before a [`PATIENT`] server would be tired of waiting.
pub fn within<T>(what: &str, f: impl FnOnce() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let began = Instant::now();
    let outcome = f();
    let took = began.elapsed();
    assert!(took < LIMIT, "{what}: {took:.1?}, then {:?}", outcome.err().map(|e| e.to_string()));
    outcome
}
