//! Distributed point functions on few points, expanded whole: shares of a vector that is zero but for one place.
//!
//! The producer knows the place alpha, of r bits, and the payload v of a few ring elements. A key (Boyle et al. 2016,
//! figure 1) is a tree of r levels over two secret root seeds, one of each evaluator, with correction words that are
//! published to both: a block a level, and the payload's correction at the end. Each evaluator grows its whole tree and
//! has, for every p of the 2^r points, an additive share of [p = alpha] v.
//!
//! 128 r + 64 |v| bits a key dealt, where the vector itself would be 64 |v| 2^r; as many pass from bob to alice.
//!
//! A child's lowest bit is its control bit. The lowest bits of both halves of a seed are cleared: a left child comes of
//! the seed itself, a right child of the seed with the first of them set (see `dcf::tree` for the generator, and for what
//! is needed of it), and in a correction word they are the children's control bits. Seeds have 126 secret bits, so the
//! bound of `dcf::tree` holds with 2^126 for 2^128.
//!
//! A key grows the same tree wherever the payload lies, and its correction words hide place and payload, which are made of
//! masks of what is opened, from an evaluator that lacks the other's root seed, as far as the generator is pseudorandom. So
//! each number that is opened still looks uniform to both: a key has two halves, of which none ever has both.

use rayon::prelude::*;
use trefoil_prg::Purpose;
use trefoil_ring::Words;

use super::dcf::tree::{Block, Blocks, Ciphers, REST, SEED, WIDE, pick, pick_block, xor};
use super::dealing::{At, Dealing};
use super::online::Role;
use crate::error::MpcError;

/// Keys that grow side by side: one word of control bits.
pub(crate) const SIDE: usize = 64;

/// Ring elements of a value; a payload may have fewer.
pub(crate) type Value = [u64; 4];

/// Keys of so many bits whose payloads have so many ring elements, at most four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) bits: u32,
    pub(crate) terms: usize,
}

impl Shape {
    /// Words of the correction words of up to [`SIDE`] keys.
    fn piece_words(self, n: usize) -> usize {
        (2 * self.bits as usize + self.terms) * n
    }

    fn words(self, n: usize) -> usize {
        let rest = if n.is_multiple_of(SIDE) { 0 } else { self.piece_words(n % SIDE) };
        n / SIDE * self.piece_words(SIDE) + rest
    }
}

/// Own root seeds and the correction words of many keys.
#[derive(Default)]
pub(crate) struct Points {
    number: [u8; 32],
    roots: Words,
    corrections: Words,
}

impl Points {
    pub(crate) fn words(&self) -> usize {
        self.roots.len() + self.corrections.len()
    }
}

/// Deals `n` keys. `alpha` and `payload` run at the producer only, whose threads share the work.
pub(crate) fn deal_points<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    shape: Shape,
    alpha: impl Fn(usize) -> u64 + Sync,
    payload: impl Fn(usize) -> Value + Sync,
) -> Result<Points, MpcError> {
    /// Keys whose correction words go into one piece of a frame.
    const PART: usize = 16 * SIDE;
    let mut draw = d.open_mask(at, Purpose::KeyRoot)?;
    let number = d.public(at, Purpose::KeyRoot)?;
    let ciphers = Ciphers::new(&number);
    let mut keys = Points { number, roots: D::room(2 * n), corrections: D::room(shape.words(n)) };
    for start in (0..n).step_by(PART) {
        let count = PART.min(n - start);
        let [alice, bob] = d.parts(&mut draw, 2 * count);
        d.publish(shape.words(count), &mut keys.corrections, |out| {
            out.par_chunks_mut(shape.piece_words(SIDE)).enumerate().for_each(|(i, out)| {
                let own = i * SIDE..count.min((i + 1) * SIDE);
                let (mut places, mut values) = (Words::zeros(own.len()), Words::zeros(own.len() * shape.terms));
                for (e, place) in own.clone().zip(places.iter_mut()) {
                    *place = alpha(start + e);
                    let value = payload(start + e);
                    for (t, v) in value[..shape.terms].iter().enumerate() {
                        values[t * own.len() + e - own.start] = *v;
                    }
                }
                let roots = [&alice, &bob].map(|r| &r[2 * own.start..2 * own.end]);
                correct(&ciphers, shape, roots, &places, &values, out);
            });
        })?;
        if D::KEEPS {
            keys.roots.extend(&alice);
            keys.roots.extend(&bob);
        }
    }
    Ok(keys)
}

/// A block as control bit and seed.
fn split(block: Block) -> (u64, Block) {
    (block[0] & 1, block.map(|half| half & !1))
}

/// The children on one side.
fn grow(ciphers: &Ciphers, seeds: &Blocks, side: u64, turned: &mut Blocks, out: &mut Blocks) {
    turned.get_mut().iter_mut().zip(seeds.get()).for_each(|(t, s)| *t = [s[0] | side, s[1]]);
    ciphers.generate(SEED, turned.get(), out.get_mut());
}

/// The root seeds of up to [`SIDE`] keys.
fn seeds(roots: &[u64]) -> Blocks {
    let mut seeds = Blocks::zeros(SIDE);
    seeds.set(roots);
    seeds.get_mut().iter_mut().for_each(|s| *s = split(*s).1);
    seeds
}

/// Writes the correction words of up to [`SIDE`] keys into `out`, which is all zeros: `values` has the payloads' first
/// elements, then the second ones .. It branches on nothing secret.
fn correct(ciphers: &Ciphers, shape: Shape, roots: [&[u64]; 2], alpha: &[u64], values: &[u64], out: &mut [u64]) {
    let n = alpha.len();
    let blocks = || Blocks::zeros(SIDE);
    let mut own = roots.map(seeds);
    // Control bits: at alice's root none, at bob's all.
    let mut on = [0, u64::MAX];
    let mut turned = blocks();
    let mut children = [[blocks(), blocks()], [blocks(), blocks()]];
    let (levels, leaves) = out.split_at_mut(2 * shape.bits as usize * n);
    for (i, level) in (0..shape.bits).rev().zip(levels.chunks_exact_mut(2 * n)) {
        for (own, children) in own.iter().zip(&mut children) {
            for (side, child) in (0..).zip(children) {
                grow(ciphers, own, side, &mut turned, child);
            }
        }
        let mut next = [0, 0];
        for (e, word) in level.chunks_exact_mut(2).enumerate() {
            let a = alpha[e] >> i & 1;
            let to = a.wrapping_neg();
            let child = |party: usize, side: usize| split(children[party][side].get()[e]);
            let [left, right] = [0, 1].map(|side| child(0, side).0 ^ child(1, side).0 ^ a ^ 1 ^ side as u64);
            let lost = xor(pick_block(to, child(0, 0).1, child(0, 1).1), pick_block(to, child(1, 0).1, child(1, 1).1));
            word.copy_from_slice(&[lost[0] | left, lost[1] | right]);
            let kept = pick(to, right, left);
            for party in 0..2 {
                let (l, r) = (child(party, 0), child(party, 1));
                let mask = (on[party] >> e & 1).wrapping_neg();
                let seed = pick_block(to, r.1, l.1);
                own[party].get_mut()[e] = xor(seed, lost.map(|w| w & mask));
                next[party] |= (pick(to, r.0, l.0) ^ (kept & mask)) << e;
            }
        }
        on = next;
    }
    let mut ends = [[blocks(), blocks()], [blocks(), blocks()]];
    for (own, [first, second]) in own.iter().zip(&mut ends) {
        ciphers.generate(WIDE, own.get(), first.get_mut());
        ciphers.generate(REST, own.get(), second.get_mut());
    }
    for (t, (out, value)) in leaves.chunks_exact_mut(n).zip(values.chunks_exact(n)).enumerate() {
        for (e, (o, v)) in out.iter_mut().zip(value).enumerate() {
            let [a, b] = [0, 1].map(|party: usize| ends[party][t / 2].get()[e][t % 2]);
            let sign = (on[1] >> e & 1).wrapping_neg();
            *o = (v.wrapping_sub(a).wrapping_add(b) ^ sign).wrapping_sub(sign);
        }
    }
}

/// Room to expand up to [`SIDE`] keys.
pub(crate) struct Expansion {
    /// Seeds of a level's nodes, node by node; after the last level those of the leaves.
    seeds: Blocks,
    turned: Blocks,
    /// Control bits of each node's keys.
    on: Words,
    ends: [Blocks; 2],
    values: Words,
}

impl Expansion {
    pub(crate) fn new(shape: Shape) -> Self {
        let blocks = || Blocks::zeros(SIDE << shape.bits);
        Self {
            seeds: blocks(),
            turned: blocks(),
            on: Words::zeros(1 << shape.bits),
            ends: [blocks(), blocks()],
            values: Words::zeros((size_of::<Value>() / 8 * SIDE) << shape.bits),
        }
    }

    /// This evaluator's shares of piece `piece` of the keys: for each point the values of [`SIDE`] keys, the last of which
    /// may mean nothing.
    pub(crate) fn run(
        &mut self,
        role: Role,
        ciphers: &Ciphers,
        shape: Shape,
        keys: &Points,
        piece: usize,
    ) -> &[[Value; SIDE]] {
        let roots = &keys.roots[2 * SIDE * piece..];
        let n = SIDE.min(roots.len() / 2);
        let corrections = &keys.corrections[piece * shape.piece_words(SIDE)..][..shape.piece_words(n)];
        let (levels, leaves) = corrections.split_at(2 * shape.bits as usize * n);
        self.seeds.get_mut()[..SIDE].copy_from_slice(&seeds(&roots[..2 * n]).get()[..SIDE]);
        self.on[0] = !role.ones();
        for (i, level) in levels.chunks_exact(2 * n).enumerate() {
            self.grow(ciphers, 1 << i, level.as_chunks().0);
        }
        let all = SIDE << shape.bits;
        ciphers.generate(WIDE, self.seeds.get(), &mut self.ends[0].get_mut()[..all]);
        if shape.terms > 2 {
            ciphers.generate(REST, self.seeds.get(), &mut self.ends[1].get_mut()[..all]);
        }
        let sign = !role.ones();
        let values: &mut [Value] = self.values.as_chunks_mut().0;
        for ((node, on), values) in self.on.iter().enumerate().zip(values.chunks_exact_mut(SIDE)) {
            for (t, words) in leaves.chunks_exact(n).enumerate() {
                let ends = &self.ends[t / 2].get()[SIDE * node..];
                for (e, ((value, end), word)) in values.iter_mut().zip(ends).zip(words).enumerate() {
                    let share = end[t % 2].wrapping_add(word & (on >> e & 1).wrapping_neg());
                    value[t] = (share ^ sign).wrapping_sub(sign);
                }
            }
        }
        self.values.as_chunks().0.as_chunks().0
    }

    /// From a level of so many nodes to the next.
    fn grow(&mut self, ciphers: &Ciphers, nodes: usize, words: &[Block]) {
        let children = self.turned.get_mut().chunks_exact_mut(2 * SIDE);
        for (node, children) in self.seeds.get().chunks_exact(SIDE).zip(children).take(nodes) {
            let (left, right) = children.split_at_mut(SIDE);
            left.copy_from_slice(node);
            right.iter_mut().zip(node).for_each(|(r, s)| *r = [s[0] | 1, s[1]]);
        }
        let grown = &mut self.seeds.get_mut()[..2 * nodes * SIDE];
        ciphers.generate(SEED, self.turned.get(), grown);
        for child in (0..2 * nodes).rev() {
            let (on, side) = (self.on[child / 2], child % 2);
            let mut control = 0;
            for (e, (block, word)) in grown[child * SIDE..].iter_mut().zip(words).enumerate() {
                let mask = (on >> e & 1).wrapping_neg();
                let (bit, seed) = split(*block);
                *block = xor(seed, split(*word).1.map(|half| half & mask));
                control |= (bit ^ word[side] & mask & 1) << e;
            }
            self.on[child] = control;
        }
    }
}

impl Points {
    /// The ciphers that the keys grow by.
    pub(crate) fn ciphers(&self) -> Ciphers {
        Ciphers::new(&self.number)
    }
}

#[cfg(test)]
mod tests {
    use trefoil_link::Link;
    use trefoil_prg::{Address, Pair, Seed, Source};

    use super::super::dealing::Producer;
    use super::*;

    const NUMBER: [u8; 32] = [7; 32];

    fn words(n: usize, part: u32) -> Words {
        let source = Source::new(&Seed::from_bytes([3; 32]), Pair::BobCarol, [0; 32], 0);
        source.draw(Address::new(0, 0, part, Purpose::KeyRoot)).words(n).into()
    }

    /// Both evaluators' keys, and the payloads, the first elements first in every piece.
    fn keys(shape: Shape, alpha: &[u64], part: u32) -> ([Points; 2], Words) {
        let (n, terms) = (alpha.len(), shape.terms);
        let roots = [words(2 * n, part), words(2 * n, part + 1)];
        let (values, mut corrections) = (words(terms * n, part + 2), Words::default());
        for start in (0..n).step_by(SIDE) {
            let count = SIDE.min(n - start);
            let own = [0, 1].map(|p: usize| &roots[p][2 * start..2 * (start + count)]);
            let payloads = &values[terms * start..terms * (start + count)];
            let out = corrections.grow(shape.piece_words(count));
            correct(&Ciphers::new(&NUMBER), shape, own, &alpha[start..start + count], payloads, out);
        }
        (roots.map(|roots| Points { number: NUMBER, roots, corrections: corrections.clone() }), values)
    }

    #[test]
    fn whole_domains() {
        for bits in 1..=7 {
            for terms in 2..=4 {
                let shape = Shape { bits, terms };
                for n in [1usize, 63, 64, 130] {
                    let alpha: Vec<u64> = (0..n as u64).map(|e| (e * 5 + 3) % (1 << bits)).collect();
                    let (keys, values) = keys(shape, &alpha, 100 * bits + terms as u32);
                    let mut rooms = [Expansion::new(shape), Expansion::new(shape)];
                    for (piece, alpha) in alpha.chunks(SIDE).enumerate() {
                        let [a, b] = &mut rooms;
                        let a = a.run(Role::A, &keys[0].ciphers(), shape, &keys[0], piece);
                        let b = b.run(Role::B, &keys[1].ciphers(), shape, &keys[1], piece);
                        let (payloads, count) = (&values[terms * SIDE * piece..], alpha.len());
                        for (p, (a, b)) in a.iter().zip(b).enumerate() {
                            for (e, alpha) in alpha.iter().enumerate() {
                                for t in 0..terms {
                                    let want = if p as u64 == *alpha { payloads[t * count + e] } else { 0 };
                                    assert_eq!(a[e][t].wrapping_add(b[e][t]), want, "{shape:?}, key {e} of {n} at {p}");
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn corrections_are_balanced_whatever_the_place() {
        let shape = Shape { bits: 4, terms: 4 };
        let n = 16 * SIDE;
        for alpha in [0, 15] {
            let (keys, _) = keys(shape, &vec![alpha; n], 9);
            let ones: u64 = keys[0].corrections.iter().map(|w| u64::from(w.count_ones())).sum();
            let all = 64.0 * keys[0].corrections.len() as f64;
            assert!((ones as f64 - all / 2.0).abs() < 5.0 * all.sqrt() / 2.0, "{ones} of {all}");
        }
    }

    #[test]
    fn threads_change_nothing_and_the_counter_counts_what_is_sent() {
        let shape = Shape { bits: 3, terms: 4 };
        let n = 40 * SIDE + 17;
        let dealt = || {
            let (mut carol, mut bob) = trefoil_link::pair("carol", "bob");
            let [alice, other] = [Pair::AliceCarol, Pair::BobCarol]
                .map(|pair| Source::new(&Seed::from_bytes([5; 32]), pair, [0; 32], 0));
            let mut d = Producer::new(&alice, &other, &mut carol);
            let at = At::step(0).unwrap();
            deal_points(&mut d, at, n, shape, |e| e as u64 % 8, |e| [1, e as u64, 2, 3]).unwrap();
            d.end_step().unwrap();
            drop(d);
            let (mut all, mut frame) = (vec![], vec![]);
            while all.len() < 8 * shape.words(n) {
                bob.recv_into(0, 1 << 24, &mut frame).unwrap();
                all.extend_from_slice(&frame);
            }
            assert_eq!(all.len(), 8 * shape.words(n));
            all
        };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(dealt)
        };
        assert!(run(1) == run(3));
    }

    #[test]
    fn a_key_has_as_many_bits_as_stated() {
        let shape = Shape { bits: 4, terms: 4 };
        assert_eq!(64 * shape.words(4 * SIDE) / (4 * SIDE), 128 * shape.bits as usize + 64 * shape.terms);
    }
}
