//! NumPy arrays (.npy) and archives of them (.npz): read as `f32` or labels, written as `f32`.
//!
//! All integer, boolean and floating types up to 64 bits, in C or Fortran order, little endian. NaN and infinite
//! values are refused: no fixed-point number stands for them.

mod header;
mod kind;
mod npz;

use std::io::{self, Read, Write};
use std::path::Path;

use thiserror::Error;

use crate::MAX_VALUES;
use crate::file::write_atomic;
use crate::samples::volume;
use header::Header;
pub(crate) use npz::Npz;

/// First bytes of an .npy file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes read at a time: a whole number of elements of any type.
const CHUNK: usize = 64 << 10;

/// What can be wrong with an .npy or .npz file.
#[derive(Debug, Error)]
pub enum NpyError {
    /// Reading failed.
    #[error("cannot read NumPy array: {0}")]
    Io(#[from] io::Error),
    /// The file does not begin as .npy does.
    #[error("no NumPy array: it does not begin with \\x93NUMPY")]
    Magic,
    /// A version of the format not known.
    #[error("NumPy format version {0}.{1}: 1.0, 2.0 and 3.0 are read")]
    Version(u8, u8),
    /// A header that is too long.
    #[error("NumPy header of {0} bytes")]
    HeaderLength(u32),
    /// A header that is not as NumPy writes it.
    #[error("NumPy header: {reason} at byte {at}")]
    Header {
        /// What was due.
        reason: &'static str,
        /// Where in the header's text.
        at: usize,
    },
    /// Big-endian elements.
    #[error("elements of type {0:?} are big endian: save the array as little endian (a.astype('<f4'))")]
    BigEndian(String),
    /// Elements of a type not read here.
    #[error("elements of type {0:?}: booleans, integers and floats of 4 or 8 bytes are read")]
    Type(String),
    /// An array of nothing, or of more than is read from one file.
    #[error("array of shape {0:?}: empty, or more than {MAX_VALUES} values")]
    Size(Vec<usize>),
    /// Less data than announced.
    #[error("array ends after {got} of {wanted} bytes")]
    Truncated {
        /// Bytes found.
        got: usize,
        /// Bytes announced.
        wanted: usize,
    },
    /// More data than announced.
    #[error("array goes on after its {0} bytes")]
    Trailing(usize),
    /// NaN or infinity, or a number too large for `f32`.
    #[error("value {value} at element {index} is no finite 32-bit number")]
    NotFinite {
        /// Position in the file.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A label that is no class number.
    #[error("label {value} at element {index} is no class number")]
    NotALabel {
        /// Position in the file.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Labels in more than one column.
    #[error("labels of shape {0:?}: one class number per sample is wanted")]
    LabelShape(Vec<usize>),
    /// Shape and data to be written do not agree.
    #[error("{values} values to write as shape {shape:?}")]
    Write {
        /// Values given.
        values: usize,
        /// Shape given.
        shape: Vec<usize>,
    },
    /// A bad archive.
    #[error("cannot read NumPy archive: {0}")]
    Archive(#[from] zip::result::ZipError),
}

/// Reads an array: its shape and values, row-major.
pub fn read(reader: impl Read) -> Result<(Vec<usize>, Vec<f32>), NpyError> {
    read_as(reader, |index, value| {
        let x = value as f32;
        if x.is_finite() { Ok(x) } else { Err(NpyError::NotFinite { index, value }) }
    })
}

/// Reads class numbers, of shape `[n]` or `[n, 1]`.
pub fn read_labels(reader: impl Read) -> Result<Vec<u32>, NpyError> {
    let (shape, labels) = read_as(reader, |index, value| {
        let label = value as u32;
        if f64::from(label) == value { Ok(label) } else { Err(NpyError::NotALabel { index, value }) }
    })?;
    match shape[..] {
        [_] | [_, 1] => Ok(labels),
        _ => Err(NpyError::LabelShape(shape)),
    }
}

/// Writes an array as little-endian `f32`; the file appears whole or not at all.
pub fn write(path: &Path, shape: &[usize], data: &[f32]) -> Result<(), crate::DataError> {
    let at = crate::DataError::at(path);
    if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(data.len()) {
        return Err(at(NpyError::Write { values: data.len(), shape: shape.to_vec() }));
    }
    let fill = |out: &mut dyn Write| {
        out.write_all(&header::encode(shape)?)?;
        data.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
    };
    write_atomic(path, fill).map_err(crate::DataError::at(path))
}

fn read_as<T: Copy>(
    mut reader: impl Read,
    keep: impl Fn(usize, f64) -> Result<T, NpyError>,
) -> Result<(Vec<usize>, Vec<T>), NpyError> {
    let Header { kind, fortran, shape } = header::read(&mut reader)?;
    let Some(n) = volume(&shape).filter(|&n| n <= MAX_VALUES) else { return Err(NpyError::Size(shape)) };
    let wanted = n * kind.size();
    let mut values = Vec::new();
    let mut bytes = Vec::with_capacity(CHUNK);
    while values.len() < n {
        let read = values.len() * kind.size();
        bytes.clear();
        reader.by_ref().take(CHUNK.min(wanted - read) as u64).read_to_end(&mut bytes)?;
        if bytes.len() < CHUNK.min(wanted - read) {
            return Err(NpyError::Truncated { got: read + bytes.len(), wanted });
        }
        kind.decode(&bytes, &mut values, &keep)?;
    }
    if reader.read(&mut [0])? > 0 {
        return Err(NpyError::Trailing(wanted));
    }
    let values = if fortran { row_major(&shape, &values) } else { values };
    Ok((shape, values))
}

/// The values of a column-major array in row-major order.
fn row_major<T: Copy>(shape: &[usize], values: &[T]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut size = 1;
    for d in shape {
        strides.push(size);
        size *= d;
    }
    let mut index = vec![0; shape.len()];
    let mut from = 0;
    let mut out = Vec::with_capacity(values.len());
    while out.len() < values.len() {
        out.push(values[from]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            from += strides[d];
            if index[d] < shape[d] {
                break;
            }
            from -= strides[d] * shape[d];
            index[d] = 0;
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::npz::tests::npz;
    use proptest::prelude::*;

    use super::*;

    /// An .npy file as NumPy writes it.
    pub(crate) fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        file(1, &format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"), data)
    }

    pub(crate) fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut f = [MAGIC, &[version, 0]].concat();
        match version {
            1 => f.extend((header.len() as u16).to_le_bytes()),
            _ => f.extend((header.len() as u32).to_le_bytes()),
        }
        [&f[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn every_type_is_read() {
        for (descr, data, want) in [
            ("|b1", vec![0, 7], [0.0, 1.0]),
            ("|u1", vec![0, 255], [0.0, 255.0]),
            ("|i1", vec![0x80, 1], [-128.0, 1.0]),
            ("<u2", vec![0, 0, 0xff, 0xff], [0.0, 65535.0]),
            ("<i2", vec![0xff, 0xff, 1, 0], [-1.0, 1.0]),
            ("<u4", [3u32.to_le_bytes(), 1u32.to_le_bytes()].concat(), [3.0, 1.0]),
            ("<i4", [(-3i32).to_le_bytes(), 1i32.to_le_bytes()].concat(), [-3.0, 1.0]),
            ("<u8", [3u64.to_le_bytes(), 1u64.to_le_bytes()].concat(), [3.0, 1.0]),
            ("<i8", [(-3i64).to_le_bytes(), 1i64.to_le_bytes()].concat(), [-3.0, 1.0]),
            ("<f4", [(-0.5f32).to_le_bytes(), 1f32.to_le_bytes()].concat(), [-0.5, 1.0]),
            ("<f8", [0.25f64.to_le_bytes(), 1f64.to_le_bytes()].concat(), [0.25, 1.0]),
        ] {
            let (shape, values) = read(&npy(descr, false, "(2,)", &data)[..]).unwrap();
            assert_eq!((shape, values), (vec![2], want.to_vec()), "{descr}");
        }
        let scalar = read(&npy("|u1", false, "()", &[5])[..]).unwrap();
        assert_eq!(scalar, (vec![], vec![5.0]));
    }

    #[test]
    fn arrays_longer_than_a_chunk_are_whole() {
        let values: Vec<f32> = (0..40_000).map(|x| x as f32).collect();
        let data: Vec<u8> = values.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
        assert_eq!(read(&npy("<f8", false, "(40000,)", &data)[..]).unwrap().1, values);
        let cut = read(&npy("<f8", false, "(40000,)", &data[..319_999])[..]);
        assert!(matches!(cut, Err(NpyError::Truncated { got: 319_999, wanted: 320_000 })));
        let mut bad = data.clone();
        bad[8 * 39_999..].copy_from_slice(&f64::NAN.to_le_bytes());
        let last = read(&npy("<f8", false, "(40000,)", &bad)[..]);
        assert!(matches!(last, Err(NpyError::NotFinite { index: 39_999, .. })));
    }

    #[test]
    fn fortran_order_is_turned() {
        // a[i][j][k] = 100 i + 10 j + k, first index fastest.
        let mut data = Vec::new();
        for (k, j, i) in (0..4).flat_map(|k| (0..3).flat_map(move |j| (0..2).map(move |i| (k, j, i)))) {
            data.push(100 * i + 10 * j + k);
        }
        let (shape, values) = read(&npy("|u1", true, "(2, 3, 4)", &data)[..]).unwrap();
        assert_eq!(shape, [2, 3, 4]);
        let want: Vec<f32> = (0..24).map(|n| (100 * (n / 12) + 10 * (n / 4 % 3) + n % 4) as f32).collect();
        assert_eq!(values, want);
    }

    #[test]
    fn values_no_fixed_point_number_stands_for_are_refused() {
        let nan = [1f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat();
        assert!(matches!(read(&npy("<f4", false, "(2,)", &nan)[..]), Err(NpyError::NotFinite { index: 1, .. })));
        let huge = 1e300f64.to_le_bytes();
        assert!(matches!(read(&npy("<f8", false, "(1,)", &huge)[..]), Err(NpyError::NotFinite { index: 0, .. })));
    }

    #[test]
    fn labels_are_whole_numbers_in_one_column() {
        let four = [3u8, 0, 9, 1];
        assert_eq!(read_labels(&npy("|u1", false, "(4, 1)", &four)[..]).unwrap(), [3, 0, 9, 1]);
        assert!(matches!(read_labels(&npy("|u1", false, "(2, 2)", &four)[..]), Err(NpyError::LabelShape(_))));
        for bad in [0.5, -1.0, f64::NAN, 4294967296.0] {
            let f = npy("<f8", false, "(1,)", &bad.to_le_bytes());
            assert!(matches!(read_labels(&f[..]), Err(NpyError::NotALabel { index: 0, .. })), "{bad}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(matches!(
            read(&npy("<f4", false, "(3, 1)", &[0; 8])[..]),
            Err(NpyError::Truncated { got: 8, wanted: 12 })
        ));
        assert!(matches!(read(&npy("|u1", false, "(1,)", &[0; 2])[..]), Err(NpyError::Trailing(1))));
        for shape in ["(0, 3)", "(268435457,)", "(4294967296, 4294967296, 4294967296)"] {
            assert!(matches!(read(&npy("|u1", false, shape, &[])[..]), Err(NpyError::Size(_))), "{shape}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.npy");
        for (shape, data) in
            [(vec![2, 3], vec![1.5, -2.0, 0.0, 4.0, 5.0, 6.0]), (vec![], vec![7.0]), (vec![1], vec![8.0])]
        {
            write(&path, &shape, &data).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!((bytes.len() - 4 * data.len()) % 64, 0, "data are aligned");
            assert_eq!(read(&bytes[..]).unwrap(), (shape, data));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
        let e = write(&path, &[2, 2], &[0.0; 3]).unwrap_err().to_string();
        assert!(e.contains("out.npy: 3 values") && e.contains("[2, 2]"), "{e}");
        assert!(write(&dir.path().join("missing/out.npy"), &[1], &[0.0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(header in "[{}()', :0-9a-zTF<|]{0,60}", data in prop::collection::vec(any::<u8>(), 0..32)) {
            let _ = read(&file(1, &header, &data)[..]);
            let _ = read(&data[..]);
        }

        #[test]
        fn any_shape_comes_back(shape in prop::collection::vec(1usize..5, 0..5), seed in any::<u8>()) {
            let n: usize = shape.iter().product();
            let data: Vec<u8> = (0..n).map(|i| seed.wrapping_add(i as u8)).collect();
            let list: String = shape.iter().map(|d| format!("{d},")).collect();
            let (got, values) = read(&npy("|u1", false, &format!("({list})"), &data)[..]).unwrap();
            prop_assert_eq!(got, shape);
            prop_assert_eq!(values, data.iter().map(|&x| f32::from(x)).collect::<Vec<_>>());
        }
    }
}
