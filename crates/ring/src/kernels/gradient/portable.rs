//! The gradients of a convolution in plain Rust: what the faster ones are tested against, and what runs where none fits.

use super::visit;
use crate::geometry::Conv2d;

/// Adds the gradient by the input.
pub(super) fn input(samples: usize, g: &Conv2d, dy: &[u64], w: &[u64], out: &mut [u64]) {
    each(samples, g, |i, o, k| {
        let sum = dy[o.clone()].iter().zip(&w[k]).fold(0u64, |sum, (d, w)| sum.wrapping_add(d.wrapping_mul(*w)));
        out[i] = out[i].wrapping_add(sum);
    });
}

/// Adds the gradient by the kernel.
pub(super) fn weights(samples: usize, g: &Conv2d, x: &[u64], dy: &[u64], out: &mut [u64]) {
    each(samples, g, |i, o, k| {
        for (out, d) in out[k].iter_mut().zip(&dy[o]) {
            *out = out.wrapping_add(x[i].wrapping_mul(*d));
        }
    });
}

/// Every input element with the output elements it adds to and the kernel elements between them.
fn each(samples: usize, g: &Conv2d, mut f: impl FnMut(usize, std::ops::Range<usize>, std::ops::Range<usize>)) {
    let (ci, co) = (g.in_channels / g.groups, g.out_channels / g.groups);
    visit(samples, g, |input, output, tap| {
        for c in 0..g.in_channels {
            let group = c / ci * co;
            let (o, k) = (output * g.out_channels + group, (tap * ci + c % ci) * g.out_channels + group);
            f(input * g.in_channels + c, o..o + co, k..k + co);
        }
    });
}
