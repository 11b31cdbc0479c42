//! Soak: truncations and comparisons in great number, on the values where they would go wrong first.
//!
//! Runs the real protocol (open and truncate, open and ReLU) on a [`World`]. Half of the values lie within four units
//! of 0, of 2^lo either way, or of the ends of the range; the rest anywhere in it.

use trefoil_mpc::Compare;
use trefoil_mpc::MpcError;
use trefoil_mpc::program::{Op, Window};

use crate::small::program;
use crate::{Random, World};

/// What is soaked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Truncation by so many bits of values below 2^62.
    Truncate(u32),
    /// ReLU of a window with truncation by so many bits: shows the sign.
    Compare(Window, u32),
}

/// A value for which the protocol was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{case:?} of {value} gave {got}")]
pub struct Wrong {
    /// The case.
    pub case: Case,
    /// The value.
    pub value: i64,
    /// The protocol's result.
    pub got: i64,
}

/// Why a soak stopped.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// The protocol was wrong.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// The protocol failed.
    #[error(transparent)]
    Mpc(#[from] MpcError),
}

/// The truncations soaked.
pub const TRUNCATIONS: [Case; 4] = [Case::Truncate(16), Case::Truncate(1), Case::Truncate(20), Case::Truncate(8)];

/// The comparisons soaked: window and truncation.
pub const COMPARISONS: [Case; 6] = [
    Case::Compare(Window { lo: 16, k: 32 }, 16),
    Case::Compare(Window { lo: 0, k: 32 }, 0),
    Case::Compare(Window { lo: 16, k: 24 }, 16),
    Case::Compare(Window { lo: 0, k: 62 }, 0),
    Case::Compare(Window { lo: 20, k: 28 }, 20),
    Case::Compare(Window { lo: 10, k: 40 }, 13),
];

impl Case {
    /// Lowest value (included), highest (excluded), and bits of the tolerance or of the unit.
    fn range(self) -> (i64, i64, u32) {
        match self {
            Case::Truncate(f) => (-(1 << 62) + 1, 1 << 62, f),
            Case::Compare(w, _) => (-(1 << (w.lo + w.k - 1)), (1 << (w.lo + w.k - 1)) - (1 << w.lo), w.lo),
        }
    }

    /// `n` values, half of them close to where the case could break.
    pub fn values(self, r: &mut Random, n: usize) -> Vec<u64> {
        let (low, high, unit) = self.range();
        let centres = [0, 1 << unit, -(1 << unit), low, high - 1];
        let value = |i: usize| {
            let v = if i.is_multiple_of(2) {
                centres[r.below(5) as usize].saturating_add(r.between(-4, 5))
            } else {
                r.between(low, high)
            };
            v.clamp(low, high - 1) as u64
        };
        (0..n).map(value).collect()
    }

    /// Whether `got` is an allowed result for `z`.
    pub fn allows(self, z: i64, got: i64) -> bool {
        let coin = |f: u32, z: i64| got == z >> f || (f > 0 && got == (z >> f) + 1);
        match self {
            Case::Truncate(f) => coin(f, z),
            // A non-negative value passes, a negative one gives 0, but between -2^lo and 0 either may happen.
            Case::Compare(_, f) if z >= 0 => coin(f, z),
            Case::Compare(w, f) => got == 0 || (z >= -(1 << w.lo) && w.lo > 0 && coin(f, z)),
        }
    }

    /// Runs the case on `n` values; `seed` decides values and masks.
    pub fn run(self, seed: u64, n: usize) -> Result<(), SoakError> {
        let op = match self {
            Case::Truncate(shift) => Op::Truncate { x: 1, shift },
            Case::Compare(window, shift) => Op::Relu { x: 1, shift, window, compare: Compare::default() },
        };
        let mut p = program(vec![n], vec![], vec![Op::Open { x: 0 }, op]);
        p.fraction_bits = 20;
        let x = self.values(&mut Random::new(seed), n);
        let mut world = World::unlogged(seed);
        let model = world.share(&p, &[])?;
        let got = world.run(&model, 1, &x)?.value();
        for (z, got) in x.iter().zip(got) {
            let value = *z as i64;
            if !self.allows(value, got) {
                return Err(Wrong { case: self, value, got }.into());
            }
        }
        Ok(())
    }
}
