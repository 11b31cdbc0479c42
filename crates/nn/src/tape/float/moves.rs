//! Operations that move or add up elements.

use trefoil_ring::geometry::Pool2d;

use crate::real::Real;

/// Sums to `size` elements for each of `rows` rows.
pub(super) fn sum<T: Real>(x: &[T], size: usize, rows: usize) -> Vec<T> {
    let mut y = vec![T::ZERO; rows * size];
    for (x, y) in x.chunks_exact(x.len() / rows).zip(y.chunks_exact_mut(size)) {
        for x in x.chunks_exact(size) {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
        }
    }
    y
}

/// Each row of `size` elements repeated to `wanted` elements.
pub(super) fn repeat<T: Real>(x: &[T], size: usize, wanted: usize) -> Vec<T> {
    x.chunks_exact(size).flat_map(|x| x.iter().copied().cycle().take(wanted)).collect()
}

/// Elements `start .. start + len` along an axis.
pub(super) fn slice<T: Real>(x: &[T], shape: &[usize], axis: usize, start: usize, len: usize) -> Vec<T> {
    let inner: usize = shape[axis + 1..].iter().product();
    let part = |x: &[T]| x[start * inner..(start + len) * inner].to_vec();
    x.chunks_exact(shape[axis] * inner).flat_map(part).collect()
}

/// Calls `f(offset of the pooled pixel, offset of element `index` of its window)` for every window.
fn taken(pool: &Pool2d, index: usize, pooled: usize, mut f: impl FnMut(usize, usize)) {
    let c = pool.channels;
    let along = |n: usize, k: usize, s: usize| (n - k) / s + 1;
    let (h, w) = (along(pool.input.0, pool.window.0, pool.stride.0), along(pool.input.1, pool.window.1, pool.stride.1));
    let (dy, dx) = (index / pool.window.1, index % pool.window.1);
    for pixel in 0..pooled / c {
        let (sample, y, x) = (pixel / (h * w), pixel / w % h, pixel % w);
        let row = sample * pool.input.0 + y * pool.stride.0 + dy;
        f(pixel * c, (row * pool.input.1 + x * pool.stride.1 + dx) * c);
    }
}

/// Element `index` of every window: `count` elements.
pub(super) fn window<T: Real>(pool: &Pool2d, index: usize, x: &[T], count: usize) -> Vec<T> {
    let mut y = vec![T::ZERO; count];
    taken(pool, index, count, |to, from| {
        y[to..to + pool.channels].copy_from_slice(&x[from..from + pool.channels]);
    });
    y
}

/// Its adjoint.
pub(super) fn unwindow<T: Real>(pool: &Pool2d, index: usize, x: &[T], count: usize) -> Vec<T> {
    let mut y = vec![T::ZERO; count];
    taken(pool, index, x.len(), |from, to| {
        y[to..to + pool.channels].copy_from_slice(&x[from..from + pool.channels]);
    });
    y
}

/// The adjoint of an average pool: each number divided among the elements of its window.
pub(super) fn spread<T: Real>(pool: &Pool2d, x: &[T], count: usize) -> Vec<T> {
    let mut y = vec![T::ZERO; count];
    let image = pool.input.0 * pool.input.1 * pool.channels;
    let pixels = x.len() / pool.channels / (count / image);
    let width = pool.output().map_or(pixels, |(_, w)| w);
    for (i, x) in x.chunks_exact(pool.channels).enumerate() {
        let (sample, pixel) = (i / pixels, i % pixels);
        let (rows, columns) = pool.covered(pixel / width, pixel % width);
        let share = T::of(1.0 / (rows.len() * columns.len()) as f64);
        for r in rows {
            for c in columns.clone() {
                let at = sample * image + (r * pool.input.1 + c) * pool.channels;
                y[at..at + pool.channels].iter_mut().zip(x).for_each(|(y, &x)| *y += x * share);
            }
        }
    }
    y
}

/// p, -ln p and the largest of each vector of `n` numbers.
pub(super) fn likelihoods<T: Real>(x: &[T], n: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(3 * x.len());
    for row in x.chunks_exact(n) {
        let row: Vec<f64> = row.iter().map(|v| v.to_f64()).collect();
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - top).exp()).sum();
        let largest = row.iter().position(|v| *v == top);
        out.extend(row.iter().map(|v| T::of((v - top).exp() / sum)));
        out.extend(row.iter().map(|v| T::of(sum.ln() - (v - top))));
        out.extend((0..n).map(|i| if largest == Some(i) { T::of(1.0) } else { T::ZERO }));
    }
    out
}
