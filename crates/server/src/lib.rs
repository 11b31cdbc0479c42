//! One party as a server: evaluator (alice, bob), producer (carol), or the helper that runs may show class likelihoods.
//!
//! Between each two servers there are as many connections as lanes, each owned by the thread that runs one request at
//! a time on it. Alice admits requests into a bounded queue, numbers lots and leads; bob and carol follow her commands
//! and check them. Clients talk to alice and bob. Everything blocks on its own thread: there is no asynchronous code.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod alice;
mod arriving;
mod bob;
mod budget;
mod carol;
mod clients;
mod core;
mod dial;
mod error;
mod halves;
mod helper;
mod jobs;
mod models;
mod pool;
pub mod probe;
mod runs;
pub mod seal;
mod session;
mod sets;
pub mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use trefoil_link::Network;
use trefoil_prg::Party;
use trefoil_proto::control::{Opening, tag};
use trefoil_proto::dataset::Declaration;
use trefoil_proto::{Cluster, Identity, Transport};
use trefoil_transport::{Incoming, Listener, Security, Tls};

use crate::alice::Desk;
use crate::arriving::{Arriving, Place};
use crate::clients::Counter;
use crate::core::{Core, IDLE, SETUP};
use crate::halves::{Answered, Halves};
use crate::session::hear;
pub use error::ServerError;
pub use helper::{Helper, HelperConfig};
pub use seal::{KeySource, StoreKey};
pub use sets::{SetError, SharedSet};
use store::Store;

/// Connections that a server holds at once.
const CONNECTIONS: usize = 1024;

/// How a server runs.
pub struct ServerConfig {
    /// Which party.
    pub party: Party,
    /// Who is who, and the servers' settings.
    pub cluster: Cluster,
    /// This party's key and certificate; none on plain TCP.
    pub identity: Option<Identity>,
    /// Folder of the store.
    pub store: PathBuf,
    /// Key under which the store is sealed.
    pub key: StoreKey,
    /// Bytes of material kept ready, at most (a preparation under way may exceed it).
    pub pool_bytes: u64,
    /// How long a peer may be silent in the middle of a request. A peer that dies is noticed at once.
    pub silence: Duration,
    /// Delays and limits the links between the servers as this network would: for benchmarks on one host, where all
    /// three must have the same. Clients' links stay as they are.
    pub network: Option<Network>,
    /// For the test kit only.
    pub probe: Option<Arc<dyn probe::Probe>>,
}

struct Shared {
    core: Core,
    desk: Desk,
    halves: Halves,
    answered: Answered,
    connections: Arc<Arriving>,
}

/// A running server. It ends with [`Server::drain`] or its process.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Server {
    /// Opens the store, listens, and begins to connect to the others.
    pub fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let ServerConfig { party, cluster, identity, store, key, pool_bytes, silence, network, probe } = config;
        let security = security(&cluster, identity.as_ref())?;
        if let Some(identity) = &identity
            && cluster.transport == Transport::Tls
            && cluster.party(party).certificate != Some(identity.fingerprint())
        {
            let reason =
                format!("the certificate of this identity is not the one that the cluster file pins for {party}");
            return Err(ServerError::Configuration(reason));
        }
        let fingerprint =
            if cluster.transport == Transport::Tls { identity.as_ref().map(Identity::fingerprint) } else { None };
        let store = Store::open(&store, party, key)?;
        let listener = Listener::bind(cluster.party(party).address.as_str(), &security)?;
        let address = listener.address();
        let (lanes, queue) = (cluster.server.lanes as u32, cluster.server.queue);
        let core = Core::new((party, cluster, security, fingerprint), store, (pool_bytes, silence), network, probe);
        core.load_models()?;
        core.load_sets()?;
        core.load_runs()?;
        let shared = Arc::new(Shared {
            core,
            desk: Desk::new(queue),
            halves: Halves::default(),
            answered: Answered::default(),
            connections: Arc::default(),
        });
        let mut threads = Vec::new();
        for lane in 0..lanes {
            let s = shared.clone();
            threads.push(spawn(&format!("lane {lane}"), move || match party {
                Party::Alice => alice::serve(&s.core, &s.desk, lane),
                Party::Bob => bob::serve(&s.core, &s.halves, lane),
                Party::Carol => carol::serve(&s.core, lane),
            })?);
        }
        let s = shared.clone();
        threads.push(spawn("listener", move || listen(&s, &listener, lanes))?);
        Ok(Self { shared, address, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until every lane is connected. `false` after `limit`.
    pub fn wait_connected(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let lanes = self.shared.core.cluster.server.lanes;
        while self.shared.core.connected.load(Ordering::Acquire) < lanes {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// This evaluator's share of a complete data set: secret, for a computation in this process.
    pub fn data_set(&self, name: &str) -> Result<SharedSet, SetError> {
        self.shared.core.sets.load(&self.shared.core.store, name)
    }

    /// Number and declaration of a complete data set: all that the producer holds of it.
    pub fn declaration(&self, name: &str) -> Result<(u64, Arc<Declaration>), SetError> {
        self.shared.core.sets.declaration(name)
    }

    /// Ends the server: admits nothing more, finishes what is under way for at most `limit`, closes every link.
    pub fn drain(mut self, limit: Duration) {
        let until = Instant::now() + limit;
        self.shared.core.drain();
        while Instant::now() < until && !(self.shared.core.at_rest() && self.shared.desk.queue.is_empty()) {
            thread::sleep(Duration::from_millis(5));
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.shared.core.drain();
        // First: whoever is let in from here on finds the server closed, and whoever was in before is hung up on.
        self.shared.connections.close();
        self.shared.core.hang_up_all();
        for t in self.threads.drain(..) {
            // A lane that panicked has ended too.
            let _ = t.join();
        }
        self.shared.connections.wait(SETUP);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How this party's connections are secured: by the cluster file.
fn security(cluster: &Cluster, identity: Option<&Identity>) -> Result<Security, ServerError> {
    match (cluster.transport, identity) {
        (Transport::Tcp, _) => Ok(Security::Plain),
        (Transport::Tls, Some(identity)) => Ok(Security::Tls(Tls::new(identity, cluster.trusted())?)),
        (Transport::Tls, None) => Err(ServerError::Configuration("TLS needs this party's identity".into())),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, ServerError> {
    thread::Builder::new().name(name.into()).spawn(body).map_err(|e| ServerError::Thread(e.to_string()))
}

fn listen(shared: &Arc<Shared>, listener: &Listener, lanes: u32) {
    while !shared.core.draining() {
        let incoming = match listener.accept(IDLE) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => continue,
            Err(e) => {
                tracing::error!(reason = %e, "cannot accept connections");
                thread::sleep(IDLE);
                continue;
            }
        };
        let Some(place) = shared.connections.take(&incoming, CONNECTIONS) else {
            tracing::warn!(from = %incoming.address(), "too many connections: refused");
            continue;
        };
        let s = shared.clone();
        if let Err(e) = spawn("connection", move || meet(&s, &place, incoming, lanes)) {
            tracing::error!(reason = %e, "connection refused");
        }
    }
}

/// Handshake, then the first frame says who calls.
fn meet(shared: &Shared, place: &Place, incoming: Incoming, lanes: u32) {
    let core = &shared.core;
    let from = incoming.address();
    let mut connection = match incoming.handshake(&core.security, SETUP) {
        Ok(c) => c,
        Err(e) => return tracing::warn!(%from, reason = %e, "handshake failed"),
    };
    connection.link.set_timeout(Some(SETUP));
    let opening: Opening = match hear(connection.link.as_mut(), tag::OPENING, "opening") {
        Ok(o) => o,
        Err(e) => return tracing::warn!(%from, reason = %e, "no valid opening"),
    };
    // On plain TCP, which is for trials on loopback, a name is believed.
    let believed = connection.peer.fingerprint.is_none();
    match opening {
        Opening::Lane { party, lane } => match party.parse::<Party>() {
            Ok(p) if (believed || connection.peer.name == party) && p > core.party && lane < lanes => {
                core.arrive(p, lane, connection);
                if !place.arrived() {
                    core.hang_up_all();
                }
            }
            _ => {
                tracing::warn!(%from, party, lane, certificate = connection.peer.name, "is not that party, or has no such lane")
            }
        },
        Opening::Client { name } => {
            if !(believed || connection.peer.name == name) || core.cluster.client(&name).is_none() {
                return tracing::warn!(%from, name, certificate = connection.peer.name, "is no client of the cluster file");
            }
            if core.party == Party::Carol {
                return tracing::warn!(%from, name, "clients do not talk to carol");
            }
            let Shared { desk, halves, answered, .. } = shared;
            let Some(number) = core.watch_client(&name, connection.closer) else {
                return tracing::warn!(%from, name, "has too many connections");
            };
            if place.arrived() {
                Counter { core, desk, halves, answered }.serve(connection.link.as_mut(), &name);
            }
            core.client_left(&name, number);
        }
    }
}
