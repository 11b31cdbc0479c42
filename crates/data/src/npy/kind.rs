//! Types of elements: their names in NumPy, their sizes, and how their bytes become numbers.

use super::NpyError;

/// A type of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Kind {
    /// The type of a description such as "<f4".
    pub(super) fn parse(descr: &str) -> Result<Self, NpyError> {
        Ok(match descr.strip_prefix(['<', '|', '=']).unwrap_or(descr) {
            "b1" => Kind::Bool,
            "u1" => Kind::U8,
            "i1" => Kind::I8,
            "u2" => Kind::U16,
            "i2" => Kind::I16,
            "u4" => Kind::U32,
            "i4" => Kind::I32,
            "u8" => Kind::U64,
            "i8" => Kind::I64,
            "f4" => Kind::F32,
            "f8" => Kind::F64,
            _ if descr.starts_with('>') => return Err(NpyError::BigEndian(descr.into())),
            _ => return Err(NpyError::Type(descr.into())),
        })
    }

    /// Bytes of one element.
    pub(super) fn size(self) -> usize {
        match self {
            Kind::Bool | Kind::U8 | Kind::I8 => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
        }
    }

    /// Appends to `values` what `keep` makes of each element, given its index and its number.
    pub(super) fn decode<T>(
        self,
        bytes: &[u8],
        values: &mut Vec<T>,
        keep: impl Fn(usize, f64) -> Result<T, NpyError>,
    ) -> Result<(), NpyError> {
        match self {
            Kind::Bool => each(bytes, |b: [u8; 1]| f64::from(u8::from(b != [0])), values, keep),
            Kind::U8 => each(bytes, |b| u8::from_le_bytes(b).into(), values, keep),
            Kind::I8 => each(bytes, |b| i8::from_le_bytes(b).into(), values, keep),
            Kind::U16 => each(bytes, |b| u16::from_le_bytes(b).into(), values, keep),
            Kind::I16 => each(bytes, |b| i16::from_le_bytes(b).into(), values, keep),
            Kind::U32 => each(bytes, |b| u32::from_le_bytes(b).into(), values, keep),
            Kind::I32 => each(bytes, |b| i32::from_le_bytes(b).into(), values, keep),
            Kind::U64 => each(bytes, |b| u64::from_le_bytes(b) as f64, values, keep),
            Kind::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64, values, keep),
            Kind::F32 => each(bytes, |b| f32::from_le_bytes(b).into(), values, keep),
            Kind::F64 => each(bytes, f64::from_le_bytes, values, keep),
        }
    }
}

fn each<const N: usize, T>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> f64,
    values: &mut Vec<T>,
    keep: impl Fn(usize, f64) -> Result<T, NpyError>,
) -> Result<(), NpyError> {
    for element in bytes.as_chunks().0 {
        values.push(keep(values.len(), number(*element))?);
    }
    Ok(())
}
