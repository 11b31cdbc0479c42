//! `keygen`: identities, store keys and the cluster file.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Subcommand;
use trefoil_prg::{Party, Seed};
use trefoil_proto::cluster::{Address, Client, HELPER, Server, Settings};
use trefoil_proto::identity::{DEFAULT_DAYS, IdentityError, Validity, check_name};
use trefoil_proto::{Cluster, Fingerprint, Identity, Role, Transport};
use zeroize::Zeroizing;

use crate::output;

/// Largest certificate file read.
const MAX_CERTIFICATE: u64 = 64 << 10;

/// Arguments of `keygen`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Example: on each host, one identity; keys stay there, certificates (.crt) are handed round\n  \
    trefoil keygen alice --out keys\n\n\
    Example: the cluster file from the certificates\n  \
    trefoil keygen cluster --alice a.example.org:9000=alice.crt \\\n    \
    --bob b.example.org:9000=bob.crt --carol c.example.org:9000=carol.crt \\\n    \
    --client owner=owner.crt:owner --client ward-3=ward-3.crt\n\n\
    Example: everything in one place, for a trial on this host\n  trefoil keygen --all --out trial"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// alice, bob, carol, helper, or a client's name
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// Folder for NAME.key and NAME.crt (alice, bob and carol also get NAME.storekey)
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    /// All identities and the cluster file in one folder, for a trial on this host
    #[arg(long)]
    all: bool,
    /// With --all: a client, with :owner if it may share models, declare data sets and start training (repeat it) [default: owner:owner and client]
    #[arg(long, value_name = "NAME[:owner]", requires = "all")]
    client: Vec<String>,
    /// With --all: a helper too, the fourth server that runs may show class likelihoods
    #[arg(long, requires = "all")]
    helper: bool,
    /// With --all: alice's port; the others get the next ones
    #[arg(long, value_name = "PORT", default_value_t = 9600, value_parser = clap::value_parser!(u16).range(1..65533))]
    base_port: u16,
    /// With --all: plain TCP instead of TLS (loopback only, no keys)
    #[arg(long, requires = "all")]
    tcp: bool,
    /// How long a certificate is valid
    #[arg(long, value_name = "N", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

#[derive(Subcommand)]
enum Part {
    /// Put the cluster file together from addresses and certificates
    Cluster(ClusterArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  trefoil keygen cluster --alice a.example.org:9000=alice.crt \\\n    \
    --bob b.example.org:9000=bob.crt --carol c.example.org:9000=carol.crt \\\n    \
    --client owner=owner.crt:owner --client ward-3=ward-3.crt")]
struct ClusterArgs {
    /// Where alice listens, and her certificate
    #[arg(long, value_name = "HOST:PORT=CERTFILE")]
    alice: String,
    /// Where bob listens, and his certificate
    #[arg(long, value_name = "HOST:PORT=CERTFILE")]
    bob: String,
    /// Where carol listens, and her certificate
    #[arg(long, value_name = "HOST:PORT=CERTFILE")]
    carol: String,
    /// Where the helper listens, and its certificate, if there is one
    #[arg(long, value_name = "HOST:PORT=CERTFILE")]
    helper: Option<String>,
    /// A client and its certificate, with :owner if it may share models, declare data sets and start training (repeat it)
    #[arg(long, value_name = "NAME=CERTFILE[:owner]")]
    client: Vec<String>,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(Part::Cluster(c)) = args.part {
        return cluster(&c);
    }
    let (Some(out), force) = (&args.out, args.force) else { bail!("where to? give --out DIR") };
    args.name.as_deref().map_or(Ok(()), check_name)?;
    let Some(name) = &args.name else { return everything(&args, out) };
    refuse_existing(out, [name.as_str()].into_iter(), Transport::Tls, force)?;
    create_folder(out)?;
    let identity = identity(name, out, args.days, force)?;
    output::line(format!("{}.key stays on this host; hand out {}.crt", path(out, name), path(out, name)))?;
    output::line(format!("fingerprint {}", identity.fingerprint()))
}

fn path(out: &Path, name: &str) -> String {
    out.join(name).display().to_string()
}

fn create_folder(out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))
}

/// Makes an identity; a server's with its store key.
fn identity(name: &str, out: &Path, days: u32, force: bool) -> anyhow::Result<Identity> {
    let identity = Identity::generate(name, days)?;
    identity.write(out, force)?;
    if Party::from_str(name).is_ok() {
        store_key(&out.join(format!("{name}.storekey")), force)?;
    }
    Ok(identity)
}

/// Writes a fresh store key: 64 hexadecimal digits that only the owner of the file may read.
pub(crate) fn store_key(path: &Path, force: bool) -> anyhow::Result<()> {
    if force && path.exists() {
        std::fs::remove_file(path).with_context(|| path.display().to_string())?;
    }
    let seed = Seed::random()?;
    let mut text = Zeroizing::new(String::with_capacity(65));
    let digit = |d: u8| char::from_digit(u32::from(d), 16).unwrap_or('0');
    for b in seed.expose() {
        text.push(digit(b >> 4));
        text.push(digit(b & 15));
    }
    text.push('\n');
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()));
    written.with_context(|| format!("store key {}", path.display()))
}

fn client_roles(text: &str) -> (&str, Vec<Role>) {
    match text.rsplit_once(':') {
        Some((name, "owner")) => (name, vec![Role::Owner, Role::Client]),
        _ => (text, vec![Role::Client]),
    }
}

fn everything(args: &Args, out: &Path) -> anyhow::Result<()> {
    let standard = ["owner:owner".to_owned(), "client".to_owned()];
    let clients = if args.client.is_empty() { &standard[..] } else { &args.client };
    let ports: Vec<u16> = (args.base_port..).take(3 + usize::from(args.helper)).collect();
    let transport = if args.tcp { Transport::Tcp } else { Transport::Tls };
    let file = out.join("cluster.toml");
    if file.exists() && !args.force {
        return Err(IdentityError::Exists(file).into());
    }
    let cluster = trial(out, transport, &ports, clients, Settings::default(), args.force)?;
    write_cluster(&file, &cluster, args.force)?;
    let dir = out.display();
    let owner = clients.iter().map(|c| client_roles(c)).find(|(_, roles)| roles.contains(&Role::Owner));
    let terminals = if args.helper { "four" } else { "three" };
    output::line(format!(
        "{dir}/cluster.toml and all keys are there: a trial on this host. In {terminals} terminals:"
    ))?;
    let command = |name: &str| {
        let identity = if args.tcp { String::new() } else { format!(" --identity {dir}/{name}") };
        format!("  trefoil server --party {name} --config {dir}/cluster.toml{identity}")
    };
    for p in Party::ALL.map(Party::name) {
        output::line(format!("{} --store {dir}/{p}.store --store-key {dir}/{p}.storekey", command(p)))?;
    }
    if args.helper {
        output::line(command(HELPER))?;
    }
    output::line(match owner {
        Some((owner, _)) => {
            format!("then\n  trefoil share MODEL --as NAME --config {dir}/cluster.toml --identity {dir}/{owner}")
        }
        None => "No client here may share models: name one NAME:owner.".into(),
    })
}

/// Refuses to make keys where one of them is already, before the first is written.
fn refuse_existing<'a>(
    out: &Path,
    mut names: impl Iterator<Item = &'a str>,
    transport: Transport,
    force: bool,
) -> anyhow::Result<()> {
    let there = names.find_map(|name| {
        let kinds = [
            ("key", transport == Transport::Tls),
            ("crt", transport == Transport::Tls),
            ("storekey", Party::from_str(name).is_ok()),
        ];
        let files = kinds.into_iter().filter(|(_, made)| *made).map(|(kind, _)| out.join(format!("{name}.{kind}")));
        files.into_iter().find(|f| f.exists())
    });
    match there {
        Some(file) if !force => Err(IdentityError::Exists(file).into()),
        _ => Ok(()),
    }
}

/// Makes identities and a cluster on this host, with a helper where there are four `ports`; nothing but store keys for
/// plain TCP.
pub(crate) fn trial(
    out: &Path,
    transport: Transport,
    ports: &[u16],
    clients: &[String],
    server: Settings,
    force: bool,
) -> anyhow::Result<Cluster> {
    let certificate = |name: &str| -> anyhow::Result<Option<Fingerprint>> {
        match transport {
            Transport::Tls => Ok(Some(identity(name, out, DEFAULT_DAYS, force)?.fingerprint())),
            Transport::Tcp if Party::from_str(name).is_ok() => {
                store_key(&out.join(format!("{name}.storekey")), force).map(|()| None)
            }
            Transport::Tcp => Ok(None),
        }
    };
    let server_at = |name: &str, port: Option<&u16>| -> anyhow::Result<Server> {
        let port = port.with_context(|| format!("no port for {name}"))?;
        Ok(Server { address: format!("127.0.0.1:{port}").parse()?, certificate: None })
    };
    let client = |text: &String| {
        let (name, roles) = client_roles(text);
        Client { name: name.into(), certificate: None, roles }
    };
    // Without certificates it is a cluster of plain TCP: names and addresses are checked before anything is written.
    let mut cluster = Cluster {
        transport: Transport::Tcp,
        alice: server_at("alice", ports.first())?,
        bob: server_at("bob", ports.get(1))?,
        carol: server_at("carol", ports.get(2))?,
        helper: ports.get(3).map(|port| server_at(HELPER, Some(port))).transpose()?,
        server,
        client: clients.iter().map(client).collect(),
    };
    cluster.validate().context("--client")?;
    let clients = cluster.client.iter().map(|c| c.name.as_str());
    let servers = Party::ALL.map(Party::name).into_iter().chain(cluster.helper.iter().map(|_| HELPER));
    refuse_existing(out, servers.chain(clients), transport, force)?;
    create_folder(out)?;
    cluster.transport = transport;
    cluster.alice.certificate = certificate("alice")?;
    cluster.bob.certificate = certificate("bob")?;
    cluster.carol.certificate = certificate("carol")?;
    if let Some(helper) = &mut cluster.helper {
        helper.certificate = certificate(HELPER)?;
    }
    for c in &mut cluster.client {
        c.certificate = certificate(&c.name)?;
    }
    cluster.validate()?;
    Ok(cluster)
}

fn cluster(args: &ClusterArgs) -> anyhow::Result<()> {
    let server = |name: &str, text: &str| -> anyhow::Result<Server> {
        let (address, file) =
            text.split_once('=').with_context(|| format!("--{name} {text}: HOST:PORT=CERTFILE is due"))?;
        let address: Address = address.parse().with_context(|| format!("--{name}"))?;
        Ok(Server { address, certificate: Some(fingerprint(Path::new(file))?) })
    };
    let client = |text: &String| -> anyhow::Result<Client> {
        let due = || format!("--client {text}: NAME=CERTFILE or NAME=CERTFILE:owner is due");
        let (name, rest) = text.split_once('=').with_context(due)?;
        let (file, roles) = client_roles(rest);
        Ok(Client { name: name.into(), certificate: Some(fingerprint(Path::new(file))?), roles })
    };
    let cluster = Cluster {
        transport: Transport::Tls,
        alice: server("alice", &args.alice)?,
        bob: server("bob", &args.bob)?,
        carol: server("carol", &args.carol)?,
        helper: args.helper.as_deref().map(|text| server(HELPER, text)).transpose()?,
        server: Settings::default(),
        client: args.client.iter().map(client).collect::<anyhow::Result<_>>()?,
    };
    cluster.validate()?;
    write_cluster(&args.out, &cluster, args.force)?;
    output::line(format!("{}: the same file for all servers and every client", args.out.display()))
}

/// Writes the cluster file, unless one is there.
pub(crate) fn write_cluster(path: &Path, cluster: &Cluster, force: bool) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    if force {
        options.truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(path).and_then(|mut f| f.write_all(cluster.to_toml().as_bytes()));
    written.with_context(|| format!("cannot write {} (--force replaces)", path.display()))
}

/// The fingerprint of a certificate file.
fn fingerprint(path: &Path) -> anyhow::Result<Fingerprint> {
    let shown = path.display();
    let len = std::fs::metadata(path).with_context(|| format!("certificate {shown}"))?.len();
    if len > MAX_CERTIFICATE {
        bail!("{shown}: {len} bytes: no certificate is longer than {MAX_CERTIFICATE}");
    }
    let text = std::fs::read(path).with_context(|| format!("certificate {shown}"))?;
    let block = pem::parse(&text).with_context(|| format!("{shown} is no certificate in PEM"))?;
    if block.tag() != "CERTIFICATE" || Validity::of(block.contents()).is_none() {
        bail!("{shown} holds a {}, not a certificate: give the .crt file", block.tag());
    }
    Ok(Fingerprint::of(block.contents()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_the_name() {
        assert_eq!(client_roles("ann"), ("ann", vec![Role::Client]));
        assert_eq!(client_roles("ann:owner"), ("ann", vec![Role::Owner, Role::Client]));
        assert_eq!(client_roles("a/b.crt:owner").0, "a/b.crt");
    }

    #[test]
    fn nothing_is_written_where_names_are_wrong_or_taken() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new");
        let make = |clients: &[&str], ports: &[u16]| {
            let clients: Vec<String> = clients.iter().map(|c| (*c).to_owned()).collect();
            let made = trial(&out, Transport::Tls, ports, &clients, Settings::default(), false);
            made.map(drop).map_err(|e| format!("{e:#}"))
        };
        for (clients, ports, said) in [
            (&["owner:owner", "alice"][..], &[9000, 9001, 9002][..], "alice and alice have the same name"),
            (&["ann", "bert", "ann:owner"], &[9000, 9001, 9002], "ann and ann have the same name"),
            (&["helper"], &[9000, 9001, 9002, 9003], "helper and helper have the same name"),
            (&["Ann"], &[9000, 9001, 9002], "\"Ann\" is no name"),
        ] {
            let e = make(clients, ports).unwrap_err();
            assert!(e.contains(said), "{said:?} not in {e:?}");
            assert!(!out.exists(), "{said}");
        }
        identity("ann", dir.path(), 90, false).unwrap();
        std::fs::create_dir(&out).unwrap();
        std::fs::rename(dir.path().join("ann.crt"), out.join("ann.crt")).unwrap();
        let e = make(&["owner:owner", "ann"], &[9000, 9001, 9002]).unwrap_err();
        assert!(e.contains("ann.crt exists (--force replaces it)"), "{e}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
        std::fs::remove_file(out.join("ann.crt")).unwrap();
        make(&["owner:owner", "ann"], &[9000, 9001, 9002]).unwrap();
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2 * 5 + 3);
    }

    #[test]
    fn a_private_key_is_no_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let made = identity("alice", dir.path(), 90, false).unwrap();
        assert_eq!(fingerprint(&dir.path().join("alice.crt")).unwrap(), made.fingerprint());
        let e = fingerprint(&dir.path().join("alice.key")).unwrap_err().to_string();
        assert!(e.contains("not a certificate"), "{e}");
        let key = std::fs::read_to_string(dir.path().join("alice.storekey")).unwrap();
        assert!(key.trim().len() == 64 && key.trim().bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(identity("alice", dir.path(), 90, false).is_err());
        identity("alice", dir.path(), 90, true).unwrap();
    }
}
