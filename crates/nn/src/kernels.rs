//! Clear kernels over slices: matrix product, convolution by rows of patches, pools.
//!
//! Sizes are those of a checked graph or program; a kernel trusts them.

use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

use crate::real::Real;

const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// `c += a b` for `a` of `[m, k]`, `b` of `[k, n]`, `c` of `[m, n]`, in register tiles of 4 x 8.
pub(crate) fn matmul<T: Real>(a: &[T], b: &[T], c: &mut [T], k: usize, n: usize) {
    let full = n - n % COLUMNS;
    for (a, c) in a.chunks(ROWS * k).zip(c.chunks_mut(ROWS * n)) {
        let rows = c.len() / n;
        for j in (0..full).step_by(COLUMNS) {
            let mut tile = [[T::ZERO; COLUMNS]; ROWS];
            if rows == ROWS {
                let (a0, rest) = a.split_at(k);
                let (a1, rest) = rest.split_at(k);
                let (a2, a3) = rest.split_at(k);
                for (i, b) in b.chunks_exact(n).enumerate() {
                    let b = &b[j..j + COLUMNS];
                    let x = [a0[i], a1[i], a2[i], a3[i]];
                    for (row, x) in tile.iter_mut().zip(x) {
                        for (t, &b) in row.iter_mut().zip(b) {
                            *t += x * b;
                        }
                    }
                }
            } else {
                for (row, a) in tile.iter_mut().zip(a.chunks_exact(k)) {
                    for (&x, b) in a.iter().zip(b.chunks_exact(n)) {
                        for (t, &b) in row.iter_mut().zip(&b[j..j + COLUMNS]) {
                            *t += x * b;
                        }
                    }
                }
            }
            for (c, row) in c.chunks_exact_mut(n).zip(&tile) {
                for (c, &t) in c[j..j + COLUMNS].iter_mut().zip(row) {
                    *c += t;
                }
            }
        }
        if full < n {
            for (c, a) in c.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
                for (&x, b) in a.iter().zip(b.chunks_exact(n)) {
                    for (c, &b) in c[full..].iter_mut().zip(&b[full..]) {
                        *c += x * b;
                    }
                }
            }
        }
    }
}

/// A buffer of `n` elements that repeats `bias`, or zeros.
pub(crate) fn biased<T: Real>(bias: Option<&[T]>, n: usize) -> Vec<T> {
    match bias {
        Some(b) => b.iter().copied().cycle().take(n).collect(),
        None => vec![T::ZERO; n],
    }
}

/// `x w + b` for rows of `inputs` elements.
pub(crate) fn dense<T: Real>(x: &[T], w: &[T], bias: Option<&[T]>, inputs: usize, outputs: usize) -> Vec<T> {
    let mut y = biased(bias, x.len() / inputs * outputs);
    matmul(x, w, &mut y, inputs, outputs);
    y
}

/// The input index that a tap reads along one dimension, if it is not padding.
fn source(o: usize, stride: usize, tap: usize, dilation: usize, before: usize, n: usize) -> Option<usize> {
    (o * stride + tap * dilation).checked_sub(before).filter(|&i| i < n)
}

/// Calls `f(output column, tap, offset of the source pixel)` for every pixel that output row `oy` reads.
pub(crate) fn taps(g: &Conv2d, oy: usize, out_w: usize, mut f: impl FnMut(usize, usize, usize)) {
    for ky in 0..g.kernel.0 {
        let Some(y) = source(oy, g.stride.0, ky, g.dilation.0, g.pads.top, g.input.0) else { continue };
        for ox in 0..out_w {
            for kx in 0..g.kernel.1 {
                if let Some(x) = source(ox, g.stride.1, kx, g.dilation.1, g.pads.left, g.input.1) {
                    f(ox, ky * g.kernel.1 + kx, (y * g.input.1 + x) * g.in_channels);
                }
            }
        }
    }
}

/// Fills `patches`, `[out_w, kernel_h * kernel_w * channels]`, with what output row `oy` of `group` reads.
pub(crate) fn patches<T: Real>(g: &Conv2d, x: &[T], oy: usize, group: usize, out_w: usize, patches: &mut [T]) {
    let channels = g.in_channels / g.groups;
    let row = g.kernel.0 * g.kernel.1 * channels;
    patches.fill(T::ZERO);
    taps(g, oy, out_w, |ox, tap, from| {
        let (to, from) = (ox * row + tap * channels, from + group * channels);
        patches[to..to + channels].copy_from_slice(&x[from..from + channels]);
    });
}

/// Convolution of a batch; `out` is the output's height and width.
pub(crate) fn conv2d<T: Real>(g: &Conv2d, x: &[T], kernel: &[T], bias: Option<&[T]>, out: (usize, usize)) -> Vec<T> {
    let sample = g.input.0 * g.input.1 * g.in_channels;
    let mut y = biased(bias, x.len() / sample * out.0 * out.1 * g.out_channels);
    let rows = y.chunks_exact_mut(out.1 * g.out_channels).enumerate();
    if g.in_channels == g.groups {
        for (r, y) in rows {
            depthwise_row(g, &x[r / out.0 * sample..][..sample], kernel, r % out.0, out.1, y);
        }
        return y;
    }
    let depth = g.kernel.0 * g.kernel.1 * (g.in_channels / g.groups);
    let outputs = g.out_channels / g.groups;
    let mut buffer = vec![T::ZERO; out.1 * depth];
    if g.groups == 1 {
        for (r, y) in rows {
            patches(g, &x[r / out.0 * sample..][..sample], r % out.0, 0, out.1, &mut buffer);
            matmul(&buffer, kernel, y, depth, outputs);
        }
        return y;
    }
    let kernels: Vec<Vec<T>> = (0..g.groups)
        .map(|i| kernel.chunks_exact(g.out_channels).flat_map(|k| &k[i * outputs..][..outputs]).copied().collect())
        .collect();
    for (r, y) in rows {
        for (i, kernel) in kernels.iter().enumerate() {
            patches(g, &x[r / out.0 * sample..][..sample], r % out.0, i, out.1, &mut buffer);
            let mut part = vec![T::ZERO; out.1 * outputs];
            matmul(&buffer, kernel, &mut part, depth, outputs);
            for (y, part) in y.chunks_exact_mut(g.out_channels).zip(part.chunks_exact(outputs)) {
                for (y, &p) in y[i * outputs..][..outputs].iter_mut().zip(part) {
                    *y += p;
                }
            }
        }
    }
    y
}

fn depthwise_row<T: Real>(g: &Conv2d, x: &[T], kernel: &[T], oy: usize, out_w: usize, y: &mut [T]) {
    let multiplier = g.out_channels / g.in_channels;
    taps(g, oy, out_w, |ox, tap, from| {
        let x = &x[from..from + g.in_channels];
        let k = &kernel[tap * g.out_channels..][..g.out_channels];
        let y = &mut y[ox * g.out_channels..][..g.out_channels];
        for ((y, k), &x) in y.chunks_exact_mut(multiplier).zip(k.chunks_exact(multiplier)).zip(x) {
            for (y, &k) in y.iter_mut().zip(k) {
                *y += x * k;
            }
        }
    });
}

/// Folds `f` over each window of each channel, from `start`, then `end(value, elements covered)`.
pub(crate) fn pool<T: Real>(
    p: &Pool2d,
    x: &[T],
    out: (usize, usize),
    start: T,
    f: impl Fn(T, T) -> T,
    end: impl Fn(T, usize) -> T,
) -> Vec<T> {
    let sample = p.input.0 * p.input.1 * p.channels;
    let mut y = vec![start; x.len() / sample * out.0 * out.1 * p.channels];
    for (i, y) in y.chunks_exact_mut(p.channels).enumerate() {
        let x = &x[i / (out.0 * out.1) * sample..][..sample];
        let (rows, columns) = p.covered(i / out.1 % out.0, i % out.1);
        for r in rows.clone() {
            for c in columns.clone() {
                for (y, &x) in y.iter_mut().zip(&x[(r * p.input.1 + c) * p.channels..]) {
                    *y = f(*y, x);
                }
            }
        }
        for y in y {
            *y = end(*y, rows.len() * columns.len());
        }
    }
    y
}

/// Largest element of each window.
pub(crate) fn max_pool<T: Real>(p: &Pool2d, x: &[T], out: (usize, usize)) -> Vec<T> {
    pool(p, x, out, T::of(f64::NEG_INFINITY), T::larger, |v, _| v)
}

/// Average of each window, over the elements that it covers.
pub(crate) fn average_pool<T: Real>(p: &Pool2d, x: &[T], out: (usize, usize)) -> Vec<T> {
    pool(p, x, out, T::ZERO, |a, b| a + b, |sum, n| sum / T::of(n as f64))
}

/// Joins samples of several values: `parts` are (values, elements per outer index), `outer` in all.
pub(crate) fn concat<T: Copy>(parts: &[(&[T], usize)], outer: usize) -> Vec<T> {
    let mut y = Vec::with_capacity(parts.iter().map(|p| p.0.len()).sum());
    for o in 0..outer {
        for (x, inner) in parts {
            y.extend_from_slice(&x[o * inner..][..*inner]);
        }
    }
    y
}

/// Zeros around images of `[h, w, c]`.
pub(crate) fn zero_pad<T: Real>(x: &[T], (h, w, c): (usize, usize, usize), p: Pads) -> Vec<T> {
    let (ph, pw) = (h + p.top + p.bottom, w + p.left + p.right);
    let mut y = vec![T::ZERO; x.len() / (h * w * c) * ph * pw * c];
    for (y, x) in y.chunks_exact_mut(ph * pw * c).zip(x.chunks_exact(h * w * c)) {
        for (r, row) in x.chunks_exact(w * c).enumerate() {
            let at = ((r + p.top) * pw + p.left) * c;
            y[at..at + w * c].copy_from_slice(row);
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matmul_is_the_plain_triple_loop() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (4, 9, 8), (9, 17, 19), (8, 3, 16)] {
            let a: Vec<f64> = (0..m * k).map(|i| (i * 7 % 11) as f64 - 5.0).collect();
            let b: Vec<f64> = (0..k * n).map(|i| (i * 5 % 13) as f64 - 6.0).collect();
            let mut c = vec![1.0; m * n];
            matmul(&a, &b, &mut c, k, n);
            for i in 0..m {
                for j in 0..n {
                    let want: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                    assert_eq!(c[i * n + j], 1.0 + want, "{m} {k} {n} at {i} {j}");
                }
            }
        }
    }

    #[test]
    fn convolution_is_its_definition() {
        for groups in [1, 2, 4] {
            for out_channels in [4, 8] {
                let g = Conv2d {
                    input: (6, 5),
                    in_channels: 4,
                    out_channels,
                    kernel: (3, 2),
                    stride: (2, 1),
                    dilation: (1, 2),
                    pads: Pads { top: 1, bottom: 2, left: 0, right: 1 },
                    groups,
                };
                let (oh, ow) = g.output().unwrap();
                let cg = 4 / groups;
                let x: Vec<f64> = (0..2 * 6 * 5 * 4).map(|i| (i * 7 % 17) as f64 - 8.0).collect();
                let k: Vec<f64> = (0..3 * 2 * cg * out_channels).map(|i| (i * 3 % 11) as f64 - 5.0).collect();
                let b: Vec<f64> = (0..out_channels).map(|i| i as f64).collect();
                let y = conv2d(&g, &x, &k, Some(&b), (oh, ow));
                for (i, &y) in y.iter().enumerate() {
                    let o = i % out_channels;
                    let (ox, oy, s) = (i / out_channels % ow, i / out_channels / ow % oh, i / out_channels / ow / oh);
                    let mut want = b[o];
                    for ky in 0..3 {
                        for kx in 0..2 {
                            let (r, c) = ((oy * 2 + ky) as i64 - 1, (ox + kx * 2) as i64);
                            if !(0..6).contains(&r) || !(0..5).contains(&c) {
                                continue;
                            }
                            for ch in 0..cg {
                                let from = o / (out_channels / groups) * cg + ch;
                                want += x[((s * 6 + r as usize) * 5 + c as usize) * 4 + from]
                                    * k[((ky * 2 + kx) * cg + ch) * out_channels + o];
                            }
                        }
                    }
                    assert_eq!(y, want, "groups {groups}, element {i}");
                }
            }
        }
    }
}
