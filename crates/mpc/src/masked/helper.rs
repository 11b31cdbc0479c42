//! Softmax in the clear at a fourth server, the helper, of classes in an order that it does not know.
//!
//! The messages are those to carol (module `permuted`), but the helper shares no seed with anyone and knows
//! no program. So alice draws a key, from her seed with carol, and sends it along; t is expanded from it. And each
//! message says what it is about: lot, step, rows, classes, scales. The helper computes only when both say the same.
//!
//! **What leaks.** The helper learns the multiset of each row's likelihoods, as carol would, but neither which row of
//! the data set it is nor anything else: no weight, no label, no architecture, no mask, no name. It can see that a run
//! trains, its batch and number of classes, and how a batch's likelihoods change from step to step. Carol knows t and
//! receives nothing that it masks. Alice receives nothing, bob p - t, which is uniform.
//!
//! **Cost.** As for carol, and 64 bytes more in each evaluator's message.

use trefoil_link::frame::MAX_PAYLOAD;
use trefoil_link::{Link, Tag};
use trefoil_prg::{Address, Pair, Purpose, Seed, Source};
use trefoil_ring::Words;
use zeroize::Zeroizing;

use super::likelihood::TABLE;
use super::online::Role;
use super::output::value_bytes;
use super::permuted::{PermutedMaterial, enter, mixed, shared, sorted};
use crate::error::MpcError;
use crate::program::MAX_CLASSES;

/// Tag of messages to and from the helper.
const TAG: Tag = 1;
/// Bytes of what a message is about.
const ABOUT: usize = 32;
/// Words of alice's key.
pub(crate) const KEY: usize = 4;
/// Bytes of a message ahead of its logits: what it is about, and the key; at bob zeros.
pub(crate) const HEAD: usize = ABOUT + 8 * KEY;

/// What both evaluators' messages are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) lot: u64,
    pub(crate) step: usize,
    pub(crate) rows: usize,
    pub(crate) classes: usize,
    /// Bits dropped, fraction bits after that, fraction bits of the result.
    pub(crate) bits: (u32, u32, u32),
}

impl About {
    fn encode(&self) -> [u8; ABOUT] {
        let mut out = [0; ABOUT];
        out[..8].copy_from_slice(&self.lot.to_le_bytes());
        let (shift, bits, fraction_bits) = self.bits;
        let sizes = [self.step, self.rows, self.classes].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        for (out, v) in out[8..].chunks_exact_mut(4).zip(sizes.into_iter().chain([shift, bits, fraction_bits])) {
            out.copy_from_slice(&v.to_le_bytes());
        }
        out
    }

    /// What a whole message is about, if it can be.
    fn decode(message: &[u8]) -> Result<Self, MpcError> {
        let garbage = |got: String| MpcError::Input {
            what: "a request for likelihoods".into(),
            expected: "sizes that fit its length".into(),
            got,
        };
        let (head, rest) = message.split_first_chunk::<HEAD>().ok_or_else(|| garbage("a short one".into()))?;
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let lot = u64::from(word(0)) | u64::from(word(4)) << 32;
        let (rows, classes, bits) = (word(12) as usize, word(16) as usize, (word(20), word(24), word(28)));
        let about = Self { lot, step: word(8) as usize, rows, classes, bits };
        let n = rows.checked_mul(classes).filter(|n| rows > 0 && *n <= MAX_PAYLOAD / (8 * TABLE));
        let fits = n.is_some_and(|n| {
            (2..=MAX_CLASSES).contains(&classes)
                && bits.0 < 64
                && bits.1.max(bits.2) < 64
                && rest.len() == value_bytes(n, bits.0)
        });
        if fits { Ok(about) } else { Err(garbage(format!("{about:?}, {} bytes", rest.len()))) }
    }
}

/// Alice's share: `n` words expanded from the key.
fn expand(key: &[u8; 8 * KEY], about: &About, n: usize) -> Words {
    let source = Source::new(&Seed::from_bytes(*key), Pair::AliceHelper, [0; 32], about.lot);
    let mut words = Words::zeros(n);
    source.draw(Address::new(0, about.step as u32, 0, Purpose::Likelihood)).fill(&mut words);
    words
}

/// At an evaluator: its share of the likelihoods of rows of logits, which the helper computes.
pub(crate) fn ask_helper(
    role: Role,
    helper: &mut dyn Link,
    about: About,
    logits: &[u64],
    m: &PermutedMaterial,
) -> Result<Words, MpcError> {
    enter(helper, about.step);
    let mut key = Zeroizing::new([0; 8 * KEY]);
    if role == Role::A {
        key.copy_from_slice(m.share.bytes());
    }
    let sealed = mixed(role, about.rows, about.bits.0, logits, m);
    helper.send(TAG, &[&about.encode(), &*key, &sealed])?;
    let n = TABLE * logits.len();
    let table = match role {
        Role::A => expand(&key, &about, n),
        Role::B => {
            let mut table = Words::zeros(n);
            helper.recv(TAG, bytemuck::cast_slice_mut(&mut table))?;
            table
        }
    };
    Ok(sorted(about.rows, &table, m))
}

/// At the helper: computes the likelihoods of one request, which comes from both evaluators.
pub fn help(alice: &mut dyn Link, bob: &mut dyn Link) -> Result<(), MpcError> {
    let limit = HEAD + MAX_PAYLOAD / TABLE;
    let hers = Zeroizing::new(alice.recv_any(TAG, limit)?);
    let his = Zeroizing::new(bob.recv_any(TAG, limit)?);
    let (about, other) = (About::decode(&hers)?, About::decode(&his)?);
    if about != other {
        return Err(MpcError::Input {
            what: "a request for likelihoods".into(),
            expected: format!("the same from alice and bob: {about:?}"),
            got: format!("{other:?}"),
        });
    }
    let mut key = Zeroizing::new([0; 8 * KEY]);
    key.copy_from_slice(&hers[ABOUT..HEAD]);
    let size = (about.rows, about.classes);
    let share = expand(&key, &about, TABLE * about.rows * about.classes);
    let table = shared([&hers[HEAD..], &his[HEAD..]], size, about.bits, &share)?;
    Ok(bob.send(TAG, &[bytemuck::cast_slice(&table)])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT_TEN: About = About { lot: 1 << 40 | 3, step: 7, rows: 2, classes: 5, bits: (16, 16, 16) };

    fn message(about: &About, logits: usize) -> Vec<u8> {
        [&about.encode()[..], &[0; 8 * KEY], &vec![0; logits]].concat()
    }

    #[test]
    fn what_a_message_is_about_comes_back() {
        assert_eq!(About::decode(&message(&ABOUT_TEN, 60)).unwrap(), ABOUT_TEN);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_before_anything_is_allocated() {
        let bad = [
            (About { rows: 0, ..ABOUT_TEN }, 0),
            (About { rows: usize::MAX, classes: 4096, ..ABOUT_TEN }, 60),
            (About { classes: 1, rows: 10, ..ABOUT_TEN }, 60),
            (About { classes: 1 << 20, ..ABOUT_TEN }, 60),
            (About { bits: (64, 16, 16), ..ABOUT_TEN }, 0),
            (About { bits: (16, 64, 16), ..ABOUT_TEN }, 60),
            (About { bits: (16, 16, 99), ..ABOUT_TEN }, 60),
            (ABOUT_TEN, 59),
            (ABOUT_TEN, 61),
        ];
        for (about, len) in bad {
            assert!(About::decode(&message(&about, len)).is_err(), "{about:?}, {len}");
        }
        assert!(About::decode(&[0; HEAD - 1]).is_err());
    }
}
