//! IDX, the format of MNIST: a big-endian header of type and dimensions, then bytes. Plain or gzip.
//!
//! The header decides how much is read, never how much is allocated: memory grows with what arrives, so that
//! neither a lying header nor a gzip bomb takes more than the file is worth.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

use crate::samples::volume;
use crate::{MAX_VALUES, Samples, ShapeError};

/// First bytes of a gzip file.
pub(crate) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Type code of unsigned bytes.
const UNSIGNED_BYTE: u8 = 0x08;

/// What can be wrong with an IDX file.
#[derive(Debug, Error)]
pub enum IdxError {
    /// Reading or decompressing failed.
    #[error("cannot read IDX: {0}")]
    Io(#[from] io::Error),
    /// The file does not begin as IDX does.
    #[error("no IDX file: it begins with {0:02x?}, not with 00 00")]
    Magic([u8; 4]),
    /// Elements that are not bytes.
    #[error("IDX elements of type {0:#04x}: only unsigned bytes (0x08) are read")]
    Type(u8),
    /// A number of dimensions that fits neither images nor labels.
    #[error("IDX array of {got} dimensions where {wanted} are wanted")]
    Dimensions {
        /// Dimensions in the header.
        got: u8,
        /// What was wanted.
        wanted: &'static str,
    },
    /// A header that announces nothing, or more than is read from one file.
    #[error("IDX header announces shape {0:?}: empty, or more than {MAX_VALUES} values")]
    Size(Vec<usize>),
    /// Less data than announced.
    #[error("IDX file ends after {got} of {wanted} values")]
    Truncated {
        /// Values found.
        got: usize,
        /// Values announced.
        wanted: usize,
    },
    /// More data than announced.
    #[error("IDX file goes on after its {0} values")]
    Trailing(usize),
    /// Sizes that do not agree.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// Reads images: `[n, h, w]` as samples of `[h, w, 1]`, `[n, h, w, c]` as samples of `[h, w, c]`.
pub fn images(reader: impl Read) -> Result<Samples, IdxError> {
    let (shape, bytes) = read(reader, 3..=4, "3 or 4")?;
    Ok(Samples::from_batch(&shape, bytes.into_iter().map(f32::from).collect(), None)?)
}

/// Reads labels, one per sample.
pub fn labels(reader: impl Read) -> Result<Vec<u32>, IdxError> {
    let (_, bytes) = read(reader, 1..=1, "1")?;
    Ok(bytes.into_iter().map(u32::from).collect())
}

fn read(
    reader: impl Read,
    dimensions: std::ops::RangeInclusive<u8>,
    wanted: &'static str,
) -> Result<(Vec<usize>, Vec<u8>), IdxError> {
    let mut reader = inflated(reader)?;
    let mut magic = [0; 4];
    reader.read_exact(&mut magic)?;
    let [0, 0, kind, rank] = magic else { return Err(IdxError::Magic(magic)) };
    if kind != UNSIGNED_BYTE {
        return Err(IdxError::Type(kind));
    }
    if !dimensions.contains(&rank) {
        return Err(IdxError::Dimensions { got: rank, wanted });
    }
    let mut shape = Vec::with_capacity(rank.into());
    for _ in 0..rank {
        let mut d = [0; 4];
        reader.read_exact(&mut d)?;
        shape.push(usize::try_from(u32::from_be_bytes(d)).unwrap_or(usize::MAX));
    }
    let Some(n) = volume(&shape).filter(|&n| n <= MAX_VALUES) else { return Err(IdxError::Size(shape)) };
    let mut data = Vec::new();
    reader.by_ref().take(n as u64).read_to_end(&mut data)?;
    if data.len() < n {
        return Err(IdxError::Truncated { got: data.len(), wanted: n });
    }
    if reader.read(&mut [0])? > 0 {
        return Err(IdxError::Trailing(n));
    }
    Ok((shape, data))
}

/// `reader` itself, or what it unpacks to if it is gzip.
fn inflated<'a>(mut reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    reader.by_ref().take(2).read_to_end(&mut head)?;
    let gzip = head == GZIP_MAGIC;
    let whole = io::Cursor::new(head).chain(reader);
    Ok(if gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut f = vec![0, 0, UNSIGNED_BYTE, dims.len() as u8];
        f.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
        f.extend(data);
        f
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut e = GzEncoder::new(Vec::new(), Compression::fast());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    }

    #[test]
    fn images_and_labels_plain_and_gzip() {
        let grey = idx(&[2, 1, 3], &[0, 1, 2, 253, 254, 255]);
        for f in [grey.clone(), gzip(&grey)] {
            let s = images(&f[..]).unwrap();
            assert_eq!((s.shape, s.data), (vec![1, 3, 1], vec![0., 1., 2., 253., 254., 255.]));
        }
        assert_eq!(images(&idx(&[1, 1, 2, 3], &[9; 6])[..]).unwrap().shape, [1, 2, 3]);
        assert_eq!(labels(&gzip(&idx(&[3], &[7, 0, 9]))[..]).unwrap(), [7, 0, 9]);
    }

    #[test]
    fn hostile_headers_are_refused() {
        let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[]);
        assert!(matches!(images(&huge[..]), Err(IdxError::Size(_))));
        assert!(matches!(images(&idx(&[1 << 20, 1 << 5, 1 << 4], &[])[..]), Err(IdxError::Size(_))));
        assert!(matches!(images(&idx(&[0, 28, 28], &[])[..]), Err(IdxError::Size(_))));
        let lies = idx(&[200_000, 28, 28], &[1, 2]);
        assert!(matches!(images(&lies[..]), Err(IdxError::Truncated { got: 2, wanted: 156_800_000 })));
        assert!(matches!(images(&idx(&[1, 1, 1], &[1, 2])[..]), Err(IdxError::Trailing(1))));
        assert!(matches!(images(&b"\x89PNG...."[..]), Err(IdxError::Magic(_))));
        assert!(matches!(images(&[0, 0, 0x0d, 3][..]), Err(IdxError::Type(0x0d))));
        assert!(matches!(images(&idx(&[1], &[1])[..]), Err(IdxError::Dimensions { got: 1, .. })));
        assert!(matches!(labels(&idx(&[1, 1, 1], &[1])[..]), Err(IdxError::Dimensions { got: 3, .. })));
        assert!(matches!(images(&[][..]), Err(IdxError::Io(_))));
    }

    #[test]
    fn a_gzip_bomb_is_read_no_further_than_its_header_says() {
        let mut bomb = idx(&[1, 2, 2], &[]);
        bomb.resize(64 << 20, 0);
        assert!(matches!(images(&gzip(&bomb)[..]), Err(IdxError::Trailing(4))));
        let mut cut = gzip(&idx(&[1, 8, 8], &[3; 64]));
        cut.truncate(cut.len() - 6);
        assert!(matches!(images(&cut[..]), Err(IdxError::Io(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..64), valid in any::<bool>()) {
            if valid && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[0, 0, UNSIGNED_BYTE, 3]);
            }
            let _ = images(&bytes[..]);
            let _ = labels(&gzip(&bytes)[..]);
        }
    }
}
