//! A convolution of one sample and its two adjoints, as products with the matrix of patches.

use ndarray::linalg::general_mat_mul;
use ndarray::{Axis, ShapeError, Slice};
use trefoil_ring::geometry::Conv2d;

use super::products::{view, view_mut};
use crate::kernels;
use crate::real::Real;

/// Patches of one group: `[pixels, kernel_h * kernel_w * channels]`.
fn patches<T: Real>(g: &Conv2d, x: &[T], group: usize, pixels: usize) -> (Vec<T>, usize) {
    let depth = g.kernel.0 * g.kernel.1 * (g.in_channels / g.groups);
    let width = width(g, pixels);
    let mut all = vec![T::ZERO; pixels * depth];
    for (oy, row) in all.chunks_exact_mut(width * depth).enumerate() {
        kernels::patches(g, x, oy, group, width, row);
    }
    (all, depth)
}

/// Columns of the output.
fn width(g: &Conv2d, pixels: usize) -> usize {
    g.output().map_or(pixels, |(_, w)| w)
}

/// Output channels of a group.
fn outputs(g: &Conv2d, group: usize) -> std::ops::Range<usize> {
    let n = g.out_channels / g.groups;
    group * n..(group + 1) * n
}

/// y += x * kernel.
pub(super) fn forward<T: Real>(g: &Conv2d, x: &[T], kernel: &[T], y: &mut [T]) -> Result<(), ShapeError> {
    let pixels = y.len() / g.out_channels;
    let mut y = view_mut(y, g.out_channels)?;
    let kernel = view(kernel, g.out_channels)?;
    for group in 0..g.groups {
        let (patches, depth) = patches(g, x, group, pixels);
        let mut y = y.slice_axis_mut(Axis(1), Slice::from(outputs(g, group)));
        let (one, kernel) = (T::of(1.0), kernel.slice_axis(Axis(1), Slice::from(outputs(g, group))));
        general_mat_mul(one, &view(&patches, depth)?, &kernel, one, &mut y);
    }
    Ok(())
}

/// dx += the adjoint of dy.
pub(super) fn input<T: Real>(g: &Conv2d, dy: &[T], kernel: &[T], dx: &mut [T]) -> Result<(), ShapeError> {
    let pixels = dy.len() / g.out_channels;
    let (dy, kernel) = (view(dy, g.out_channels)?, view(kernel, g.out_channels)?);
    let channels = g.in_channels / g.groups;
    let depth = g.kernel.0 * g.kernel.1 * channels;
    let width = width(g, pixels);
    for group in 0..g.groups {
        let mut patches = vec![T::ZERO; pixels * depth];
        let (dy, kernel) = (
            dy.slice_axis(Axis(1), Slice::from(outputs(g, group))),
            kernel.slice_axis(Axis(1), Slice::from(outputs(g, group))),
        );
        general_mat_mul(T::of(1.0), &dy, &kernel.t(), T::ZERO, &mut view_mut(&mut patches, depth)?);
        for (oy, row) in patches.chunks_exact(width * depth).enumerate() {
            kernels::taps(g, oy, width, |ox, tap, to| {
                let from = &row[ox * depth + tap * channels..][..channels];
                let to = &mut dx[to + group * channels..][..channels];
                to.iter_mut().zip(from).for_each(|(d, &p)| *d += p);
            });
        }
    }
    Ok(())
}

/// dw += x * dy over all pixels.
pub(super) fn weights<T: Real>(g: &Conv2d, x: &[T], dy: &[T], dw: &mut [T]) -> Result<(), ShapeError> {
    let pixels = dy.len() / g.out_channels;
    let dy = view(dy, g.out_channels)?;
    let mut dw = view_mut(dw, g.out_channels)?;
    for group in 0..g.groups {
        let (patches, depth) = patches(g, x, group, pixels);
        let mut dw = dw.slice_axis_mut(Axis(1), Slice::from(outputs(g, group)));
        let (one, dy) = (T::of(1.0), dy.slice_axis(Axis(1), Slice::from(outputs(g, group))));
        general_mat_mul(one, &view(&patches, depth)?.t(), &dy, one, &mut dw);
    }
    Ok(())
}
