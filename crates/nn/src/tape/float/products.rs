//! The products of a tape: matrix products on strided views, convolutions sample by sample.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, ShapeError};
use rayon::prelude::*;
use trefoil_ring::geometry::Conv2d;

use super::conv;
use crate::real::Real;
use crate::tape::Map;

/// Multiplications below which a product stays on one thread.
const SMALL: usize = 1 << 18;
/// Samples whose part of a kernel's gradient is summed by one thread.
const CHUNK: usize = 8;

/// The product of `a` and `b` of the given shapes (one row's), with `count` elements.
pub(super) fn product<T: Real>(
    map: &Map,
    a: &[T],
    sa: &[usize],
    b: &[T],
    sb: &[usize],
    count: usize,
) -> Result<Vec<T>, ShapeError> {
    let mut y = vec![T::ZERO; count];
    let (last_a, last_b) = (sa[sa.len() - 1], sb[sb.len() - 1]);
    match map {
        Map::Elementwise => y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = a * b),
        Map::Dense => gemm(view(a, last_a)?, view(b, last_b)?, view_mut(&mut y, last_b)?),
        Map::DenseInput => gemm(view(a, last_a)?, view(b, last_b)?.reversed_axes(), view_mut(&mut y, sb[0])?),
        Map::DenseWeights => {
            gemm(view(a, last_a)?.reversed_axes(), view(b, last_b)?, view_mut(&mut y, last_b)?);
        }
        Map::Conv(g) => {
            let image = image_size(g);
            let size = count / (a.len() / image);
            y.par_chunks_exact_mut(size)
                .zip(a.par_chunks_exact(image))
                .try_for_each(|(y, x)| conv::forward(g, x, b, y))?;
        }
        Map::ConvInput(g) => {
            let image = image_size(g);
            let size = a.len() / (count / image);
            y.par_chunks_exact_mut(image)
                .zip(a.par_chunks_exact(size))
                .try_for_each(|(y, dy)| conv::input(g, dy, b, y))?;
        }
        Map::ConvWeights(g) => {
            let image = image_size(g);
            let size = b.len() / (a.len() / image);
            let parts: Vec<Vec<T>> = a
                .par_chunks(CHUNK * image)
                .zip(b.par_chunks(CHUNK * size))
                .map(|(x, dy)| {
                    let mut part = vec![T::ZERO; count];
                    let mut pairs = x.chunks_exact(image).zip(dy.chunks_exact(size));
                    pairs.try_for_each(|(x, dy)| conv::weights(g, x, dy, &mut part))?;
                    Ok(part)
                })
                .collect::<Result<_, ShapeError>>()?;
            for part in parts {
                y.iter_mut().zip(part).for_each(|(y, p)| *y += p);
            }
        }
    }
    Ok(y)
}

fn image_size(g: &Conv2d) -> usize {
    g.input.0 * g.input.1 * g.in_channels
}

/// Rows of `columns` elements as a matrix.
pub(super) fn view<T>(a: &[T], columns: usize) -> Result<ArrayView2<'_, T>, ShapeError> {
    ArrayView2::from_shape((a.len() / columns, columns), a)
}

/// The same, to write to.
pub(super) fn view_mut<T>(a: &mut [T], columns: usize) -> Result<ArrayViewMut2<'_, T>, ShapeError> {
    ArrayViewMut2::from_shape((a.len() / columns, columns), a)
}

/// c += a b, the rows of c on two threads where that pays.
fn gemm<T: Real>(a: ArrayView2<T>, b: ArrayView2<T>, mut c: ArrayViewMut2<T>) {
    let one = T::of(1.0);
    let rows = c.nrows();
    if rows < 32 || rows * c.ncols() * a.ncols() < SMALL {
        return general_mat_mul(one, &a, &b, one, &mut c);
    }
    let at = (rows / 2).next_multiple_of(8);
    let (a0, a1) = a.split_at(Axis(0), at);
    let (mut c0, mut c1) = c.split_at(Axis(0), at);
    rayon::join(|| general_mat_mul(one, &a0, &b, one, &mut c0), || general_mat_mul(one, &a1, &b, one, &mut c1));
}
