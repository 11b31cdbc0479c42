//! What all threads of one server share: configuration, store, models, arriving links, and who is at work.

use std::collections::HashMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use trefoil_link::{Link, Network};
use trefoil_mpc::masked::{EvaluatorWeights, ProducerWeights};
use trefoil_mpc::program::Shown;
use trefoil_prg::Party;
use trefoil_proto::cluster::HELPER;
use trefoil_proto::control::{Command, Opening, Refusal, Status, tag};
use trefoil_proto::run::RunSpec;
use trefoil_proto::{Cluster, Fingerprint};
use trefoil_transport::{Closer, Connection, Emulated, Security, connect};

use crate::budget::Budget;
use crate::dial::pause;
use crate::error::{Fault, LaneError};
use crate::models::{Model, Parts, Registry};
use crate::pool::Pool;
use crate::probe::{Point, Probe};
use crate::runs::Runs;
use crate::session::say;
use crate::sets::DataSets;
use crate::store::Store;

/// Time for connecting, handshakes and setting up a session.
pub(crate) const SETUP: Duration = Duration::from_secs(5);
/// Bytes of clients' shares that a server holds at once, those on their way included.
const IN_FLIGHT: u64 = 2 << 30;
/// How long a lane without work waits before it looks around.
pub(crate) const IDLE: Duration = Duration::from_millis(200);

/// Connections that one client may have, so that none keeps the others out.
const PER_CLIENT: usize = 128;

/// A connection that can be ended from outside.
#[derive(PartialEq, Eq, Hash)]
enum Line {
    Lane(Party, u32),
    Helper(u32),
    Client(String, u64),
}

/// Shared by the threads of one server.
pub(crate) struct Core {
    pub(crate) party: Party,
    pub(crate) cluster: Cluster,
    pub(crate) security: Security,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) store: Store,
    pub(crate) models: Registry<EvaluatorWeights>,
    pub(crate) masks: Registry<ProducerWeights>,
    pub(crate) sets: DataSets,
    pub(crate) runs: Runs,
    pub(crate) pool: Pool,
    pub(crate) pool_bytes: u64,
    /// How long a peer may be silent in the middle of a request.
    pub(crate) silence: Duration,
    network: Option<Network>,
    pub(crate) probe: Option<Arc<dyn Probe>>,
    arrivals: Mutex<HashMap<(Party, u32), Connection>>,
    arrived: Condvar,
    closers: Mutex<HashMap<Line, Closer>>,
    pub(crate) reconciling: Mutex<()>,
    clients: AtomicU64,
    /// Memory for clients' shares, those on their way included.
    pub(crate) in_flight: Budget,
    /// Memory for the rows and states of open runs.
    pub(crate) run_memory: Budget,
    draining: AtomicBool,
    working: AtomicUsize,
    /// Lanes that are up.
    pub(crate) connected: AtomicUsize,
}

/// Locks, whatever a panicking thread left behind: every state behind these locks is valid at all times.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One more in a counter until this is dropped.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::AcqRel);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs a lane; should it panic, it is set up again like one that failed.
pub(crate) fn guarded(lane: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
    let ended = catch_unwind(AssertUnwindSafe(lane));
    ended.unwrap_or_else(|_| Err(Fault::Own("this server has a fault: its standard error tells where".into())))
}

impl Core {
    pub(crate) fn new(
        config: (Party, Cluster, Security, Option<Fingerprint>),
        store: Store,
        limits: (u64, Duration),
        network: Option<Network>,
        probe: Option<Arc<dyn Probe>>,
    ) -> Self {
        let (party, cluster, security, fingerprint) = config;
        let run_memory = Budget::new(cluster.server.run_memory_mb as u64 * 1_000_000);
        Self {
            party,
            cluster,
            security,
            fingerprint,
            store,
            models: Registry::default(),
            masks: Registry::default(),
            sets: DataSets::default(),
            runs: Runs::default(),
            pool: Pool::default(),
            pool_bytes: limits.0,
            silence: limits.1,
            network,
            probe,
            arrivals: Mutex::default(),
            arrived: Condvar::new(),
            closers: Mutex::default(),
            reconciling: Mutex::default(),
            clients: AtomicU64::new(0),
            in_flight: Budget::new(IN_FLIGHT),
            run_memory,
            draining: AtomicBool::new(false),
            working: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
        }
    }

    /// This party's certificate; none on plain TCP.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint.unwrap_or(Fingerprint::NONE)
    }

    /// Tells the test kit's probe, if there is one.
    pub(crate) fn reached(&self, point: Point) {
        if let Some(p) = &self.probe {
            p.reached(point);
        }
    }

    /// Whether the server is to end.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// No new work is begun.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.arrived.notify_all();
    }

    /// Marks work under way.
    pub(crate) fn work(&self) -> Counted<'_> {
        Counted::new(&self.working)
    }

    /// Whether nothing is under way.
    pub(crate) fn at_rest(&self) -> bool {
        self.working.load(Ordering::Acquire) == 0
    }

    /// A link to another server, its opening sent or read, as over the emulated network if there is one.
    pub(crate) fn slowed(&self, link: Box<dyn Link>, party: Party) -> Box<dyn Link> {
        match self.network {
            Some(network) => Box::new(Emulated::new(link, party.name(), network)),
            None => link,
        }
    }

    /// At an evaluator: its lane's link to the helper, if `run` needs it; a new one, unless the lane has it.
    pub(crate) fn helper<'a>(
        &self,
        run: &RunSpec,
        lane: u32,
        link: &'a mut Option<Box<dyn Link>>,
    ) -> Result<Option<&'a mut dyn Link>, Fault> {
        if !run.shows_likelihoods_to().contains(&Shown::Helper) {
            return Ok(None);
        }
        if link.is_none() {
            let failed = |e: &dyn Display| Fault::Refused(Refusal::Unavailable, format!("{}: {e}", self.party));
            *link = Some(self.call_helper(lane).map_err(|e| failed(&e))?);
        }
        Ok(match link {
            Some(link) => Some(link.as_mut()),
            None => None,
        })
    }

    fn call_helper(&self, lane: u32) -> Result<Box<dyn Link>, LaneError> {
        let none = || LaneError::Protocol("the cluster file has no [helper]".into());
        let address = self.cluster.helper.as_ref().ok_or_else(none)?.address.as_str();
        let call = connect(address, HELPER, &self.security, SETUP);
        let Connection { mut link, closer, .. } = call.map_err(|e| LaneError::Protocol(e.to_string()))?;
        lock(&self.closers).insert(Line::Helper(lane), closer);
        say(link.as_mut(), tag::OPENING, &Opening::Lane { party: self.party.name().into(), lane })?;
        if let Some(network) = self.network {
            link = Box::new(Emulated::new(link, HELPER, network));
        }
        link.set_timeout(Some(self.silence));
        Ok(link)
    }

    /// Ends a lane's link to the helper.
    pub(crate) fn leave_helper(&self, lane: u32) {
        if let Some(c) = lock(&self.closers).remove(&Line::Helper(lane)) {
            c.close();
        }
    }

    /// A server called for one of its lanes; a newer call replaces an older one.
    pub(crate) fn arrive(&self, party: Party, lane: u32, mut connection: Connection) {
        connection.link = self.slowed(connection.link, party);
        lock(&self.arrivals).insert((party, lane), connection);
        self.arrived.notify_all();
    }

    /// Whether a party has called for a lane.
    pub(crate) fn has_arrived(&self, party: Party, lane: u32) -> bool {
        lock(&self.arrivals).contains_key(&(party, lane))
    }

    /// Whether a party has called for a lane, waiting for it to call.
    pub(crate) fn await_arrival(&self, party: Party, lane: u32, wait: Duration) -> bool {
        let arrivals = lock(&self.arrivals);
        let away = |a: &mut HashMap<(Party, u32), Connection>| !a.contains_key(&(party, lane)) && !self.draining();
        let (arrivals, _) =
            self.arrived.wait_timeout_while(arrivals, wait, away).unwrap_or_else(std::sync::PoisonError::into_inner);
        arrivals.contains_key(&(party, lane))
    }

    /// Takes a party's call for a lane, waiting for it. `None` after `wait` or when the server ends.
    pub(crate) fn take_arrival(&self, party: Party, lane: u32, wait: Duration) -> Option<Connection> {
        let until = Instant::now() + wait;
        let mut arrivals = lock(&self.arrivals);
        loop {
            if let Some(c) = arrivals.remove(&(party, lane)) {
                return Some(c);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.draining() {
                return None;
            }
            arrivals = self.arrived.wait_timeout(arrivals, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Remembers how to end a lane's link from outside.
    pub(crate) fn watch(&self, party: Party, lane: u32, closer: Closer) {
        lock(&self.closers).insert(Line::Lane(party, lane), closer);
    }

    /// Ends a lane's link.
    pub(crate) fn hang_up(&self, party: Party, lane: u32) {
        if let Some(c) = lock(&self.closers).remove(&Line::Lane(party, lane)) {
            c.close();
        }
    }

    /// Remembers how to end a client's connection from outside; the number forgets it again. `None` if this client has
    /// too many connections.
    pub(crate) fn watch_client(&self, name: &str, closer: Closer) -> Option<u64> {
        let mut closers = lock(&self.closers);
        if closers.keys().filter(|l| matches!(l, Line::Client(n, _) if n == name)).count() >= PER_CLIENT {
            return None;
        }
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        closers.insert(Line::Client(name.into(), number), closer);
        Some(number)
    }

    /// Forgets a client's connection that has ended.
    pub(crate) fn client_left(&self, name: &str, number: u64) {
        lock(&self.closers).remove(&Line::Client(name.into(), number));
    }

    /// Ends every link, so that whoever waits on one wakes up.
    pub(crate) fn hang_up_all(&self) {
        lock(&self.closers).drain().for_each(|(_, c)| c.close());
        lock(&self.arrivals).drain().for_each(|(_, c)| c.closer.close());
    }

    /// Reads every permanent model of the store; damaged ones are reported and left alone. What alice had only staged
    /// was never committed by anyone: it is erased. Bob and carol ask her first.
    pub(crate) fn load_models(&self) -> Result<(), crate::store::StoreError> {
        let (sealed, staged) = self.store.epochs()?;
        if self.party == Party::Alice {
            staged.into_iter().try_for_each(|epoch| self.store.erase(epoch))?;
        }
        for epoch in sealed {
            let loaded = self.store.load(epoch).map_err(|e| e.to_string()).and_then(|stored| {
                if self.party == Party::Carol {
                    self.masks.insert(Model::restore(stored)?);
                } else {
                    self.models.insert(Model::restore(stored)?);
                }
                Ok(())
            });
            if let Err(reason) = loaded {
                tracing::error!(epoch, reason, "a stored model cannot be used");
            }
        }
        Ok(())
    }

    /// Drops material of a model that was removed while the material was being prepared.
    pub(crate) fn forget_removed(&self, epoch: u64) {
        if self.models.get(epoch).is_none() {
            self.pool.retain(|kind, _| kind.0 != epoch);
        }
    }

    /// Does what alice's inventory asks of bob and carol alike. A refusal takes its time: she asks again at once.
    pub(crate) fn follow_inventory<W: Parts>(
        &self,
        models: &Registry<W>,
        command: Command,
    ) -> Result<Option<Status>, Fault> {
        let Command::Inventory { epochs, sets, runs, halted, uploading, below, .. } = command else {
            return Err(Fault::Evaluator(format!("alice misbehaved: {command:?} where an inventory was due")));
        };
        let reconciled = || {
            let mut missing = self.reconcile(models, &epochs, &uploading, below)?;
            missing.extend(self.reconcile_sets(&sets, &uploading, below)?);
            missing.extend(self.reconcile_runs(&runs, &uploading, below)?);
            Ok(missing)
        };
        let missing = reconciled().inspect_err(|_: &Fault| pause(self))?;
        self.release_runs(&halted);
        Ok(Some(Status::Missing(missing)))
    }

    /// Follows alice's inventory of models: commits what is staged and exists, if it may be kept, drops what is staged and
    /// does not, save what may be younger than the inventory (`below`). Gives the epochs that this party lacks. What this
    /// party knows and alice does not keep shows that she runs on another store: nothing is to be done with her then.
    pub(crate) fn reconcile<W: Parts>(
        &self,
        models: &Registry<W>,
        epochs: &[u64],
        uploading: &[u64],
        below: u64,
    ) -> Result<Vec<u64>, Fault> {
        // One lane at a time: another must not find a model neither staged nor known yet.
        let _alone = lock(&self.reconciling);
        let known: Vec<u64> = models.all().iter().map(|m| m.epoch).collect();
        complete("models", &known, epochs, uploading, below)?;
        let (_, staged) = self.store.epochs()?;
        for epoch in staged {
            if epochs.contains(&epoch) {
                if let Err(fault) = self.commit_alone(models, epoch) {
                    // Alice hears that it is missing.
                    tracing::warn!(epoch, reason = fault.refusal().1, "a model is not kept");
                }
            } else if epoch < below && !uploading.contains(&epoch) {
                self.store.erase(epoch)?;
            }
        }
        Ok(epochs.iter().copied().filter(|e| models.get(*e).is_none()).collect())
    }
}

/// Alice completes first and removes last: whatever another party knows she keeps, save what is younger than her list.
pub(crate) fn complete(
    folder: &str,
    known: &[u64],
    listed: &[u64],
    uploading: &[u64],
    below: u64,
) -> Result<(), Fault> {
    let lacks = |e: &&u64| **e < below && !listed.contains(e) && !uploading.contains(e);
    let files: Vec<String> = known.iter().filter(lacks).map(|e| format!("{folder}/{e}.sealed")).collect();
    if files.is_empty() {
        return Ok(());
    }
    Err(Fault::Refused(
        Refusal::Mismatch,
        format!(
            "alice runs on another store than before: hers lacks {}. Start her on the right one; if that is lost, so is \
             what belongs to these files: stop this server, remove them from its store, and start it again",
            files.join(", ")
        ),
    ))
}

/// A time in nanoseconds.
pub(crate) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Peak resident memory of this process in bytes; 0 where the system does not tell.
pub(crate) fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib: Option<u64> = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok());
    kib.unwrap_or(0) * 1024
}
