//! Data sets that several owners share: declaring one, contributing a part, listing, removing.
//!
//! An owner's values are encoded and split piece by piece: beside the values themselves, no more than one piece is in
//! memory. All of them are checked before the first byte leaves.

use std::time::Duration;

use thiserror::Error;
use trefoil_mpc::masked::input::alice_stream;
use trefoil_prg::seed::random_bytes;
use trefoil_prg::{Party, Seed, Stream};
use trefoil_proto::control::{InputEncoding, Reply, Request, RequestId};
use trefoil_proto::dataset::{Block, Content, Declaration, DeclarationError, SetInfo, pieces};
use trefoil_ring::Words;

use crate::client::{kind, named};
use crate::encoding::encode_samples;
use crate::evaluator::Evaluator;
use crate::listing::{Listing, listed};
use crate::request::{Asked, accepted, send_alice};
use crate::{Client, ClientError};

/// What an owner contributes, row by row.
#[derive(Debug, Clone, Copy)]
pub enum Contribution<'a> {
    /// Numbers, as many in each row as the block has columns.
    Values(&'a [f32]),
    /// A class of each row, for a block of one-hot columns.
    Labels(&'a [u32]),
}

/// A contribution that does not fit the declaration.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SetError {
    /// The declaration makes no sense.
    #[error(transparent)]
    Declaration(#[from] DeclarationError),
    /// A range with values that are too large.
    #[error(
        "block {block}: fixed point of {fraction_bits} fraction bits holds numbers below {most:e} and not all of {low:e} to \
         {high:e}: take the range that the values lie in, and bring them near -1 to 1 with scale and offset"
    )]
    Range {
        /// The block.
        block: String,
        /// Lowest value after scaling.
        low: f64,
        /// Highest value after scaling.
        high: f64,
        /// The declaration's fraction bits.
        fraction_bits: u32,
        /// Where values become too large.
        most: f64,
    },
    /// A factor that makes all values one.
    #[error(
        "block {block}: scale = 0 makes the same number of every value: give the factor that brings values into the range, such \
         as \"1/255\", or leave it out"
    )]
    NoScale {
        /// The block.
        block: String,
    },
    /// No such set.
    #[error("no data set {name:?} for this client (there is: {})", if known.is_empty() { "none".into() } else { known.join(", ") })]
    Unknown {
        /// The name.
        name: String,
        /// The names of those there are.
        known: Vec<String>,
    },
    /// No such part.
    #[error("data set {set} has no part {part}: they are numbered 0 to {}", parts.saturating_sub(1))]
    NoPart {
        /// The set.
        set: String,
        /// The part.
        part: u32,
        /// How many there are.
        parts: usize,
    },
    /// Someone else's part.
    #[error("part {part} of data set {set} is {owner}'s to contribute, not {client}'s")]
    Owner {
        /// The set.
        set: String,
        /// The part.
        part: u32,
        /// Whose it is.
        owner: String,
        /// Who tried.
        client: String,
    },
    /// A part comes once.
    #[error("part {part} of data set {set} is already there; the set must be removed before it can come again")]
    There {
        /// The set.
        set: String,
        /// The part.
        part: u32,
    },
    /// Labels for numbers, or numbers for labels.
    #[error("block {block} holds {holds}, but {given} were given")]
    Content {
        /// The block.
        block: String,
        /// What it holds.
        holds: &'static str,
        /// What was given.
        given: &'static str,
    },
    /// Not the declared number of rows.
    #[error("{got} values were given: the part is {rows} rows of {columns}, {}", rows * columns)]
    Count {
        /// Values given.
        got: usize,
        /// Rows of the part.
        rows: usize,
        /// Values of each.
        columns: usize,
    },
    /// A class that there is not.
    #[error("row {row} of the part has label {label}: block {block} has classes 0 to {}", classes - 1)]
    Label {
        /// The row, from the part's first.
        row: usize,
        /// Its label.
        label: u32,
        /// The block.
        block: String,
        /// How many classes there are.
        classes: u32,
    },
}

/// Checks that a declaration holds together, and that every value of its ranges can be contributed.
pub fn check_declaration(declaration: &Declaration) -> Result<(), SetError> {
    declaration.check()?;
    let fraction_bits = declaration.fraction_bits;
    // What encoding refuses.
    let most = (62.0 - f64::from(fraction_bits)).exp2();
    for b in &declaration.blocks {
        let Content::Values(InputEncoding { scale, low, high, .. }) = b.content else { continue };
        let block = || b.name.clone();
        if scale == 0.0 {
            return Err(SetError::NoScale { block: block() });
        }
        if low.abs().max(high.abs()) >= most {
            return Err(SetError::Range { block: block(), low, high, fraction_bits, most });
        }
    }
    Ok(())
}

impl Client {
    /// Declares a data set: from then on the owners named in it may contribute their parts. All servers hold the
    /// declaration afterwards, or none.
    pub fn declare(&mut self, declaration: &Declaration) -> Result<(), ClientError> {
        check_declaration(declaration)?;
        self.ask_alice(&Request::Declare { declaration: Box::new(declaration.clone()) }, "a declaration")
    }

    /// The data sets that this client declared or contributes to, as both evaluators hold them.
    pub fn sets(&mut self) -> Result<Vec<SetInfo>, ClientError> {
        Ok(self.list_sets()?.agreed)
    }

    /// The same, and what the evaluators differ in.
    pub fn list_sets(&mut self) -> Result<Listing<SetInfo>, ClientError> {
        let ask = || {
            let requests = [&Request::Sets, &Request::Sets];
            let lists = self.both(&Asked { requests, id: RequestId::default(), shares: &[], longest: 0 })?;
            named(lists, "a list of data sets", |reply| match reply {
                Reply::Sets(list) => Some(list),
                _ => None,
            })
        };
        listed(ask, "data set", |s| &s.declaration.name, |s| s.epoch, |a, b| (a == b).then_some(a))
    }

    /// The data set of this name.
    pub fn set(&mut self, name: &str) -> Result<SetInfo, ClientError> {
        let mut all = self.list_sets()?;
        all.find(name, |s| &s.declaration.name)?.ok_or_else(|| {
            let known = all.agreed.into_iter().map(|s| s.declaration.name).collect();
            SetError::Unknown { name: name.into(), known }.into()
        })
    }

    /// Contributes a part of a data set: all its rows, in their agreed order. All servers hold the part afterwards, or
    /// none, and it can be sent again.
    pub fn contribute(&mut self, set: &SetInfo, part: u32, given: Contribution<'_>) -> Result<(), ClientError> {
        let SetInfo { epoch, declaration, arrived, .. } = set;
        let name = || declaration.name.clone();
        let (p, block) = declaration.part(part).ok_or_else(|| SetError::NoPart {
            set: name(),
            part,
            parts: declaration.parts.len(),
        })?;
        if p.owner != self.name() {
            let (owner, client) = (p.owner.clone(), self.name().to_owned());
            return Err(SetError::Owner { set: name(), part, owner, client }.into());
        }
        if arrived.get(part as usize) == Some(&true) {
            return Err(SetError::There { set: name(), part }.into());
        }
        let rows = Rows { block, fraction_bits: declaration.fraction_bits, given };
        rows.check(p.rows())?;
        let mut id = RequestId::default();
        random_bytes(&mut id)?;
        let seed = Seed::random()?;
        let hash = declaration.hash();
        let request =
            |seed: &[u8]| Request::Contribute { id, set: *epoch, declaration: hash, part, seed: seed.to_vec().into() };
        let mut open = self.take()?;
        let bob = &mut open[1];
        bob.ask(&request(&[]), &[], 0)?;
        if let Err(refusal) = ready(bob) {
            if matches!(refusal, ClientError::Refused { .. }) {
                self.open = Some(open);
            }
            return Err(refusal);
        }
        let mut stream = alice_stream(&seed);
        let mut first = 0;
        for count in pieces(p.rows(), block.width as usize) {
            bob.send_share(&rows.share(first..first + count, &mut stream)?)?;
            first += count;
        }
        ready(bob)?;
        let replies = send_alice(&mut open, &request(seed.expose()), || self.forget(id));
        if replies.usable {
            self.open = Some(open);
        }
        named(replies.outcome?, "a part", |reply| matches!(reply, Reply::Done).then_some(())).map(drop)
    }

    /// Removes a data set and all its parts. Only who declared it may.
    pub fn remove_set(&mut self, name: &str) -> Result<(), ClientError> {
        self.ask_alice(&Request::RemoveSet { set: name.into() }, "a removal")
    }
}

/// How long bob may take to make room for a part, or to have its last pieces on his disk.
const READY: Duration = Duration::from_secs(30);

/// Hears that bob is ready for what comes next.
fn ready(bob: &mut Evaluator) -> Result<(), ClientError> {
    let got = bob.reply(READY)?.ok_or(ClientError::Silent { party: Party::Bob })?;
    match accepted(bob, got)? {
        (Reply::Ready, _) => Ok(()),
        (other, _) => Err(ClientError::Unfit { party: Party::Bob, asked: "a part", got: kind(&other) }),
    }
}

/// An owner's rows and how they are encoded.
struct Rows<'a> {
    block: &'a Block,
    fraction_bits: u32,
    given: Contribution<'a>,
}

impl Rows<'_> {
    /// Checks that there are `rows` rows and that every value can be encoded.
    fn check(&self, rows: usize) -> Result<(), ClientError> {
        let columns = self.block.width as usize;
        let block = || self.block.name.clone();
        let (got, columns) = match (self.given, self.block.content) {
            (Contribution::Values(v), Content::Values(_)) => (v.len(), columns),
            (Contribution::Labels(l), Content::OneHot) => (l.len(), 1),
            (Contribution::Labels(_), _) => {
                return Err(SetError::Content { block: block(), holds: "numbers", given: "labels" }.into());
            }
            (Contribution::Values(_), _) => {
                return Err(SetError::Content { block: block(), holds: "one-hot labels", given: "numbers" }.into());
            }
        };
        if got != rows * columns {
            return Err(SetError::Count { got, rows, columns }.into());
        }
        let mut first = 0;
        for count in pieces(rows, self.block.width as usize) {
            self.encode(first..first + count)?;
            first += count;
        }
        Ok(())
    }

    /// The fixed-point elements of these rows.
    fn encode(&self, rows: std::ops::Range<usize>) -> Result<Words, ClientError> {
        let columns = self.block.width as usize;
        match (self.given, self.block.content) {
            (Contribution::Values(v), Content::Values(encoding)) => {
                let values = &v[rows.start * columns..rows.end * columns];
                let words = encode_samples(&encoding, self.fraction_bits, values, columns);
                Ok(words.map_err(|e| e.shifted(rows.start))?)
            }
            (Contribution::Labels(labels), _) => {
                let mut words = Words::zeros(rows.len() * columns);
                for (i, row) in rows.enumerate() {
                    let (label, classes) = (labels[row], self.block.width);
                    if label >= classes {
                        return Err(SetError::Label { row, label, block: self.block.name.clone(), classes }.into());
                    }
                    words[i * columns + label as usize] = 1 << self.fraction_bits;
                }
                Ok(words)
            }
            (Contribution::Values(_), Content::OneHot) => Ok(Words::default()),
        }
    }

    /// Bob's share of these rows; alice's is what `stream` goes on with.
    fn share(&self, rows: std::ops::Range<usize>, stream: &mut Stream) -> Result<Words, ClientError> {
        let values = self.encode(rows)?;
        let mut share = Words::zeros(values.len());
        stream.fill(&mut share);
        share.iter_mut().zip(values.iter()).for_each(|(s, v)| *s = v.wrapping_sub(*s));
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use trefoil_mpc::masked::input::alice_share;
    use trefoil_proto::dataset::{METRIC_ROWS, Part};

    use super::*;

    fn block(width: u32, content: Content) -> Block {
        Block { name: "b".into(), width, content }
    }

    const PLAIN: Content = Content::Values(InputEncoding { scale: 1.0, offset: 0.0, low: -4.0, high: 4.0 });

    fn shares(rows: &Rows<'_>, cuts: &[usize]) -> (Words, Words) {
        let seed = Seed::from_bytes([5; 32]);
        let (mut stream, mut bob) = (alice_stream(&seed), Words::default());
        for w in cuts.windows(2) {
            bob.extend(&rows.share(w[0]..w[1], &mut stream).unwrap());
        }
        (alice_share(&seed, bob.len()), bob)
    }

    #[test]
    fn every_value_of_a_range_can_be_contributed() {
        let check = |low: f64, high: f64, scale: f64, fraction_bits| {
            let content = Content::Values(InputEncoding { scale, offset: 0.0, low, high });
            let parts = vec![Part { owner: "a".into(), block: 0, first: 0, end: 2 }];
            let (name, blocks) = ("s".into(), vec![block(1, content)]);
            let d = Declaration { name, rows: 2, fraction_bits, metric_rows: METRIC_ROWS, blocks, parts };
            check_declaration(&d).map(|()| {
                let given = Contribution::Values(&[low as f32, high as f32]);
                Rows { block: &d.blocks[0], fraction_bits, given }.check(2).unwrap();
            })
        };
        let last = 46f64.exp2();
        assert_eq!(check(-0.5 * last, 0.75 * last, 1.0, 16), Ok(()));
        assert_eq!(check(0.0, 0.5 * 32f64.exp2(), 1.0, 30), Ok(()));
        for (low, high) in [(0.0, 1e30), (-1e30, 0.0), (0.0, last)] {
            let said = check(low, high, 1.0, 16).unwrap_err().to_string();
            assert!(said.starts_with("block b: fixed point of 16 fraction bits holds numbers below 7.03"), "{said}");
        }
        assert!(matches!(check(0.0, 1.0, 0.0, 16), Err(SetError::NoScale { .. })));
    }

    #[test]
    fn pieces_of_shares_add_up_to_the_values() {
        let values: Vec<f32> = (0..12).map(|i| i as f32 / 4.0 - 1.0).collect();
        let b = block(3, PLAIN);
        let rows = Rows { block: &b, fraction_bits: 16, given: Contribution::Values(&values) };
        rows.check(4).unwrap();
        let (alice, bob) = shares(&rows, &[0, 1, 3, 4]);
        for ((a, b), v) in alice.iter().zip(bob.iter()).zip(&values) {
            assert_eq!(a.wrapping_add(*b) as i64, (v * 65536.0) as i64);
        }
        assert_eq!(shares(&rows, &[0, 4]).1, bob, "whatever the pieces");
    }

    #[test]
    fn labels_become_one_hot_rows() {
        let b = block(3, Content::OneHot);
        let rows = Rows { block: &b, fraction_bits: 16, given: Contribution::Labels(&[2, 0]) };
        rows.check(2).unwrap();
        let (alice, bob) = shares(&rows, &[0, 2]);
        let sum: Vec<u64> = alice.iter().zip(bob.iter()).map(|(a, b)| a.wrapping_add(*b)).collect();
        assert_eq!(sum, [0, 0, 1 << 16, 1 << 16, 0, 0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (numbers, classes) = (block(2, PLAIN), block(2, Content::OneHot));
        let said =
            |block: &Block, given, rows| Rows { block, fraction_bits: 16, given }.check(rows).unwrap_err().to_string();
        let v = Contribution::Values;
        assert!(said(&numbers, v(&[0.0; 3]), 2).contains("3 values were given: the part is 2 rows of 2, 4"));
        assert!(said(&numbers, v(&[0.0, 0.0, 0.0, 5.0]), 2).contains("sample 1: element 1 is 5"));
        assert!(said(&numbers, v(&[0.0, f32::NAN]), 1).contains("NaN"));
        assert!(said(&numbers, Contribution::Labels(&[1]), 1).contains("holds numbers, but labels"));
        assert!(said(&classes, v(&[0.0, 1.0]), 1).contains("holds one-hot labels, but numbers"));
        assert!(said(&classes, Contribution::Labels(&[1, 2]), 2).contains("row 1 of the part has label 2"));
    }
}
