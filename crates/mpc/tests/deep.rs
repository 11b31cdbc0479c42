//! Deep networks under the protocol give the logits of the clear model.
#![allow(clippy::unwrap_used)]

use trefoil_mpc::Reveal;
use trefoil_mpc::masked::output::open_values;
use trefoil_nn::build::bench_net;
use trefoil_nn::compile::{CompileOptions, compile};
use trefoil_nn::range;
use trefoil_testkit::World;

fn agrees(name: &str) {
    let graph = bench_net(name, 1).unwrap();
    let options = CompileOptions::default();
    let compiled = compile(&graph, &options).unwrap();
    let image: Vec<f32> = (0..32 * 32 * 3).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect();
    let report = range::check(&compiled, Reveal::Logits, &(0.0..=1.0), Some(&image)).unwrap();
    assert!(report.wires.iter().all(|w| w.low > w.limit_low && w.high < w.limit_high), "{name}");
    let program = compiled.ending_in(Reveal::Logits).unwrap();
    let scale = f64::from(options.fraction_bits).exp2();
    let input: Vec<u64> = image.iter().map(|v| (f64::from(*v) * scale).round() as i64 as u64).collect();
    let mut world = World::unlogged(1);
    let shared = world.share(&program, &compiled.weights).unwrap();
    let answer = world.run(&shared, 1, &input).unwrap();
    let infos = program.infer().unwrap();
    let shift = infos[infos.len() - 2].scale - infos[infos.len() - 1].scale;
    let got = open_values(&answer.alice.payload, &answer.bob.payload, 10, shift).unwrap();
    let want = graph.forward(1, &image).unwrap();
    for (got, want) in got.iter().zip(&want) {
        let got = *got as f64 / scale;
        assert!((got - f64::from(*want)).abs() < 0.01, "{name}: {got} where the clear model says {want}");
    }
    assert!(want.iter().any(|w| w.abs() > 0.01) && want.iter().all(|w| w.abs() < 1000.0), "{name}: {want:?}");
}

#[test]
fn vgg16() {
    agrees("vgg16");
}

#[test]
fn resnet18() {
    agrees("resnet18");
}
