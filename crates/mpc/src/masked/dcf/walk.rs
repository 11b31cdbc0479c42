//! An evaluator's side: the walk down its own tree along public points.

use trefoil_ring::Words;

use super::super::online::Role;
use super::correct::convert;
use super::tree::{Block, Blocks, Ciphers, REST, SEED, Value, Values, WIDE, add, negate, pick, rounded};
use super::{Group, Shape};

/// Room for the evaluation of up to `KEYS` keys.
pub(super) struct Walk {
    seeds: Blocks,
    turned: Blocks,
    wide: Blocks,
    rest: Blocks,
    on: Words,
    acc: Values,
    cw: Values,
    scratch: Words,
}

impl Walk {
    pub(super) fn new(n: usize) -> Self {
        let blocks = || Blocks::zeros(n);
        Self {
            seeds: blocks(),
            turned: blocks(),
            wide: blocks(),
            rest: blocks(),
            on: Words::zeros(n),
            acc: Values::zeros(n),
            cw: Values::zeros(n),
            scratch: Words::zeros(n),
        }
    }

    /// This evaluator's shares of the functions' values at `x`, unreduced in the last number.
    pub(super) fn run(
        &mut self,
        ciphers: &Ciphers,
        role: Role,
        shape: Shape,
        roots: &[u64],
        corrections: &[u64],
        x: &[u64],
    ) -> &[Value] {
        let Shape { bits, group } = shape;
        let n = x.len();
        self.seeds.set(roots);
        self.on.fill(!role.ones());
        self.acc.get_mut().fill([0; 3]);
        self.cw.get_mut().fill([0; 3]);
        let (levels, leaves) = corrections.split_at(corrections.len() - group.leaf_words(n));
        for (i, level) in (shape.leaf_bits()..bits).rev().zip(levels.chunks_exact(group.level_words(n))) {
            let (cw_seeds, rest) = level.split_at(2 * n);
            let (cw_values, cw_bits) = rest.split_at(group.value_words(n));
            group.read(cw_values, &mut self.cw.get_mut()[..n], &mut self.scratch);
            self.step(ciphers, i, group, x, bytemuck::cast_slice(cw_seeds), cw_bits);
        }
        if group.wide() {
            self.end(ciphers, role, group, leaves, n);
        } else {
            self.end_in_bits(ciphers, shape, bytemuck::cast_slice(leaves), x);
        }
        &self.acc.get()[..n]
    }

    /// One level down, to the side that bit `i` of each point says.
    fn step(&mut self, ciphers: &Ciphers, i: u32, group: Group, x: &[u64], cw_seeds: &[Block], cw_bits: &[u64]) {
        let (n, all) = (x.len(), rounded(x.len()));
        ciphers.generate(REST, self.seeds.get(), &mut self.rest.get_mut()[..all]);
        for (t, (s, x)) in self.turned.get_mut().iter_mut().zip(self.seeds.get().iter().zip(x)) {
            *t = [s[0] ^ (x >> i & 1), s[1]];
        }
        ciphers.generate(SEED, self.turned.get(), &mut self.seeds.get_mut()[..all]);
        if group.wide() {
            ciphers.generate(WIDE, self.turned.get(), &mut self.wide.get_mut()[..all]);
        }
        let (left, right) = cw_bits.split_at(n.div_ceil(64));
        let seeds = self.seeds.get_mut().iter_mut().zip(cw_seeds);
        let grown = self.wide.get().iter().zip(self.rest.get());
        let values = self.acc.get_mut().iter_mut().zip(self.cw.get());
        let keys = seeds.zip(grown).zip(values).zip(self.on.iter_mut().zip(x)).enumerate();
        for (e, ((((seed, cw_seed), (wide, rest)), (acc, cw)), (on, x))) in keys {
            let side = (x >> i & 1).wrapping_neg();
            let mask = *on;
            *seed = [seed[0] ^ (mask & cw_seed[0]), seed[1] ^ (mask & cw_seed[1])];
            let rest = pick(side, rest[1], rest[0]);
            let value = [wide[0], wide[1], rest & group.mask()];
            *acc = add(*acc, add(value, cw.map(|c| c & mask)));
            let bit = pick(side, right[e / 64], left[e / 64]) >> (e % 64) & 1;
            *on = (rest >> 63).wrapping_neg() ^ (mask & bit.wrapping_neg());
        }
    }

    fn end(&mut self, ciphers: &Ciphers, role: Role, group: Group, leaves: &[u64], n: usize) {
        let last = convert(ciphers, group, &self.seeds, n);
        group.read(leaves, &mut self.cw.get_mut()[..n], &mut self.scratch);
        let sign = !role.ones();
        let ends = last.get().iter().zip(self.cw.get()).zip(self.on.iter());
        for (acc, ((last, cw), on)) in self.acc.get_mut().iter_mut().zip(ends) {
            *acc = negate(sign, add(*acc, add(*last, cw.map(|c| c & on))));
        }
    }

    /// The bit that the last bits of each point say, of the leaf's block.
    fn end_in_bits(&mut self, ciphers: &Ciphers, shape: Shape, leaves: &[Block], x: &[u64]) {
        ciphers.generate(SEED, self.seeds.get(), &mut self.rest.get_mut()[..rounded(x.len())]);
        let low = (1 << shape.leaf_bits()) - 1;
        let ends = self.rest.get().iter().zip(leaves).zip(self.on.iter().zip(x));
        for (acc, ((block, cw), (on, x))) in self.acc.get_mut().iter_mut().zip(ends) {
            let at = x & low;
            let second = (at >> 6).wrapping_neg();
            acc[2] ^= (pick(second, block[1], block[0]) ^ (on & pick(second, cw[1], cw[0]))) >> (at & 63);
        }
    }
}
