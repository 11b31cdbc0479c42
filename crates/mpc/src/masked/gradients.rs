//! Gradients of products, as plain loops.

use trefoil_ring::geometry::Conv2d;

/// `out += transpose(x) y` with x stored `[k, m]`.
pub(crate) fn matmul_tn(m: usize, k: usize, n: usize, x: &[u64], y: &[u64], out: &mut [u64]) {
    for p in 0..k {
        for i in 0..m {
            let a = x[p * m + i];
            for j in 0..n {
                out[i * n + j] = out[i * n + j].wrapping_add(a.wrapping_mul(y[p * n + j]));
            }
        }
    }
}

/// `out += x transpose(y)` with y stored `[n, k]`.
pub(crate) fn matmul_nt(m: usize, k: usize, n: usize, x: &[u64], y: &[u64], out: &mut [u64]) {
    for i in 0..m {
        for j in 0..n {
            let (x, y) = (&x[i * k..(i + 1) * k], &y[j * k..(j + 1) * k]);
            let dot = x.iter().zip(y).fold(0u64, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
            out[i * n + j] = out[i * n + j].wrapping_add(dot);
        }
    }
}

/// Visits the indices (input, kernel, output) of every product of a convolution.
fn visit(samples: usize, g: &Conv2d, mut each: impl FnMut(usize, usize, usize)) {
    let Ok((oh, ow)) = g.output() else { return };
    let (ci, co) = (g.in_channels / g.groups, g.out_channels / g.groups);
    for s in 0..samples {
        for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
            for (ky, kx) in (0..g.kernel.0).flat_map(|y| (0..g.kernel.1).map(move |x| (y, x))) {
                let y = (oy * g.stride.0 + ky * g.dilation.0).wrapping_sub(g.pads.top);
                let x = (ox * g.stride.1 + kx * g.dilation.1).wrapping_sub(g.pads.left);
                if y >= g.input.0 || x >= g.input.1 {
                    continue;
                }
                for (c, o) in (0..ci).flat_map(|c| (0..g.out_channels).map(move |o| (c, o))) {
                    let input = ((s * g.input.0 + y) * g.input.1 + x) * g.in_channels + o / co * ci + c;
                    let kernel = ((ky * g.kernel.1 + kx) * ci + c) * g.out_channels + o;
                    each(input, kernel, ((s * oh + oy) * ow + ox) * g.out_channels + o);
                }
            }
        }
    }
}

/// `out += ` the gradient of a convolution by its input.
pub(crate) fn conv2d_input(samples: usize, g: &Conv2d, dy: &[u64], w: &[u64], out: &mut [u64]) {
    visit(samples, g, |i, k, o| out[i] = out[i].wrapping_add(w[k].wrapping_mul(dy[o])));
}

/// `out += ` the gradient of a convolution by its kernel, summed over the samples.
pub(crate) fn conv2d_weights(samples: usize, g: &Conv2d, x: &[u64], dy: &[u64], out: &mut [u64]) {
    visit(samples, g, |i, k, o| out[k] = out[k].wrapping_add(x[i].wrapping_mul(dy[o])));
}
