//! The HDF5 container: attributes that hold text, and arrays of numbers.

use std::collections::HashMap;

use hdf5_pure::{AttrValue, DType, File};
use trefoil_nn::graph::Array;

use super::meter::Metered;
use crate::ImportError;

/// Deflate, the only compression of note, shrinks no more than this; a file that declares more holds no such data.
const MAX_EXPANSION: u64 = 1032;

/// An open file.
pub(super) struct H5 {
    file: File,
    bytes: u64,
}

impl H5 {
    /// Opens a file held in memory.
    pub(super) fn open(bytes: Vec<u8>) -> Result<Self, ImportError> {
        let size = bytes.len() as u64;
        let file = File::from_source(Metered::new(bytes)).map_err(|e| at("its start", e))?;
        Ok(Self { file, bytes: size })
    }

    /// Whether `path` is a group.
    pub(super) fn has_group(&self, path: &str) -> bool {
        self.file.group(path).is_ok()
    }

    /// The attribute `name` of a group as one text (its chunks joined), if it is there.
    pub(super) fn text(&self, group: &str, name: &str) -> Result<Option<String>, ImportError> {
        Ok(self.texts(group, name)?.map(|v| v.concat()))
    }

    /// The attribute `name` of a group as a list of texts, if it is there.
    ///
    /// HDF5 limits an attribute to 64 kB: Keras splits longer lists into `name0`, `name1`, ...
    pub(super) fn texts(&self, group: &str, name: &str) -> Result<Option<Vec<String>>, ImportError> {
        let path = if group.is_empty() { "/" } else { group };
        let group = if group.is_empty() { Ok(self.file.root()) } else { self.file.group(group) };
        let attrs = group.and_then(|g| g.attrs()).map_err(|e| at(path, e))?;
        if let Some(value) = attrs.get(name) {
            return Ok(strings(value));
        }
        let mut all = None;
        for value in chunks(&attrs, name) {
            all.get_or_insert_with(Vec::new).extend(strings(value).unwrap_or_default());
        }
        Ok(all)
    }

    /// The dataset at `path`, which must have `shape`; or what is wrong with it.
    pub(super) fn array(&self, path: &str, shape: &[usize]) -> Result<Array, String> {
        let damaged = |e: hdf5_pure::Error| format!("cannot be read at {path}: {e}");
        let dataset = self.file.dataset(path).map_err(damaged)?;
        let declared = dataset.shape().map_err(damaged)?;
        if !declared.iter().copied().eq(shape.iter().map(|&d| d as u64)) {
            return Err(format!("has shape {declared:?}, must have {shape:?}"));
        }
        let size = match dataset.dtype().map_err(damaged)? {
            DType::F32 => 4,
            DType::F64 => 8,
            other => return Err(format!("is stored as {other}, only 32 and 64 bit floats are read")),
        };
        let bytes = declared.iter().try_fold(size, |n: u64, &d| n.checked_mul(d));
        if bytes.is_none_or(|n| n > self.bytes.saturating_mul(MAX_EXPANSION)) {
            return Err(format!("has shape {declared:?}, more than the file can hold"));
        }
        let data = dataset.read_f32().map_err(damaged)?;
        if let Some(i) = data.iter().position(|v| !v.is_finite()) {
            return Err(format!("holds {} at position {i}", data[i]));
        }
        let held = data.len();
        Array::new(shape.to_vec(), data).ok_or_else(|| format!("has shape {shape:?} but holds {held} values"))
    }
}

fn chunks<'a>(attrs: &'a HashMap<String, AttrValue>, name: &'a str) -> impl Iterator<Item = &'a AttrValue> {
    (0..).map_while(move |i| attrs.get(&format!("{name}{i}")))
}

/// An attribute's texts. Keras writes an empty list as an empty array of floats.
fn strings(value: &AttrValue) -> Option<Vec<String>> {
    match (value.as_str(), value.as_strings(), value) {
        (Some(s), _, _) => Some(vec![s.into()]),
        (_, Some(v), _) => Some(v.to_vec()),
        (_, _, AttrValue::F64Array(v)) if v.is_empty() => Some(Vec::new()),
        (_, _, AttrValue::F32Array(v)) if v.is_empty() => Some(Vec::new()),
        _ => None,
    }
}

fn at(object: &str, source: hdf5_pure::Error) -> ImportError {
    ImportError::Hdf5 { object: object.into(), source: Box::new(source) }
}
