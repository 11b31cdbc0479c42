//! A data set's declaration as people write it.
//!
//! ```toml
//! name = "wards"
//! rows = 60000
//! metric_rows = 10     # a revealed metric is a sum over at least so many rows
//!
//! [[column]]
//! name = "pixels"
//! width = 784
//! scale = "1/255"      # a value times this
//! range = "0..1"       # lies in this
//!
//! [[column]]
//! name = "label"
//! classes = 10         # one-hot
//!
//! [[part]]
//! owner = "ward-1"
//! column = "pixels"
//! rows = "0..30000"    # all if left out
//! ```

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use trefoil_client::{Block, Content, Declaration, InputEncoding, METRIC_ROWS, Part, check_declaration};
use trefoil_proto::one_line;

use crate::model::{number, range};

/// Longest file read.
const LONGEST: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    rows: u32,
    #[serde(default = "sixteen")]
    fraction_bits: u32,
    #[serde(default = "metric_rows")]
    metric_rows: u32,
    column: Vec<Column>,
    part: Vec<Owned>,
}

fn sixteen() -> u32 {
    16
}

fn metric_rows() -> u32 {
    METRIC_ROWS
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    name: String,
    width: Option<u32>,
    classes: Option<u32>,
    scale: Option<Number>,
    offset: Option<Number>,
    range: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Owned {
    owner: String,
    column: String,
    rows: Option<String>,
}

/// A number, or a text such as "1/255".
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Value(f64),
    Text(String),
}

impl Number {
    fn value(&self) -> anyhow::Result<f64> {
        match self {
            Number::Value(v) => Ok(*v),
            Number::Text(t) => number(t).map_err(anyhow::Error::msg),
        }
    }
}

/// Reads a declaration and checks it.
pub(super) fn load(path: &Path) -> anyhow::Result<Declaration> {
    let read = || -> anyhow::Result<Declaration> {
        let length = std::fs::metadata(path)?.len();
        if length > LONGEST {
            bail!("{length} bytes: a declaration has at most {LONGEST}");
        }
        parse(&std::fs::read_to_string(path)?)
    };
    read().with_context(|| format!("no usable declaration at {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Declaration> {
    let file: File = toml::from_str(text).map_err(|e| anyhow!(one_line(text, &e)))?;
    let blocks = file.column.iter().map(block).collect::<anyhow::Result<Vec<_>>>()?;
    let part = |(i, p): (usize, Owned)| -> anyhow::Result<Part> {
        let block = blocks.iter().position(|b| b.name == p.column);
        let block = block.with_context(|| format!("part {i}: there is no column {:?}", p.column))?;
        let (first, end) = match &p.rows {
            None => (0, file.rows),
            Some(text) => rows(text)
                .with_context(|| format!("part {i}: rows {text:?}: two numbers are due, such as \"0..30000\""))?,
        };
        Ok(Part { owner: p.owner, block: block as u32, first, end })
    };
    let parts = file.part.into_iter().enumerate().map(part).collect::<anyhow::Result<Vec<_>>>()?;
    let File { name, rows, fraction_bits, metric_rows, .. } = file;
    let declaration = Declaration { name, rows, fraction_bits, metric_rows, blocks, parts };
    check_declaration(&declaration)?;
    Ok(declaration)
}

fn rows(text: &str) -> Option<(u32, u32)> {
    let (first, end) = text.split_once("..")?;
    Some((first.trim().parse().ok()?, end.trim().parse().ok()?))
}

fn block(c: &Column) -> anyhow::Result<Block> {
    let wrong = || format!("column {}", c.name);
    let (width, content) = match (c.width, c.classes, &c.range) {
        (None, Some(1), None) => bail!(
            "column {}: classes = 1: rows of one class tell nothing; count all classes, or declare a 0 or 1 as width = 1 and \
             range = \"0..1\"",
            c.name
        ),
        (None, Some(classes), None) if c.scale.is_none() && c.offset.is_none() => (classes, Content::OneHot),
        (Some(width), None, Some(text)) => {
            let (low, high) = range(text).map_err(anyhow::Error::msg).with_context(wrong)?;
            let value = |n: &Option<Number>, default| n.as_ref().map_or(Ok(default), Number::value);
            let scale = value(&c.scale, 1.0).with_context(wrong)?;
            let offset = value(&c.offset, 0.0).with_context(wrong)?;
            (width, Content::Values(InputEncoding { scale, offset, low, high }))
        }
        _ => bail!("column {}: give it either classes, or a width and a range such as \"0..1\"", c.name),
    };
    Ok(Block { name: c.name.clone(), width, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"wards\"\nrows = 10\n\
        [[column]]\nname = \"pixels\"\nwidth = 4\nscale = \"1/255\"\nrange = \"0..1\"\n\
        [[column]]\nname = \"label\"\nclasses = 3\n\
        [[part]]\nowner = \"a\"\ncolumn = \"pixels\"\nrows = \"0..4\"\n\
        [[part]]\nowner = \"b\"\ncolumn = \"pixels\"\nrows = \"4..10\"\n\
        [[part]]\nowner = \"c\"\ncolumn = \"label\"\n";

    #[test]
    fn a_declaration_is_read() {
        let d = parse(GOOD).unwrap();
        assert_eq!((d.rows, d.width(), d.fraction_bits, d.parts.len()), (10, 7, 16, 3));
        let few = parse(&GOOD.replacen("rows = 10", "rows = 10\nmetric_rows = 3", 1)).unwrap();
        assert_eq!((d.metric_rows, few.metric_rows), (METRIC_ROWS, 3));
        assert_eq!(d.blocks[0].content, Content::Values(InputEncoding::default()));
        assert_eq!((d.blocks[1].content, d.parts[2].end), (Content::OneHot, 10));
    }

    #[test]
    fn mistakes_are_named() {
        let said = |text: String| format!("{:#}", parse(&text).unwrap_err());
        for (from, to, what) in [
            ("\"0..4\"", "\"0..3\"", "a hole: nobody contributes rows 3..4 of block pixels"),
            ("\"0..4\"", "\"0-4\"", "part 0: rows \"0-4\""),
            ("column = \"label\"", "column = \"lable\"", "part 2: there is no column \"lable\""),
            ("classes = 3", "classes = 3\nwidth = 3", "column label: give it either classes"),
            ("range = \"0..1\"\n", "", "column pixels: give it either classes"),
            ("\"0..1\"", "\"1..0\"", "column pixels"),
            ("\"1/255\"", "\"1/0\"", "column pixels"),
            ("\"1/255\"", "0", "block pixels: scale = 0 makes the same number of every value: give the factor"),
            ("\"0..1\"", "\"0..1e30\"", "fixed point of 16 fraction bits holds numbers below 7.0"),
            ("classes = 3", "classes = 1", "column label: classes = 1: rows of one class tell nothing"),
            ("rows = 10", "rowes = 10", "rowes: no such key; \"rows\" is the nearest"),
            ("rows = 10", "rows = 10\nmetric_rows = 11", "rows behind a metric: 11, must be 1 to 10"),
        ] {
            let error = said(GOOD.replacen(from, to, 1));
            assert!(error.contains(what) && error.lines().count() == 1, "{what:?} not in {error:?}");
        }
    }
}
