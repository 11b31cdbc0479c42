//! Sealing: AES-256-GCM under a key that lies outside the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use thiserror::Error;
use trefoil_prg::Seed;
use trefoil_prg::seed::random_bytes;
use zeroize::Zeroize;

const MAGIC: &[u8; 5] = b"TRFS1";
const NONCE: usize = 12;
/// By how many bytes a sealed text is longer than the plain one: name, nonce, tag.
pub(crate) const OVERHEAD: usize = MAGIC.len() + NONCE + 16;

/// Why a store key could not be had or a file not be opened.
#[derive(Debug, Error)]
pub enum SealError {
    /// The key file cannot be read.
    #[error("store key {path}: {reason}")]
    Key {
        /// The file or command.
        path: String,
        /// The cause.
        reason: String,
    },
    /// A sealed file is damaged, of another party, or sealed under another key.
    #[error("{path}: damaged, or sealed under another key")]
    Opened {
        /// The file.
        path: String,
    },
    /// Sealing failed.
    #[error("cannot seal {0}: {1}")]
    Seal(String, String),
}

/// Where the store key comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A file of 64 hexadecimal digits that only its owner may read.
    File(PathBuf),
    /// A command that prints 64 hexadecimal digits: a key manager's client.
    Command(String),
}

/// The key under which a party's store is sealed. Erased on drop, never shown.
#[derive(Debug)]
pub struct StoreKey(Seed);

impl StoreKey {
    /// Gets the key. A file must have mode 0600 and lie outside `store`.
    pub fn load(source: &KeySource, store: &Path) -> Result<Self, SealError> {
        let (mut text, name) = match source {
            KeySource::File(path) => {
                let fail = |reason: String| SealError::Key { path: path.display().to_string(), reason };
                check_mode(path).map_err(fail)?;
                let key = path.canonicalize().map_err(|e| fail(e.to_string()))?;
                if store.canonicalize().is_ok_and(|s| key.starts_with(s)) {
                    return Err(fail("lies inside the store that it seals; keep it elsewhere".into()));
                }
                (fs::read_to_string(path).map_err(|e| fail(e.to_string()))?, path.display().to_string())
            }
            KeySource::Command(command) => {
                let fail = |reason: String| SealError::Key { path: command.clone(), reason };
                let out = Command::new("sh").arg("-c").arg(command).output().map_err(|e| fail(e.to_string()))?;
                if !out.status.success() {
                    return Err(fail(format!("the command ended with {}", out.status)));
                }
                (String::from_utf8(out.stdout).map_err(|_| fail("printed no text".into()))?, command.clone())
            }
        };
        let mut key = [0; 32];
        let parsed = parse_hex(text.trim(), &mut key);
        text.zeroize();
        if !parsed {
            return Err(SealError::Key { path: name, reason: "is not 64 hexadecimal digits".into() });
        }
        let seed = Seed::from_bytes(key);
        key.zeroize();
        Ok(Self(seed))
    }

    /// A key from its bytes: for tests and for a party that lives as long as its process.
    pub fn from_seed(seed: Seed) -> Self {
        Self(seed)
    }

    fn cipher(&self, label: &str) -> Aes256Gcm {
        // One key for every label, so that random nonces never come near their limit.
        let key = self.0.derive("trefoil 2026 sealed file", label.as_bytes());
        Aes256Gcm::new(key.expose().into())
    }

    /// Seals `plain` under `label` (party and file), which must be given again to open it.
    pub fn seal(&self, label: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let fail = |e: String| SealError::Seal(label.into(), e);
        let mut nonce = [0; NONCE];
        random_bytes(&mut nonce).map_err(|e| fail(e.to_string()))?;
        let payload = Payload { msg: plain, aad: label.as_bytes() };
        let sealed = self.cipher(label).encrypt((&nonce).into(), payload).map_err(|e| fail(e.to_string()))?;
        let mut out = Vec::with_capacity(MAGIC.len() + NONCE + sealed.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what was sealed under `label`; `path` only names it in the error.
    pub fn open(&self, label: &str, path: &Path, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let fail = || SealError::Opened { path: path.display().to_string() };
        let rest = sealed.strip_prefix(MAGIC).ok_or_else(fail)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or_else(fail)?;
        let payload = Payload { msg: body, aad: label.as_bytes() };
        self.cipher(label).decrypt(nonce.into(), payload).map_err(|_| fail())
    }
}

fn parse_hex(text: &str, out: &mut [u8; 32]) -> bool {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return false;
    }
    let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
    for (o, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *o = digit(pair[0]) << 4 | digit(pair[1]);
    }
    true
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(|e| e.to_string())?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(format!("has mode {mode:o}: others may read it; chmod 600 it")) }
}

#[cfg(not(unix))]
fn check_mode(path: &Path) -> Result<(), String> {
    fs::metadata(path).map(|_| ()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_under_its_label_and_key() {
        let key = StoreKey::from_seed(Seed::from_bytes([1; 32]));
        let sealed = key.seal("alice/1", b"secret").unwrap();
        let path = Path::new("x");
        assert_eq!(key.open("alice/1", path, &sealed).unwrap(), b"secret");
        assert!(key.open("alice/2", path, &sealed).is_err());
        assert!(StoreKey::from_seed(Seed::from_bytes([2; 32])).open("alice/1", path, &sealed).is_err());
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            assert!(key.open("alice/1", path, &bad).is_err());
        }
        assert!(key.open("alice/1", path, &sealed[..10]).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn key_files_are_private_and_outside() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (store, path) = (dir.path().join("store"), dir.path().join("key"));
        fs::create_dir(&store).unwrap();
        fs::write(&path, "ab".repeat(32)).unwrap();
        let load = |p: &Path| StoreKey::load(&KeySource::File(p.into()), &store);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("644"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(load(&path).unwrap().0.expose(), &[0xab; 32]);
        let inside = store.join("key");
        fs::copy(&path, &inside).unwrap();
        assert!(load(&inside).unwrap_err().to_string().contains("inside the store"));
        fs::write(&path, "zz".repeat(32)).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("hexadecimal"));
        let from = |c: &str| StoreKey::load(&KeySource::Command(c.into()), &store);
        assert_eq!(from(&format!("echo {}", "01".repeat(32))).unwrap().0.expose(), &[1; 32]);
        assert!(from("exit 3").is_err());
    }
}
