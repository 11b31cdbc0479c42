//! The products in plain Rust: what every faster kernel is tested against, and what runs where none fits.

use crate::geometry::Conv2d;

/// `out += conv(x, w)` modulo 2^64 for `batch` images; layouts as in [`Conv2d`]. The geometry must be valid.
pub(super) fn conv2d(batch: usize, g: &Conv2d, x: &[u64], w: &[u64], out: &mut [u64]) {
    let Ok((oh, ow)) = g.output() else { panic!("conv2d: the geometry was not checked") };
    let (ih, iw) = g.input;
    let (ci, co) = (g.in_channels / g.groups, g.out_channels / g.groups);
    assert!(x.len() == batch * ih * iw * g.in_channels && out.len() == batch * oh * ow * g.out_channels);
    assert!(w.len() == g.kernel.0 * g.kernel.1 * ci * g.out_channels);
    for b in 0..batch {
        for oy in 0..oh {
            for ox in 0..ow {
                let o = ((b * oh + oy) * ow + ox) * g.out_channels;
                for ky in 0..g.kernel.0 {
                    let Some(y) = (oy * g.stride.0 + ky * g.dilation.0).checked_sub(g.pads.top).filter(|&y| y < ih)
                    else {
                        continue;
                    };
                    for kx in 0..g.kernel.1 {
                        let Some(xx) =
                            (ox * g.stride.1 + kx * g.dilation.1).checked_sub(g.pads.left).filter(|&v| v < iw)
                        else {
                            continue;
                        };
                        let i = ((b * ih + y) * iw + xx) * g.in_channels;
                        for group in 0..g.groups {
                            for c in 0..ci {
                                let v = x[i + group * ci + c];
                                let row = ((ky * g.kernel.1 + kx) * ci + c) * g.out_channels + group * co;
                                for (a, k) in
                                    out[o + group * co..o + (group + 1) * co].iter_mut().zip(&w[row..row + co])
                                {
                                    *a = a.wrapping_add(v.wrapping_mul(*k));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `c += a * b` modulo 2^64, with `a` of `m x k`, `b` of `k x n` and `c` of `m x n`, all row-major.
pub(super) fn matmul(m: usize, k: usize, n: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "matmul: slices do not fit {m} x {k} x {n}");
    for i in 0..m {
        let row = &mut c[i * n..(i + 1) * n];
        for p in 0..k {
            let x = a[i * k + p];
            for (o, y) in row.iter_mut().zip(&b[p * n..(p + 1) * n]) {
                *o = o.wrapping_add(x.wrapping_mul(*y));
            }
        }
    }
}

/// `c += transpose(a) * b` modulo 2^64, with rows of `m` in `a`, of `n` in `b` and of `n` in `c`.
pub(super) fn matmul_tn(m: usize, n: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    for (a, b) in a.chunks_exact(m).zip(b.chunks_exact(n)) {
        for (x, row) in a.iter().zip(c.chunks_exact_mut(n)) {
            for (o, y) in row.iter_mut().zip(b) {
                *o = o.wrapping_add(x.wrapping_mul(*y));
            }
        }
    }
}

/// `c += a * transpose(b)` modulo 2^64, with rows of `k` in `a` and `b` and of `n` in `c`.
pub(super) fn matmul_nt(k: usize, n: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    for (a, row) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (o, b) in row.iter_mut().zip(b.chunks_exact(k)) {
            *o = a.iter().zip(b).fold(*o, |sum, (x, y)| sum.wrapping_add(x.wrapping_mul(*y)));
        }
    }
}
