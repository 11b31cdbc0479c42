//! Eight elements a vector: AVX-512 with its 64-bit low product (`vpmullq`).

use std::arch::x86_64::*;
use std::ops::Range;

use super::block::{self, Lanes};
use super::vector::Plan;
use super::{Product, Run};

struct Avx512;

// SAFETY of the blocks below: the caller of a `Lanes` function vouches for the instructions and the memory.
impl Lanes for Avx512 {
    const N: usize = 8;
    const ROWS: usize = 8;
    type Mask = __mmask8;
    type Left = __m512i;
    type Right = __m512i;
    type Sum = __m512i;

    #[inline(always)]
    unsafe fn mask(n: usize) -> __mmask8 {
        (0xffu16 >> (8 - n)) as u8
    }

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn splat(v: u64) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi64(v as i64) }
    }

    #[inline(always)]
    unsafe fn load(at: *const u64, mask: __mmask8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_maskz_loadu_epi64(mask, at.cast()) }
    }

    #[inline(always)]
    unsafe fn mul_add(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_add_epi64(sum, _mm512_mullo_epi64(a, b)) }
    }

    #[inline(always)]
    unsafe fn add_to(at: *mut u64, sum: __m512i, mask: __mmask8) {
        // SAFETY: see above.
        unsafe {
            let old = _mm512_maskz_loadu_epi64(mask, at.cast());
            _mm512_mask_storeu_epi64(at.cast(), mask, _mm512_add_epi64(old, sum));
        }
    }
}

/// [`block::rows`] with AVX-512.
///
/// # Safety
/// As [`block::rows`].
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) unsafe fn rows(p: &Product<'_>, plan: &Plan, range: Range<usize>, c: &mut [u64]) {
    // SAFETY: as the caller's.
    unsafe { block::rows::<Avx512, 3>(p, plan, range, c) }
}

/// [`block::thin`] with AVX-512.
///
/// # Safety
/// As [`block::thin`].
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) unsafe fn thin(p: &Product<'_>, run: Run, c: &mut [u64]) {
    // SAFETY: as the caller's.
    unsafe { block::thin::<Avx512>(p, run, c) }
}
