//! Tables of numbers (.csv): one sample per row, with or without a header and a column of labels.

use std::io::{self, Read};

use ::csv::{ByteRecord, ReaderBuilder};
use thiserror::Error;

use crate::{MAX_VALUES, Samples, ShapeError};

/// The most bytes read.
const MAX_BYTES: u64 = 16 * MAX_VALUES as u64;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// By its name in the header.
    Name(String),
    /// By its place, from 0.
    Index(usize),
}

/// How to read a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether the first row is a header. Not said: it is one if it holds the label column's name, or words and no number.
    pub header: Option<bool>,
    /// The column of class numbers.
    pub label: Option<Column>,
}

/// What can be wrong with a table.
#[derive(Debug, Error)]
pub enum CsvError {
    /// Reading failed.
    #[error("cannot read CSV: {0}")]
    Io(#[from] io::Error),
    /// Not CSV.
    #[error("cannot read CSV: {0}")]
    Syntax(#[from] ::csv::Error),
    /// A cell that is no finite number.
    #[error("row {row}, column {column}: {text:?} is no finite number")]
    NotANumber {
        /// Line in the file, from 1.
        row: u64,
        /// Column, from 1.
        column: usize,
        /// What is there, cut to some characters.
        text: String,
    },
    /// A label that is no class number.
    #[error("row {row}, column {column}: {text:?} is no class number")]
    NotALabel {
        /// Line in the file, from 1.
        row: u64,
        /// Column, from 1.
        column: usize,
        /// What is there, cut to some characters.
        text: String,
    },
    /// A row of another length than the first.
    #[error("row {row} has {got} columns where the first has {wanted}")]
    Ragged {
        /// Line in the file, from 1.
        row: u64,
        /// Its columns.
        got: usize,
        /// Columns of the first row.
        wanted: usize,
    },
    /// A line with nothing on it: in a column of its own a missing value, and rows behind it would move up.
    #[error("row {0} is empty: a value is missing there, or the line is to be removed")]
    Blank(u64),
    /// The label column is not there.
    #[error("no column {0} for the labels")]
    NoColumn(String),
    /// A table without rows, or without a column of values.
    #[error("no values in the table")]
    Empty,
    /// More than is read from one file.
    #[error("more than {MAX_VALUES} values or {MAX_BYTES} bytes")]
    TooLarge,
    /// Sizes that do not agree.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// Reads a table: samples of shape `[columns]`, the label column left out.
pub fn read(reader: impl Read, options: &Options) -> Result<Samples, CsvError> {
    let lines = Lines::new(reader.take(MAX_BYTES));
    let mut rows = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(lines);
    let mut record = ByteRecord::new();
    if !rows.read_byte_record(&mut record)? {
        return Err(CsvError::Empty);
    }
    strip_byte_order_mark(&mut record);
    record.trim();
    let width = record.len();
    let header = options.header.unwrap_or_else(|| looks_like_header(&record, options.label.as_ref()));
    let label = label_column(&record, header, options.label.as_ref())?;
    let mut table = Table { width, label, data: Vec::new(), labels: Vec::new() };
    if !header {
        table.push(&record)?;
    }
    while rows.read_byte_record(&mut record)? {
        record.trim();
        table.push(&record)?;
    }
    if rows.get_ref().inner.limit() == 0 {
        return Err(CsvError::TooLarge);
    }
    if let Some(line) = rows.get_ref().between {
        return Err(CsvError::Blank(line));
    }
    if table.data.is_empty() {
        return Err(CsvError::Empty);
    }
    let values = width - usize::from(label.is_some());
    Ok(Samples::new(vec![values], table.data, label.map(|_| table.labels))?)
}

/// A text on its way, and the first empty line before the end of what it holds: the reader of CSV leaves those out.
struct Lines<R> {
    inner: R,
    /// The line that comes next, from 1.
    line: u64,
    /// Whether nothing of it was read yet.
    fresh: bool,
    /// Whether the byte before was a carriage return: with a line feed behind it that is one end.
    returned: bool,
    empty: Option<u64>,
    /// An empty line that others follow.
    between: Option<u64>,
}

impl<R> Lines<R> {
    fn new(inner: R) -> Self {
        Self { inner, line: 1, fresh: true, returned: false, empty: None, between: None }
    }

    fn see(&mut self, byte: u8) {
        let goes_on = byte == b'\n' && self.returned;
        self.returned = byte == b'\r';
        if goes_on {
            return;
        }
        if byte != b'\n' && byte != b'\r' {
            self.fresh = false;
            self.between = self.between.or(self.empty);
            return;
        }
        if self.fresh {
            self.empty = self.empty.or(Some(self.line));
        }
        (self.line, self.fresh) = (self.line + 1, true);
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        buffer.iter().take(n).for_each(|byte| self.see(*byte));
        Ok(n)
    }
}

struct Table {
    width: usize,
    label: Option<usize>,
    data: Vec<f32>,
    labels: Vec<u32>,
}

impl Table {
    fn push(&mut self, record: &ByteRecord) -> Result<(), CsvError> {
        let row = record.position().map_or(0, ::csv::Position::line);
        if record.len() != self.width {
            return Err(CsvError::Ragged { row, got: record.len(), wanted: self.width });
        }
        if self.data.len() + self.width > MAX_VALUES {
            return Err(CsvError::TooLarge);
        }
        for (c, cell) in record.iter().enumerate() {
            let text = || String::from_utf8_lossy(cell).chars().take(40).collect();
            if self.label == Some(c) {
                let error = || CsvError::NotALabel { row, column: c + 1, text: text() };
                self.labels.push(class(cell).ok_or_else(error)?);
            } else {
                let error = || CsvError::NotANumber { row, column: c + 1, text: text() };
                self.data.push(number(cell).ok_or_else(error)?);
            }
        }
        Ok(())
    }
}

fn number(cell: &[u8]) -> Option<f32> {
    std::str::from_utf8(cell).ok()?.parse().ok().filter(|x: &f32| x.is_finite())
}

/// A class number, also if it is written as a float ("3.0").
fn class(cell: &[u8]) -> Option<u32> {
    let x: f64 = std::str::from_utf8(cell).ok()?.parse().ok()?;
    Some(x as u32).filter(|&label| f64::from(label) == x)
}

fn looks_like_header(first: &ByteRecord, label: Option<&Column>) -> bool {
    let named = matches!(label, Some(Column::Name(name)) if first.iter().any(|c| same_name(c, name)));
    // "nan" and "inf" are values, though refused; where nothing stands no column is named.
    let word = |c: &[u8]| std::str::from_utf8(c).map_or(true, |c| c.parse::<f32>().is_err());
    named || (first.iter().all(word) && first.iter().any(|c| !c.is_empty()))
}

fn label_column(first: &ByteRecord, header: bool, label: Option<&Column>) -> Result<Option<usize>, CsvError> {
    let place = match label {
        None => return Ok(None),
        Some(Column::Index(i)) => Some(*i).filter(|&i| i < first.len()),
        Some(Column::Name(name)) => first.iter().position(|c| header && same_name(c, name)),
    };
    let asked = || match label {
        Some(Column::Name(name)) => format!("{name:?}"),
        Some(Column::Index(i)) => format!("{i} (from 0)"),
        None => String::new(),
    };
    place.map(Some).ok_or_else(|| CsvError::NoColumn(asked()))
}

fn same_name(cell: &[u8], name: &str) -> bool {
    cell.eq_ignore_ascii_case(name.as_bytes())
}

/// Spreadsheets put U+FEFF before the first cell.
fn strip_byte_order_mark(record: &mut ByteRecord) {
    if let Some(rest) = record.get(0).and_then(|c| c.strip_prefix("\u{feff}".as_bytes())) {
        let cells: Vec<Vec<u8>> = std::iter::once(rest).chain(record.iter().skip(1)).map(<[u8]>::to_vec).collect();
        let position = record.position().cloned();
        *record = ByteRecord::from(cells);
        record.set_position(position);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(text: &str, label: Option<Column>) -> Result<Samples, CsvError> {
        read(text.as_bytes(), &Options { header: None, label })
    }

    fn name(n: &str) -> Option<Column> {
        Some(Column::Name(n.into()))
    }

    #[test]
    fn with_and_without_header_and_labels() {
        let plain = table("1, 2.5,-3e1\n4,5,6", None).unwrap();
        assert_eq!((plain.shape, plain.data, plain.labels), (vec![3], vec![1., 2.5, -30., 4., 5., 6.], None));
        let named = table("a,b\r\n1,2\r\n", None).unwrap();
        assert_eq!(named.data, [1., 2.]);
        let labelled = table("Label,0,1\n7,10,11\n3.0,20,21\n", name("label")).unwrap();
        assert_eq!((labelled.shape, labelled.data), (vec![2], vec![10., 11., 20., 21.]));
        assert_eq!(labelled.labels, Some(vec![7, 3]));
        let by_index = table("1,2,9\n3,4,8\n", Some(Column::Index(2))).unwrap();
        assert_eq!((by_index.data, by_index.labels), (vec![1., 2., 3., 4.], Some(vec![9, 8])));
        assert_eq!(table("\u{feff}1,2\n", None).unwrap().data, [1., 2.]);
        let forced = read(&b"1,2\n3,4\n"[..], &Options { header: Some(true), label: name("2") }).unwrap();
        assert_eq!((forced.data, forced.labels), (vec![3.], Some(vec![4])));
    }

    #[test]
    fn errors_name_row_and_column() {
        let message = |text, label| table(text, label).unwrap_err().to_string();
        assert_eq!(message("a,b\n1,2\n3,x\n", None), "row 3, column 2: \"x\" is no finite number");
        assert_eq!(message("1,x\n", None), "row 1, column 2: \"x\" is no finite number");
        assert_eq!(message("1,2\n3,NaN\n", None), "row 2, column 2: \"NaN\" is no finite number");
        assert_eq!(message("1,2\n3,1e99\n", None), "row 2, column 2: \"1e99\" is no finite number");
        assert_eq!(message("1,2\n3\n", None), "row 2 has 1 columns where the first has 2");
        assert_eq!(message("label,a\n1.5,2\n", name("label")), "row 2, column 1: \"1.5\" is no class number");
        assert_eq!(message("label,a\n-1,2\n", name("label")), "row 2, column 1: \"-1\" is no class number");
        assert_eq!(message("a,b\n1,2\n", name("label")), "no column \"label\" for the labels");
        assert_eq!(message("1,2\n", Some(Column::Index(2))), "no column 2 (from 0) for the labels");
        for empty in ["", "a,b\n", "\n\n"] {
            assert_eq!(message(empty, None), "no values in the table", "{empty:?}");
        }
        assert_eq!(message("label\n3\n", name("label")), "no values in the table");
    }

    #[test]
    fn no_row_moves_up() {
        let message = |text: &str| table(text, None).unwrap_err().to_string();
        let blank = |row| format!("row {row} is empty: a value is missing there, or the line is to be removed");
        for (text, row) in
            [("1\n\n3\n", 2), ("x\r\n1\r\n\r\n3", 3), ("\n1\n2\n", 1), ("1,2\n\n\n3,4", 2), ("1\r\r3", 2)]
        {
            assert_eq!(message(text), blank(row), "{text:?}");
        }
        for text in ["x\r\n1\r\n2\r\n", "x\n1\n2\n\n\n", "1\r2\r"] {
            assert_eq!(table(text, None).unwrap().data, [1., 2.], "{text:?}");
        }
        for word in ["nan", "NaN", "inf", "-Infinity", "1e99", "\"\""] {
            let text = word.trim_matches('"');
            assert_eq!(message(&format!("{word}\n1\n2\n")), format!("row 1, column 1: {text:?} is no finite number"));
        }
        assert_eq!(message("1\n\"\"\n3\n"), "row 2, column 1: \"\" is no finite number");
        assert_eq!(message("1,2\n , \n"), "row 2, column 1: \"\" is no finite number");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a,\"\n .]{0,80}", i in 0usize..4) {
            let _ = table(&text, None);
            let _ = table(&text, Some(Column::Index(i)));
        }

        #[test]
        fn numbers_come_back(rows in prop::collection::vec(prop::array::uniform3(-1e6f32..1e6), 1..9)) {
            let text: String = rows.iter().map(|r| format!("{},{},{}\n", r[0], r[1], r[2])).collect();
            prop_assert_eq!(table(&text, None).unwrap().data, rows.concat());
        }
    }
}
