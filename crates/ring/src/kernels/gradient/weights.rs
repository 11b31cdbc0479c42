//! The gradient by the kernel, one group of channels at a time: windows, transposed, times `dy`.
//!
//! Each sample is first laid out by channel, its columns parted by their remainder modulo the stride, so that what one
//! element of the kernel meets along an output line lies together. Where few such lines meet the output, the product
//! reads them there; otherwise they are copied whole.

use std::ops::Range;

use super::super::Isa;
use super::super::gemm::{Grid, Product, Run, multiply};
use super::PIECE;
use crate::Words;
use crate::geometry::Conv2d;

/// Pixels of a piece at least, that its product be worth the visit of the output.
const PIXELS: usize = 128;

/// Output pixels of a product that reads the samples where they are laid out.
const DEPTH: usize = 2048;

/// Elements of a kernel that are too few for the matrix unit: the vectors need no copy.
const FEW: usize = 32;

/// Adds the gradient of `group` over some samples.
pub(super) fn gradient(isa: Isa, g: &Conv2d, group: usize, x: &[u64], dy: &[u64], out: &mut [u64]) {
    let window = g.kernel.0 * g.kernel.1 * (g.in_channels / g.groups);
    if g.stride.1 == 1 && window < FEW {
        in_place(isa, g, group, x, dy, out);
    } else {
        gather(isa, g, group, x, dy, out);
    }
}

/// Several samples at a time, each laid out once; neighbouring output columns read neighbouring elements.
fn in_place(isa: Isa, g: &Conv2d, group: usize, x: &[u64], dy: &[u64], out: &mut [u64]) {
    let Ok((oh, ow)) = g.output() else { panic!("conv2d_weights: the geometry was not checked") };
    let (ci, co) = (g.in_channels / g.groups, g.out_channels / g.groups);
    let sample = g.input.0 * g.input.1 * g.in_channels;
    let layout = Layout::new(g);
    let most = (PIECE / layout.words).min(DEPTH / (oh * ow)).clamp(1, x.len() / sample);
    let mut words = Words::zeros(most * layout.words);
    let line = |y: usize| Run { start: y / oh * layout.words + y % oh * g.stride.0 * layout.columns, len: ow };
    let runs: Vec<Run> = (0..most * oh).map(line).collect();
    let steps = [g.dilation.0 * layout.columns, g.dilation.1, layout.height * layout.columns];
    let pieces = x.chunks(most * sample).zip(dy.chunks(most * oh * ow * g.out_channels));
    for (x, dy) in pieces {
        let count = x.len() / sample;
        for (x, words) in x.chunks_exact(sample).zip(words.chunks_exact_mut(layout.words)) {
            layout.fill(g, group * ci, x, words);
        }
        let product = Product {
            x: &words,
            grid: Grid { height: g.kernel.1, width: ci, steps },
            runs: &runs[..count * oh],
            rows: g.kernel.0 * g.kernel.1 * ci,
            n: co,
            b: &dy[group * co..],
            ldb: g.out_channels,
            ldc: g.out_channels,
        };
        multiply(isa, &product, &mut out[group * co..]);
    }
}

/// Copies what each element of the kernel meets to a line of its own, some output lines at a time.
fn gather(isa: Isa, g: &Conv2d, group: usize, x: &[u64], dy: &[u64], out: &mut [u64]) {
    let Ok((oh, ow)) = g.output() else { panic!("conv2d_weights: the geometry was not checked") };
    let (ci, co) = (g.in_channels / g.groups, g.out_channels / g.groups);
    let window = g.kernel.0 * g.kernel.1 * ci;
    let sample = g.input.0 * g.input.1 * g.in_channels;
    let lines = x.len() / sample * oh;
    let most = (PIECE / window).max(PIXELS).div_ceil(ow).min(lines);
    // Not a power of two apart: such rows would evict one another.
    let apart = (most * ow).next_multiple_of(8) + 8;
    let mut piece = Words::zeros(window * apart);
    let layout = Layout::new(g);
    let mut plane = Words::zeros(layout.words);
    let mut held = None;
    for first in (0..lines).step_by(most) {
        let end = lines.min(first + most);
        let mut line = first;
        while line < end {
            let image = line / oh;
            if held != Some(image) {
                layout.fill(g, group * ci, &x[image * sample..][..sample], &mut plane);
                held = Some(image);
            }
            let count = (oh - line % oh).min(end - line);
            let lines = line % oh..line % oh + count;
            layout.copy_lines(g, &plane, lines, ow, &mut piece[(line - first) * ow..], apart);
            line += count;
        }
        let product = Product {
            x: &piece,
            grid: Grid { height: 1, width: window, steps: [0, 0, apart] },
            runs: &[Run { start: 0, len: (end - first) * ow }],
            rows: window,
            n: co,
            b: &dy[first * ow * g.out_channels + group * co..],
            ldb: g.out_channels,
            ldc: g.out_channels,
        };
        multiply(isa, &product, &mut out[group * co..]);
    }
}

/// One sample of one group with its zeros: by channel, row, remainder of the column modulo `phases`, column.
struct Layout {
    words: usize,
    height: usize,
    phases: usize,
    columns: usize,
}

impl Layout {
    fn new(g: &Conv2d) -> Self {
        let (height, width) = (g.input.0 + g.pads.top + g.pads.bottom, g.input.1 + g.pads.left + g.pads.right);
        // With a longer stride there is one output column, and every column of the input is read at its own place.
        let phases = g.stride.1.min(width);
        let columns = width.div_ceil(phases);
        let words = g.in_channels / g.groups * height * phases * columns;
        Self { words, height, phases, columns }
    }

    /// Lays the channels from `channel` on out; the zeros around are never written.
    fn fill(&self, g: &Conv2d, channel: usize, x: &[u64], words: &mut [u64]) {
        let line = self.phases * self.columns;
        let channels = words.chunks_exact_mut(self.height * line);
        for (c, plane) in channels.enumerate() {
            let rows = x.chunks_exact(g.input.1 * g.in_channels);
            for (row, to) in rows.zip(plane.chunks_exact_mut(line).skip(g.pads.top)) {
                let pixels = row.iter().skip(channel + c).step_by(g.in_channels);
                if self.phases == 1 {
                    for (to, v) in to[g.pads.left..].iter_mut().zip(pixels) {
                        *to = *v;
                    }
                } else {
                    for (column, v) in (g.pads.left..).zip(pixels) {
                        to[column % self.phases * self.columns + column / self.phases] = *v;
                    }
                }
            }
        }
    }

    /// Copies what each element of the kernel meets along the output lines to rows that begin every `apart` elements.
    fn copy_lines(&self, g: &Conv2d, words: &[u64], lines: Range<usize>, ow: usize, to: &mut [u64], apart: usize) {
        let channels = g.in_channels / g.groups;
        for (r, to) in to.chunks_mut(apart).enumerate().take(g.kernel.0 * g.kernel.1 * channels) {
            let (tap, c) = (r / channels, r % channels);
            let (down, right) = (tap / g.kernel.1 * g.dilation.0, tap % g.kernel.1 * g.dilation.1);
            for (oy, to) in lines.clone().zip(to.chunks_exact_mut(ow)) {
                let row = (c * self.height + oy * g.stride.0 + down) * self.phases + right % self.phases;
                copy(&words[row * self.columns + right / self.phases..][..ow], to);
            }
        }
    }
}

/// Copies a line, mostly a short one, for which a call would cost more than the copy.
#[inline(always)]
fn copy(from: &[u64], to: &mut [u64]) {
    let ((from, last), (to, rest)) = (from.as_chunks::<4>(), to.as_chunks_mut::<4>());
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    for (to, from) in rest.iter_mut().zip(last) {
        *to = *from;
    }
}
