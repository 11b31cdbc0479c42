//! The archive `model.keras` of Keras 3 and late Keras 2: a zip file of the architecture in JSON and the weights in HDF5.
//!
//! Entries are found by their exact names and unpacked in memory, to a size that is told before the first byte of them.

use std::io::{Cursor, Read};

use serde_json::Value;
use zip::ZipArchive;
use zip::result::ZipError;

use super::check_size;
use crate::ImportError;

/// How every archive begins that is not empty.
const MAGIC: &[u8] = b"PK\x03\x04";
/// How often as large as the archive the weights may be. Keras stores them as they are; of sparse ones deflate leaves
/// a tenth.
const MAX_EXPANSION: u64 = 64;
/// What the weights of any archive may have.
const ALLOWANCE: u64 = 1 << 26;
/// Names of entries that an error shows.
const SHOWN: usize = 8;

const CONFIG: &str = "config.json";
const METADATA: &str = "metadata.json";
const WEIGHTS: &str = "model.weights.h5";

/// Whether a file is an archive.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// What an archive holds.
pub(super) struct Archive {
    /// The architecture.
    pub(super) config: Vec<u8>,
    /// The version of Keras that wrote it, if it tells.
    pub(super) version: Option<String>,
    /// The file of weights.
    pub(super) weights: Vec<u8>,
}

impl Archive {
    /// Unpacks an archive; the architecture may have `json` bytes, the weights `most`.
    pub(super) fn read(bytes: &[u8], json: u64, most: u64) -> Result<Self, ImportError> {
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged("list of files", e))?;
        let most = most.min((bytes.len() as u64).saturating_mul(MAX_EXPANSION).saturating_add(ALLOWANCE));
        let config = entry(&mut zip, CONFIG, json)?.ok_or_else(|| missing(&zip, CONFIG))?;
        let version = entry(&mut zip, METADATA, json)?.map(|m| version(&m)).transpose()?.flatten();
        let weights = entry(&mut zip, WEIGHTS, most)?.ok_or_else(|| missing(&zip, WEIGHTS))?;
        Ok(Self { config, version, weights })
    }
}

/// The bytes of an entry, `limit` at most; none if there is no such entry.
fn entry(zip: &mut ZipArchive<Cursor<&[u8]>>, name: &'static str, limit: u64) -> Result<Option<Vec<u8>>, ImportError> {
    let file = match zip.by_name(name) {
        Ok(file) => file,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(e) => return Err(damaged(name, e)),
    };
    let what = format!("{name} of the archive in bytes");
    check_size(&what, file.size(), limit)?;
    let mut bytes = Vec::new();
    // What an entry declares need not be what it unfolds to.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| damaged(name, ZipError::Io(e)))?;
    check_size(&what, bytes.len() as u64, limit)?;
    Ok(Some(bytes))
}

fn version(metadata: &[u8]) -> Result<Option<String>, ImportError> {
    let fail = |e| ImportError::Archive { part: METADATA, reason: format!("is not valid JSON: {e}") };
    let metadata: Value = serde_json::from_slice(metadata).map_err(fail)?;
    Ok(metadata.get("keras_version").and_then(Value::as_str).map(String::from))
}

fn missing(zip: &ZipArchive<Cursor<&[u8]>>, part: &'static str) -> ImportError {
    let mut names: Vec<String> = zip.file_names().filter_map(Result::ok).take(SHOWN).map(|n| shown(&n)).collect();
    if zip.len() > SHOWN {
        names.push("...".into());
    }
    let reason =
        format!("is not there (it holds {}): save the model with model.save(\"model.keras\")", names.join(", "));
    ImportError::Archive { part, reason }
}

/// The start of a name, in characters that a terminal may be given.
fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}

fn damaged(part: &'static str, e: ZipError) -> ImportError {
    ImportError::Archive { part, reason: format!("cannot be read ({e}): save or copy the model again") }
}
