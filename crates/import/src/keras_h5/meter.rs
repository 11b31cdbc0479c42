//! A file in memory that counts what is read of it.
//!
//! Structures in a HDF5 file may point at each other freely: a list of a thousand texts may name one large text a
//! thousand times, and a few kB then unfold to gigabytes. An honest file is read about once.

use std::sync::atomic::{AtomicU64, Ordering};

use hdf5_pure::{FormatError, Source};

/// How often a file may be read in full.
const READS: u64 = 4;
/// What may be read besides, for small files whose directories are looked up often.
const ALLOWANCE: u64 = 1 << 26;

/// Bytes, of which a bounded number can be read.
pub(super) struct Metered {
    bytes: Vec<u8>,
    left: AtomicU64,
}

impl Metered {
    /// The file `bytes`, unread.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let left = AtomicU64::new(READS * bytes.len() as u64 + ALLOWANCE);
        Self { bytes, left }
    }
}

impl Source for Metered {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        let spend = |left: u64| left.checked_sub(buf.len() as u64);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_err() {
            return Err(FormatError::Source("it unfolds to many times its size".into()));
        }
        let held = usize::try_from(offset).ok().and_then(|start| {
            let end = start.checked_add(buf.len())?;
            self.bytes.get(start..end)
        });
        let held = held.ok_or(FormatError::UnexpectedEof { expected: buf.len(), available: self.bytes.len() })?;
        buf.copy_from_slice(held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_has_an_end() {
        let file = Metered::new(vec![7; 1 << 20]);
        let mut buf = vec![0; 1 << 20];
        assert!(file.read_at(1, &mut buf).is_err());
        assert!(file.read_at(u64::MAX, &mut buf).is_err());
        let reads = (0..1000).take_while(|_| file.read_at(0, &mut buf).is_ok()).count();
        assert_eq!(reads, 66);
        assert!(buf.iter().all(|&b| b == 7));
    }
}
