//! Identities: a party's or client's private key and its self-signed certificate, as PEM files.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ED25519, PublicKeyData,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

use crate::Fingerprint;

/// How long a new certificate is valid.
pub const DEFAULT_DAYS: u32 = 825;
const DAY: u64 = 24 * 60 * 60;
const MAX_NAME: usize = 63;
const MAX_FILE: u64 = 64 * 1024;

/// Why an identity could not be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A name that is no name.
    #[error(
        "{0:?} is no name: 1 to {MAX_NAME} lower-case letters, digits and dashes, a letter or digit first and last"
    )]
    Name(String),
    /// Key or certificate could not be made.
    #[error("cannot make a certificate for {name}: {reason}")]
    Generate {
        /// For whom.
        name: String,
        /// The cause.
        reason: String,
    },
    /// A file is already there.
    #[error("{} exists (--force replaces it)", .0.display())]
    Exists(PathBuf),
    /// A key that others may read.
    #[error("{} can be read by others (mode {mode:03o}): chmod 600", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// When a certificate may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before, in seconds since 1970.
    pub from: u64,
    /// Not after, in seconds since 1970.
    pub until: u64,
}

impl Validity {
    /// The validity of a certificate in DER; `None` if it is no certificate.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (rest, c) = X509Certificate::from_der(der).ok()?;
        let at = |t: x509_parser::time::ASN1Time| u64::try_from(t.timestamp()).unwrap_or(0);
        rest.is_empty().then(|| Self { from: at(c.validity().not_before), until: at(c.validity().not_after) })
    }

    /// Whether the certificate may be used at `seconds` since 1970.
    pub fn holds_at(&self, seconds: u64) -> bool {
        (self.from..=self.until).contains(&seconds)
    }
}

/// A private key and its certificate.
pub struct Identity {
    name: String,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    validity: Validity,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, {}, key ..)", self.name, self.fingerprint().short())
    }
}

impl Identity {
    /// A fresh Ed25519 key and a certificate for `name` (a party or a client), valid for `days` from now.
    pub fn generate(name: &str, days: u32) -> Result<Self, IdentityError> {
        check_name(name)?;
        let failed = |reason: String| IdentityError::Generate { name: name.into(), reason };
        let mut pair = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| failed(e.to_string()))?;
        let mut params = CertificateParams::new([name.to_owned()]).map_err(|e| failed(e.to_string()))?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // An hour back: clocks of different hosts differ.
        let from = now().saturating_sub(3600);
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(from);
        params.not_after = params.not_before + Duration::from_secs(u64::from(days) * DAY + 3600);
        let certificate = params.self_signed(&pair).map_err(|e| failed(e.to_string()))?.der().to_vec();
        let key = Zeroizing::new(pair.serialize_der());
        pair.zeroize();
        let validity = Validity::of(&certificate).ok_or_else(|| failed("it cannot be read back".into()))?;
        Ok(Self { name: name.into(), certificate, key, validity })
    }

    /// Writes `NAME.key` (mode 0600) and `NAME.crt` into `folder`. Existing files are kept unless `force` is set.
    pub fn write(&self, folder: &Path, force: bool) -> Result<(), IdentityError> {
        let (key, certificate) = paths(folder, &self.name);
        for path in [&key, &certificate] {
            if path.exists() && !force {
                return Err(IdentityError::Exists(path.clone()));
            }
        }
        if force {
            for path in [&key, &certificate] {
                match std::fs::remove_file(path) {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(io(path)(e)),
                    _ => {}
                }
            }
        }
        create(&key, &encode("PRIVATE KEY", self.key.to_vec()), 0o600)?;
        create(&certificate, &encode("CERTIFICATE", self.certificate.clone()), 0o644)
    }

    /// Reads `NAME.key` and `NAME.crt` from `folder`. A key that others may read is refused.
    pub fn load(folder: &Path, name: &str) -> Result<Self, IdentityError> {
        check_name(name)?;
        let (key_path, certificate_path) = paths(folder, name);
        let malformed =
            |path: &Path, reason: &str| IdentityError::Malformed { path: path.into(), reason: reason.into() };
        let key = read_pem(&key_path, "PRIVATE KEY", true)?;
        let certificate = read_pem(&certificate_path, "CERTIFICATE", false)?.to_vec();
        let mut pair =
            KeyPair::try_from(key.as_slice()).map_err(|_| malformed(&key_path, "no private key (PKCS#8)"))?;
        let bad = || malformed(&certificate_path, "no X.509 certificate");
        let validity = Validity::of(&certificate).ok_or_else(bad)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| bad())?;
        let matches = parsed.public_key().subject_public_key.data.as_ref() == pair.der_bytes();
        pair.zeroize();
        if !matches {
            return Err(malformed(&certificate_path, "the certificate is not that of the private key beside it"));
        }
        Ok(Self { name: name.into(), certificate, key, validity })
    }

    /// The party's or client's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The private key in PKCS#8. Do not copy it.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// What peers pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// When the certificate may be used.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether the certificate has expired or will within `days`.
    pub fn expires_within(&self, days: u32) -> bool {
        self.validity.until < now() + u64::from(days) * DAY
    }
}

/// Whether `name` may name a party or a client: it becomes a file name and a certificate's subject.
pub fn check_name(name: &str) -> Result<(), IdentityError> {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = name.bytes().all(|c| edge(Some(c)) || c == b'-');
    if name.len() <= MAX_NAME && inner && edge(name.bytes().next()) && edge(name.bytes().last()) {
        Ok(())
    } else {
        Err(IdentityError::Name(name.chars().take(100).collect()))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.key")), folder.join(format!("{name}.crt")))
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> IdentityError + '_ {
    move |source| IdentityError::Io { path: path.into(), source }
}

fn encode(label: &str, contents: Vec<u8>) -> Zeroizing<String> {
    let block = pem::Pem::new(label, contents);
    let text = pem::encode_config(&block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF));
    block.into_contents().zeroize();
    Zeroizing::new(text)
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => IdentityError::Exists(path.into()),
        _ => io(path)(e),
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io(path))
}

fn read_pem(path: &Path, label: &str, private: bool) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let malformed = |reason: String| IdentityError::Malformed { path: path.into(), reason };
    let file = File::open(path).map_err(io(path))?;
    let meta = file.metadata().map_err(io(path))?;
    #[cfg(unix)]
    if private {
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Readable { path: path.into(), mode });
        }
    }
    if meta.len() > MAX_FILE {
        return Err(malformed(format!("{} bytes: no PEM file of ours is longer than {MAX_FILE}", meta.len())));
    }
    // Room for the whole file at once: a growing buffer would leave copies of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    file.take(MAX_FILE).read_to_end(&mut text).map_err(io(path))?;
    let block = pem::parse(text.as_slice()).map_err(|e| malformed(format!("no PEM block {label:?}: {e}")))?;
    let tag = block.tag().to_owned();
    let contents = Zeroizing::new(block.into_contents());
    if tag == label { Ok(contents) } else { Err(malformed(format!("a PEM block {tag:?} where {label:?} was due"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_and_load_give_the_same_identity() {
        let folder = tempfile::tempdir().unwrap();
        let made = Identity::generate("alice", DEFAULT_DAYS).unwrap();
        made.write(folder.path(), false).unwrap();
        let read = Identity::load(folder.path(), "alice").unwrap();
        assert_eq!((read.fingerprint(), read.key()), (made.fingerprint(), made.key()));
        assert_eq!(format!("{read:?}"), format!("Identity(alice, {}, key ..)", made.fingerprint().short()));
        assert!(!read.expires_within(824) && read.expires_within(826));
        assert!(read.validity().holds_at(now()) && !read.validity().holds_at(now() + 900 * DAY));
    }

    #[test]
    fn files_are_kept_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::generate("bob", 1).unwrap();
        first.write(folder.path(), false).unwrap();
        let second = Identity::generate("bob", 1).unwrap();
        assert!(matches!(second.write(folder.path(), false), Err(IdentityError::Exists(_))));
        assert_eq!(Identity::load(folder.path(), "bob").unwrap().fingerprint(), first.fingerprint());
        second.write(folder.path(), true).unwrap();
        assert_eq!(Identity::load(folder.path(), "bob").unwrap().fingerprint(), second.fingerprint());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Identity::generate("carol", 1).unwrap().write(folder.path(), false).unwrap();
        let path = folder.path().join("carol.key");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let e = Identity::load(folder.path(), "carol").unwrap_err();
        assert!(matches!(e, IdentityError::Readable { mode: 0o640, .. }) && e.to_string().contains("carol.key"));
    }

    #[test]
    fn other_files_and_names_are_refused_with_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |n: &str| folder.path().join(n);
        for n in ["a", "b"] {
            Identity::generate(n, 1).unwrap().write(folder.path(), false).unwrap();
        }
        std::fs::copy(at("b.crt"), at("a.crt")).unwrap();
        let e = Identity::load(folder.path(), "a").unwrap_err().to_string();
        assert!(e.contains("a.crt") && e.contains("private key beside it"), "{e}");
        std::fs::copy(at("a.key"), at("a.crt")).unwrap();
        assert!(matches!(Identity::load(folder.path(), "a"), Err(IdentityError::Malformed { .. })));
        std::fs::write(at("b.crt"), vec![b'-'; 70_000]).unwrap();
        assert!(matches!(Identity::load(folder.path(), "b"), Err(IdentityError::Malformed { .. })));
        assert!(matches!(Identity::load(folder.path(), "c"), Err(IdentityError::Io { .. })));
        for bad in ["", "../a", "A", "a b", "-a", "a-", "é", &"a".repeat(64)] {
            assert!(matches!(Identity::generate(bad, 1), Err(IdentityError::Name(_))), "{bad}");
        }
    }
}
