//! The kernels beside the processor's limits, measured in one run so that ratios hold on a busy machine.
//!
//! `Gelem/s` counts multiply-adds (products) or elements (bits). Threads: `RAYON_NUM_THREADS=1` for one core.
#![allow(missing_docs)]

mod peak;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trefoil_ring::kernels::{bits, conv2d, matmul};
use trefoil_ring::{Conv2d, Pads};

fn noise(n: usize) -> Vec<u64> {
    (1..=n as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(i | 1)).collect()
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("product");
    for (name, macs, run) in peak::loops() {
        group.throughput(Throughput::Elements(macs));
        group.bench_function(format!("peak/{name}"), |b| b.iter(|| run(black_box(3))));
    }
    for (m, k, n) in [
        (1024, 1024, 1024),
        (128, 784, 128),
        (16, 784, 128),
        (4, 784, 128),
        (1, 784, 128),
        (128, 128, 10),
        (1, 128, 10),
    ] {
        let (x, y, mut z) = (noise(m * k), noise(k * n), vec![0; m * n]);
        group.throughput(Throughput::Elements((m * k * n) as u64));
        group.bench_function(format!("{m}x{k}x{n}"), |b| b.iter(|| matmul(m, k, n, black_box(&x), &y, &mut z)));
    }
    group.finish();
}

fn convolutions(c: &mut Criterion) {
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
    let layers = [
        ("B1", layer(28, (1, 16), 5)),
        ("B2", layer(12, (16, 16), 5)),
        ("C1", layer(28, (1, 20), 5)),
        ("C2", layer(12, (20, 50), 5)),
        ("S1", layer(28, (1, 10), 3)),
        ("S2", layer(13, (10, 32), 3)),
        ("depthwise", Conv2d { groups: 64, ..layer(16, (64, 64), 3) }),
    ];
    for (name, g) in layers {
        let Ok((oh, ow)) = g.output() else { panic!("{name} is no layer") };
        let w = noise(g.kernel_shape().iter().product());
        for batch in [1, 128] {
            let x = noise(batch * g.input.0 * g.input.1 * g.in_channels);
            let mut out = vec![0; batch * oh * ow * g.out_channels];
            group.throughput(Throughput::Elements((batch * oh * ow * w.len()) as u64));
            group.bench_function(format!("{name}/{batch}"), |b| {
                b.iter(|| conv2d(batch, &g, black_box(&x), &w, &mut out))
            });
        }
    }
    group.finish();
}

fn planes_and_packing(c: &mut Criterion) {
    let mut group = c.benchmark_group("bits");
    let values = noise(1 << 14);
    let n = values.len();
    group.throughput(Throughput::Elements(n as u64));
    for (lo, k) in [(0, 64), (8, 32), (63, 1)] {
        let mut out = vec![0; bits::plane_words(n) * k as usize];
        group.bench_function(format!("to_planes/{k}"), |b| {
            b.iter(|| bits::to_planes(black_box(&values), lo, k, &mut out))
        });
    }
    for width in [16, 19, 48] {
        let mut bytes = vec![0; bits::packed_bytes(n, width)];
        let mut back = vec![0; n];
        group.bench_function(format!("pack/{width}"), |b| b.iter(|| bits::pack(black_box(&values), width, &mut bytes)));
        group.bench_function(format!("unpack/{width}"), |b| {
            b.iter(|| bits::unpack(black_box(&bytes), width, &mut back))
        });
    }
    let plane = noise(n / 64);
    let mut out = vec![0; n];
    group.bench_function("expand_bits", |b| b.iter(|| bits::expand_bits(black_box(&plane), &mut out)));
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .without_plots()
}

criterion_group! { name = kernels; config = quick(); targets = products, convolutions, planes_and_packing }
criterion_main!(kernels);
