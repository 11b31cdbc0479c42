//! How a command reaches the servers: the cluster file and the identity, in one form for every command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use trefoil_client::{Client, ClientConfig};
use trefoil_proto::{Cluster, Identity, Transport};

/// The cluster file and who calls.
#[derive(Args)]
pub(crate) struct Access {
    /// The cluster file
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    pub(crate) config: PathBuf,
    /// Whose key and certificate: DIR/NAME stands for DIR/NAME.key and DIR/NAME.crt (on plain TCP only NAME counts)
    #[arg(long, value_name = "DIR/NAME")]
    pub(crate) identity: Option<PathBuf>,
    /// Seconds to try again while the servers are busy
    #[arg(long, value_name = "S", default_value_t = 60)]
    patience: u64,
}

impl Access {
    /// Reads the cluster file and the identity, and connects to alice and bob.
    pub(crate) fn connect(&self) -> anyhow::Result<Client> {
        let cluster = load_cluster(&self.config)?;
        let names: Vec<&str> = cluster.client.iter().map(|c| c.name.as_str()).collect();
        let (dir, name) = match &self.identity {
            Some(path) => split(path, &names)?,
            None => match (cluster.transport, &names[..]) {
                (Transport::Tcp, [only]) => (PathBuf::new(), (*only).to_owned()),
                (Transport::Tcp, _) => bail!("who are you? give --identity NAME, one of: {}", names.join(", ")),
                (Transport::Tls, _) => {
                    bail!("the cluster uses TLS: give --identity DIR/NAME (made by `trefoil keygen`)")
                }
            },
        };
        let identity = match cluster.transport {
            Transport::Tls => {
                let path = dir.join(&name);
                if !dir.join(format!("{name}.key")).exists() {
                    bail!("no identity {} (--identity DIR/NAME; `trefoil keygen {name}` makes one)", path.display());
                }
                let identity = Identity::load(&dir, &name)?;
                pinned(&cluster, &identity, &path)?;
                Some(identity)
            }
            Transport::Tcp => None,
        };
        let patience = Duration::from_secs(self.patience);
        let config = ClientConfig { patience, ..ClientConfig::new(cluster, identity, name) };
        Ok(Client::connect(config)?)
    }
}

/// Refuses an identity whose certificate is another than the one pinned for its name: the servers would hang up on it. A
/// name that the cluster file does not have is told later.
fn pinned(cluster: &Cluster, identity: &Identity, path: &Path) -> anyhow::Result<()> {
    let (name, own) = (identity.name(), identity.fingerprint());
    let Some(pin) = cluster.client(name).and_then(|c| c.certificate).filter(|pin| *pin != own) else { return Ok(()) };
    let whose = match cluster.trusted().into_iter().find(|(_, f)| *f == own) {
        Some((other, _)) => format!("it is {other}'s"),
        None => "has it been made anew? Then every cluster file needs the new one".to_owned(),
    };
    bail!(
        "--identity {}: its certificate {} is not the one that the cluster file has for {name} ({}); {whose}",
        path.display(),
        own.short(),
        pin.short()
    )
}

/// Reads the cluster file.
pub(crate) fn load_cluster(path: &Path) -> anyhow::Result<Cluster> {
    Cluster::load(path).with_context(|| {
        format!("no usable cluster file at {} (--config; `trefoil keygen cluster` makes one)", path.display())
    })
}

/// Folder and name of an identity. A folder alone will do where just one of `names` has a key in it.
pub(crate) fn split(path: &Path, names: &[&str]) -> anyhow::Result<(PathBuf, String)> {
    if path.is_dir() {
        let here: Vec<_> = names.iter().filter(|n| path.join(format!("{n}.key")).is_file()).collect();
        return match here[..] {
            [one] => Ok((path.into(), (*one).to_owned())),
            [] => bail!("{}: no key of {} in this folder", path.display(), names.join(", ")),
            _ => bail!(
                "{}: several keys in this folder; say which: --identity {}",
                path.display(),
                path.join(here[0]).display()
            ),
        };
    }
    let stem = match path.extension() {
        Some(e) if e == "key" || e == "crt" => path.with_extension(""),
        _ => path.to_owned(),
    };
    let name = stem.file_name().and_then(|n| n.to_str());
    let name = name.with_context(|| format!("{}: no identity: DIR/NAME is due", path.display()))?;
    Ok((stem.parent().unwrap_or(Path::new("")).to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_one_form() {
        let names = ["ward", "owner"];
        for path in ["keys/ward", "keys/ward.key", "keys/ward.crt"] {
            assert_eq!(split(path.as_ref(), &names).unwrap(), ("keys".into(), "ward".into()));
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(split(dir.path(), &names).is_err());
        std::fs::write(dir.path().join("ward.key"), "").unwrap();
        assert_eq!(split(dir.path(), &names).unwrap(), (dir.path().into(), "ward".into()));
        std::fs::write(dir.path().join("owner.key"), "").unwrap();
        assert!(split(dir.path(), &names).unwrap_err().to_string().contains("several keys"));
    }
}
