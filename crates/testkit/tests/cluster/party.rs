//! A server as a process of its own: the test binary starts itself again to be one party.
//!
//! The environment says which party it is and where it is to die. Every draw is written down before it is made.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use trefoil_prg::{DrawId, Ledger, Party, Seed};
use trefoil_proto::cluster::HELPER;
use trefoil_proto::{Cluster, Identity};
use trefoil_server::probe::{Point, Probe};
use trefoil_server::{Helper, HelperConfig, Server, ServerConfig, StoreKey};

/// Which party the process is; without it, it is none.
pub const PARTY: &str = "TREFOIL_TEST_PARTY";
/// The trial's folder: cluster file, keys, stores, logs.
pub const FOLDER: &str = "TREFOIL_TEST_FOLDER";
/// Where to die: a point and how often it must be reached, as `burnt:1`.
pub const CRASH: &str = "TREFOIL_TEST_CRASH";
/// The silence limit in milliseconds.
pub const SILENCE: &str = "TREFOIL_TEST_SILENCE";

/// Every draw of a party, one line each, over all its lives.
struct Draws(File);

impl Ledger for Draws {
    fn record(&self, d: DrawId) {
        // Half of the epoch's bytes tell sessions apart.
        let epoch: String = d.epoch[..16].iter().map(|b| format!("{b:02x}")).collect();
        let address = format!("{} {} {} {:?}", d.training_step, d.wire, d.part, d.purpose);
        let line = format!("{} {epoch} {:?} {address}\n", d.lot, d.pair);
        (&self.0).write_all(line.as_bytes()).unwrap();
    }
}

struct Fate {
    draws: Arc<Draws>,
    crash: Option<(String, usize)>,
    reached: AtomicUsize,
}

impl Probe for Fate {
    fn reached(&self, point: Point) {
        let Some((at, nth)) = &self.crash else { return };
        if format!("{point:?}").eq_ignore_ascii_case(at) && self.reached.fetch_add(1, Ordering::SeqCst) + 1 == *nth {
            std::process::abort();
        }
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        Some(self.draws.clone())
    }
}

/// Is the party that the environment names, until the process is killed or the one that started it is gone.
pub fn run() {
    let Ok(party) = std::env::var(PARTY) else {
        println!("skipped: this is the body of the other tests' servers");
        return;
    };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::INFO);
    log.with_writer(std::io::stderr).init();
    if party == HELPER {
        let cluster = Cluster::load(&folder.join("helper.toml")).unwrap();
        let identity = Some(Identity::load(&folder, HELPER).unwrap());
        let _helper = Helper::start(HelperConfig { cluster, identity, network: None }).unwrap();
        return until_alone();
    }
    let party: Party = party.parse().unwrap();
    let draws = OpenOptions::new().create(true).append(true).open(folder.join(format!("{party}.draws"))).unwrap();
    let crash = std::env::var(CRASH).ok().map(|c| {
        let (at, nth) = c.split_once(':').unwrap();
        (at.to_owned(), nth.parse().unwrap())
    });
    let fate = Fate { draws: Arc::new(Draws(draws)), crash, reached: AtomicUsize::new(0) };
    let server = Server::start(ServerConfig {
        party,
        cluster: Cluster::load(&folder.join("cluster.toml")).unwrap(),
        identity: Some(Identity::load(&folder, party.name()).unwrap()),
        store: folder.join(format!("{party}.store")),
        key: StoreKey::from_seed(Seed::from_bytes([party as u8 + 1; 32])),
        pool_bytes: 1 << 28,
        silence: Duration::from_millis(std::env::var(SILENCE).unwrap().parse().unwrap()),
        network: None,
        probe: Some(Arc::new(fate)),
    });
    let _server = server.unwrap();
    until_alone();
}

/// Lives as long as whoever started it.
fn until_alone() {
    tracing::info!("up");
    let mut rest = [0; 64];
    while matches!(std::io::stdin().read(&mut rest), Ok(n) if n > 0) {}
    std::process::exit(0);
}
