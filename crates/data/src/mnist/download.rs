//! Downloading: each file from the first mirror that has the real one, checked before it gets its name.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use thiserror::Error;
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::tls::TlsConfig;

use super::source::{FILES, Source};
use crate::file::{persist, temporary_beside};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long to wait for an answer to begin, and for each part of it.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one file may take.
const WHOLE: Duration = Duration::from_secs(900);
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// A download that failed.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// The folder or a file in it cannot be written.
    #[error("{}: {cause}", path.display())]
    Store {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// No mirror gave the real file.
    #[error("cannot download {file}:{}", reasons(failures))]
    Mirrors {
        /// The file.
        file: String,
        /// Every URL tried and why it failed.
        failures: Vec<(String, Failure)>,
    },
}

/// Why one mirror did not do.
#[derive(Debug, Error)]
pub enum Failure {
    /// No answer, or a refusal.
    #[error("{0}")]
    Http(#[from] Box<ureq::Error>),
    /// The transfer broke.
    #[error("the transfer broke off after {done} bytes: {cause}")]
    Broken {
        /// Bytes that had arrived.
        done: u64,
        /// The cause.
        cause: io::Error,
    },
    /// More bytes than the file can have.
    #[error("more than {0} bytes")]
    TooLarge(u64),
    /// Bytes that are not the file.
    #[error("not the real file: {0}")]
    NotTheFile(#[from] Mismatch),
}

/// How a file differs from the real one.
#[derive(Debug, Error)]
pub enum Mismatch {
    /// It does not unpack.
    #[error("it does not unpack ({0})")]
    Unpack(#[from] io::Error),
    /// It unpacks to more.
    #[error("it unpacks to more than {0} bytes")]
    Longer(u64),
    /// It has another checksum.
    #[error("SHA-256 of its contents is {got}, not {wanted}")]
    Checksum {
        /// The checksum found.
        got: String,
        /// The real file's.
        wanted: &'static str,
    },
}

fn reasons(failures: &[(String, Failure)]) -> String {
    match failures {
        [] => " no mirrors to try".into(),
        _ => failures.iter().map(|(url, why)| format!("\n  {url}: {why}")).collect(),
    }
}

/// Called with the file, the bytes done and the bytes in all, if the mirror says.
type Progress<'a> = &'a mut dyn FnMut(&str, u64, Option<u64>);

/// Downloads MNIST's four files into `dir`, from the first of the mirrors (base URLs) that has each.
///
/// Files already there are kept if they are the real ones and fetched anew if not. A file appears whole and checked or
/// not at all. `progress` gets the file's name, the bytes done and the bytes in all, if the mirror says.
pub fn download(dir: &Path, mirrors: &[String], progress: Progress) -> Result<(), DownloadError> {
    download_files(&agent(SILENCE), &FILES, dir, mirrors, progress)
}

fn download_files(
    agent: &Agent,
    files: &[Source],
    dir: &Path,
    mirrors: &[String],
    progress: Progress,
) -> Result<(), DownloadError> {
    let store = |path: &Path, cause| DownloadError::Store { path: path.into(), cause };
    fs::create_dir_all(dir).map_err(|e| store(dir, e))?;
    for file in files {
        let path = dir.join(file.name);
        if File::open(&path).is_ok_and(|f| check(f, file).is_ok()) {
            continue;
        }
        let mut failures = Vec::new();
        let fetched = mirrors.iter().find_map(|mirror| {
            let url = format!("{}/{}", mirror.trim_end_matches('/'), file.name);
            let temporary = match temporary_beside(&path) {
                Ok(t) => t,
                Err(e) => return Some(Err(store(dir, e))),
            };
            match fetch(agent, &url, file, temporary.as_file(), progress) {
                Ok(()) => Some(Ok(temporary)),
                Err(Attempt::Local(e)) => Some(Err(store(dir, e))),
                Err(Attempt::Mirror(why)) => {
                    failures.push((url, why));
                    None
                }
            }
        });
        let temporary = fetched.ok_or_else(|| DownloadError::Mirrors { file: file.name.into(), failures })??;
        persist(temporary, &path).map_err(|e| store(&path, e))?;
    }
    Ok(())
}

fn agent(silence: Duration) -> Agent {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).build();
    Agent::config_builder()
        .tls_config(tls)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(silence))
        .timeout_per_read(Some(silence))
        .timeout_global(Some(WHOLE))
        .accept_encoding(AutoHeaderValue::None)
        .build()
        .into()
}

/// Who is to blame for a failed attempt: this machine, which ends the download, or the mirror.
enum Attempt {
    Local(io::Error),
    Mirror(Failure),
}

impl<E: Into<Failure>> From<E> for Attempt {
    fn from(e: E) -> Self {
        Attempt::Mirror(e.into())
    }
}

/// Fetches `url` into `out` and checks what arrived.
fn fetch(agent: &Agent, url: &str, file: &Source, mut out: &File, progress: Progress) -> Result<(), Attempt> {
    let response = agent.get(url).call().map_err(Box::new)?;
    let total = response.body().content_length();
    if total.is_some_and(|n| n > file.max_bytes) {
        return Err(Failure::TooLarge(file.max_bytes).into());
    }
    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let n = body.read(&mut chunk).map_err(|cause| Failure::Broken { done, cause })?;
        if n == 0 {
            break;
        }
        done += n as u64;
        if done > file.max_bytes {
            return Err(Failure::TooLarge(file.max_bytes).into());
        }
        out.write_all(&chunk[..n]).map_err(Attempt::Local)?;
        progress(file.name, done, total);
    }
    out.rewind().map_err(Attempt::Local)?;
    Ok(check(out, file).map_err(Failure::from)?)
}

/// Whether `packed` unpacks to the real file.
fn check(packed: impl Read, file: &Source) -> Result<(), Mismatch> {
    let mut unpacked = MultiGzDecoder::new(packed).take(file.unpacked_bytes + 1);
    let mut chunk = vec![0; CHUNK];
    let (mut hash, mut done) = (Sha256::new(), 0);
    loop {
        let n = unpacked.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        done += n as u64;
        hash.update(&chunk[..n]);
    }
    if done > file.unpacked_bytes {
        return Err(Mismatch::Longer(file.unpacked_bytes));
    }
    let got: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    match got == file.sha256 {
        true => Ok(()),
        false => Err(Mismatch::Checksum { got, wanted: file.sha256 }),
    }
}

#[cfg(test)]
mod tests;
