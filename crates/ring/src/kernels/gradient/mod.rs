//! Gradients of a convolution over Z_2^64: the two maps adjoint to it, by its input and by its kernel.

mod depthwise;
mod input;
mod portable;
#[cfg(test)]
mod tests;
mod weights;

use rayon::prelude::*;

use self::depthwise::By;
use super::Isa;
use super::conv::size;
use super::gemm::threads_for;
use crate::Words;
use crate::geometry::Conv2d;

/// Words of a scratch buffer, unless a single line of the output needs more.
const PIECE: usize = 1 << 15;

/// `out += the x' for which <x', x> = <dy, conv(x, w)>` modulo 2^64 for `samples` images: the gradient by the input.
/// `dy` is laid out as the output, `out` as the input of [`Conv2d`]. The geometry must be valid.
pub fn conv2d_input(samples: usize, g: &Conv2d, dy: &[u64], w: &[u64], out: &mut [u64]) {
    input_with(Isa::best(), samples, g, dy, w, out);
}

/// `out += the w' for which <w', w> = <dy, conv(x, w)>` modulo 2^64, summed over `samples` images: the gradient by the
/// kernel. `dy` is laid out as the output, `out` as the kernel of [`Conv2d`]. The geometry must be valid.
pub fn conv2d_weights(samples: usize, g: &Conv2d, x: &[u64], dy: &[u64], out: &mut [u64]) {
    weights_with(Isa::best(), samples, g, x, dy, out);
}

fn input_with(isa: Isa, samples: usize, g: &Conv2d, dy: &[u64], w: &[u64], out: &mut [u64]) {
    let (from, to) = check(samples, g, out, w, dy);
    if samples == 0 {
        return;
    }
    if isa == Isa::Portable {
        return portable::input(samples, g, dy, w, out);
    }
    let depthwise = is_depthwise(g);
    if let Some(back) = input::flipped(isa, g).filter(|_| !depthwise) {
        return input::convolve(isa, samples, &back, dy, w, out);
    }
    let task = |dy: &[u64], out: &mut [u64]| {
        if depthwise {
            return depthwise::gradient(isa, By::Input, dy.len() / to, g, dy, w, out);
        }
        for group in 0..g.groups {
            input::scatter(isa, g, group, dy, w, out);
        }
    };
    let threads = threads(samples, g, to);
    if threads == 1 {
        return task(dy, out);
    }
    let share = samples.div_ceil(threads);
    out.par_chunks_mut(share * from).zip(dy.par_chunks(share * to)).for_each(|(out, dy)| task(dy, out));
}

fn weights_with(isa: Isa, samples: usize, g: &Conv2d, x: &[u64], dy: &[u64], out: &mut [u64]) {
    let (from, to) = check(samples, g, x, out, dy);
    if samples == 0 {
        return;
    }
    if isa == Isa::Portable {
        return portable::weights(samples, g, x, dy, out);
    }
    let task = |x: &[u64], dy: &[u64], out: &mut [u64]| {
        if is_depthwise(g) {
            return depthwise::gradient(isa, By::Weights, dy.len() / to, g, dy, x, out);
        }
        for group in 0..g.groups {
            weights::gradient(isa, g, group, x, dy, out);
        }
    };
    let threads = threads(samples, g, to);
    if threads == 1 {
        return task(x, dy, out);
    }
    let share = samples.div_ceil(threads);
    let part = |(x, dy): (&[u64], &[u64])| {
        let mut part = Words::zeros(out.len());
        task(x, dy, &mut part);
        part
    };
    let parts: Vec<Words> = x.par_chunks(share * from).zip(dy.par_chunks(share * to)).map(part).collect();
    for part in parts {
        for (sum, v) in out.iter_mut().zip(part.iter()) {
            *sum = sum.wrapping_add(*v);
        }
    }
}

/// Panics unless the slices have the sizes of the geometry; elements of one input and of one output.
fn check(samples: usize, g: &Conv2d, x: &[u64], w: &[u64], dy: &[u64]) -> (usize, usize) {
    let Ok((oh, ow)) = g.output() else { panic!("conv2d: the geometry was not checked") };
    assert!(size([samples, g.input.0, g.input.1, g.in_channels]) == x.len(), "conv2d: input");
    assert!(size([samples, oh, ow, g.out_channels]) == dy.len(), "conv2d: output");
    assert!(size([g.kernel.0, g.kernel.1, g.in_channels / g.groups, g.out_channels]) == w.len(), "conv2d: kernel");
    (g.input.0 * g.input.1 * g.in_channels, oh * ow * g.out_channels)
}

/// Threads worth using when samples of `to` output elements are shared among them.
fn threads(samples: usize, g: &Conv2d, to: usize) -> usize {
    threads_for(samples * to, g.kernel.0 * g.kernel.1 * (g.in_channels / g.groups)).min(samples)
}

fn is_depthwise(g: &Conv2d) -> bool {
    g.in_channels == g.groups && g.out_channels == g.groups
}

/// The input row or column that output `o` reads at position `tap` of its window, unless it lies in the padding.
#[inline(always)]
fn source(o: usize, stride: usize, tap: usize, dilation: usize, before: usize, n: usize) -> Option<usize> {
    (o * stride + tap * dilation).checked_sub(before).filter(|&i| i < n)
}

/// Calls `f(input pixel, output pixel, window position)` wherever an output reads an input.
#[inline(always)]
fn visit(samples: usize, g: &Conv2d, mut f: impl FnMut(usize, usize, usize)) {
    let Ok((oh, ow)) = g.output() else { panic!("conv2d: the geometry was not checked") };
    for line in 0..samples * oh {
        for ky in 0..g.kernel.0 {
            let Some(y) = source(line % oh, g.stride.0, ky, g.dilation.0, g.pads.top, g.input.0) else { continue };
            for ox in 0..ow {
                for kx in 0..g.kernel.1 {
                    if let Some(x) = source(ox, g.stride.1, kx, g.dilation.1, g.pads.left, g.input.1) {
                        let input = (line / oh * g.input.0 + y) * g.input.1 + x;
                        f(input, line * ow + ox, ky * g.kernel.1 + kx);
                    }
                }
            }
        }
    }
}
