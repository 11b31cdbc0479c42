//! Addressed draws: every mask has one address, and an address is consumed by its one draw.

use std::sync::Arc;

use zeroize::Zeroize;

use crate::seed::Seed;
use crate::stream::Stream;

/// What a draw is for. Purposes never share a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// A party's part of a wire's mask.
    Lambda = 1,
    /// Alice's share of the producer's product of two masks.
    Product = 2,
    /// Alice's share of a mask without its low bits.
    Tau = 3,
    /// Alice's share of a mask's top bit.
    Top = 4,
    /// Alice's arithmetic share of a comparison's mask bit.
    Beta = 5,
    /// Alice's share of beta times tau.
    BetaTau = 6,
    /// Alice's share of beta times top.
    BetaTop = 7,
    /// Alice's share of beta times the whole mask.
    BetaLambda = 8,
    /// Alice's shares of the monomials of a comparison's leaves.
    Leaf = 9,
    /// A party's parts of the bit masks of one level of a comparison.
    NodeMask = 10,
    /// Alice's shares of the monomials of those masks.
    NodeMonomial = 11,
    /// Alice's share of the top bit of a comparison's window.
    WindowTop = 12,
    /// A party's part of the mask of a comparison's result.
    SignMask = 13,
    /// A party's parts of the bit masks of one level of a multi-input AND.
    AndMask = 14,
    /// Alice's shares of the monomials of those masks.
    AndMonomial = 15,
    /// Re-randomisation of an output, from the evaluators' own seed.
    Output = 16,
    /// Alice's share of a client's input or of an owner's weights.
    Share = 17,
    /// A party's part of the mask of a model's weights: never that of a request's wire, whatever epoch and lot.
    WeightLambda = 18,
    /// A party's root seeds of comparison keys.
    KeyRoot = 19,
    /// Alice's share of the top bit of a comparison's window of the mask.
    Half = 20,
    /// Alice's share of that bit times tau.
    HalfTau = 21,
    /// Alice's share of that bit times the mask's top bit.
    HalfTop = 22,
    /// Alice's share of that bit times the whole mask.
    HalfLambda = 23,
    /// Alice's share of a power of a mask.
    Power = 24,
    /// Alice's share of a comparison's mask bit times a power of the mask.
    BetaPower = 25,
    /// Bits that all three servers know, from the seed that all of them share.
    Pattern = 26,
    /// A party's part of the mask of a data set's rows: never that of a request's wire, whatever epoch and lot.
    RowLambda = 27,
    /// The order of a training run's rows, which all three servers know.
    Order = 28,
    /// Swaps of a shuffle of a data set's rows: one permutation from each pair's seed, unknown to the third server.
    RowOrder = 29,
    /// What an evaluator masks its share of a data set's rows by, when it hands it over to be permuted.
    RowMask = 30,
    /// An evaluator's fresh share of rows that were permuted.
    RowShare = 31,
    /// What is added to all logits of a row before one server is shown their differences: an evaluator's part of it, or
    /// all of it from the evaluators' own seed where carol or the helper is that server.
    LogitOffset = 32,
    /// An evaluator's share of the likelihoods that one server computed: bob's of alice's, from the evaluators' own seed;
    /// alice's of carol's, from the seed she shares with her, and of the helper's, from a key drawn there.
    Likelihood = 33,
    /// Swaps of a row's classes, from the evaluators' own seed, before carol or the helper is shown their likelihoods.
    ClassOrder = 34,
}

/// Which parties share a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pair {
    /// The evaluators: what the producer must not know.
    AliceBob,
    /// Alice's masks.
    AliceCarol,
    /// Bob's masks.
    BobCarol,
    /// A client or owner and alice.
    OwnerAlice,
    /// All three servers: what they may know and nobody else.
    Common,
    /// Alice and the helper, in one step.
    AliceHelper,
}

/// Where in a lot a draw belongs. Neither `Copy` nor `Clone`: it is consumed by its draw.
#[derive(Debug, PartialEq, Eq)]
pub struct Address {
    training_step: u32,
    wire: u32,
    part: u32,
    purpose: Purpose,
}

impl Address {
    /// The address of a draw for `purpose` on `wire` (a step of the program or a weight), `part` of it.
    pub fn new(training_step: u32, wire: u32, part: u32, purpose: Purpose) -> Self {
        Self { training_step, wire, part, purpose }
    }

    /// What is hashed of it.
    fn block(&self) -> [u8; 13] {
        let mut block = [0; 13];
        block[..4].copy_from_slice(&self.training_step.to_le_bytes());
        block[4..8].copy_from_slice(&self.wire.to_le_bytes());
        block[8..12].copy_from_slice(&self.part.to_le_bytes());
        block[12] = self.purpose as u8;
        block
    }
}

/// The full name of a draw, for ledgers: it says nothing about the values drawn.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrawId {
    /// Whose seed.
    pub pair: Pair,
    /// Epoch: a session's transcript or a model's upload.
    pub epoch: [u8; 32],
    /// Lot within the epoch.
    pub lot: u64,
    /// Training step within the lot.
    pub training_step: u32,
    /// Wire within the step.
    pub wire: u32,
    /// Part of the wire.
    pub part: u32,
    /// What for.
    pub purpose: Purpose,
}

/// Receives the name of every draw: the test kit's proof that none happens twice.
pub trait Ledger: Send + Sync {
    /// Called before a draw.
    fn record(&self, draw: DrawId);
}

/// A pair's seed narrowed to one epoch and lot: where draws are made.
#[derive(Clone)]
pub struct Source {
    pair: Pair,
    epoch: [u8; 32],
    lot: u64,
    key: Seed,
    ledger: Option<Arc<dyn Ledger>>,
    #[cfg(feature = "replay")]
    interceptor: Option<Arc<dyn crate::replay::Interceptor>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?}, lot {})", self.pair, self.lot)
    }
}

impl Source {
    /// The source of one lot of one epoch under the seed that `pair` shares.
    pub fn new(seed: &Seed, pair: Pair, epoch: [u8; 32], lot: u64) -> Self {
        let mut data = [0; 41];
        data[0] = pair as u8;
        data[1..33].copy_from_slice(&epoch);
        data[33..].copy_from_slice(&lot.to_le_bytes());
        Self {
            pair,
            epoch,
            lot,
            key: seed.derive("trefoil 2026 lot", &data),
            ledger: None,
            #[cfg(feature = "replay")]
            interceptor: None,
        }
    }

    /// For the test kit alone: the same source, its draws seen and possibly replaced by `interceptor`.
    #[cfg(feature = "replay")]
    pub fn with_interceptor(mut self, interceptor: Option<Arc<dyn crate::replay::Interceptor>>) -> Self {
        self.interceptor = interceptor;
        self
    }

    /// The same source, telling `ledger` of every draw.
    pub fn with_ledger(mut self, ledger: Option<Arc<dyn Ledger>>) -> Self {
        self.ledger = ledger;
        self
    }

    /// The lot.
    pub fn lot(&self) -> u64 {
        self.lot
    }

    /// A number for the draw at `address` that is no other draw's: no secret, and the same for all pairs of the epoch and
    /// lot. It uses nothing up.
    pub fn public(&self, address: &Address) -> [u8; 32] {
        let mut h = blake3::Hasher::new_derive_key("trefoil 2026 public number of a draw");
        h.update(&self.epoch).update(&self.lot.to_le_bytes()).update(&address.block());
        *h.finalize().as_bytes()
    }

    /// The stream at `address`, which is thereby used up.
    pub fn draw(&self, address: Address) -> Stream {
        let block = address.block();
        let Address { training_step, wire, part, purpose } = address;
        let (pair, epoch, lot) = (self.pair, self.epoch, self.lot);
        let id = DrawId { pair, epoch, lot, training_step, wire, part, purpose };
        if let Some(ledger) = &self.ledger {
            ledger.record(id.clone());
        }
        let mut hash = blake3::keyed_hash(self.key.expose(), &block);
        let stream = Stream::new(*hash.as_bytes());
        hash.zeroize();
        #[cfg(feature = "replay")]
        let stream = stream.tapped(id, self.interceptor.clone());
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Mutex;

    #[test]
    fn every_coordinate_changes_the_stream() {
        let seed = Seed::from_bytes([1; 32]);
        let base = Source::new(&seed, Pair::AliceCarol, [0; 32], 5);
        let mut seen = HashSet::new();
        let mut fresh = |s: &Source, a: Address| assert!(seen.insert(s.draw(a).words(2)));
        fresh(&base, Address::new(0, 0, 0, Purpose::Lambda));
        fresh(&base, Address::new(1, 0, 0, Purpose::Lambda));
        fresh(&base, Address::new(0, 1, 0, Purpose::Lambda));
        fresh(&base, Address::new(0, 0, 1, Purpose::Lambda));
        fresh(&base, Address::new(0, 0, 0, Purpose::Product));
        fresh(&Source::new(&seed, Pair::BobCarol, [0; 32], 5), Address::new(0, 0, 0, Purpose::Lambda));
        fresh(&Source::new(&seed, Pair::AliceCarol, [1; 32], 5), Address::new(0, 0, 0, Purpose::Lambda));
        fresh(&Source::new(&seed, Pair::AliceCarol, [0; 32], 6), Address::new(0, 0, 0, Purpose::Lambda));
        fresh(
            &Source::new(&Seed::from_bytes([2; 32]), Pair::AliceCarol, [0; 32], 5),
            Address::new(0, 0, 0, Purpose::Lambda),
        );
    }

    #[test]
    fn public_numbers_are_of_epoch_lot_and_address_alone() {
        let source = |seed: u8, pair, epoch, lot| Source::new(&Seed::from_bytes([seed; 32]), pair, [epoch; 32], lot);
        let at = |step, wire, part, purpose| Address::new(step, wire, part, purpose);
        let base = source(1, Pair::AliceCarol, 0, 5).public(&at(0, 0, 0, Purpose::KeyRoot));
        assert_eq!(base, source(2, Pair::BobCarol, 0, 5).public(&at(0, 0, 0, Purpose::KeyRoot)));
        let mut seen = HashSet::from([base]);
        for (epoch, lot, address) in [
            (1, 5, at(0, 0, 0, Purpose::KeyRoot)),
            (0, 6, at(0, 0, 0, Purpose::KeyRoot)),
            (0, 5, at(1, 0, 0, Purpose::KeyRoot)),
            (0, 5, at(0, 1, 0, Purpose::KeyRoot)),
            (0, 5, at(0, 0, 1, Purpose::KeyRoot)),
            (0, 5, at(0, 0, 0, Purpose::Lambda)),
        ] {
            assert!(seen.insert(source(1, Pair::AliceCarol, epoch, lot).public(&address)));
        }
    }

    #[test]
    fn the_ledger_hears_of_every_draw() {
        #[derive(Default)]
        struct Log(Mutex<Vec<DrawId>>);
        impl Ledger for Log {
            fn record(&self, draw: DrawId) {
                self.0.lock().unwrap().push(draw);
            }
        }
        let log = Arc::new(Log::default());
        let s = Source::new(&Seed::from_bytes([1; 32]), Pair::AliceBob, [9; 32], 3).with_ledger(Some(log.clone()));
        s.draw(Address::new(0, 4, 2, Purpose::Output));
        let seen = log.0.lock().unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].lot, seen[0].wire, seen[0].part, seen[0].purpose), (3, 4, 2, Purpose::Output));
    }
}
