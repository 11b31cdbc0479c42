//! A cluster on this host: alice, bob, carol and perhaps a helper as processes of this binary, stopped with their owner.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use trefoil_client::{Client, ClientConfig, ClientError};
use trefoil_link::Network;
use trefoil_prg::Party;
use trefoil_proto::cluster::{HELPER, Settings};
use trefoil_proto::{Cluster, Identity, Transport};

use crate::commands::{trial, write_cluster};

/// How long the servers may take until the first request succeeds.
const READY: Duration = Duration::from_secs(30);
/// How long a server may take to stop by itself.
const STOP: Duration = Duration::from_secs(2);
/// Ports are taken by others now and then between being found free and being used.
const TRIES: u32 = 3;

/// How the servers of a trial run.
#[derive(Debug, Clone)]
pub(crate) struct TrialOptions {
    /// TLS or plain TCP.
    pub(crate) transport: Transport,
    /// Requests evaluated at once.
    pub(crate) lanes: usize,
    /// Folder for keys, stores and logs; a temporary one if not said.
    pub(crate) keep: Option<PathBuf>,
    /// Memory for material, in MB.
    pub(crate) pool_mb: u64,
    /// Delays and limits the links between the servers.
    pub(crate) network: Option<Network>,
    /// Clients besides "owner" and "client".
    pub(crate) clients: Vec<String>,
    /// Whether there is a helper.
    pub(crate) helper: bool,
}

/// The servers and their folder. Dropping it stops them.
pub(crate) struct Trial {
    children: Children,
    cluster: Cluster,
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Trial {
    /// Makes keys and a cluster file, and starts the servers.
    pub(crate) fn start(options: &TrialOptions) -> anyhow::Result<Self> {
        let (folder, temporary) = match &options.keep {
            Some(dir) => (dir.clone(), None),
            None => {
                let dir =
                    tempfile::Builder::new().prefix("trefoil-").tempdir().context("cannot make a temporary folder")?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        if std::fs::read_dir(&folder)?.next().is_some() {
            bail!("{} is not empty: a trial needs a folder of its own", folder.display());
        }
        let mut clients = vec!["owner:owner".to_owned(), "client".to_owned()];
        clients.extend(options.clients.iter().filter(|c| !["owner", "client"].contains(&c.as_str())).cloned());
        let settings = Settings { lanes: options.lanes, ..Settings::default() };
        let children = Children::new(temporary.as_ref().map(|t| t.path().to_owned()))?;
        let mut tries = 1;
        loop {
            let cluster = trial(&folder, options.transport, &free_ports(options)?, &clients, settings.clone(), true)?;
            write_cluster(&folder.join("cluster.toml"), &cluster, true)?;
            match launch(&folder, options, &children) {
                Ok(()) => return Ok(Self { children, cluster, folder, _temporary: temporary }),
                Err(e) if tries == TRIES => return Err(e),
                Err(_) => tries += 1,
            }
            stop(&children.all);
            for party in Party::ALL {
                // Sealed under a key that is replaced, if it was made at all.
                let _ = std::fs::remove_dir_all(folder.join(format!("{party}.store")));
            }
        }
    }

    /// A client of the cluster.
    pub(crate) fn client(&self, name: &str) -> anyhow::Result<Client> {
        self.once_ready(|| {
            let identity = match self.cluster.transport {
                Transport::Tls => Some(Identity::load(&self.folder, name)),
                Transport::Tcp => None,
            };
            let identity = identity.transpose().map_err(|_| ClientError::NoIdentity)?;
            Client::connect(ClientConfig::new(self.cluster.clone(), identity, name))
        })
    }

    /// Does what may fail while the servers still look for each other, until it succeeds.
    pub(crate) fn once_ready<T>(&self, mut f: impl FnMut() -> Result<T, ClientError>) -> anyhow::Result<T> {
        let until = Instant::now() + READY;
        loop {
            match f() {
                Err(e) if e.is_unavailable() && Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                done => return done.map_err(|e| anyhow!("{e}{}", self.logs())),
            }
        }
    }

    /// Peak resident memory of a server's process in bytes; 0 where it is not known.
    pub(crate) fn peak_rss(&self, party: Party) -> u64 {
        let id = self.children.with(|c| c.iter().find(|(p, _)| *p == party.name()).map(|(_, c)| c.id().to_string()));
        id.map_or(0, |id| peak_rss(&id))
    }

    fn logs(&self) -> String {
        let words: Vec<String> = self.children.with(|c| c.iter().map(|(p, _)| last_words(&self.folder, p)).collect());
        format!("\nlast words of the servers:{}", words.concat())
    }
}

/// Children that are stopped when they are dropped, or when this process is told to stop.
struct Children {
    all: Arc<Mutex<Vec<(&'static str, Child)>>>,
    signals: Handle,
}

impl Children {
    /// None yet. A signal stops them, removes the folder `temporary` and ends this process.
    fn new(temporary: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot catch signals")?;
        let children = Self { all: Arc::default(), signals: signals.handle() };
        let shared = children.all.clone();
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                stop(&shared);
                if let Some(folder) = temporary {
                    // What cannot be removed is left to the system.
                    let _ = std::fs::remove_dir_all(folder);
                }
                std::process::exit(128 + signal);
            }
        });
        Ok(children)
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<(&'static str, Child)>) -> T) -> T {
        f(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        stop(&self.all);
        self.signals.close();
    }
}

/// Closes the children's standard input, which ends them, and kills those that linger.
fn stop(children: &Mutex<Vec<(&'static str, Child)>>) {
    let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
    children.iter_mut().for_each(|(_, c)| drop(c.stdin.take()));
    let until = Instant::now() + STOP;
    while Instant::now() < until && children.iter_mut().any(|(_, c)| matches!(c.try_wait(), Ok(None))) {
        std::thread::sleep(Duration::from_millis(10));
    }
    for (_, mut child) in children.drain(..) {
        // It has ended, or ends now.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn launch(folder: &Path, options: &TrialOptions, children: &Children) -> anyhow::Result<()> {
    let mut waiting = Vec::new();
    for party in Party::ALL.map(Party::name).into_iter().chain(options.helper.then_some(HELPER)) {
        let mut child = spawn(folder, party, options).with_context(|| format!("cannot start {party}"))?;
        waiting.push((party, child.stdout.take()));
        children.with(|c| c.push((party, child)));
    }
    for (party, out) in waiting {
        let mut line = String::new();
        let read = out.map(|o| BufReader::new(o).read_line(&mut line));
        if !matches!(read, Some(Ok(_))) || !line.contains("ready on") {
            bail!("{party} did not start:{}", last_words(folder, party));
        }
    }
    Ok(())
}

fn spawn(folder: &Path, party: &str, options: &TrialOptions) -> anyhow::Result<Child> {
    let at = |suffix: &str| folder.join(format!("{party}.{suffix}"));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("server").arg("--party").arg(party);
    command.arg("--config").arg(folder.join("cluster.toml"));
    command.arg("--identity").arg(folder.join(party));
    if party != HELPER {
        command.arg("--store").arg(at("store")).arg("--store-key").arg(at("storekey"));
    }
    command.arg("--pool-mb").arg(options.pool_mb.to_string()).arg("--until-stdin-closes");
    if let Some(network) = options.network {
        command.arg("--network").arg(network.to_string());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(at("log"))?);
    Ok(command.spawn()?)
}

/// The last line of a server's log, after a line break.
fn last_words(folder: &Path, party: &str) -> String {
    let log = std::fs::read_to_string(folder.join(format!("{party}.log"))).unwrap_or_default();
    log.lines().last().map(|l| format!("\n  {party}: {l}")).unwrap_or_default()
}

/// Peak resident memory of the process with this id, or of "self".
pub(crate) fn peak_rss(id: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).map_or(0, |kb| kb * 1024)
}

/// A port for each server that nobody listens on now.
fn free_ports(options: &TrialOptions) -> anyhow::Result<Vec<u16>> {
    let listen = || TcpListener::bind(("127.0.0.1", 0)).context("no free port on loopback");
    let all = (0..3 + usize::from(options.helper)).map(|_| listen()).collect::<anyhow::Result<Vec<_>>>()?;
    all.iter().map(|l| Ok(l.local_addr()?.port())).collect()
}
