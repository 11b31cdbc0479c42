//! Gradients of each layer that can be trained in the clear, for a few samples at a time.

use trefoil_ring::geometry::{Conv2d, Pool2d};

use crate::kernels;
use crate::real::Real;

/// What the backward pass of a product gives.
#[derive(Debug)]
pub(super) struct LinearGradient<T> {
    pub(super) kernel: Vec<T>,
    pub(super) bias: Vec<T>,
    /// Of the input; empty where nobody asks for it.
    pub(super) input: Vec<T>,
}

/// y = x w + b: dw = x^T dy, db = sum dy, dx = dy w^T.
pub(super) fn dense<T: Real>(x: &[T], w: &[T], dy: &[T], outputs: usize, want_input: bool) -> LinearGradient<T> {
    let inputs = w.len() / outputs;
    let rows = dy.len() / outputs;
    let mut kernel = vec![T::ZERO; w.len()];
    kernels::matmul(&kernels::transpose(x, inputs), dy, &mut kernel, rows, outputs);
    let mut input = Vec::new();
    if want_input {
        input = vec![T::ZERO; x.len()];
        kernels::matmul(dy, &kernels::transpose(w, outputs), &mut input, outputs, inputs);
    }
    LinearGradient { kernel, bias: column_sums(dy, outputs), input }
}

/// The same for each output row of a convolution of one group, over its patches.
pub(super) fn conv2d<T: Real>(
    g: &Conv2d,
    x: &[T],
    w: &[T],
    dy: &[T],
    out: (usize, usize),
    want_input: bool,
) -> LinearGradient<T> {
    let depth = g.kernel.0 * g.kernel.1 * g.in_channels;
    let sample = g.input.0 * g.input.1 * g.in_channels;
    let transposed = kernels::transpose(w, g.out_channels);
    let mut kernel = vec![T::ZERO; w.len()];
    let mut input = if want_input { vec![T::ZERO; x.len()] } else { Vec::new() };
    let mut patches = vec![T::ZERO; out.1 * depth];
    for (r, row) in dy.chunks_exact(out.1 * g.out_channels).enumerate() {
        let (s, oy) = (r / out.0, r % out.0);
        kernels::patches(g, &x[s * sample..][..sample], oy, 0, out.1, &mut patches);
        kernels::matmul(&kernels::transpose(&patches, depth), row, &mut kernel, out.1, g.out_channels);
        if want_input {
            patches.fill(T::ZERO);
            kernels::matmul(row, &transposed, &mut patches, g.out_channels, depth);
            let image = &mut input[s * sample..][..sample];
            kernels::taps(g, oy, out.1, |ox, tap, to| {
                let from = ox * depth + tap * g.in_channels;
                for (d, &p) in image[to..to + g.in_channels].iter_mut().zip(&patches[from..]) {
                    *d += p;
                }
            });
        }
    }
    LinearGradient { kernel, bias: column_sums(dy, g.out_channels), input }
}

fn column_sums<T: Real>(rows: &[T], columns: usize) -> Vec<T> {
    let mut sums = vec![T::ZERO; columns];
    for row in rows.chunks_exact(columns) {
        for (s, &v) in sums.iter_mut().zip(row) {
            *s += v;
        }
    }
    sums
}

/// The gradient of a maximum goes to the first largest element of its window.
pub(super) fn max_pool<T: Real>(p: &Pool2d, x: &[T], dy: &[T], out: (usize, usize)) -> Vec<T> {
    scatter(p, x.len(), dy, out, |window, image, d, dx| {
        let mut best = window[0];
        for &i in window {
            if x[image + i] > x[image + best] {
                best = i;
            }
        }
        dx[image + best] += d;
    })
}

/// The gradient of an average is spread evenly over its window.
pub(super) fn average_pool<T: Real>(p: &Pool2d, elements: usize, dy: &[T], out: (usize, usize)) -> Vec<T> {
    scatter(p, elements, dy, out, |window, image, d, dx| {
        let share = d / T::of(window.len() as f64);
        window.iter().for_each(|&i| dx[image + i] += share);
    })
}

/// Calls `f(indices of the window within its image, start of the image, gradient, result)` for every output.
fn scatter<T: Real>(
    p: &Pool2d,
    elements: usize,
    dy: &[T],
    out: (usize, usize),
    f: impl Fn(&[usize], usize, T, &mut [T]),
) -> Vec<T> {
    let mut dx = vec![T::ZERO; elements];
    let sample = p.input.0 * p.input.1 * p.channels;
    let mut window = Vec::with_capacity(p.window.0 * p.window.1);
    for (i, &d) in dy.iter().enumerate() {
        let (channel, pixel) = (i % p.channels, i / p.channels);
        let (rows, columns) = p.covered(pixel / out.1 % out.0, pixel % out.1);
        window.clear();
        for r in rows {
            window.extend(columns.clone().map(|c| (r * p.input.1 + c) * p.channels + channel));
        }
        f(&window, pixel / (out.0 * out.1) * sample, d, &mut dx);
    }
    dx
}
