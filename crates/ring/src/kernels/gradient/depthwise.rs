//! Gradients of a depthwise convolution: every channel has its own kernel, so the vectors run along the channels.

use super::super::Isa;
use super::visit;
use crate::geometry::Conv2d;

/// The gradients, each by its name in [`super`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Input,
    Weights,
}

/// Adds to `out` the gradient by the input (`other` is the kernel) or by the kernel (`other` is the input).
pub(super) fn gradient(isa: Isa, by: By, samples: usize, g: &Conv2d, dy: &[u64], other: &[u64], out: &mut [u64]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => {
            // SAFETY: `isa` is available here.
            unsafe { avx512(by, samples, g, dy, other, out) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: `isa` is available here.
            unsafe { avx2(by, samples, g, dy, other, out) }
        }
        _ => plain(by, samples, g, dy, other, out),
    }
}

#[inline(always)]
fn plain(by: By, samples: usize, g: &Conv2d, dy: &[u64], other: &[u64], out: &mut [u64]) {
    let n = g.in_channels;
    visit(samples, g, |input, output, tap| {
        let (to, from) = if by == By::Input { (input, tap) } else { (tap, input) };
        let (sums, from) = (&mut out[to * n..][..n], &other[from * n..][..n]);
        for ((sum, a), b) in sums.iter_mut().zip(from).zip(&dy[output * n..][..n]) {
            *sum = sum.wrapping_add(a.wrapping_mul(*b));
        }
    });
}

/// [`plain`], compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn avx512(by: By, samples: usize, g: &Conv2d, dy: &[u64], other: &[u64], out: &mut [u64]) {
    plain(by, samples, g, dy, other, out);
}

/// [`plain`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(by: By, samples: usize, g: &Conv2d, dy: &[u64], other: &[u64], out: &mut [u64]) {
    plain(by, samples, g, dy, other, out);
}
