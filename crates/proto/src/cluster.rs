//! The cluster file (TOML): where the three servers are, whose certificates are trusted, and how a server runs.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use trefoil_prg::Party;

use crate::Fingerprint;
use crate::identity::check_name;
use crate::text::one_line;

const MAX_FILE: u64 = 1 << 20;

/// Why a cluster file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is far too long.
    #[error("{}: {len} bytes: no cluster file is longer than {MAX_FILE}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// The file's content is not accepted.
    #[error("{}: {source}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ClusterError>,
    },
    /// Not TOML, an unknown key, a missing key, or a value of the wrong kind.
    #[error("{0}")]
    Syntax(String),
    /// TLS needs a pinned certificate.
    #[error("{0} has no certificate: TLS needs one (or transport = \"tcp\" for a trial on one host)")]
    NoCertificate(String),
    /// Plain TCP with an address of another host.
    #[error("transport = \"tcp\" is for trials on one host: {party}'s address {address} is not loopback")]
    NotLoopback {
        /// The server.
        party: &'static str,
        /// Its address.
        address: Address,
    },
    /// Two entries share what must differ.
    #[error("{first} and {second} have the same {what}")]
    Duplicate {
        /// The earlier entry.
        first: String,
        /// The later entry.
        second: String,
        /// What they share.
        what: &'static str,
    },
    /// A client's name is no name.
    #[error("client: {0}")]
    Name(#[from] crate::identity::IdentityError),
    /// A client that may do nothing.
    #[error("client {0} has no role: list \"owner\", \"client\" or both")]
    NoRole(String),
    /// A setting beyond its bounds.
    #[error("server.{setting} = {value}: must be {min} to {max}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: usize,
        /// Least value allowed.
        min: usize,
        /// Largest value allowed.
        max: usize,
    },
}

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Address(String);

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: host:port is due, such as \"alice.example.org:9000\"")]
pub struct BadAddress(pub String);

impl Address {
    /// The address as `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the host is this host itself: `localhost` or a loopback address. Names are not resolved.
    pub fn is_loopback(&self) -> bool {
        let host = self.0.rsplit_once(':').map_or("", |(h, _)| h).trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(s: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(s.chars().take(100).collect());
        let (host, port) = s.rsplit_once(':').ok_or_else(bad)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().map_err(|_| bad())? == 0 {
            return Err(bad());
        }
        let name = |h: &str| {
            (1..=253).contains(&h.len())
                && h.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        let good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => name(host),
        };
        if good { Ok(Self(s.into())) } else { Err(bad()) }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How the servers and clients are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TLS 1.3 with pinned certificates on both sides.
    #[default]
    Tls,
    /// Plain TCP: for trials on one host.
    Tcp,
}

/// Name of the fourth server, which runs may show class likelihoods.
pub const HELPER: &str = "helper";

/// One of the servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where it listens, for the other servers and for clients.
    pub address: Address,
    /// Its certificate; needed under TLS.
    #[serde(default)]
    pub certificate: Option<Fingerprint>,
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May share models, and start and stop their serving.
    Owner,
    /// May query models.
    Client,
}

/// A person or program that may use the servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its name, for logs, budgets and permissions.
    pub name: String,
    /// Its certificate; needed under TLS.
    #[serde(default)]
    pub certificate: Option<Fingerprint>,
    /// What it may do.
    #[serde(default = "only_client")]
    pub roles: Vec<Role>,
}

fn only_client() -> Vec<Role> {
    vec![Role::Client]
}

/// How a server runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Requests evaluated at once, each on its own connections.
    pub lanes: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// Threads for linear algebra; 0: as many as the host has cores.
    pub threads: usize,
    /// Memory that open training runs may take at each server, in millions of bytes: rows, masks and states.
    pub run_memory_mb: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lanes: 4, queue: 64, threads: 0, run_memory_mb: 8192 }
    }
}

/// A cluster file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// TLS unless it says otherwise.
    #[serde(default)]
    pub transport: Transport,
    /// Evaluator A.
    pub alice: Server,
    /// Evaluator B.
    pub bob: Server,
    /// The crypto producer.
    pub carol: Server,
    /// The fourth server that runs may show class likelihoods, if there is one: of another organisation than these three.
    #[serde(default)]
    pub helper: Option<Server>,
    /// Settings of the servers.
    #[serde(default)]
    pub server: Settings,
    /// Who may use the servers.
    #[serde(default)]
    pub client: Vec<Client>,
}

impl Cluster {
    /// Reads and checks a cluster file.
    pub fn load(path: &Path) -> Result<Self, ClusterError> {
        let io = |source| ClusterError::Io { path: path.into(), source };
        let len = std::fs::metadata(path).map_err(io)?.len();
        if len > MAX_FILE {
            return Err(ClusterError::TooLong { path: path.into(), len });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        text.parse().map_err(|e| ClusterError::In { path: path.into(), source: Box::new(e) })
    }

    /// A party's entry.
    pub fn party(&self, party: Party) -> &Server {
        match party {
            Party::Alice => &self.alice,
            Party::Bob => &self.bob,
            Party::Carol => &self.carol,
        }
    }

    /// The fingerprints of alice, bob and carol; [`Fingerprint::NONE`] where there is none (plain TCP).
    pub fn pins(&self) -> [Fingerprint; 3] {
        Party::ALL.map(|p| self.party(p).certificate.unwrap_or(Fingerprint::NONE))
    }

    /// Every certificate trusted: the servers' and the clients', by name.
    pub fn trusted(&self) -> Vec<(String, Fingerprint)> {
        let parties = Party::ALL.map(|p| (p.name().to_owned(), self.party(p).certificate));
        let clients = self.client.iter().map(|c| (c.name.clone(), c.certificate));
        let helper = self.helper.iter().map(|h| (HELPER.to_owned(), h.certificate));
        parties.into_iter().chain(helper).chain(clients).filter_map(|(n, f)| Some((n, f?))).collect()
    }

    /// The client of this name.
    pub fn client(&self, name: &str) -> Option<&Client> {
        self.client.iter().find(|c| c.name == name)
    }

    /// Checks what the syntax cannot: duplicates, certificates under TLS, loopback under TCP, bounds.
    pub fn validate(&self) -> Result<(), ClusterError> {
        let mut names = Distinct::new("name");
        let mut addresses = Distinct::new("address");
        let mut certificates = Distinct::new("certificate");
        let tls = self.transport == Transport::Tls;
        let parties = Party::ALL.map(|p| (p.name(), self.party(p)));
        let servers = || parties.into_iter().chain(self.helper.iter().map(|h| (HELPER, h)));
        for (party, Server { address, .. }) in servers() {
            addresses.add(address.as_str().to_owned(), party)?;
            if !tls && !address.is_loopback() {
                return Err(ClusterError::NotLoopback { party, address: address.clone() });
            }
        }
        for c in &self.client {
            check_name(&c.name)?;
            if c.roles.is_empty() {
                return Err(ClusterError::NoRole(c.name.clone()));
            }
        }
        let clients = self.client.iter().map(|c| (c.name.as_str(), c.certificate));
        for (name, certificate) in servers().map(|(n, s)| (n, s.certificate)).chain(clients) {
            names.add(name.to_owned(), name)?;
            match certificate {
                Some(f) => certificates.add(f, name)?,
                None if tls => return Err(ClusterError::NoCertificate(name.into())),
                None => {}
            }
        }
        self.server.validate()
    }

    /// The file's text, with comments.
    pub fn to_toml(&self) -> String {
        let mut t = String::from("# A Trefoil cluster. All three servers and every client need the same file.\n");
        if self.transport == Transport::Tcp {
            t.push_str(
                "# Plain TCP, for a trial on one host: no encryption, no authentication.\ntransport = \"tcp\"\n",
            );
        }
        for p in Party::ALL {
            let (title, s) = (["evaluator A", "evaluator B", "the crypto producer"][p as usize], self.party(p));
            let _ = write!(t, "\n# {title}\n[{p}]\naddress = {:?}\n", s.address.as_str());
            write_certificate(&mut t, s.certificate);
        }
        if let Some(h) = &self.helper {
            let _ = write!(
                t,
                "\n# the fourth server, which runs may show class likelihoods\n[{HELPER}]\naddress = {:?}\n",
                h.address.as_str()
            );
            write_certificate(&mut t, h.certificate);
        }
        let Settings { lanes, queue, threads, run_memory_mb } = self.server;
        let _ = write!(
            t,
            "\n[server]\nlanes = {lanes}      # requests evaluated at once\nqueue = {queue}     # requests that may wait\n\
             threads = {threads}    # threads for linear algebra; 0: one for each core\n\
             run_memory_mb = {run_memory_mb}  # memory that open training runs may take\n"
        );
        if !self.client.is_empty() {
            t.push_str("\n# Who may use the servers. Roles: \"owner\" may share models, declare data sets and\n# start training; \"client\" may query models and contribute data.\n");
        }
        for c in &self.client {
            let roles: Vec<_> =
                c.roles.iter().map(|r| if *r == Role::Owner { "\"owner\"" } else { "\"client\"" }).collect();
            let _ = write!(t, "[[client]]\nname = {:?}\nroles = [{}]\n", c.name, roles.join(", "));
            write_certificate(&mut t, c.certificate);
        }
        t
    }
}

impl FromStr for Cluster {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        let cluster: Cluster = toml::from_str(text).map_err(|e| ClusterError::Syntax(one_line(text, &e)))?;
        cluster.validate()?;
        Ok(cluster)
    }
}

impl Settings {
    fn validate(&self) -> Result<(), ClusterError> {
        let settings = [
            ("lanes", self.lanes, 1, 256),
            ("queue", self.queue, 0, 65_536),
            ("threads", self.threads, 0, 1024),
            ("run_memory_mb", self.run_memory_mb, 1, 1 << 30),
        ];
        for (setting, value, min, max) in settings {
            if !(min..=max).contains(&value) {
                return Err(ClusterError::Setting { setting, value, min, max });
            }
        }
        Ok(())
    }
}

fn write_certificate(t: &mut String, certificate: Option<Fingerprint>) {
    if let Some(f) = certificate {
        let _ = writeln!(t, "certificate = \"{f}\"");
    }
}

struct Distinct<K> {
    what: &'static str,
    seen: BTreeMap<K, String>,
}

impl<K: Ord> Distinct<K> {
    fn new(what: &'static str) -> Self {
        Self { what, seen: BTreeMap::new() }
    }

    fn add(&mut self, key: K, owner: &str) -> Result<(), ClusterError> {
        match self.seen.insert(key, owner.into()) {
            Some(first) => Err(ClusterError::Duplicate { first, second: owner.into(), what: self.what }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(transport: &str, host: &str) -> String {
        let party = |n: &str, i: u8| {
            format!("[{n}]\naddress = \"{host}:{}\"\ncertificate = \"{}\"\n", 9000 + u16::from(i), Fingerprint([i; 32]))
        };
        format!("{transport}{}{}{}", party("alice", 1), party("bob", 2), party("carol", 3))
    }

    fn refusal(t: &str) -> String {
        t.parse::<Cluster>().unwrap_err().to_string()
    }

    #[test]
    fn defaults_and_round_trip() {
        let client = format!("[[client]]\nname = \"ward-3\"\ncertificate = \"{}\"\n", Fingerprint([4; 32]));
        let mut c: Cluster = (text("", "a.example.org") + &client).parse().unwrap();
        assert_eq!(
            (c.transport, &c.server),
            (Transport::Tls, &Settings { lanes: 4, queue: 64, threads: 0, run_memory_mb: 8192 })
        );
        assert_eq!(c.client("ward-3").unwrap().roles, [Role::Client]);
        assert_eq!(c.pins()[2], Fingerprint([3; 32]));
        assert_eq!(c.trusted().len(), 4);
        c.client[0].roles.push(Role::Owner);
        assert_eq!(c.to_toml().parse::<Cluster>().unwrap(), c);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.toml");
        std::fs::write(&path, c.to_toml() + "colour = 1\n").unwrap();
        let e = Cluster::load(&path).unwrap_err().to_string();
        assert!(e.contains("cluster.toml") && e.contains("colour"), "{e}");
        std::fs::write(&path, c.to_toml()).unwrap();
        assert_eq!(Cluster::load(&path).unwrap(), c);
    }

    #[test]
    fn a_helper_is_a_server_of_its_own() {
        let helper = |port: u16, pin: u8| {
            let pin = Fingerprint([pin; 32]);
            text("", "h") + &format!("[helper]\naddress = \"h:{port}\"\ncertificate = \"{pin}\"\n")
        };
        let c: Cluster = helper(9009, 9).parse().unwrap();
        assert_eq!(c.to_toml().parse::<Cluster>().unwrap(), c);
        assert!(c.trusted().contains(&("helper".into(), Fingerprint([9; 32]))) && c.client("helper").is_none());
        assert!(refusal(&helper(9001, 9)).contains("alice and helper have the same address"));
        assert!(refusal(&helper(9009, 2)).contains("bob and helper have the same certificate"));
        let bare = text("", "h") + "[helper]\naddress = \"h:9009\"\n";
        assert!(refusal(&bare).contains("helper has no certificate"));
        let client = format!("[[client]]\nname = \"helper\"\ncertificate = \"{}\"\n", Fingerprint([4; 32]));
        assert!(refusal(&(helper(9009, 9) + &client)).contains("helper and helper have the same name"));
        let tcp = text("transport = \"tcp\"\n", "localhost") + "[helper]\naddress = \"10.0.0.1:9009\"\n";
        assert!(refusal(&tcp).contains("helper's address 10.0.0.1:9009 is not loopback"));
    }

    #[test]
    fn plain_tcp_is_for_loopback_only() {
        let tcp = "transport = \"tcp\"\n";
        for host in ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"] {
            let c: Cluster = text(tcp, host).parse().unwrap();
            assert_eq!(c.to_toml().parse::<Cluster>().unwrap(), c);
        }
        for host in ["10.0.0.1", "example.org", "0.0.0.0", "[::]", "localhost.example.org"] {
            assert!(refusal(&text(tcp, host)).contains("not loopback"), "{host}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let good = text("", "h");
        let cases = [
            (good.replace("h:9001", "h"), "is no address"),
            (good.replace("h:9001", "h:0"), "is no address"),
            (good.replace("h:9001", "h:+1"), "is no address"),
            (good.replace("h:9001", "h h:1"), "is no address"),
            (good.replace("h:9001", "::1:1"), "is no address"),
            (good.replace("h:9001", "h:9003"), "alice and carol have the same address"),
            (good.replace("0202", "02"), "fingerprint"),
            (good.replace(&"01".repeat(32), &"02".repeat(32)), "alice and bob have the same certificate"),
            (good.replace("certificate", "cert"), "unknown field `cert`"),
            (good.replace("certificate", "certifcate"), "certifcate: no such key; \"certificate\" is the nearest"),
            (good.replace("[bob]", "[alice]"), "duplicate key"),
            (good.replace("[bob]", "[dave]"), "dave"),
            (format!("{good}[server]\nlanes = 0\n"), "server.lanes = 0: must be 1 to 256"),
            (format!("{good}[[client]]\nname = \"x\"\n"), "x has no certificate"),
            (format!("{good}[[client]]\nname = \"bob\"\ncertificate = \"{}\"\n", Fingerprint([9; 32])), "same name"),
            (format!("{good}[[client]]\nname = \"../x\"\n"), "is no name"),
            (format!("{good}[[client]]\nname = \"x\"\nroles = []\n"), "no role"),
            (format!("{good}[[client]]\nname = \"x\"\nroles = [\"root\"]\n"), "root"),
        ];
        for (t, part) in cases {
            assert!(refusal(&t).contains(part), "{part:?} not in {:?}", refusal(&t));
        }
    }
}
