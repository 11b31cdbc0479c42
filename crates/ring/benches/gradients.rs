//! The gradient kernels beside the forward ones they belong to.
//!
//! `Gelem/s` counts the multiply-adds of the forward product. Threads: `RAYON_NUM_THREADS=1` for one core.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trefoil_ring::kernels::{conv2d, conv2d_input, conv2d_weights, matmul, matmul_nt, matmul_tn};
use trefoil_ring::{Conv2d, Pads};

fn noise(n: usize) -> Vec<u64> {
    (1..=n as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(i | 1)).collect()
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("dense");
    for (batch, from, to) in [(128, 784, 128), (128, 128, 128), (128, 800, 500), (128, 128, 10)] {
        let (mut x, mut w, mut y) = (noise(batch * from), noise(from * to), noise(batch * to));
        group.throughput(Throughput::Elements((batch * from * to) as u64));
        let name = |map| format!("{batch}x{from}x{to}/{map}");
        group.bench_function(name("forward"), |b| b.iter(|| matmul(batch, from, to, black_box(&x), &w, &mut y)));
        group.bench_function(name("input"), |b| b.iter(|| matmul_nt(batch, to, from, black_box(&y), &w, &mut x)));
        group.bench_function(name("weights"), |b| b.iter(|| matmul_tn(from, batch, to, black_box(&x), &y, &mut w)));
    }
    group.finish();
}

fn convolutions(c: &mut Criterion) {
    const BATCH: usize = 128;
    let mut group = c.benchmark_group("conv");
    let layer = |side: usize, channels: (usize, usize), kernel: usize| Conv2d {
        input: (side, side),
        in_channels: channels.0,
        out_channels: channels.1,
        kernel: (kernel, kernel),
        stride: (1, 1),
        dilation: (1, 1),
        pads: Pads::default(),
        groups: 1,
    };
    let same = |g: Conv2d| Conv2d { pads: Pads::same(g.input, g.kernel, g.stride, g.dilation), ..g };
    let layers = [
        ("5x5 1-16 of 28", layer(28, (1, 16), 5)),
        ("5x5 1-20 of 28", layer(28, (1, 20), 5)),
        ("5x5 16-16 of 12", layer(12, (16, 16), 5)),
        ("5x5 20-50 of 12", layer(12, (20, 50), 5)),
        ("5x5 1-5 of 28, stride 2", same(Conv2d { stride: (2, 2), ..layer(28, (1, 5), 5) })),
        ("3x3 32-32 of 28, same", same(layer(28, (32, 32), 3))),
        ("3x3 depthwise 64 of 16", Conv2d { groups: 64, ..layer(16, (64, 64), 3) }),
    ];
    for (name, g) in layers {
        let Ok((oh, ow)) = g.output() else { panic!("{name} is no layer") };
        let mut w = noise(g.kernel_shape().iter().product());
        let mut x = noise(BATCH * g.input.0 * g.input.1 * g.in_channels);
        let mut y = noise(BATCH * oh * ow * g.out_channels);
        group.throughput(Throughput::Elements((BATCH * oh * ow * w.len()) as u64));
        let id = |map| format!("{name}/{map}");
        group.bench_function(id("forward"), |b| b.iter(|| conv2d(BATCH, &g, black_box(&x), &w, &mut y)));
        group.bench_function(id("input"), |b| b.iter(|| conv2d_input(BATCH, &g, black_box(&y), &w, &mut x)));
        group.bench_function(id("weights"), |b| b.iter(|| conv2d_weights(BATCH, &g, black_box(&x), &y, &mut w)));
    }
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .without_plots()
}

criterion_group! { name = gradients; config = quick(); targets = products, convolutions }
criterion_main!(gradients);
