//! Matrix products over Z_2^64: what is multiplied, how it is cut, and who multiplies it.
//!
//! Both products of this crate are one shape: row `r` of the left operand is read from `x` at `base(r) + offset`,
//! where the offsets, the same for every row, come in contiguous [`Run`]s. For a matrix there is one run; for a
//! convolution (over an input already padded) the runs are the rows of the window. So no patch is ever copied.
//!
//! Measured on one core of an Intel Sapphire Rapids (billions of multiply-adds a second, `benches/kernels.rs`; loops
//! that never leave the registers in the first three columns):
//!
//! | `vpmullq` | IFMA and VNNI limbs | AMX bytes | 1024^3: AMX | AVX-512 | AVX2 | plain |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | 11.5 | 18.6 | 67 | 31 | 10.6 | 5.8 | 2.0 |
//!
//! The limbs of IFMA were left out: where `vpmullq` is slow there is mostly AMX, and on the processors without AMX it
//! is fast.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod block;
#[cfg(target_arch = "x86_64")]
mod vector;

use rayon::prelude::*;

use super::{Isa, portable};
use crate::Words;

/// Multiply-adds that make another thread worth waking.
const MACS_PER_THREAD: usize = 4 << 20;

/// Contiguous elements of a left row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: usize,
    pub(super) len: usize,
}

/// Where the left rows begin: row `r` is pixel `(r / width / height, r / width % height, r % width)`, each
/// coordinate with its step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) steps: [usize; 3],
}

impl Grid {
    #[inline(always)]
    pub(super) fn base(&self, r: usize) -> usize {
        let (line, x) = (r / self.width, r % self.width);
        line / self.height * self.steps[0] + line % self.height * self.steps[1] + x * self.steps[2]
    }

    /// The largest base of the first `rows` rows.
    fn last(&self, rows: usize) -> usize {
        let lines = rows.div_ceil(self.width);
        (lines.div_ceil(self.height) - 1) * self.steps[0]
            + (lines.min(self.height) - 1) * self.steps[1]
            + (rows.min(self.width) - 1) * self.steps[2]
    }
}

/// `c += a * b`: `rows` left rows as described above; `b` and `c` have `n` columns that begin every `ldb` and
/// `ldc` elements.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) x: &'a [u64],
    pub(super) grid: Grid,
    pub(super) runs: &'a [Run],
    pub(super) rows: usize,
    pub(super) n: usize,
    pub(super) b: &'a [u64],
    pub(super) ldb: usize,
    pub(super) ldc: usize,
}

impl Product<'_> {
    fn depth(&self) -> usize {
        self.runs.iter().map(|r| r.len).sum()
    }

    /// Panics unless every element that the product names lies inside its slice: the kernels rely on it.
    fn check(&self, c: &[u64]) {
        let (rows, k, n) = (self.rows, self.depth(), self.n);
        let reach = self.runs.iter().map(|r| r.start + r.len).max().unwrap_or(0);
        assert!(rows > 0 && k > 0 && n > 0 && n <= self.ldb && n <= self.ldc);
        assert!(self.grid.last(rows) + reach <= self.x.len(), "left operand");
        assert!((k - 1) * self.ldb + n <= self.b.len(), "right operand");
        assert!((rows - 1) * self.ldc + n <= c.len(), "output");
    }
}

/// `c += a * b` modulo 2^64, with `a` of `m x k`, `b` of `k x n` and `c` of `m x n`, all row-major.
pub fn matmul(m: usize, k: usize, n: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    matmul_with(Isa::best(), m, k, n, a, b, c);
}

fn matmul_with(isa: Isa, m: usize, k: usize, n: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    let fits = |len: usize, rows: usize, columns: usize| rows.checked_mul(columns) == Some(len);
    assert!(
        fits(a.len(), m, k) && fits(b.len(), k, n) && fits(c.len(), m, n),
        "matmul: slices do not fit {m} x {k} x {n}"
    );
    if m == 0 || k == 0 || n == 0 {
        return;
    }
    if isa == Isa::Portable {
        return portable::matmul(m, k, n, a, b, c);
    }
    let threads = threads_for(m * k, n);
    if m < 2 * threads && k >= threads {
        return by_depth(isa, threads, (m, k, n), a, b, c);
    }
    let grid = Grid { height: 1, width: m, steps: [0, 0, k] };
    multiply(isa, &Product { x: a, grid, runs: &[Run { start: 0, len: k }], rows: m, n, b, ldb: n, ldc: n }, c);
}

/// Few rows and much work: the threads share the inner dimension, each reading its own rows of `b` once.
fn by_depth(isa: Isa, threads: usize, (m, k, n): (usize, usize, usize), a: &[u64], b: &[u64], c: &mut [u64]) {
    let share = k.div_ceil(threads);
    let part = |lo: usize| {
        let mut out = Words::zeros(m * n);
        let grid = Grid { height: 1, width: m, steps: [0, 0, k] };
        let runs = [Run { start: lo, len: share.min(k - lo) }];
        multiply(isa, &Product { x: a, grid, runs: &runs, rows: m, n, b: &b[lo * n..], ldb: n, ldc: n }, &mut out);
        out
    };
    let starts: Vec<_> = (0..k).step_by(share).collect();
    let parts: Vec<_> = starts.into_par_iter().map(part).collect();
    for part in parts {
        for (o, v) in c.iter_mut().zip(part.iter()) {
            *o = o.wrapping_add(*v);
        }
    }
}

/// Threads of the current pool worth using for `left * n` multiply-adds.
pub(super) fn threads_for(left: usize, n: usize) -> usize {
    (left.saturating_mul(n) / MACS_PER_THREAD).clamp(1, rayon::current_num_threads())
}

/// Computes the product with the vector instructions of `isa`, which must be one that [`Isa::available`] names and
/// not [`Isa::Portable`], over the current pool if it is large.
pub(super) fn multiply(isa: Isa, p: &Product<'_>, c: &mut [u64]) {
    assert!(isa != Isa::Portable && isa <= Isa::best());
    p.check(c);
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if isa == Isa::Amx && amx::worthwhile(p) {
        // SAFETY: the unit is available, and the product was checked.
        return unsafe { amx::multiply(p, c) };
    }
    #[cfg(target_arch = "x86_64")]
    vector::multiply(isa, p, c);
}

/// Rows of a task: an equal share for every thread, in whole blocks, but no more than `most`.
#[cfg(target_arch = "x86_64")]
fn share(rows: usize, threads: usize, block: usize, most: usize) -> usize {
    rows.div_ceil(threads).next_multiple_of(block).min(most)
}

/// The runs in groups of at most `depth` elements, each group with the elements before it.
#[cfg(target_arch = "x86_64")]
fn stretches(runs: &[Run], depth: usize) -> Vec<(usize, Vec<Run>)> {
    let mut out: Vec<(usize, Vec<Run>)> = Vec::new();
    let (mut before, mut room) = (0, 0);
    for run in runs {
        let mut done = 0;
        while done < run.len {
            if room == 0 {
                out.push((before, Vec::new()));
                room = depth;
            }
            let len = room.min(run.len - done);
            if let Some((_, group)) = out.last_mut() {
                group.push(Run { start: run.start + done, len });
            }
            (done, before, room) = (done + len, before + len, room - len);
        }
    }
    out
}

/// Whether the matrix unit is there and this process may use it.
#[cfg(target_arch = "x86_64")]
pub(super) fn matrix_unit() -> bool {
    #[cfg(target_os = "linux")]
    return amx::available();
    #[cfg(not(target_os = "linux"))]
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(n: usize, seed: u64) -> Vec<u64> {
        (1..=n as u64)
            .map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(i | 1))
            .collect()
    }

    fn agrees(m: usize, k: usize, n: usize) {
        let (a, b, start) = (noise(m * k, 1), noise(k * n, 2), noise(m * n, 3));
        let mut expected = start.clone();
        portable::matmul(m, k, n, &a, &b, &mut expected);
        for isa in Isa::available() {
            let mut c = start.clone();
            matmul_with(isa, m, k, n, &a, &b, &mut c);
            assert_eq!(c, expected, "{isa:?} {m} x {k} x {n}");
        }
    }

    #[test]
    fn every_tail_agrees_with_the_plain_product() {
        for m in [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 65] {
            for n in [1, 3, 4, 7, 8, 9, 10, 16, 20, 24, 25, 50, 65, 100] {
                for k in [1, 2, 5, 64, 65] {
                    agrees(m, k, n);
                }
            }
        }
    }

    #[test]
    fn deep_and_large_products_agree() {
        agrees(3, 2053, 9);
        agrees(50, 2053, 70);
        agrees(300, 257, 190);
        agrees(129, 2053, 17);
        agrees(1, 300_000, 33);
    }

    #[test]
    fn the_largest_elements_do_not_overflow_a_sum() {
        let (m, k, n) = (64, 5000, 32);
        let expected = (k as u64).wrapping_mul(u64::MAX.wrapping_mul(u64::MAX));
        for isa in Isa::available() {
            let mut c = vec![0; m * n];
            matmul_with(isa, m, k, n, &vec![u64::MAX; m * k], &vec![u64::MAX; k * n], &mut c);
            assert!(c.iter().all(|&v| v == expected), "{isa:?}");
        }
    }

    #[test]
    fn empty_products_leave_the_output() {
        for (m, k, n) in [(0, 3, 4), (3, 0, 4), (3, 4, 0)] {
            let mut c = vec![7; m * n];
            matmul(m, k, n, &vec![1; m * k], &vec![1; k * n], &mut c);
            assert!(c.iter().all(|&v| v == 7));
        }
    }

    #[test]
    fn threads_do_not_change_a_product() {
        for (m, k, n) in [(200, 300, 400), (20, 700, 900), (100, 600, 200), (1, 7000, 2000)] {
            let (a, b) = (noise(m * k, 1), noise(k * n, 2));
            for isa in Isa::available() {
                let with = |threads| {
                    let mut c = vec![0; m * n];
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| matmul_with(isa, m, k, n, &a, &b, &mut c));
                    c
                };
                assert!(with(1) == with(3), "{isa:?} {m} x {k} x {n}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn random_shapes_agree(m in 1usize..70, k in 1usize..200, n in 1usize..130) {
            agrees(m, k, n);
        }
    }
}
