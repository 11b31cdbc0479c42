//! `server`: one party, until it is told to stop.

use std::fmt;
use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use trefoil_link::Network;
use trefoil_prg::Party;
use trefoil_proto::cluster::HELPER;
use trefoil_proto::identity::Validity;
use trefoil_proto::{Cluster, Identity, Transport};
use trefoil_server::seal::{KeySource, StoreKey};
use trefoil_server::{Helper, HelperConfig, Server, ServerConfig};

use crate::access::{load_cluster, split};
use crate::output;

/// A certificate that expires within so many days is warned of.
const EXPIRY_DAYS: u64 = 30;
/// How often certificates are looked at.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long requests under way may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(30);

/// Arguments of `server`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil server --party alice --config cluster.toml --identity keys/alice \\\n    \
    --store /var/lib/trefoil --store-key keys/alice.storekey\n\n\
    Example: the store key from a key manager\n  trefoil server --party bob --identity keys/bob --store-key-command 'get-key bob'")]
pub(crate) struct Args {
    /// alice, bob, carol, or helper: the fourth server, which runs may show class likelihoods and which keeps nothing
    #[arg(long, value_name = "NAME")]
    party: Who,
    /// The cluster file
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    config: PathBuf,
    /// This party's key and certificate: DIR/NAME or DIR (not needed on plain TCP)
    #[arg(long, value_name = "DIR/NAME")]
    identity: Option<PathBuf>,
    /// Folder where shares are kept, sealed [default: NAME.store]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// File with the store's key: 64 hexadecimal digits, mode 0600 [default: NAME.storekey beside the identity]
    #[arg(long, value_name = "FILE", conflicts_with = "store_key_command")]
    store_key: Option<PathBuf>,
    /// Command that prints the store's key
    #[arg(long, value_name = "CMD")]
    store_key_command: Option<String>,
    /// Memory for material that is kept ready, in MB
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pool_mb: u64,
    /// Seconds that another server may be silent in the middle of a request (one that dies is noticed at once)
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    silence: u64,
    /// Threads for linear algebra [default: the cluster file's, else one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// What is logged to standard error: error, warn, info, debug, or filters
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = filter)]
    log: String,
    /// Delay and limit the links to the other servers as over this network (as in `explain`): for benchmarks on one host
    #[arg(long, value_name = "NET", hide = true)]
    network: Option<Network>,
    /// Stop when standard input closes: a parent's death stops its servers
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Which server a process is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Party(Party),
    Helper,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Party(party) => party.name(),
            Who::Helper => HELPER,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if s == HELPER {
            return Ok(Who::Helper);
        }
        s.parse().map(Who::Party).map_err(|_| format!("{s:?} is no server: alice, bob, carol or {HELPER}"))
    }
}

/// The server of this process.
enum Running {
    Party(Server),
    /// It ends when it is dropped.
    Helper(Helper),
}

impl Running {
    fn start(args: &Args, cluster: Cluster, identity: Option<Identity>) -> anyhow::Result<Self> {
        let network = args.network;
        let party = match args.party {
            Who::Party(party) => party,
            Who::Helper => {
                if args.store.is_some() || args.store_key.is_some() || args.store_key_command.is_some() {
                    bail!("the helper keeps nothing: it takes no --store and no store key");
                }
                return Ok(Running::Helper(Helper::start(HelperConfig { cluster, identity, network })?));
            }
        };
        let store = args.store.clone().unwrap_or_else(|| format!("{party}.store").into());
        let source = match (&args.store_key_command, &args.store_key) {
            (Some(command), _) => KeySource::Command(command.clone()),
            (None, Some(file)) => KeySource::File(file.clone()),
            (None, None) => KeySource::File(default_key(args.identity.as_deref(), party)?),
        };
        let key = StoreKey::load(&source, &store)?;
        let pool_bytes = args.pool_mb.saturating_mul(1_000_000);
        let silence = Duration::from_secs(args.silence);
        let config = ServerConfig { party, cluster, identity, store, key, pool_bytes, silence, network, probe: None };
        Ok(Running::Party(Server::start(config)?))
    }

    fn address(&self) -> SocketAddr {
        match self {
            Running::Party(server) => server.address(),
            Running::Helper(helper) => helper.address(),
        }
    }

    fn end(self) {
        match self {
            Running::Party(server) => server.drain(DRAIN),
            Running::Helper(helper) => drop(helper),
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(&args.log)?).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    let party = args.party;
    let cluster = load_cluster(&args.config)?;
    let threads = args.threads.unwrap_or(cluster.server.threads);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start threads")?;
    let identity = match (cluster.transport, &args.identity) {
        (Transport::Tcp, _) => None,
        (Transport::Tls, None) => {
            bail!("the cluster uses TLS: give --identity DIR/{party} (made by `trefoil keygen {party}`)")
        }
        (Transport::Tls, Some(path)) => {
            let (dir, name) = split(path, &[party.name()])?;
            if name != party.name() {
                bail!("--identity {} is not {party}'s", path.display());
            }
            Some(Identity::load(&dir, &name)?)
        }
    };
    let validity = identity.as_ref().map(Identity::validity);
    let (stop, stopped) = channel();
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot catch signals")?;
    let server = Running::start(&args, cluster, identity)?;
    output::line(format!("trefoil: {party} ready on {}", server.address()))?;
    let by_signal = stop.clone();
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            // The other end is gone only when the process ends anyway.
            let _ = by_signal.send("a signal");
        }
        if let Some(again) = signals.next() {
            std::process::exit(128 + again);
        }
    });
    if args.until_stdin_closes {
        std::thread::spawn(move || {
            let mut rest = [0; 64];
            while matches!(std::io::stdin().read(&mut rest), Ok(n) if n > 0) {}
            // As above.
            let _ = stop.send("the end of standard input");
        });
    }
    let why = loop {
        if let Some(v) = validity {
            warn_of_expiry(party, v);
        }
        match stopped.recv_timeout(DAY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(why) => break why,
            Err(RecvTimeoutError::Disconnected) => break "nothing left to wait for",
        }
    };
    tracing::info!(party = %party, why, "stopping: requests under way are finished");
    server.end();
    Ok(())
}

/// A level, or filters for targets. A word alone would be taken for a target, and a misspelt level log nothing.
fn filter(text: &str) -> Result<String, String> {
    let is_level = |d: &str| LevelFilter::from_str(d).is_ok();
    let is_target = |d: &str| d.contains(['=', '[', ':']) || d.starts_with("trefoil");
    let mut directives = text.split(',').map(str::trim);
    if let Some(word) = directives.find(|d| !d.is_empty() && !is_level(d) && !is_target(d)) {
        return Err(format!("{word:?} is no level: off, error, warn, info, debug or trace; a filter is TARGET=LEVEL"));
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// Warns of a certificate that expires within [`EXPIRY_DAYS`], and of one that has.
fn warn_of_expiry(party: Who, validity: Validity) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let days = Duration::from_secs(validity.until).saturating_sub(now).as_secs() / DAY.as_secs();
    if days < EXPIRY_DAYS {
        let advice = "make a new identity and put its certificate in every cluster file";
        tracing::warn!(party = %party, days, advice, "the certificate is about to expire, or has");
    }
}

/// The store key that `keygen` put beside the identity.
fn default_key(identity: Option<&Path>, party: Party) -> anyhow::Result<PathBuf> {
    let beside = identity.map(|path| split(path, &[party.name()])).transpose()?;
    let (dir, _) = beside.context("where is the store's key? give --store-key FILE or --store-key-command CMD")?;
    Ok(dir.join(format!("{party}.storekey")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_told_from_mistakes() {
        let good = [
            "info",
            "DEBUG",
            "off",
            "warn,trefoil_server=debug",
            "trefoil_server",
            "trefoil_server::lane",
            "rustls=trace",
        ];
        for text in good {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["foo", "inof", "info,foo", "trefoil_server=foo", "6"] {
            assert!(filter(text).is_err(), "{text}");
        }
        assert!(filter("inof").unwrap_err().contains("\"inof\" is no level: off, error, warn"));
    }
}
