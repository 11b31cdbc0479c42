//! The register-blocked product, written once over vectors of any width.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::array::from_fn;
use std::ops::Range;

use super::vector::{Panel, Plan};
use super::{Product, Run};

/// A vector of ring elements, with what a multiply-add needs.
///
/// # Safety
/// The functions may be called only where the processor has the implementation's instructions. Every function is
/// inlined into a caller compiled for them.
pub(super) trait Lanes {
    /// Elements of a vector.
    const N: usize;
    /// Rows of the largest block; its width is in `vector::shape`.
    const ROWS: usize;
    /// Some lanes of a vector.
    type Mask: Copy;
    /// A row's element in every lane.
    type Left: Copy;
    /// A vector of the right operand.
    type Right: Copy;
    /// Sums of products.
    type Sum: Copy;

    /// The first `n` lanes.
    unsafe fn mask(n: usize) -> Self::Mask;
    /// Sums of nothing.
    unsafe fn zero() -> Self::Sum;
    /// The element in every lane.
    unsafe fn splat(v: u64) -> Self::Left;
    /// The lanes of the mask from memory that need be readable there only, zeros elsewhere.
    unsafe fn load(at: *const u64, mask: Self::Mask) -> Self::Right;
    /// `sum + a * b`.
    unsafe fn mul_add(sum: Self::Sum, a: Self::Left, b: Self::Right) -> Self::Sum;
    /// Adds the lanes of the mask to memory.
    unsafe fn add_to(at: *mut u64, sum: Self::Sum, mask: Self::Mask);
}

/// Adds the rows `range` of the product to `c`, which begins with the first of them.
///
/// # Safety
/// The processor has the instructions of `L`, `p` was checked, `plan` was made for it with `L`'s shape, and `c` holds
/// the rows.
#[inline(always)]
pub(super) unsafe fn rows<L: Lanes, const W: usize>(p: &Product<'_>, plan: &Plan, range: Range<usize>, c: &mut [u64]) {
    let right = plan.right(p);
    debug_assert!((range.len() - 1) * p.ldc + p.n <= c.len());
    for (before, runs) in &plan.stretches {
        for panel in &plan.panels {
            let mut at = range.start;
            while at < range.end {
                // SAFETY: the row, the columns and the depth lie inside the checked product.
                unsafe {
                    let b = right.as_ptr().add(panel.start + before * panel.step);
                    let c = c.as_mut_ptr().add((at - range.start) * p.ldc + panel.from);
                    let left = range.end - at;
                    at += if left >= 8 && L::ROWS >= 8 {
                        columns::<L, 8, W>(p, runs, panel, at, b, c)
                    } else if left >= 4 {
                        columns::<L, 4, W>(p, runs, panel, at, b, c)
                    } else if left >= 2 {
                        columns::<L, 2, W>(p, runs, panel, at, b, c)
                    } else {
                        columns::<L, 1, W>(p, runs, panel, at, b, c)
                    };
                }
            }
        }
    }
}

/// `R` rows of one panel, which is at most `W` vectors wide.
#[inline(always)]
unsafe fn columns<L: Lanes, const R: usize, const W: usize>(
    p: &Product<'_>,
    runs: &[Run],
    panel: &Panel,
    at: usize,
    b: *const u64,
    c: *mut u64,
) -> usize {
    let vectors = panel.width.div_ceil(L::N);
    // SAFETY: as the caller's.
    unsafe {
        if vectors == 1 {
            block::<L, R, 1>(p, runs, panel, at, b, c);
        } else if vectors == 2 && W >= 2 {
            block::<L, R, 2>(p, runs, panel, at, b, c);
        } else {
            block::<L, R, W>(p, runs, panel, at, b, c);
        }
    }
    R
}

/// The sums of an `R x V` block stay in registers while the inner dimension passes by.
#[inline(always)]
unsafe fn block<L: Lanes, const R: usize, const V: usize>(
    p: &Product<'_>,
    runs: &[Run],
    panel: &Panel,
    at: usize,
    mut b: *const u64,
    c: *mut u64,
) {
    // SAFETY: as the caller's.
    unsafe {
        let bases: [*const u64; R] = from_fn(|r| p.x.as_ptr().add(p.grid.base(at + r)));
        let full = L::mask(L::N);
        let tail = L::mask(panel.width - (V - 1) * L::N);
        let mask = |v: usize| if v + 1 == V { tail } else { full };
        let mut sums = [[L::zero(); V]; R];
        for run in runs {
            for i in run.start..run.start + run.len {
                let right: [L::Right; V] = from_fn(|v| L::load(b.add(v * L::N), mask(v)));
                for (base, sums) in bases.iter().zip(&mut sums) {
                    let left = L::splat(*base.add(i));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = L::mul_add(*sum, left, right);
                    }
                }
                b = b.add(panel.step);
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                L::add_to(c.add(r * p.ldc + v * L::N), sum, mask(v));
            }
        }
    }
}

/// Rows of `b` that are fetched ahead are not longer: half a page.
const NARROW: usize = 256;

/// A few rows, one stretch of left elements each: `b` is read once, in order, four of its rows at a time.
///
/// # Safety
/// As [`rows`]; the product has a single run and `b` is not packed.
#[inline(always)]
pub(super) unsafe fn thin<L: Lanes>(p: &Product<'_>, run: Run, c: &mut [u64]) {
    // SAFETY: the row, the columns and the depth lie inside the checked product.
    unsafe {
        let tail = L::mask(p.n - (p.n - 1) / L::N * L::N);
        let full = L::mask(L::N);
        // The next four rows are fetched ahead where rows are short: hardware does not see past the end of a page.
        let narrow = p.ldb <= NARROW;
        for r in 0..p.rows {
            let left = p.x.as_ptr().add(p.grid.base(r) + run.start);
            let c = c.as_mut_ptr().add(r * p.ldc);
            let mut k = 0;
            while k < run.len {
                let four = (run.len - k).min(4);
                let a: [L::Left; 4] = from_fn(|i| L::splat(if i < four { *left.add(k + i) } else { 0 }));
                let b: [*const u64; 4] = from_fn(|i| p.b.as_ptr().add((k + i.min(four - 1)) * p.ldb));
                for j in (0..p.n).step_by(L::N) {
                    let mask = if j + L::N < p.n { full } else { tail };
                    let mut sum = L::zero();
                    for i in 0..4 {
                        if narrow {
                            _mm_prefetch::<_MM_HINT_T0>(b[i].wrapping_add(j + 4 * p.ldb).cast());
                        }
                        sum = L::mul_add(sum, a[i], L::load(b[i].add(j), mask));
                    }
                    L::add_to(c.add(j), sum, mask);
                }
                k += four;
            }
        }
    }
}
