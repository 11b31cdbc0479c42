//! The helper as a process of its own, and a proxy before it that holds a frame back and keeps what evaluators ask.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use trefoil_link::frame::{HEADER, decode, encode};
use trefoil_proto::Transport;

use super::{LIMIT, Processes};

/// Tag of what evaluators ask, and of the answer.
const ASKED: u32 = 1;
/// Bytes that say what a request is about: lot and step first.
const ABOUT: usize = 32;
/// Bytes of a request ahead of its logits.
const HEAD: usize = 64;

impl Processes {
    /// Four servers that have not started. Evaluators call the helper through `proxy`, if there is one.
    pub fn four(transport: Transport, settings: &str, silence: std::time::Duration) -> Self {
        let mut p = Self::new(transport, settings, silence);
        p.trial.name_helper();
        for name in ["cluster.toml", "helper.toml"] {
            fs::write(p.trial.dir.path().join(name), p.trial.cluster.to_toml()).unwrap();
        }
        p
    }

    /// Puts a proxy before the helper, before the evaluators start.
    pub fn proxy(&mut self) -> Proxy {
        let helper = self.trial.cluster.helper.as_mut().unwrap();
        let proxy = Proxy::before(helper.address.as_str());
        helper.address = proxy.address.parse().unwrap();
        fs::write(self.trial.dir.path().join("cluster.toml"), self.trial.cluster.to_toml()).unwrap();
        proxy
    }

    pub fn launch_helper(&mut self) {
        self.helper = Some(self.server("helper").spawn().unwrap());
    }

    pub fn signal_helper(&self, signal: Signal) {
        kill_process(Pid::from_child(self.helper.as_ref().unwrap()), signal).unwrap();
    }

    pub fn kill_helper(&mut self) {
        let child = self.helper.as_mut().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Which frame is held back: the so manieth of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// What the second evaluator asks: the helper has heard the first alone.
    Second,
    /// The answer: the helper has done its work, bob does not hear of it.
    Answer,
    /// What is asked after the answer: the step is done.
    Next,
}

/// What evaluators asked: lot and step, and the bytes.
type Asked = Vec<((u64, u32), Vec<u8>)>;

struct Script {
    /// What is held back, once so many answers have passed.
    held: Option<(Held, usize)>,
    answers: usize,
    /// What the last request was about.
    last: Option<(u64, u32)>,
    asked: BTreeMap<String, Asked>,
    here: Sender<()>,
    go: Arc<Mutex<Receiver<()>>>,
}

/// A proxy before the helper, on plain TCP.
pub struct Proxy {
    address: String,
    script: Arc<Mutex<Script>>,
    arrived: Receiver<()>,
    open: Sender<()>,
}

impl Proxy {
    fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ((here, arrived), (open, go)) = (channel(), channel());
        let go = Arc::new(Mutex::new(go));
        let script = Script { held: None, answers: 0, last: None, asked: BTreeMap::new(), here, go };
        let script = Arc::new(Mutex::new(script));
        let (all, target) = (script.clone(), target.to_owned());
        thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                // A helper that is not there: the caller hears that the line is closed.
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let name = Arc::new(Mutex::new(String::new()));
                for (called, from, to) in [(true, &caller, &server), (false, &server, &caller)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (script, name) = (all.clone(), name.clone());
                    thread::spawn(move || pass_on(called, from, to, &name, &script));
                }
            }
        });
        Self { address, script, arrived, open }
    }

    /// Holds a frame back once so many more answers have passed, does `act`, and lets it go.
    pub fn at(&self, held: Held, more: usize, act: impl FnOnce()) {
        let mut script = self.script.lock().unwrap();
        script.held = Some((held, script.answers + more));
        drop(script);
        self.arrived.recv_timeout(LIMIT).unwrap();
        act();
        self.open.send(()).unwrap();
    }

    /// How many answers have passed.
    pub fn answers(&self) -> usize {
        self.script.lock().unwrap().answers
    }

    /// No evaluator asked twice about a lot, or sent the same twice; both asked the same. How often they asked.
    pub fn check(&self) -> usize {
        let script = self.script.lock().unwrap();
        let [alice, bob] = ["alice", "bob"].map(|name| &script.asked[name]);
        for asked in [alice, bob] {
            assert!(asked.windows(2).all(|w| w[0].0.0 < w[1].0.0), "a lot again, or an older one");
            let mut messages: Vec<&[u8]> = asked.iter().map(|(_, bytes)| &bytes[HEAD..]).collect();
            messages.sort_unstable();
            assert!(messages.windows(2).all(|w| w[0] != w[1]), "a message again");
        }
        for (about, hers) in alice {
            let his = bob.iter().find(|(other, _)| other == about);
            assert!(his.is_none_or(|(_, his)| his[..ABOUT] == hers[..ABOUT]), "{about:?}");
        }
        alice.len().max(bob.len())
    }
}

/// Notes a request (or an answer) and holds it back if that is what the test waits for.
fn hold(script: &Mutex<Script>, request: Option<(String, Vec<u8>)>) {
    let mut s = script.lock().unwrap();
    let kind = match request {
        Some((name, payload)) => {
            let lot = u64::from_le_bytes(payload[..8].try_into().unwrap());
            let about = (lot, u32::from_le_bytes(payload[8..12].try_into().unwrap()));
            s.asked.entry(name).or_default().push((about, payload));
            if s.last.replace(about) == Some(about) { Held::Second } else { Held::Next }
        }
        None => Held::Answer,
    };
    let due = s.held.is_some_and(|(held, answers)| held == kind && s.answers >= answers);
    s.answers += usize::from(kind == Held::Answer);
    if due {
        s.held = None;
        s.here.send(()).unwrap();
        let go = s.go.clone();
        drop(s);
        go.lock().unwrap().recv_timeout(LIMIT).unwrap();
    }
}

/// Passes frames on until one end is gone.
fn pass_on(called: bool, mut from: TcpStream, mut to: TcpStream, name: &Mutex<String>, script: &Mutex<Script>) {
    let mut header = [0; HEADER];
    while from.read_exact(&mut header).is_ok() {
        let (tag, len) = decode(&header).unwrap();
        let mut payload = vec![0; len];
        if from.read_exact(&mut payload).is_err() {
            break;
        }
        if tag == ASKED {
            hold(script, called.then(|| (name.lock().unwrap().clone(), payload.clone())));
        } else if called {
            // The opening names the caller.
            let is = |n: &&str| payload.windows(n.len()).any(|w| w == n.as_bytes());
            *name.lock().unwrap() = ["alice", "bob"].into_iter().find(is).unwrap().to_owned();
        }
        if to.write_all(&[&encode(tag, len)[..], &payload].concat()).is_err() {
            break;
        }
    }
    // The other end may be gone already.
    let _ = to.shutdown(std::net::Shutdown::Both);
}
