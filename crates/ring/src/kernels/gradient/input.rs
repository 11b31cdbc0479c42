//! The gradient by the input, one group of channels at a time.
//!
//! Either a convolution of `dy` with the kernel flipped, where that costs little more than the forward one, or the
//! products of every output pixel with the kernel's window, added where the window lies.

use super::super::gemm::{Grid, Product, Run, multiply};
use super::super::{Isa, conv};
use super::PIECE;
use crate::Words;
use crate::geometry::{Conv2d, Pads};

/// The convolution that maps `dy` to the gradient by the input, if there is one that fills the vectors and does not
/// multiply much more than the forward convolution: on the matrix unit, whose columns come in sixteens, two and a half
/// times as much is faster still than the products' windows.
pub(super) fn flipped(isa: Isa, g: &Conv2d) -> Option<Conv2d> {
    let output = g.output().ok()?;
    let (input, ci) = (g.input.0 * g.input.1, g.in_channels / g.groups);
    let (columns, most) = if isa == Isa::Amx { (ci.next_multiple_of(16), 10) } else { (ci, 5) };
    if g.stride != (1, 1) || ci < 16 || 4 * input * columns > most * output.0 * output.1 * ci {
        return None;
    }
    let reach = ((g.kernel.0 - 1) * g.dilation.0, (g.kernel.1 - 1) * g.dilation.1);
    let pads = Pads {
        top: reach.0.checked_sub(g.pads.top)?,
        bottom: reach.0.checked_sub(g.pads.bottom)?,
        left: reach.1.checked_sub(g.pads.left)?,
        right: reach.1.checked_sub(g.pads.right)?,
    };
    Some(Conv2d { input: output, in_channels: g.out_channels, out_channels: g.in_channels, pads, ..*g })
}

/// Adds the gradient by convolving `dy` with the kernel of `back`, which [`flipped`] gave.
pub(super) fn convolve(isa: Isa, samples: usize, back: &Conv2d, dy: &[u64], w: &[u64], out: &mut [u64]) {
    let (ci, co) = (back.out_channels / back.groups, back.in_channels / back.groups);
    let taps = back.kernel.0 * back.kernel.1;
    let mut turned = Words::zeros(w.len());
    for tap in 0..taps {
        for c in 0..ci {
            let from = &w[((taps - 1 - tap) * ci + c) * back.in_channels..][..back.in_channels];
            for (o, v) in from.iter().enumerate() {
                turned[(tap * co + o % co) * back.out_channels + o / co * ci + c] = *v;
            }
        }
    }
    conv::conv2d_with(isa, samples, back, dy, &turned, out);
}

/// Adds the gradient of `group` for some samples by products of `dy` with the kernel's windows.
pub(super) fn scatter(isa: Isa, g: &Conv2d, group: usize, dy: &[u64], w: &[u64], out: &mut [u64]) {
    let Ok((_, ow)) = g.output() else { panic!("conv2d_input: the geometry was not checked") };
    let (ci, co) = (g.in_channels / g.groups, g.out_channels / g.groups);
    let window = w.len() / g.out_channels;
    let mut right = Words::zeros(window * co);
    super::super::transposed::transpose(window, co, &w[group * co..], g.out_channels, &mut right);
    let pixels = dy.len() / g.out_channels;
    let most = (PIECE / window).max(ow).next_multiple_of(ow).min(pixels);
    let mut piece = Words::zeros(most * window);
    for first in (0..pixels).step_by(most) {
        let rows = most.min(pixels - first);
        let products = &mut piece[..rows * window];
        products.fill(0);
        let product = Product {
            x: &dy[first * g.out_channels + group * co..],
            grid: Grid { height: 1, width: rows, steps: [0, 0, g.out_channels] },
            runs: &[Run { start: 0, len: co }],
            rows,
            n: window,
            b: &right,
            ldb: window,
            ldc: window,
        };
        multiply(isa, &product, products);
        add_windows(g, group * ci, first / ow, products, out);
    }
}

/// Adds windows, those of whole output lines from `first` on, to the input pixels that they cover.
fn add_windows(g: &Conv2d, channel: usize, first: usize, windows: &[u64], out: &mut [u64]) {
    let Ok((oh, ow)) = g.output() else { panic!("conv2d_input: the geometry was not checked") };
    let (ih, iw) = g.input;
    let ci = g.in_channels / g.groups;
    let row = g.kernel.1 * ci;
    let span = if g.groups == 1 && g.dilation.1 == 1 { g.kernel.1 } else { 1 };
    for (i, window) in windows.chunks_exact(g.kernel.0 * row).enumerate() {
        let (line, ox) = (first + i / ow, i % ow);
        for (ky, row) in window.chunks_exact(row).enumerate() {
            let Some(y) = super::source(line % oh, g.stride.0, ky, g.dilation.0, g.pads.top, ih) else { continue };
            for (part, from) in row.chunks_exact(span * ci).enumerate() {
                let column = ox * g.stride.1 + part * g.dilation.1;
                let lo = g.pads.left.saturating_sub(column).min(span);
                let hi = (iw + g.pads.left).saturating_sub(column).min(span);
                if lo < hi {
                    let pixel = (line / oh * ih + y) * iw + column + lo - g.pads.left;
                    let to = &mut out[pixel * g.in_channels + channel..];
                    for (sum, v) in to.iter_mut().zip(&from[lo * ci..hi * ci]) {
                        *sum = sum.wrapping_add(*v);
                    }
                }
            }
        }
    }
}
