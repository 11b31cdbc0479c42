//! The gradients against their definition: adjoint to the forward convolution, and equal on every processor.

use proptest::prelude::*;

use super::*;
use crate::geometry::Pads;
use crate::kernels::conv2d;

fn noise(n: usize, seed: u64) -> Vec<u64> {
    (1..=n as u64).map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(i | 1)).collect()
}

fn inner(a: &[u64], b: &[u64]) -> u64 {
    a.iter().zip(b).fold(0, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)))
}

/// Input, kernel and output gradient of the geometry's sizes.
fn operands(samples: usize, g: &Conv2d) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
    let (oh, ow) = g.output().unwrap();
    (
        noise(samples * g.input.0 * g.input.1 * g.in_channels, 1),
        noise(g.kernel_shape().iter().product(), 2),
        noise(samples * oh * ow * g.out_channels, 3),
    )
}

/// Every instruction set agrees with plain Rust, which is adjoint to the forward convolution; and the gradients are
/// added to what is there.
fn agree(samples: usize, g: &Conv2d) {
    let (x, w, dy) = operands(samples, g);
    let (mut y, mut dx, mut dw) = (vec![0; dy.len()], vec![0; x.len()], vec![0; w.len()]);
    conv2d(samples, g, &x, &w, &mut y);
    portable::input(samples, g, &dy, &w, &mut dx);
    portable::weights(samples, g, &x, &dy, &mut dw);
    let expected = inner(&y, &dy);
    assert_eq!(inner(&x, &dx), expected, "input, {samples} of {g:?}");
    assert_eq!(inner(&w, &dw), expected, "kernel, {samples} of {g:?}");
    for isa in Isa::available() {
        let (mut out, mut sums) = (x.clone(), w.clone());
        input_with(isa, samples, g, &dy, &w, &mut out);
        weights_with(isa, samples, g, &x, &dy, &mut sums);
        let added = |before: &[u64], by: &[u64]| -> Vec<u64> {
            before.iter().zip(by).map(|(a, b)| a.wrapping_add(*b)).collect()
        };
        assert!(out == added(&x, &dx), "input, {isa:?}, {samples} of {g:?}");
        assert!(sums == added(&w, &dw), "kernel, {isa:?}, {samples} of {g:?}");
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

/// Shares `total` padding out as "same" does for a square input.
fn same(g: Conv2d) -> Conv2d {
    Conv2d { pads: Pads::same(g.input, g.kernel, g.stride, g.dilation), ..g }
}

/// Nothing but the definition: each element of a tiny gradient is what a unit input or kernel brings about.
#[test]
fn each_element_is_a_unit_response() {
    let g = Conv2d {
        input: (4, 3),
        kernel: (2, 2),
        stride: (1, 2),
        pads: Pads { top: 1, bottom: 0, left: 1, right: 2 },
        groups: 2,
        ..plain(4, (4, 6), 2)
    };
    let (x, w, dy) = operands(2, &g);
    let (mut dx, mut dw) = (vec![0; x.len()], vec![0; w.len()]);
    conv2d_input(2, &g, &dy, &w, &mut dx);
    conv2d_weights(2, &g, &x, &dy, &mut dw);
    let response = |x: &[u64], w: &[u64]| {
        let mut y = vec![0; dy.len()];
        conv2d(2, &g, x, w, &mut y);
        inner(&y, &dy)
    };
    for i in 0..x.len() {
        let mut unit = vec![0; x.len()];
        unit[i] = 1;
        assert_eq!(dx[i], response(&unit, &w), "input {i}");
    }
    for i in 0..w.len() {
        let mut unit = vec![0; w.len()];
        unit[i] = 1;
        assert_eq!(dw[i], response(&x, &unit), "kernel {i}");
    }
}

#[test]
fn the_networks_layers_agree() {
    agree(3, &plain(28, (1, 16), 5));
    agree(6, &plain(12, (16, 16), 5));
    agree(7, &plain(12, (20, 50), 5));
    agree(2, &same(Conv2d { stride: (2, 2), ..plain(28, (1, 5), 5) }));
    agree(2, &same(plain(28, (32, 32), 3)));
}

#[test]
fn layers_of_several_pieces_and_groups_agree() {
    agree(2, &same(plain(9, (150, 24), 3)));
    agree(2, &same(Conv2d { groups: 2, ..plain(13, (32, 40), 3) }));
    agree(2, &same(Conv2d { dilation: (2, 2), ..plain(14, (16, 20), 3) }));
    agree(2, &Conv2d { stride: (2, 3), ..plain(15, (70, 40), 3) });
    agree(2, &plain(8, (70, 40), 1));
}

#[test]
fn depthwise_agrees() {
    for channels in [1, 3, 21] {
        let g = Conv2d { groups: channels, ..plain(9, (channels, channels), 3) };
        agree(2, &same(g));
        agree(2, &same(Conv2d { out_channels: 2 * channels, stride: (2, 1), ..g }));
        agree(2, &Conv2d { stride: (2, 3), dilation: (2, 1), ..g });
    }
}

#[test]
fn strides_longer_than_the_image_agree() {
    agree(2, &Conv2d { stride: (1 << 20, 1 << 20), ..plain(5, (2, 3), 3) });
}

#[test]
fn no_samples_leave_the_output() {
    let g = plain(5, (2, 3), 3);
    let mut dw = noise(54, 1);
    conv2d_weights(0, &g, &[], &[], &mut dw);
    conv2d_input(0, &g, &[], &dw, &mut []);
    assert_eq!(dw, noise(54, 1));
}

#[test]
fn threads_do_not_change_a_gradient() {
    for g in [
        plain(28, (4, 20), 5),
        same(plain(14, (32, 32), 3)),
        same(Conv2d { groups: 64, stride: (2, 2), ..plain(40, (64, 64), 3) }),
    ] {
        let (x, w, dy) = operands(25, &g);
        let with = |threads| {
            let (mut dx, mut dw) = (vec![0; x.len()], vec![0; w.len()]);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| conv2d_input(25, &g, &dy, &w, &mut dx));
            pool.install(|| conv2d_weights(25, &g, &x, &dy, &mut dw));
            (dx, dw)
        };
        assert!(with(1) == with(3), "{g:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn random_geometries_are_adjoint(
        samples in 1usize..4,
        input in (1usize..14, 1usize..14),
        channels in (1usize..20, 1usize..12, 1usize..4),
        kernel in (1usize..5, 1usize..5),
        stride in (1usize..4, 1usize..4),
        dilation in (1usize..3, 1usize..3),
        pads in (0usize..3, 0usize..3, 0usize..3, 0usize..3),
    ) {
        let (ci, co, groups) = channels;
        let pads = Pads { top: pads.0, bottom: pads.1, left: pads.2, right: pads.3 };
        let g = Conv2d { input, in_channels: ci * groups, out_channels: co * groups, kernel, stride, dilation, pads, groups };
        prop_assume!(g.output().is_ok());
        agree(samples, &g);
    }
}
