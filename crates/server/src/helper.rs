//! The helper: a fourth server that computes class likelihoods in the clear, for runs that say so.
//!
//! It holds no data, no model and no seed, keeps nothing on disk, and hears nothing of what a run is. Alice and bob call
//! it, a connection for each lane that works on such a run; it computes when both have asked the same. Whoever of the
//! two calls again ends the connections that the lane had.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use trefoil_link::{Link, Network};
use trefoil_mpc::masked::helper::help;
use trefoil_prg::Party;
use trefoil_proto::cluster::HELPER;
use trefoil_proto::control::{Opening, tag};
use trefoil_proto::{Cluster, Identity, Transport};
use trefoil_transport::{Closer, Connection, Emulated, Incoming, Listener, Security, Tls};

use crate::arriving::Arriving;
use crate::core::{IDLE, SETUP, lock};
use crate::error::ServerError;
use crate::session::hear;
use crate::spawn;

/// Callers that the helper hears at once until it knows who they are.
const CALLS: usize = 64;
/// The evaluators, who alone may call.
const CALLERS: [Party; 2] = [Party::Alice, Party::Bob];

/// How the helper runs.
pub struct HelperConfig {
    /// Who is who; its `helper` is this server.
    pub cluster: Cluster,
    /// Its key and certificate; none on plain TCP.
    pub identity: Option<Identity>,
    /// Delays and limits its links as this network would: for benchmarks on one host.
    pub network: Option<Network>,
}

struct Shared {
    security: Security,
    network: Option<Network>,
    lanes: u32,
    /// Links that no lane has taken yet.
    arrivals: Mutex<HashMap<(Party, u32), Box<dyn Link>>>,
    arrived: Condvar,
    closers: Mutex<HashMap<(Party, u32), Closer>>,
    calls: Arc<Arriving>,
    draining: AtomicBool,
}

/// A running helper. It ends when it is dropped, or with its process.
pub struct Helper {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Helper {
    /// Listens, and serves whichever lanes call.
    pub fn start(config: HelperConfig) -> Result<Self, ServerError> {
        let HelperConfig { cluster, identity, network } = config;
        let missing = |what: &str| ServerError::Configuration(what.into());
        let server = cluster.helper.as_ref().ok_or_else(|| missing("the cluster file has no [helper]"))?;
        let security = match (cluster.transport, &identity) {
            (Transport::Tcp, _) => Security::Plain,
            (Transport::Tls, None) => return Err(missing("TLS needs the helper's identity")),
            (Transport::Tls, Some(identity)) => {
                if server.certificate != Some(identity.fingerprint()) {
                    return Err(missing("the certificate of this identity is not the one pinned for the helper"));
                }
                let callers = CALLERS.map(|p| (p.name().to_owned(), cluster.party(p).certificate));
                Security::Tls(Tls::new(identity, callers.into_iter().filter_map(|(n, f)| Some((n, f?))))?)
            }
        };
        let listener = Listener::bind(server.address.as_str(), &security)?;
        let address = listener.address();
        let lanes = cluster.server.lanes as u32;
        let shared = Arc::new(Shared {
            security,
            network,
            lanes,
            arrivals: Mutex::default(),
            arrived: Condvar::new(),
            closers: Mutex::default(),
            calls: Arc::default(),
            draining: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        for lane in 0..lanes {
            let s = shared.clone();
            threads.push(spawn(&format!("lane {lane}"), move || s.serve(lane))?);
        }
        let s = shared.clone();
        threads.push(spawn("listener", move || listen(&s, &listener))?);
        Ok(Self { shared, address, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.arrived.notify_all();
        self.shared.calls.close();
        lock(&self.shared.closers).drain().for_each(|(_, c)| c.close());
        for t in self.threads.drain(..) {
            // A lane that panicked has ended too.
            let _ = t.join();
        }
        self.shared.calls.wait(SETUP);
    }
}

impl Shared {
    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Serves one lane, pair of connections after pair, until the helper ends.
    fn serve(&self, lane: u32) {
        while let Some([mut alice, mut bob]) = self.pair(lane) {
            let failed = loop {
                if let Err(e) = help(alice.as_mut(), bob.as_mut()) {
                    break e;
                }
            };
            CALLERS.iter().for_each(|p| self.hang_up(*p, lane));
            if !self.draining() {
                tracing::info!(lane, reason = %failed, "lane down");
            }
        }
    }

    /// The links of both evaluators for a lane, once both have called. `None` when the helper ends.
    fn pair(&self, lane: u32) -> Option<[Box<dyn Link>; 2]> {
        let arrivals = lock(&self.arrivals);
        let missing = |a: &mut HashMap<(Party, u32), Box<dyn Link>>| {
            !self.draining() && !CALLERS.iter().all(|p| a.contains_key(&(*p, lane)))
        };
        let mut arrivals = self.arrived.wait_while(arrivals, missing).unwrap_or_else(PoisonError::into_inner);
        if self.draining() {
            return None;
        }
        let [alice, bob] = CALLERS.map(|p| arrivals.remove(&(p, lane)));
        Some([alice?, bob?])
    }

    fn hang_up(&self, party: Party, lane: u32) {
        let arrivals = lock(&self.arrivals);
        // One who has called again meanwhile is to stay.
        if arrivals.contains_key(&(party, lane)) {
            return;
        }
        if let Some(c) = lock(&self.closers).remove(&(party, lane)) {
            c.close();
        }
    }

    /// Handshake; the first frame says who calls for which lane.
    fn meet(&self, incoming: Incoming) {
        let from = incoming.address();
        let Connection { mut link, peer, closer } = match incoming.handshake(&self.security, SETUP) {
            Ok(c) => c,
            Err(e) => return tracing::warn!(%from, reason = %e, "handshake failed"),
        };
        link.set_timeout(Some(SETUP));
        let opening: Opening = match hear(link.as_mut(), tag::OPENING, "opening") {
            Ok(o) => o,
            Err(e) => return tracing::warn!(%from, reason = %e, "no valid opening"),
        };
        // On plain TCP, which is for trials on loopback, a name is believed.
        let believed = peer.fingerprint.is_none();
        let caller = match &opening {
            Opening::Lane { party, lane } if *lane < self.lanes => {
                let party = CALLERS.into_iter().find(|p| p.name() == party);
                party.filter(|p| believed || peer.name == p.name()).map(|p| (p, *lane))
            }
            _ => None,
        };
        let Some((party, lane)) = caller else {
            return tracing::warn!(%from, certificate = peer.name, "neither alice nor bob for one of the lanes");
        };
        link.set_timeout(None);
        if let Some(network) = self.network {
            link = Box::new(Emulated::new(link, party.name(), network));
        }
        let mut arrivals = lock(&self.arrivals);
        if let Some(before) = lock(&self.closers).insert((party, lane), closer) {
            before.close();
        }
        arrivals.insert((party, lane), link);
        drop(arrivals);
        self.arrived.notify_all();
        tracing::info!(%party, lane, "called {HELPER}");
    }
}

fn listen(shared: &Arc<Shared>, listener: &Listener) {
    while !shared.draining() {
        let incoming = match listener.accept(IDLE) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => continue,
            Err(e) => {
                tracing::error!(reason = %e, "cannot accept connections");
                thread::sleep(IDLE);
                continue;
            }
        };
        let Some(place) = shared.calls.take(&incoming, CALLS) else {
            tracing::warn!(from = %incoming.address(), "too many callers at once: refused");
            continue;
        };
        let s = shared.clone();
        let met = spawn("connection", move || {
            s.meet(incoming);
            // The last user of what the server holds, before anybody hears that it is gone.
            drop(s);
            drop(place);
        });
        if let Err(e) = met {
            tracing::error!(reason = %e, "connection refused");
        }
    }
}
