//! Opening files to read, sniffing them, and writing files that appear whole or not at all.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::DataError;

/// `path`, opened to read.
pub(crate) fn open(path: &Path) -> Result<BufReader<File>, DataError> {
    File::open(path).map(BufReader::new).map_err(DataError::at(path))
}

/// The first bytes of `reader`, at most `N`; the reader is back at its start.
pub(crate) fn sniff<const N: usize>(reader: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(N);
    reader.by_ref().take(N as u64).read_to_end(&mut head)?;
    reader.rewind()?;
    Ok(head)
}

/// A temporary file in the folder that will hold `path`, so that it can be renamed to it.
pub(crate) fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    NamedTempFile::new_in(folder)
}

/// Writes `path` whole or not at all: a temporary file, flushed to the disk, then renamed.
pub(crate) fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = temporary_beside(path)?;
    let mut out = BufWriter::new(file.as_file_mut());
    fill(&mut out)?;
    out.flush()?;
    drop(out);
    persist(file, path)
}

/// Gives a finished temporary file its name.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|e| e.error)
}
