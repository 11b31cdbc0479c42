//! Two-dimensional convolution over Z_2^64, channels last, as a product over windows read in place.

use super::gemm::{Grid, Product, Run, multiply};
use super::{Isa, depthwise, portable};
use crate::Words;
use crate::geometry::Conv2d;

/// `out += conv(x, w)` modulo 2^64 for `batch` images; layouts as in [`Conv2d`]. The geometry must be valid.
pub fn conv2d(batch: usize, g: &Conv2d, x: &[u64], w: &[u64], out: &mut [u64]) {
    conv2d_with(Isa::best(), batch, g, x, w, out);
}

pub(super) fn conv2d_with(isa: Isa, batch: usize, g: &Conv2d, x: &[u64], w: &[u64], out: &mut [u64]) {
    let Ok((oh, ow)) = g.output() else { panic!("conv2d: the geometry was not checked") };
    let (ci, co) = (g.in_channels / g.groups, g.out_channels / g.groups);
    assert!(size([batch, g.input.0, g.input.1, g.in_channels]) == x.len(), "conv2d: input");
    assert!(size([batch, oh, ow, g.out_channels]) == out.len(), "conv2d: output");
    assert!(size([g.kernel.0, g.kernel.1, ci, g.out_channels]) == w.len(), "conv2d: kernel");
    if batch == 0 {
        return;
    }
    if isa == Isa::Portable {
        return portable::conv2d(batch, g, x, w, out);
    }
    let copy = pad(batch, g, x);
    let padded = copy.as_deref().unwrap_or(x);
    let (height, width) = padded_size(g);
    let pixel = g.in_channels;
    let grid =
        Grid { height: oh, width: ow, steps: [height * width * pixel, g.stride.0 * width * pixel, g.stride.1 * pixel] };
    if ci == 1 && co == 1 {
        depthwise::multiply(isa, padded, &grid, &offsets(g, width), w, batch * oh * ow, g.in_channels, out);
    } else {
        for group in 0..g.groups {
            let runs = runs(g, width);
            let product = Product {
                x: &padded[group * ci..],
                grid,
                runs: &runs,
                rows: batch * oh * ow,
                n: co,
                b: &w[group * co..],
                ldb: g.out_channels,
                ldc: g.out_channels,
            };
            multiply(isa, &product, &mut out[group * co..]);
        }
    }
}

/// Elements of a tensor with these sides; panics when they overflow.
pub(super) fn size(sides: [usize; 4]) -> usize {
    let Some(n) = sides.into_iter().try_fold(1usize, usize::checked_mul) else {
        panic!("conv2d: {sides:?} is too large")
    };
    n
}

/// Height and width of the input with its zeros.
fn padded_size(g: &Conv2d) -> (usize, usize) {
    (g.input.0 + g.pads.top + g.pads.bottom, g.input.1 + g.pads.left + g.pads.right)
}

/// The images with zeros around them, where there are any.
fn pad(batch: usize, g: &Conv2d, x: &[u64]) -> Option<Words> {
    if g.pads.is_none() {
        return None;
    }
    let (height, width) = padded_size(g);
    let line = g.input.1 * g.in_channels;
    let mut out = Words::zeros(size([batch, height, width, g.in_channels]));
    for (i, from) in x.chunks_exact(line).enumerate() {
        let (image, y) = (i / g.input.0, i % g.input.0);
        let at = ((image * height + g.pads.top + y) * width + g.pads.left) * g.in_channels;
        out[at..at + line].copy_from_slice(from);
    }
    Some(out)
}

/// Where each position of the window lies, from the window's first pixel.
fn offsets(g: &Conv2d, width: usize) -> Vec<usize> {
    let (dy, dx) = g.dilation;
    (0..g.kernel.0).flat_map(|ky| (0..g.kernel.1).map(move |kx| (ky * dy * width + kx * dx) * g.in_channels)).collect()
}

/// The window's elements as contiguous runs, in the order of the kernel's rows.
fn runs(g: &Conv2d, width: usize) -> Vec<Run> {
    let len = g.in_channels / g.groups;
    let mut out: Vec<Run> = Vec::new();
    for start in offsets(g, width) {
        match out.last_mut() {
            Some(run) if run.start + run.len == start => run.len += len,
            _ => out.push(Run { start, len }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::Pads;

    fn noise(n: usize, seed: u64) -> Vec<u64> {
        (1..=n as u64)
            .map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(i | 1))
            .collect()
    }

    fn agrees(batch: usize, g: &Conv2d) {
        let (oh, ow) = g.output().unwrap();
        let x = noise(batch * g.input.0 * g.input.1 * g.in_channels, 1);
        let w = noise(g.kernel_shape().iter().product(), 2);
        let start = noise(batch * oh * ow * g.out_channels, 3);
        let mut expected = start.clone();
        portable::conv2d(batch, g, &x, &w, &mut expected);
        for isa in Isa::available() {
            let mut out = start.clone();
            conv2d_with(isa, batch, g, &x, &w, &mut out);
            assert!(out == expected, "{isa:?} batch {batch} {g:?}");
        }
    }

    fn plain(input: usize, channels: (usize, usize), kernel: usize) -> Conv2d {
        Conv2d {
            input: (input, input),
            in_channels: channels.0,
            out_channels: channels.1,
            kernel: (kernel, kernel),
            stride: (1, 1),
            dilation: (1, 1),
            pads: Pads::default(),
            groups: 1,
        }
    }

    #[test]
    fn the_networks_layers_agree() {
        for channels in [(1, 16), (1, 20), (1, 10)] {
            agrees(2, &plain(28, channels, 5));
        }
        agrees(2, &plain(12, (16, 16), 5));
        agrees(3, &plain(12, (20, 50), 5));
        agrees(1, &plain(5, (32, 64), 3));
    }

    #[test]
    fn layers_large_enough_for_the_matrix_unit_agree() {
        let g = plain(14, (10, 32), 3);
        let pads = Pads { top: 1, bottom: 2, left: 2, right: 0 };
        agrees(3, &Conv2d { pads, ..g });
        agrees(3, &Conv2d { pads, stride: (2, 1), dilation: (2, 2), ..g });
        agrees(4, &Conv2d { in_channels: 20, out_channels: 50, groups: 2, pads, ..g });
        agrees(2, &plain(11, (300, 17), 3));
        agrees(2, &plain(8, (70, 40), 1));
    }

    #[test]
    fn depthwise_agrees() {
        for channels in [1, 3, 8, 21] {
            let g = Conv2d {
                groups: channels,
                pads: Pads { top: 1, bottom: 1, left: 1, right: 2 },
                ..plain(9, (channels, channels), 3)
            };
            agrees(2, &g);
            agrees(2, &Conv2d { out_channels: 2 * channels, stride: (2, 1), ..g });
        }
    }

    #[test]
    fn threads_do_not_change_a_convolution() {
        let g = plain(28, (4, 32), 5);
        let (x, w) = (noise(8 * 28 * 28 * 4, 1), noise(25 * 4 * 32, 2));
        let with = |threads| {
            let mut out = vec![0; 8 * 24 * 24 * 32];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| conv2d(8, &g, &x, &w, &mut out));
            out
        };
        assert_eq!(with(1), with(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn random_geometries_agree(
            batch in 1usize..4,
            input in (1usize..14, 1usize..14),
            channels in (1usize..5, 1usize..12, 1usize..4),
            kernel in (1usize..5, 1usize..5),
            stride in (1usize..4, 1usize..4),
            dilation in (1usize..3, 1usize..3),
            pads in (0usize..3, 0usize..3, 0usize..3, 0usize..3),
        ) {
            let (ci, co, groups) = channels;
            let pads = Pads { top: pads.0, bottom: pads.1, left: pads.2, right: pads.3 };
            let g = Conv2d { input, in_channels: ci * groups, out_channels: co * groups, kernel, stride, dilation, pads, groups };
            prop_assume!(g.output().is_ok());
            agrees(batch, &g);
        }
    }
}
