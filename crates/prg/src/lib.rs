//! Seeds, seekable streams and addressed draws: where every mask comes from.
//!
//! A pair of parties shares a [`Seed`]. A [`Source`] narrows it to one epoch and lot; each draw then names an
//! [`Address`], consumed by the draw, from which a keyed BLAKE3 derives the key and the first counter block of an
//! AES-128-CTR [`Stream`]: all 32 bytes of the hash are used, so two addresses share a stream only if BLAKE3 collides.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod address;
pub mod party;
#[cfg(feature = "replay")]
pub mod replay;
pub mod seed;
pub mod stream;

pub use address::{Address, DrawId, Ledger, Pair, Purpose, Source};
pub use party::Party;
pub use seed::{RandomError, Seed};
pub use stream::Stream;
