//! Data sets that several owners share: what a coordinator declares, and whether the owners' parts make a whole.
//!
//! A set is a table of `rows` by columns in named blocks. Each part is one owner's: rows `first .. end` of one block.
//! Parts tile the table exactly once, so that owners may hold different rows (horizontally), different columns
//! (vertically) or both. Rows are aligned by their index: the owners agree on their order beforehand, as there is no
//! private set intersection here. The declaration is public to the servers and to everyone named in it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::control::{InputEncoding, encode};
use crate::identity::check_name;

/// The most elements of one set: 4 GiB of shares at each evaluator.
pub const MAX_ELEMENTS: u64 = 1 << 29;
/// The most columns of one set.
pub const MAX_WIDTH: u32 = 1 << 17;
/// The most blocks of one set.
pub const MAX_BLOCKS: usize = 64;
/// The most parts of one set.
pub const MAX_PARTS: usize = 1024;
/// The fewest rows behind a metric where a declaration does not say otherwise.
pub const METRIC_ROWS: u32 = 10;
/// Elements that travel and are sealed at once: 8 MiB.
const PIECE: usize = 1 << 20;

/// What the columns of a block hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// Numbers, which the owner encodes like this.
    Values(InputEncoding),
    /// A class of each row, which the owner writes as a one and zeros.
    OneHot,
}

/// Columns of one kind, side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Its name.
    pub name: String,
    /// How many columns.
    pub width: u32,
    /// What they hold.
    pub content: Content,
}

/// What one owner contributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The owner's name in the cluster file.
    pub owner: String,
    /// The block, by its place.
    pub block: u32,
    /// The first row.
    pub first: u32,
    /// The row after the last.
    pub end: u32,
}

impl Part {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.end.saturating_sub(self.first) as usize
    }
}

/// Everything public about a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// How many rows.
    pub rows: u32,
    /// Binary digits after the point, of every element.
    pub fraction_bits: u32,
    /// A metric that a run reveals is a sum over at least so many rows.
    pub metric_rows: u32,
    /// The columns, from left to right.
    pub blocks: Vec<Block>,
    /// Who contributes what.
    pub parts: Vec<Part>,
}

/// Why a declaration is refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum DeclarationError {
    /// A set or block whose name is none.
    #[error("{what} {name:?} is no name: 1 to 63 lower-case letters, digits and dashes")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Something beyond its bounds.
    #[error("{what}: {got}, must be 1 to {most}")]
    Size {
        /// What.
        what: String,
        /// Its size.
        got: u64,
        /// The most.
        most: u64,
    },
    /// Fraction bits that the servers do not compute with.
    #[error("{0} fraction bits: data sets have 1 to 30")]
    FractionBits(u32),
    /// Two blocks of one name.
    #[error("two blocks are named {0:?}")]
    SameBlock(String),
    /// An encoding that is none.
    #[error("block {block}: an encoding of scale {scale}, offset {offset}, range {low} to {high}")]
    Encoding {
        /// The block.
        block: String,
        /// Factor.
        scale: f64,
        /// Added after the factor.
        offset: f64,
        /// Lowest value after scaling.
        low: f64,
        /// Highest value after scaling.
        high: f64,
    },
    /// A part of a block that there is not.
    #[error("part {part} is of block {block}: there are {blocks}")]
    NoBlock {
        /// The part.
        part: usize,
        /// The block it names.
        block: u32,
        /// How many blocks there are.
        blocks: usize,
    },
    /// Rows that are none of the set's.
    #[error("part {part}: rows {first}..{end} of a set of {rows}")]
    Rows {
        /// The part.
        part: usize,
        /// Its first row.
        first: u32,
        /// The row after its last.
        end: u32,
        /// The set's rows.
        rows: u32,
    },
    /// Rows that nobody contributes.
    #[error("a hole: nobody contributes rows {first}..{end} of block {block}")]
    Hole {
        /// The block.
        block: String,
        /// The first row without an owner.
        first: u32,
        /// The next row that has one.
        end: u32,
    },
    /// Rows that two parts contribute.
    #[error("an overlap: parts {one} and {other} both have rows {first}..{end} of block {block}")]
    Overlap {
        /// The block.
        block: String,
        /// The first row that both have.
        first: u32,
        /// The row after the last that both have.
        end: u32,
        /// The part that begins first.
        one: usize,
        /// The other.
        other: usize,
    },
}

impl Declaration {
    /// Checks names, sizes and that the parts tile the table exactly once.
    pub fn check(&self) -> Result<(), DeclarationError> {
        let name = |what, name: &str| {
            check_name(name).map_err(|_| DeclarationError::Name { what, name: name.chars().take(80).collect() })
        };
        let size = |what: &str, got: u64, most: u64| {
            if (1..=most).contains(&got) {
                Ok(())
            } else {
                Err(DeclarationError::Size { what: what.into(), got, most })
            }
        };
        name("data set", &self.name)?;
        size("rows", self.rows.into(), u32::MAX.into())?;
        // What is there by default is no demand that a small set could not meet.
        size("rows behind a metric", self.metric_rows.into(), self.rows.max(METRIC_ROWS).into())?;
        size("blocks", self.blocks.len() as u64, MAX_BLOCKS as u64)?;
        size("parts", self.parts.len() as u64, MAX_PARTS as u64)?;
        if !(1..=30).contains(&self.fraction_bits) {
            return Err(DeclarationError::FractionBits(self.fraction_bits));
        }
        let mut names = BTreeSet::new();
        for block in &self.blocks {
            name("block", &block.name)?;
            size(&format!("columns of block {}", block.name), block.width.into(), MAX_WIDTH.into())?;
            if !names.insert(&block.name) {
                return Err(DeclarationError::SameBlock(block.name.clone()));
            }
            if let Content::Values(InputEncoding { scale, offset, low, high }) = block.content
                && (![scale, offset, low, high].iter().all(|v| v.is_finite()) || low > high)
            {
                let block = block.name.clone();
                return Err(DeclarationError::Encoding { block, scale, offset, low, high });
            }
        }
        let width = self.blocks.iter().map(|b| u64::from(b.width)).sum();
        size("columns of all blocks", width, MAX_WIDTH.into())?;
        size("elements", u64::from(self.rows) * width, MAX_ELEMENTS)?;
        self.check_parts()
    }

    fn check_parts(&self) -> Result<(), DeclarationError> {
        for (part, p) in self.parts.iter().enumerate() {
            if p.block as usize >= self.blocks.len() {
                return Err(DeclarationError::NoBlock { part, block: p.block, blocks: self.blocks.len() });
            }
            if p.first >= p.end || p.end > self.rows {
                return Err(DeclarationError::Rows { part, first: p.first, end: p.end, rows: self.rows });
            }
        }
        for (i, block) in self.blocks.iter().enumerate() {
            let of_block = self.parts.iter().enumerate().filter(|(_, p)| p.block as usize == i);
            let mut parts: Vec<(usize, &Part)> = of_block.collect();
            parts.sort_by_key(|(_, p)| p.first);
            let block = || block.name.clone();
            let (mut covered, mut last) = (0, 0);
            for (part, p) in parts {
                if p.first > covered {
                    return Err(DeclarationError::Hole { block: block(), first: covered, end: p.first });
                }
                if p.first < covered {
                    let (one, other, end) = (last, part, covered.min(p.end));
                    return Err(DeclarationError::Overlap { block: block(), first: p.first, end, one, other });
                }
                (covered, last) = (p.end, part);
            }
            if covered < self.rows {
                return Err(DeclarationError::Hole { block: block(), first: covered, end: self.rows });
            }
        }
        Ok(())
    }

    /// Columns of all blocks.
    pub fn width(&self) -> usize {
        self.blocks.iter().map(|b| b.width as usize).sum()
    }

    /// The first column of a block.
    pub fn column(&self, block: u32) -> usize {
        self.blocks.iter().take(block as usize).map(|b| b.width as usize).sum()
    }

    /// A part and its block; none where there is no such part.
    pub fn part(&self, part: u32) -> Option<(&Part, &Block)> {
        let p = self.parts.get(part as usize)?;
        Some((p, self.blocks.get(p.block as usize)?))
    }

    /// Whether `client` is named in a part.
    pub fn names(&self, client: &str) -> bool {
        self.parts.iter().any(|p| p.owner == client)
    }

    /// What everyone compares.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("trefoil 2026 data set declaration", &encode(self))
    }
}

/// The rows of each piece in which a part of `rows` by `width` elements travels.
pub fn pieces(rows: usize, width: usize) -> impl Iterator<Item = usize> {
    let most = (PIECE / width.max(1)).max(1);
    (0..rows.div_ceil(most)).map(move |i| most.min(rows - i * most))
}

/// A data set as the servers list it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetInfo {
    /// Number of the declaration: fresh for each.
    pub epoch: u64,
    /// Who declared it.
    pub coordinator: String,
    /// Its public description.
    pub declaration: Declaration,
    /// Which parts are there, by their order in the declaration.
    pub arrived: Vec<bool>,
}

impl SetInfo {
    /// Whether every part is there.
    pub fn is_complete(&self) -> bool {
        self.arrived.iter().all(|a| *a)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(block: u32, first: u32, end: u32) -> Part {
        Part { owner: "ann".into(), block, first, end }
    }

    fn set(rows: u32, widths: &[u32], parts: Vec<Part>) -> Declaration {
        let block = |(i, &width): (usize, &u32)| Block { name: format!("b{i}"), width, content: Content::OneHot };
        let blocks = widths.iter().enumerate().map(block).collect();
        Declaration { name: "set".into(), rows, fraction_bits: 16, metric_rows: METRIC_ROWS, blocks, parts }
    }

    fn said(d: &Declaration) -> String {
        d.check().unwrap_err().to_string()
    }

    #[test]
    fn holes_and_overlaps_are_named() {
        assert_eq!(set(10, &[3, 2], vec![part(1, 0, 10), part(0, 4, 10), part(0, 0, 4)]).check(), Ok(()));
        let hole = set(10, &[3], vec![part(0, 0, 4), part(0, 6, 10)]);
        assert_eq!(said(&hole), "a hole: nobody contributes rows 4..6 of block b0");
        let short = set(10, &[3, 1], vec![part(0, 0, 10), part(1, 0, 9)]);
        assert_eq!(said(&short), "a hole: nobody contributes rows 9..10 of block b1");
        assert_eq!(said(&set(10, &[3, 1], vec![part(0, 0, 10)])), "a hole: nobody contributes rows 0..10 of block b1");
        let overlap = set(10, &[3], vec![part(0, 4, 10), part(0, 0, 6)]);
        assert_eq!(said(&overlap), "an overlap: parts 1 and 0 both have rows 4..6 of block b0");
        let inside = set(10, &[3], vec![part(0, 0, 10), part(0, 2, 3)]);
        assert_eq!(said(&inside), "an overlap: parts 0 and 1 both have rows 2..3 of block b0");
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let whole = vec![part(0, 0, 10)];
        let good = set(10, &[3], whole.clone());
        let cases = [
            (Declaration { name: "No Name".into(), ..good.clone() }, "\"No Name\" is no name"),
            (Declaration { rows: 0, ..good.clone() }, "rows: 0"),
            (Declaration { fraction_bits: 31, ..good.clone() }, "31 fraction bits"),
            (Declaration { metric_rows: 0, ..good.clone() }, "rows behind a metric: 0"),
            (set(10, &[], whole.clone()), "blocks: 0"),
            (set(10, &[3], vec![]), "parts: 0"),
            (set(10, &[0], whole.clone()), "columns of block b0: 0"),
            (set(10, &[MAX_WIDTH, 1], whole.clone()), "columns of all blocks"),
            (set(u32::MAX, &[1], vec![part(0, 0, u32::MAX)]), "elements: 4294967295"),
            (set(10, &[3], vec![part(1, 0, 10)]), "part 0 is of block 1"),
            (set(10, &[3], vec![part(0, 5, 5)]), "rows 5..5"),
            (set(10, &[3], vec![part(0, 0, 11)]), "rows 0..11 of a set of 10"),
            (set(10, &[3], vec![part(0, 9, 2)]), "rows 9..2"),
            (set(10, &[3], vec![part(0, 0, 10); MAX_PARTS + 1]), "parts: 1025"),
        ];
        for (d, what) in cases {
            assert!(said(&d).contains(what), "{what:?} not in {:?}", said(&d));
        }
        let mut twice = set(10, &[3, 3], vec![part(0, 0, 10), part(1, 0, 10)]);
        twice.blocks[1].name = "b0".into();
        assert!(said(&twice).contains("two blocks are named"));
        let mut nan = good;
        nan.blocks[0].content = Content::Values(InputEncoding { low: f64::NAN, ..Default::default() });
        assert!(said(&nan).contains("range NaN"));
    }

    #[test]
    fn the_hash_covers_everything_said() {
        let good = set(10, &[3], vec![part(0, 0, 10)]);
        let mut other = good.clone();
        other.parts[0].owner = "bert".into();
        assert!(good.hash() == good.clone().hash() && good.hash() != other.hash());
        let fewer = Declaration { metric_rows: 1, ..good.clone() };
        assert_ne!(good.hash(), fewer.hash());
    }

    proptest! {
        /// A random tiling passes; it fails once any one part is left out, moved or given twice.
        #[test]
        fn tilings_pass_and_nothing_else(cuts in prop::collection::btree_set(1_u32..50, 0..6), seed in any::<usize>()) {
            let mut edges: Vec<u32> = cuts.into_iter().collect();
            edges.insert(0, 0);
            edges.push(50);
            let tiles: Vec<Part> = edges.windows(2).map(|w| part(0, w[0], w[1])).collect();
            let mut parts = tiles.clone();
            parts.rotate_left(seed % tiles.len());
            prop_assert_eq!(set(50, &[2], parts.clone()).check(), Ok(()));
            let at = seed % parts.len();
            let mut twice = parts.clone();
            twice.push(parts[at].clone());
            prop_assert!(set(50, &[2], twice).check().is_err());
            let mut moved = parts.clone();
            moved[at].end += 1;
            prop_assert!(set(50, &[2], moved).check().is_err());
            parts.remove(at);
            prop_assert!(set(50, &[2], parts).check().is_err());
        }

        /// Pieces are bounded and make the whole.
        #[test]
        fn pieces_make_the_part(rows in 1_usize..100_000, width in 1_usize..(MAX_WIDTH as usize)) {
            let all: Vec<usize> = pieces(rows, width).collect();
            prop_assert_eq!(all.iter().sum::<usize>(), rows);
            prop_assert!(all.iter().all(|r| *r > 0 && r * width <= PIECE));
        }
    }
}
