//! Weights of a published model, computed on shares of trained tensors, beside the same network compiled in the clear.

use proptest::prelude::*;
use trefoil_mpc::cost::{StepCost, cost};
use trefoil_mpc::ideal;
use trefoil_mpc::program::{Program, Step, WeightSpec};
use trefoil_nn::build::bench_net;
use trefoil_nn::compile::{CompileOptions, Compiled, Trained, compile, compile_trained};
use trefoil_nn::graph::{BatchNorm, Graph, Layer, Node, Post};
use trefoil_nn::layers::{initial, restore};
use trefoil_nn::lower::{MEMORY_BITS, PARAMETER_BITS, decode, encode, folding};
use trefoil_nn::tape::float::{Batch, run};
use trefoil_nn::tape::{Op, Role, Tape};
use trefoil_ring::Words;
use trefoil_ring::geometry::{Conv2d, Pads};
use trefoil_testkit::World;

use crate::common::{array, chain, dense, numbers};
use crate::layers::{conv, pool};

/// How far a weight may be off: a unit by its truncation, half a unit by the encoding of the other, and what products of
/// 26 fraction bits and an inverse square root within 1e-6 lose of its size. Biases lose more by products of large numbers.
const UNITS: f64 = 1.5 / 65536.0;
const PART: f64 = 1e-5;

/// As training begins: a normalisation that changes nothing.
fn norm(channels: usize) -> Layer {
    let all = |v: f32| trefoil_nn::graph::Array::new(vec![channels], vec![v; channels]).unwrap();
    let (gamma, beta, mean, variance) = (all(1.0), all(0.0), all(0.0), all(1.0));
    Layer::BatchNorm(BatchNorm { gamma, beta, mean, variance, epsilon: 1e-3, momentum: 0.9 })
}

/// A convolution in groups.
fn grouped(input: (usize, usize), channels: (usize, usize), groups: usize) -> Layer {
    let geometry = Conv2d {
        input,
        in_channels: channels.0,
        out_channels: channels.1,
        kernel: (3, 3),
        stride: (1, 1),
        dilation: (1, 1),
        pads: Pads::default(),
        groups,
    };
    Layer::Conv2d { geometry, kernel: array(31, &geometry.kernel_shape(), 0.5), bias: None }
}

fn input(shape: &[usize]) -> Layer {
    Layer::Input { shape: shape.to_vec() }
}

fn flat(n: usize) -> Layer {
    Layer::Reshape { shape: vec![n] }
}

/// Networks in which everything is folded that can be, in every direction.
fn networks() -> Vec<(&'static str, Graph)> {
    let average = |size, channels, window| Layer::AveragePool(pool((size, size), channels, window));
    let chains = vec![
        (
            "into the convolution before",
            vec![input(&[6, 6, 2]), conv(1, (6, 6), (2, 3), true), norm(3), Layer::Relu, flat(108), dense(3, 108, 4)],
        ),
        ("into the convolution behind", vec![input(&[5, 5, 2]), norm(2), conv(1, (5, 5), (2, 3), false)]),
        (
            "nowhere: padding would hide the shift",
            vec![input(&[5, 5, 2]), norm(2), conv(1, (5, 5), (2, 3), true), Layer::Relu],
        ),
        ("into a depthwise one", vec![input(&[5, 5, 3]), norm(3), grouped((5, 5), (3, 3), 3)]),
        ("into groups", vec![input(&[5, 5, 4]), norm(4), grouped((5, 5), (4, 6), 2)]),
        (
            "through a reshape",
            vec![
                input(&[6, 6, 2]),
                conv(1, (6, 6), (2, 3), true),
                Layer::Relu,
                norm(3),
                flat(108),
                dense(5, 108, 4),
                norm(4),
            ],
        ),
        (
            "before an average, and the average's factor",
            vec![
                input(&[7, 7, 2]),
                conv(1, (7, 7), (2, 3), true),
                average(7, 3, 7),
                norm(3),
                Layer::Relu,
                flat(3),
                dense(5, 3, 4),
            ],
        ),
        ("a factor alone", vec![input(&[6, 6, 2]), average(6, 2, 3), flat(8), dense(5, 8, 4)]),
        ("two, and a diagonal", vec![input(&[4, 4, 2]), norm(2), norm(2), Layer::Relu, flat(32), dense(7, 32, 2)]),
    ];
    let mut all: Vec<(&str, Graph)> = chains.into_iter().map(|(name, layers)| (name, chain(layers))).collect();
    // What two layers read is folded into both.
    let node = |name: &str, layer, inputs: &[usize]| Node { name: name.into(), layer, inputs: inputs.to_vec() };
    let mut twice = chain(vec![input(&[5, 5, 2]), norm(2), conv(1, (5, 5), (2, 3), false)]);
    twice.nodes.push(node("again", conv(4, (5, 5), (2, 3), false), &[1]));
    twice.nodes.push(node("sum", Layer::Add, &[2, 3]));
    all.push(("into two", twice));
    let mut pair = chain(vec![input(&[6]), dense(1, 6, 5), norm(5), Layer::Tanh, dense(3, 5, 4)]);
    pair.post = Post::distance(1.0);
    all.push(("in two towers", pair));
    all
}

/// The same network after some training: every tensor holds something else.
fn trained(graph: &Graph, seed: u64) -> Graph {
    let mut graph = graph.clone();
    let names: Vec<String> = trefoil_nn::layers::named(&graph).map(|(name, _)| name).collect();
    let mut values: Vec<Vec<f64>> = initial(&graph);
    for (i, (name, v)) in names.iter().zip(&mut values).enumerate() {
        let some = numbers(seed + i as u64, v.len(), 1.0);
        for (v, x) in v.iter_mut().zip(some) {
            *v = match name.rsplit_once('/').unwrap().1 {
                // Small ones and large ones.
                "variance" => (4.0 * x).exp2(),
                "gamma" => 1.0 + 0.75 * x,
                "mean" => 3.0 * x,
                "kernel" => *v + 0.1 * x,
                _ => x,
            };
        }
    }
    restore(&mut graph, &values);
    graph
}

/// The program that folds, on states as training keeps them, and their first values; the slot of each weight.
fn program(t: &Trained, values: &[Vec<f64>]) -> (Program, Vec<Words>, Vec<usize>) {
    let Trained { compiled, weights, .. } = t;
    let mut tape: Tape = weights.clone();
    let moving = |name: &str| name.ends_with("/mean") || name.ends_with("/variance");
    let scale = |name: &str| if moving(name) { MEMORY_BITS } else { PARAMETER_BITS };
    let spec = |s: &trefoil_nn::tape::State| WeightSpec {
        name: s.name.clone(),
        shape: s.shape.clone(),
        scale: scale(&s.name),
    };
    let mut states: Vec<WeightSpec> = tape.states.iter().map(spec).collect();
    let mut stored = Vec::new();
    for (x, w) in std::mem::take(&mut tape.outputs).into_iter().zip(&compiled.program.weights) {
        let slot = tape.declare(format!("published/{}", w.name), w.shape.clone(), Role::Fixed);
        tape.push(Op::Store { slot, x }).unwrap();
        states.push(WeightSpec { name: format!("published/{}", w.name), ..w.clone() });
        stored.push(slot);
    }
    let steps = vec![Step { layer: "input".into(), op: trefoil_mpc::program::Op::Rows }];
    let step = Program { fraction_bits: 16, input_shape: vec![2], weights: vec![], states, rates: 0, steps };
    let slots: Vec<usize> = (0..step.states.len()).collect();
    let program = folding(&tape, &step, &slots).unwrap();
    let zeros = |s: &WeightSpec| vec![0.0; s.shape.iter().product()];
    let all = step.states.iter().enumerate();
    let first =
        all.map(|(i, s)| encode(&s.name, &values.get(i).cloned().unwrap_or_else(|| zeros(s)), s.scale).unwrap());
    (program, first.collect(), stored)
}

/// How far weights are from those of `compiled`, in parts of what they may be off. A bias is the sum of as many products
/// as its layer's kernel has for that output, each of which may be much larger than what is left of all: it may be off by
/// [`PART`] of their kernels' sizes beside its own.
fn off(compiled: &Compiled, got: &[Vec<f64>]) -> f64 {
    let mut worst = 0_f64;
    let mut sums = (String::new(), Vec::new());
    for ((spec, tensor), got) in compiled.program.weights.iter().zip(&compiled.weights).zip(got) {
        let want = decode(tensor.data(), spec.scale);
        assert_eq!(want.len(), got.len());
        let largest = want.iter().fold(1.0, |m: f64, w| m.max(w.abs()));
        let (layer, tensor) = spec.name.rsplit_once('/').unwrap();
        let mut products = vec![0.0; want.len()];
        if tensor == "kernel" {
            let outputs = *spec.shape.last().unwrap();
            let sum = |o: usize| want.iter().skip(o).step_by(outputs).map(|w| w.abs()).sum::<f64>();
            sums = (layer.to_owned(), (0..outputs).map(sum).collect());
        } else if tensor == "bias" && sums.0 == layer {
            products.clone_from(&sums.1);
        }
        assert_eq!(products.len(), want.len(), "{}", spec.name);
        for ((g, w), products) in got.iter().zip(&want).zip(products) {
            worst = worst.max((g - w).abs() / (UNITS + PART * (largest + products)));
        }
    }
    worst
}

#[test]
fn weights_on_shares_are_those_of_the_compiled_network() {
    for (what, graph) in networks() {
        let t = compile_trained(&graph, &CompileOptions::default(), |_| true).unwrap();
        let graph = trained(&graph, 40);
        let compiled = compile(&graph, &CompileOptions::default()).unwrap();
        // Whatever the tensors held when it was compiled, the program is that of the trained network.
        assert_eq!(t.compiled.program, compiled.program, "{what}");
        let values: Vec<Vec<f64>> = initial(&graph);
        let clear = run(&t.weights, &mut values.clone(), &Batch { rows: &[0.0], samples: 1, rates: &[], seed: 0 });
        let part = off(&compiled, &clear.unwrap());
        assert!(part < 1.0, "{what}: {part} of the bound in the clear");

        let (program, mut states, stored) = program(&t, &values);
        let mut world = World::new(9);
        let model = world.share(&program, &[]).unwrap();
        let rows = world.share_rows(&[0, 0]).unwrap();
        let mut shared = world.split_states(&states);
        let before = shared.values();
        let answer = world.step(&model, &rows, &[0], &mut shared, &[]).unwrap();
        let after = shared.values();
        let weights: Vec<Vec<f64>> = stored.iter().map(|s| decode(&after[*s], program.states[*s].scale)).collect();
        let part = off(&compiled, &weights);
        println!("{what}: {part:.2} of the bound");
        assert!(part < 1.0, "{what}: {part} of the bound on shares");
        assert_eq!(before[..stored[0]], after[..stored[0]], "what training leaves stays as it is");

        // What is counted beforehand is what the links carry, and nothing is drawn twice.
        let mut due = StepCost::default();
        cost(&program, 1).unwrap().iter().for_each(|c| due.add(c));
        let found = answer.online.values().fold((0, 0), |(r, b), c| (r + c.rounds, b + c.sent + c.received));
        let dealt: u64 = answer.offline.values().map(|c| c.sent).sum();
        assert_eq!((found, dealt), ((due.rounds, due.online + due.forwarded), due.offline), "{what}");
        assert!(due.rounds <= 30, "{what}: {} rounds", due.rounds);
        assert_eq!((world.alice_draws.repeated(), world.carol_draws.repeated()), (vec![], vec![]));

        let common = world.last_common();
        ideal::step(&program, 1, &[0, 0], &[], &mut states, &[], &common).unwrap();
        let weights: Vec<Vec<f64>> = stored.iter().map(|s| decode(&states[*s], program.states[*s].scale)).collect();
        assert!(off(&compiled, &weights) < 1.0, "{what}, ideally");
    }
}

/// Sets every number of the tensors that have this name in their layer.
fn set(values: &mut [Vec<f64>], graph: &Graph, what: &str, to: f64) {
    let named = trefoil_nn::layers::named(graph).zip(values);
    named.filter(|((name, _), _)| name.ends_with(what)).for_each(|(_, v)| v.fill(to));
}

/// A column that is constant has a factor of 1/sqrt(0.001): its bias is far beyond what a product of kernels may be.
#[test]
fn biases_may_be_large() {
    let behind = || chain(vec![input(&[64]), norm(64), dense(1, 64, 4)]);
    let before = || chain(vec![input(&[6, 6, 2]), conv(1, (6, 6), (2, 3), true), norm(3)]);
    // The largest bias to expect, and the sum of the largest operands of its products.
    for (what, graph, tensors, (least, most), operands) in [
        ("a mean of 100, constant", before(), [100.0, 0.0, 1.0], (3e3, 3.3e3), 135.0),
        ("of 2000", before(), [-2000.0, 0.0, 4.0], (2.5e5, 2.6e5), 2200.0),
        ("into the layer behind", behind(), [100.0, 0.0, 1.0], (9e4, 1.1e5), 64.0 * 3200.0),
        ("large, and not constant", before(), [1500.0, 2000.0, 0.01], (0.1, 1.0), 1501.0),
    ] {
        let t = compile_trained(&graph, &CompileOptions::default(), |_| true).unwrap();
        let (mut values, [mean, variance, gamma]) = (initial(&graph), tensors);
        set(&mut values, &graph, "/mean", mean);
        set(&mut values, &graph, "/variance", variance);
        set(&mut values, &graph, "/gamma", gamma);
        if what == "into the layer behind" {
            set(&mut values, &graph, "/kernel", 0.5);
        }
        let mut trained = graph.clone();
        restore(&mut trained, &values);
        let compiled = compile(&trained, &CompileOptions::default()).unwrap();
        assert_eq!(t.compiled.program, compiled.program, "{what}");

        let (program, mut states, stored) = program(&t, &values);
        let mut world = World::new(9);
        let model = world.share(&program, &[]).unwrap();
        let rows = world.share_rows(&[0, 0]).unwrap();
        let mut shared = world.split_states(&states);
        world.step(&model, &rows, &[0], &mut shared, &[]).unwrap();
        let common = world.last_common();
        ideal::step(&program, 1, &[0, 0], &[], &mut states, &[], &common).unwrap();
        let ideally = states.iter().map(|s| s.to_vec()).collect();
        for after in [shared.values(), ideally] {
            let mut seen = 0_f64;
            for ((spec, tensor), slot) in compiled.program.weights.iter().zip(&compiled.weights).zip(&stored) {
                let (want, got) = (decode(tensor.data(), spec.scale), decode(&after[*slot], spec.scale));
                let largest = want.iter().fold(1.0, |m: f64, w| m.max(w.abs()));
                let bias = spec.name.ends_with("/bias");
                let products = if bias { operands * (-22_f64).exp2() } else { 0.0 };
                let bound = UNITS + PART * largest + products;
                for (w, g) in want.iter().zip(&got) {
                    assert!((w - g).abs() < bound, "{what}: {} is {g}, not {w}", spec.name);
                    seen = if bias { seen.max(w.abs()) } else { seen };
                }
            }
            assert!((least..most).contains(&seen), "{what}: {seen}");
        }
    }
}

#[test]
fn deep_networks_take_no_more_rounds() {
    let mut graph = bench_net("resnet18", 1).unwrap();
    let mut found = Vec::new();
    for normalised in [false, true] {
        for node in graph.nodes.iter_mut().filter(|_| normalised) {
            if let Layer::ChannelAffine { scale, .. } = &node.layer {
                node.layer = norm(scale.data.len());
            }
        }
        let t = compile_trained(&graph, &CompileOptions::default(), |_| true).unwrap();
        let (program, _, _) = program(&t, &initial(&graph));
        found.push(cost(&program, 1).unwrap().iter().map(|c| c.rounds).sum::<u64>());
    }
    // A scale and a shift that are trained as they are take openings alone.
    assert!(found[0] == 3 && (10..=24).contains(&found[1]), "{found:?} rounds");
}

#[test]
fn layers_of_one_name_are_refused() {
    let mut graph = chain(vec![input(&[6]), dense(1, 6, 5), Layer::Relu, dense(3, 5, 4)]);
    graph.nodes[3].name = "n1".into();
    let refused = compile_trained(&graph, &CompileOptions::default(), |_| true).map(drop);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "layer n1: is called twice with the same weights, or two layers have this name"
    );
}

#[test]
fn frozen_tensors_are_folded_beforehand() {
    let (_, graph) = networks().remove(0);
    let graph = trained(&graph, 3);
    let changes = |name: &str| name.starts_with("n5/");
    let t = compile_trained(&graph, &CompileOptions::default(), changes).unwrap();
    let Trained { compiled, weights: tape, values: left } = t;
    let names: Vec<&str> = tape.states.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names.len(), 4);
    assert!(names[0].starts_with("n1/folded-") && names[1].starts_with("n1/folded-"), "{names:?}");
    assert_eq!(&names[2..], ["n5/kernel", "n5/bias"]);
    let compiled = Compiled { weights: compile(&graph, &CompileOptions::default()).unwrap().weights, ..compiled };
    assert!(off(&compiled, &left) < 1.0);
    let mut some = left.clone();
    let again = run(&tape, &mut some, &Batch { rows: &[0.0], samples: 1, rates: &[], seed: 0 }).unwrap();
    assert_eq!(again, left);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// On clear ring values, whatever training left.
    #[test]
    fn whatever_the_tensors_hold(seed in 0_u64..10_000, which in 0_usize..11) {
        let (what, graph) = networks().remove(which);
        let t = compile_trained(&graph, &CompileOptions::default(), |_| true).unwrap();
        let graph = trained(&graph, seed);
        let compiled = compile(&graph, &CompileOptions::default()).unwrap();
        let (program, mut states, stored) = program(&t, &initial(&graph));
        let common = World::new(1).last_common();
        ideal::step(&program, 1, &[0, 0], &[], &mut states, &[], &common).unwrap();
        let weights: Vec<Vec<f64>> = stored.iter().map(|s| decode(&states[*s], program.states[*s].scale)).collect();
        let part = off(&compiled, &weights);
        prop_assert!(part < 1.0, "{}: {} of the bound", what, part);
    }
}
