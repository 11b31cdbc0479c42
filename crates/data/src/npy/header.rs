//! The header of an .npy file: a Python dictionary of type, order and shape, as NumPy writes it.

use std::io::{self, Read};

use super::kind::Kind;
use super::{MAGIC, NpyError};

/// The longest header read; NumPy's are under 200 bytes.
const MAX_HEADER: u32 = 64 << 10;
/// The most dimensions NumPy has.
const MAX_DIMENSIONS: usize = 64;

/// What the header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

/// Reads the magic, the version and the header.
pub(super) fn read(reader: &mut impl Read) -> Result<Header, NpyError> {
    let mut start = [0; 8];
    reader.read_exact(&mut start)?;
    if !start.starts_with(MAGIC) {
        return Err(NpyError::Magic);
    }
    let mut length = [0; 4];
    match (start[6], start[7]) {
        (1, 0) => reader.read_exact(&mut length[..2])?,
        (2 | 3, 0) => reader.read_exact(&mut length)?,
        (major, minor) => return Err(NpyError::Version(major, minor)),
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(NpyError::HeaderLength(length));
    }
    let mut text = vec![0; length as usize];
    reader.read_exact(&mut text)?;
    Scanner { text: &text, at: 0 }.header()
}

/// The header of little-endian `f32` in C order, padded so that the data are aligned to 64 bytes.
pub(super) fn encode(shape: &[usize]) -> io::Result<Vec<u8>> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let dims = if shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    let before = MAGIC.len() + 4;
    let padded = (before + text.len() + 1).next_multiple_of(64) - before;
    text.push_str(&" ".repeat(padded - 1 - text.len()));
    text.push('\n');
    let length = u16::try_from(text.len()).map_err(|_| io::Error::other("too many dimensions for .npy"))?;
    Ok([MAGIC, &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat())
}

/// Reads the header's text from left to right.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn header(&mut self) -> Result<Header, NpyError> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.due(b'{')?;
        while !self.takes(b'}') {
            let key = self.string()?;
            self.due(b':')?;
            match key {
                "descr" if descr.is_none() => descr = Some(self.string()?),
                "fortran_order" if fortran.is_none() => fortran = Some(self.boolean()?),
                "shape" if shape.is_none() => shape = Some(self.shape()?),
                _ => return self.fail("a key that is unknown or there twice"),
            }
            if !self.takes(b',') {
                self.due(b'}')?;
                break;
            }
        }
        self.skip_space();
        if self.at < self.text.len() {
            return self.fail("text after the dictionary");
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Header { kind: Kind::parse(descr)?, fortran, shape }),
            _ => self.fail("descr, fortran_order or shape missing"),
        }
    }

    fn fail<T>(&self, reason: &'static str) -> Result<T, NpyError> {
        Err(NpyError::Header { reason, at: self.at })
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn due(&mut self, byte: u8) -> Result<(), NpyError> {
        match self.takes(byte) {
            true => Ok(()),
            false => self.fail("not the dictionary NumPy writes"),
        }
    }

    /// The bytes that satisfy `part`, from here on.
    fn run(&mut self, part: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let n = rest.iter().position(|&b| !part(b)).unwrap_or(rest.len());
        self.at += n;
        std::str::from_utf8(&rest[..n]).unwrap_or_default()
    }

    fn string(&mut self) -> Result<&'a str, NpyError> {
        let quote = if self.takes(b'"') { b'"' } else { b'\'' };
        if quote == b'\'' && !self.takes(b'\'') {
            return self.fail("a plain type or key was due (structured types are not read)");
        }
        let text = self.run(|b| b != quote && b != b'\\' && b.is_ascii());
        self.due(quote)?;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        self.skip_space();
        match self.run(|b| b.is_ascii_alphabetic()) {
            "True" => Ok(true),
            "False" => Ok(false),
            _ => self.fail("True or False was due"),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, NpyError> {
        let mut shape = Vec::new();
        self.due(b'(')?;
        while !self.takes(b')') {
            self.skip_space();
            match self.run(|b| b.is_ascii_digit()).parse() {
                Ok(d) if shape.len() < MAX_DIMENSIONS => shape.push(d),
                _ => return self.fail("a dimension was due"),
            }
            if !self.takes(b',') {
                self.due(b')')?;
                break;
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, npy};
    use super::*;

    fn header(text: &str) -> Result<Header, NpyError> {
        Scanner { text: text.as_bytes(), at: 0 }.header()
    }

    #[test]
    fn keys_in_any_order_and_quotes_of_either_kind() {
        let want = Header { kind: Kind::F64, fortran: true, shape: vec![3, 4] };
        assert_eq!(header("{'shape':(3,4),'fortran_order':True,\"descr\":'<f8'}").unwrap(), want);
        assert_eq!(
            header(" { 'descr' : \"<f8\" , 'fortran_order' : True , 'shape' : ( 3 , 4 , ) , } \n").unwrap(),
            want
        );
    }

    #[test]
    fn later_versions_have_longer_lengths() {
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }";
        for version in [1, 2, 3] {
            assert_eq!(read(&mut &file(version, text, &[])[..]).unwrap().shape, [1]);
        }
        let mut long = file(2, text, &[]);
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&mut &long[..]), Err(NpyError::HeaderLength(u32::MAX))));
        assert!(matches!(read(&mut &b"\x93NUMPY\x04\x00"[..]), Err(NpyError::Version(4, 0))));
        assert!(matches!(read(&mut &b"PK\x03\x04...."[..]), Err(NpyError::Magic)));
    }

    #[test]
    fn bad_headers_say_where() {
        for (text, at) in [
            ("", 0),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}", 10),
            ("{'descr': '<f4', 'descr': '<f4'}", 25),
            ("{'descr': '<f4', 'fortran_order': 1, 'shape': ()}", 34),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", 51),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", 71),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x", 56),
            ("{'descr': '<f4', 'fortran_order': False}", 40),
        ] {
            match header(text) {
                Err(NpyError::Header { at: got, .. }) => assert_eq!(got, at, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(
            header(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({})}}", "1,".repeat(99))).is_err()
        );
    }

    #[test]
    fn types_not_read_are_named() {
        let kind = |descr: &str| read(&mut &npy(descr, false, "(1,)", &[])[..]);
        assert!(matches!(kind(">f4"), Err(NpyError::BigEndian(d)) if d == ">f4"));
        for descr in ["<c8", "|O", "<U4", "<f2", ""] {
            assert!(matches!(kind(descr), Err(NpyError::Type(d)) if d == descr));
        }
    }
}
