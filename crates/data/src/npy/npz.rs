//! Archives of arrays (.npz): a zip file of .npy files, stored or deflated.

use std::io::{Read, Seek};

use zip::ZipArchive;

use super::{NpyError, read, read_labels};
use crate::Problem;

/// An open archive.
pub(crate) struct Npz<R> {
    archive: ZipArchive<R>,
}

impl<R: Read + Seek> Npz<R> {
    /// Opens an archive: reads its list of files.
    pub(crate) fn open(reader: R) -> Result<Self, NpyError> {
        Ok(Self { archive: ZipArchive::new(reader)? })
    }

    /// Names of the arrays, as NumPy shows them.
    pub(crate) fn names(&self) -> Vec<String> {
        let files = self.archive.file_names().filter_map(Result::ok);
        files.filter_map(|f| f.strip_suffix(".npy").map(String::from)).collect()
    }

    /// Shape and values of the first of these arrays that is there.
    pub(crate) fn values(&mut self, names: &[&str]) -> Result<(Vec<usize>, Vec<f32>), Problem> {
        let name = self.first(names)?;
        Ok(read(self.archive.by_name(&name).map_err(NpyError::from)?)?)
    }

    /// Class numbers in the first of these arrays that is there.
    pub(crate) fn labels(&mut self, names: &[&str]) -> Result<Vec<u32>, Problem> {
        let name = self.first(names)?;
        Ok(read_labels(self.archive.by_name(&name).map_err(NpyError::from)?)?)
    }

    fn first(&self, names: &[&str]) -> Result<String, Problem> {
        let found = self.names();
        match names.iter().find(|n| found.iter().any(|f| f == *n)) {
            Some(name) => Ok(format!("{name}.npy")),
            None => Err(Problem::NoArray { wanted: names.iter().map(|n| n.to_string()).collect(), found }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Cursor, Write};

    use zip::CompressionMethod;
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::super::tests::npy;
    use super::*;

    /// An archive of these arrays, as `numpy.savez_compressed` writes it.
    pub(crate) fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for (name, bytes) in arrays {
            zip.start_file(format!("{name}.npy"), options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn arrays_are_found_by_name() {
        let bytes = npz(&[("x", npy("|u1", false, "(2, 1)", &[5, 6])), ("y", npy("|u1", false, "(2,)", &[1, 0]))]);
        let mut z = Npz::open(Cursor::new(bytes)).unwrap();
        assert_eq!(z.names(), ["x", "y"]);
        assert_eq!(z.values(&["x_test", "x"]).unwrap(), (vec![2, 1], vec![5.0, 6.0]));
        assert_eq!(z.labels(&["y"]).unwrap(), [1, 0]);
        let e = z.values(&["a", "b"]).unwrap_err().to_string();
        assert_eq!(e, "no array named a or b (it holds x, y)");
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        let mut bomb = npy("|u1", false, "(4,)", &[]);
        bomb.resize(32 << 20, 0);
        let bytes = npz(&[("x", bomb)]);
        assert!(bytes.len() < 1 << 20);
        let e = Npz::open(Cursor::new(bytes)).unwrap().values(&["x"]).unwrap_err();
        assert!(matches!(e, Problem::Npy(NpyError::Trailing(4))));
        assert!(matches!(Npz::open(Cursor::new(b"PK\x03\x04 cut".to_vec())), Err(NpyError::Archive(_))));
    }
}
