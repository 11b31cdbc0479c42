//! Products with one operand transposed, as dense layers need them backwards: the operand is transposed a bounded
//! piece at a time.

use rayon::prelude::*;

use super::gemm::{Grid, Product, Run, multiply, threads_for};
use super::{Isa, portable};
use crate::Words;

/// Words of a transposed piece at most.
const PIECE: usize = 1 << 17;
/// Inner dimension of a piece at most.
const DEPTH: usize = 1024;

/// `out += transpose(x) * y` modulo 2^64, with `x` of `k x m`, `y` of `k x n` and `out` of `m x n`, all row-major:
/// the gradient of a dense layer's weights, where `k` counts the samples.
pub fn matmul_tn(m: usize, k: usize, n: usize, x: &[u64], y: &[u64], out: &mut [u64]) {
    tn_with(Isa::best(), m, k, n, x, y, out);
}

/// `out += x * transpose(y)` modulo 2^64, with `x` of `m x k`, `y` of `n x k` and `out` of `m x n`, all row-major: the
/// gradient of a dense layer's input, where `m` counts the samples.
pub fn matmul_nt(m: usize, k: usize, n: usize, x: &[u64], y: &[u64], out: &mut [u64]) {
    nt_with(Isa::best(), m, k, n, x, y, out);
}

fn fits(slice: &[u64], rows: usize, columns: usize) -> bool {
    rows.checked_mul(columns) == Some(slice.len())
}

fn tn_with(isa: Isa, m: usize, k: usize, n: usize, x: &[u64], y: &[u64], out: &mut [u64]) {
    assert!(fits(x, k, m) && fits(y, k, n) && fits(out, m, n), "matmul_tn: slices do not fit {m} x {k} x {n}");
    if m == 0 || k == 0 || n == 0 {
        return;
    }
    if isa == Isa::Portable {
        return portable::matmul_tn(m, n, x, y, out);
    }
    let depth = k.min(DEPTH);
    let threads = threads_for(m * k, n);
    let share = m.div_ceil(threads).next_multiple_of(32).min(PIECE / depth);
    let task = |first: usize, out: &mut [u64]| {
        let rows = out.len() / n;
        let mut piece = Words::zeros(rows * depth);
        for lo in (0..k).step_by(depth) {
            let deep = depth.min(k - lo);
            transpose(deep, rows, &x[lo * m + first..], m, &mut piece);
            let grid = Grid { height: 1, width: rows, steps: [0, 0, deep] };
            let runs = [Run { start: 0, len: deep }];
            multiply(isa, &Product { x: &piece, grid, runs: &runs, rows, n, b: &y[lo * n..], ldb: n, ldc: n }, out);
        }
    };
    if threads == 1 {
        out.chunks_mut(share * n).enumerate().for_each(|(i, out)| task(i * share, out));
    } else {
        out.par_chunks_mut(share * n).enumerate().for_each(|(i, out)| task(i * share, out));
    }
}

fn nt_with(isa: Isa, m: usize, k: usize, n: usize, x: &[u64], y: &[u64], out: &mut [u64]) {
    assert!(fits(x, m, k) && fits(y, n, k) && fits(out, m, n), "matmul_nt: slices do not fit {m} x {k} x {n}");
    if m == 0 || k == 0 || n == 0 {
        return;
    }
    if isa == Isa::Portable {
        return portable::matmul_nt(k, n, x, y, out);
    }
    let depth = k.min(DEPTH);
    let width = n.min(PIECE / depth);
    let mut piece = Words::zeros(depth * width);
    let grid = Grid { height: 1, width: m, steps: [0, 0, k] };
    for from in (0..n).step_by(width) {
        let columns = width.min(n - from);
        for lo in (0..k).step_by(depth) {
            let deep = depth.min(k - lo);
            transpose(columns, deep, &y[from * k + lo..], k, &mut piece);
            let runs = [Run { start: lo, len: deep }];
            let product = Product { x, grid, runs: &runs, rows: m, n: columns, b: &piece, ldb: columns, ldc: n };
            multiply(isa, &product, &mut out[from..]);
        }
    }
}

/// Writes the transpose of `rows x columns` elements, whose rows begin every `ld` elements of `from`, to the beginning
/// of `to`, a line of the cache from every row at a time.
pub(super) fn transpose(rows: usize, columns: usize, from: &[u64], ld: usize, to: &mut [u64]) {
    const SIDE: usize = 8;
    let full = (rows - rows % SIDE, columns - columns % SIDE);
    for r in (0..full.0).step_by(SIDE) {
        let lines: [&[u64]; SIDE] = std::array::from_fn(|i| &from[(r + i) * ld..][..columns]);
        for c in (0..full.1).step_by(SIDE) {
            let block = lines.map(|line| *line[c..].first_chunk::<SIDE>().unwrap_or(&[0; SIDE]));
            for j in 0..SIDE {
                to[(c + j) * rows + r..][..SIDE].copy_from_slice(&block.map(|line| line[j]));
            }
        }
    }
    for r in 0..rows {
        for c in if r < full.0 { full.1 } else { 0 }..columns {
            to[c * rows + r] = from[r * ld + c];
        }
    }
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

    fn agree(m: usize, k: usize, n: usize) {
        let (a, b, start) = (noise(m * k, 1), noise(k * n, 2), noise(m * n, 3));
        let (mut at, mut bt) = (vec![0; a.len()], vec![0; b.len()]);
        for (i, v) in a.iter().enumerate() {
            at[i % k * m + i / k] = *v;
        }
        for (i, v) in b.iter().enumerate() {
            bt[i % n * k + i / n] = *v;
        }
        let mut expected = start.clone();
        portable::matmul(m, k, n, &a, &b, &mut expected);
        for isa in Isa::available() {
            let mut out = start.clone();
            tn_with(isa, m, k, n, &at, &b, &mut out);
            assert!(out == expected, "tn {isa:?} {m} x {k} x {n}");
            let mut out = start.clone();
            nt_with(isa, m, k, n, &a, &bt, &mut out);
            assert!(out == expected, "nt {isa:?} {m} x {k} x {n}");
        }
    }

    #[test]
    fn every_tail_agrees_with_the_plain_product() {
        for m in [1, 2, 7, 8, 9, 16, 33] {
            for k in [1, 3, 8, 17, 65] {
                for n in [1, 5, 8, 10, 24, 65] {
                    agree(m, k, n);
                }
            }
        }
    }

    #[test]
    fn products_of_several_pieces_agree() {
        agree(300, 1300, 9);
        agree(9, 1300, 300);
        agree(784, 128, 128);
        agree(2, 2053, 140);
    }

    #[test]
    fn empty_products_leave_the_output() {
        for (m, k, n) in [(0, 3, 4), (3, 0, 4), (3, 4, 0)] {
            let mut out = vec![7; m * n];
            matmul_tn(m, k, n, &vec![1; m * k], &vec![1; k * n], &mut out);
            matmul_nt(m, k, n, &vec![1; m * k], &vec![1; k * n], &mut out);
            assert!(out.iter().all(|&v| v == 7));
        }
    }

    #[test]
    fn threads_do_not_change_a_product() {
        let (m, k, n) = (700, 300, 130);
        let (x, xt, y, yt) = (noise(m * k, 1), noise(k * m, 2), noise(k * n, 3), noise(n * k, 4));
        let with = |threads| {
            let (mut tn, mut nt) = (vec![0; m * n], vec![0; m * n]);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| matmul_tn(m, k, n, &xt, &y, &mut tn));
            pool.install(|| matmul_nt(m, k, n, &x, &yt, &mut nt));
            (tn, nt)
        };
        assert!(with(1) == with(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn random_shapes_agree(m in 1usize..70, k in 1usize..200, n in 1usize..130) {
            agree(m, k, n);
        }
    }
}
