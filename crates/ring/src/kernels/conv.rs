//! Two-dimensional convolution over Z_2^64, channels last.

use crate::geometry::Conv2d;

/// `out += conv(x, w)` modulo 2^64 for `batch` images; layouts as in [`Conv2d`]. The geometry must be valid.
pub fn conv2d(batch: usize, g: &Conv2d, x: &[u64], w: &[u64], out: &mut [u64]) {
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
