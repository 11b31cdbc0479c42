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
    /// Whether the first row is a header. Not said: it is one if it holds the label column's name or no number.
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
    let mut rows = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader.take(MAX_BYTES));
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
    if rows.get_ref().limit() == 0 {
        return Err(CsvError::TooLarge);
    }
    if table.data.is_empty() {
        return Err(CsvError::Empty);
    }
    let values = width - usize::from(label.is_some());
    Ok(Samples::new(vec![values], table.data, label.map(|_| table.labels))?)
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
    named || first.iter().all(|c| number(c).is_none())
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
