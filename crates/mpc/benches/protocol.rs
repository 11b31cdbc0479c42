//! Dealing, preparing and evaluating single operations: three parties in memory.
//!
//! "offline" deals and prepares at all three parties side by side; "request" evaluates as well.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trefoil_link::pair;
use trefoil_mpc::Compare;
use trefoil_mpc::masked::{deal, prepare};
use trefoil_mpc::program::{Linear, Op, Step, WeightSpec, Window};
use trefoil_mpc::{Prediction, Program};
use trefoil_ring::{Conv2d, Pads, Tensor};
use trefoil_testkit::World;
use trefoil_testkit::world::Shared;

const F: u32 = 16;

fn program(input_shape: Vec<usize>, map: Option<Linear>) -> Program {
    let op = match map {
        Some(map) => Op::Linear { x: 1, weights: 0, bias: None, map },
        None => Op::Relu { x: 1, shift: 0, window: Window { lo: 0, k: 32 }, compare: Compare::default() },
    };
    let steps = [Op::Input, Op::Open { x: 0 }, op].map(|op| Step { layer: op.name().into(), op }).into();
    let weights = map.map(|m| WeightSpec { name: "w".into(), shape: m.weight_shape(), scale: F });
    Program { fraction_bits: F, input_shape, weights: weights.into_iter().collect(), states: vec![], rates: 0, steps }
}

fn offline(world: &World, model: &Shared, batch: usize) {
    let [ac, ab, bc, ba, ca, cb] = world.last_sources();
    let (mut carol, mut dealt) = pair("carol", "bob");
    let (mut alice, mut bob) = pair("alice", "bob");
    let program = &Prediction::new(model.program.clone()).unwrap();
    thread::scope(|s| {
        s.spawn(|| deal(program, batch, &model.carol, &ca, &cb, &mut carol).unwrap());
        s.spawn(|| black_box(prepare(program, batch, &model.alice, &ac, &ab, &mut alice, None).unwrap().bytes()));
        prepare(program, batch, &model.bob, &bc, &ba, &mut bob, Some(&mut dealt)).unwrap().bytes()
    });
}

fn operations(c: &mut Criterion) {
    let dense = Linear::Dense { inputs: 784, outputs: 128 };
    let conv = Linear::Conv(Conv2d {
        input: (12, 12),
        in_channels: 20,
        out_channels: 50,
        kernel: (5, 5),
        stride: (1, 1),
        dilation: (1, 1),
        pads: Pads::default(),
        groups: 1,
    });
    let cases = [
        ("relu 8", program(vec![8], None), 1),
        ("relu 1000000", program(vec![1_000_000], None), 1),
        ("dense 784-128", program(vec![784], Some(dense)), 1),
        ("dense 784-128", program(vec![784], Some(dense)), 128),
        ("conv 20-50 5x5", program(vec![12, 12, 20], Some(conv)), 1),
        ("conv 20-50 5x5", program(vec![12, 12, 20], Some(conv)), 128),
    ];
    for (name, program, batch) in cases {
        let mut world = World::unlogged(1);
        let weights: Vec<Tensor> = program
            .weights
            .iter()
            .map(|w| Tensor::new(w.shape.clone(), vec![1 << F; w.shape.iter().product()]).unwrap())
            .collect();
        let model = world.share(&program, &weights).unwrap();
        let n = batch * program.input_shape.iter().product::<usize>();
        let input = vec![1u64 << F; n];
        let mut group = c.benchmark_group(format!("{name} batch {batch}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function("offline", |b| b.iter(|| offline(&world, &model, batch)));
        group.bench_function("request", |b| b.iter(|| world.run(&model, batch, &input).unwrap()));
        group.finish();
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
