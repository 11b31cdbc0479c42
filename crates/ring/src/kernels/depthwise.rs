//! Depthwise convolution: every channel has its own kernel, so the vectors run along the channels.

use rayon::prelude::*;

use super::Isa;
use super::gemm::{Grid, threads_for};

/// Pixels that one task computes.
const PIXELS: usize = 256;

/// Adds to each of `pixels` output pixels the sum over window positions of input pixel times kernel row, channel
/// by channel. `offsets` says where a position lies from the window's first element.
#[expect(clippy::too_many_arguments, reason = "two operands, their layout and the output")]
pub(super) fn multiply(
    isa: Isa,
    x: &[u64],
    grid: &Grid,
    offsets: &[usize],
    w: &[u64],
    pixels: usize,
    channels: usize,
    out: &mut [u64],
) {
    let task = |first: usize, out: &mut [u64]| match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => {
            // SAFETY: `isa` is available here.
            unsafe { avx512(x, grid, offsets, w, first, channels, out) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: `isa` is available here.
            unsafe { avx2(x, grid, offsets, w, first, channels, out) }
        }
        _ => plain(x, grid, offsets, w, first, channels, out),
    };
    if threads_for(pixels * channels, offsets.len()) == 1 {
        task(0, out);
    } else {
        out.par_chunks_mut(PIXELS * channels).enumerate().for_each(|(i, out)| task(i * PIXELS, out));
    }
}

/// The pixels from `first` on that `out` holds.
#[inline(always)]
fn plain(x: &[u64], grid: &Grid, offsets: &[usize], w: &[u64], first: usize, channels: usize, out: &mut [u64]) {
    for (pixel, sums) in out.chunks_exact_mut(channels).enumerate() {
        let base = grid.base(first + pixel);
        for (offset, kernel) in offsets.iter().zip(w.chunks_exact(channels)) {
            let input = &x[base + offset..][..channels];
            for ((sum, a), b) in sums.iter_mut().zip(input).zip(kernel) {
                *sum = sum.wrapping_add(a.wrapping_mul(*b));
            }
        }
    }
}

/// [`plain`], compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn avx512(x: &[u64], grid: &Grid, offsets: &[usize], w: &[u64], first: usize, channels: usize, out: &mut [u64]) {
    plain(x, grid, offsets, w, first, channels, out);
}

/// [`plain`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(x: &[u64], grid: &Grid, offsets: &[usize], w: &[u64], first: usize, channels: usize, out: &mut [u64]) {
    plain(x, grid, offsets, w, first, channels, out);
}
