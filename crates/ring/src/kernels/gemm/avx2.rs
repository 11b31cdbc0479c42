//! Four elements a vector: AVX2, whose widest product is 32 by 32 bits.
//!
//! With a = a0 + 2^32 a1 and b likewise, ab = a0 b0 + 2^32 (a0 b1 + a1 b0) modulo 2^64, and of the sum in brackets
//! only 32 bits count. So two sums are kept, one of the 64-bit products a0 b0 and one, in 32-bit halves, of a0 b1
//! and a1 b0 (the halves of b exchanged once per vector); they meet when the block is done.

use std::arch::x86_64::*;
use std::ops::Range;

use super::block::{self, Lanes};
use super::vector::Plan;
use super::{Product, Run};

struct Avx2;

// SAFETY of the blocks below: the caller of a `Lanes` function vouches for the instructions and the memory.
impl Lanes for Avx2 {
    const N: usize = 4;
    const ROWS: usize = 4;
    type Mask = __m256i;
    type Left = __m256i;
    type Right = (__m256i, __m256i);
    type Sum = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn mask(n: usize) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_cmpgt_epi64(_mm256_set1_epi64x(n as i64), _mm256_setr_epi64x(0, 1, 2, 3)) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        // SAFETY: see above.
        unsafe { (_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn splat(v: u64) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi64x(v as i64) }
    }

    #[inline(always)]
    unsafe fn load(at: *const u64, mask: __m256i) -> Self::Right {
        // SAFETY: see above.
        unsafe {
            let b = _mm256_maskload_epi64(at.cast(), mask);
            (b, _mm256_shuffle_epi32::<0b10_11_00_01>(b))
        }
    }

    #[inline(always)]
    unsafe fn mul_add((low, cross): Self::Sum, a: __m256i, (b, swapped): Self::Right) -> Self::Sum {
        // SAFETY: see above.
        unsafe {
            (_mm256_add_epi64(low, _mm256_mul_epu32(a, b)), _mm256_add_epi32(cross, _mm256_mullo_epi32(a, swapped)))
        }
    }

    #[inline(always)]
    unsafe fn add_to(at: *mut u64, (low, cross): Self::Sum, mask: __m256i) {
        // SAFETY: see above.
        unsafe {
            let cross = _mm256_add_epi32(cross, _mm256_srli_epi64::<32>(cross));
            let sum = _mm256_add_epi64(low, _mm256_slli_epi64::<32>(cross));
            let old = _mm256_maskload_epi64(at.cast(), mask);
            _mm256_maskstore_epi64(at.cast(), mask, _mm256_add_epi64(old, sum));
        }
    }
}

/// [`block::rows`] with AVX2.
///
/// # Safety
/// As [`block::rows`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn rows(p: &Product<'_>, plan: &Plan, range: Range<usize>, c: &mut [u64]) {
    // SAFETY: as the caller's.
    unsafe { block::rows::<Avx2, 1>(p, plan, range, c) }
}

/// [`block::thin`] with AVX2.
///
/// # Safety
/// As [`block::thin`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn thin(p: &Product<'_>, run: Run, c: &mut [u64]) {
    // SAFETY: as the caller's.
    unsafe { block::thin::<Avx2>(p, run, c) }
}
