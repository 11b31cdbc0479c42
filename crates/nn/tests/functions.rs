//! Sigmoid, tanh and their relatives in compiled programs, and the distance of pairs: exact over integers, close to the clear result.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Builder, evaluate, run};
use proptest::prelude::*;
use trefoil_mpc::cost::cost;
use trefoil_mpc::program::{Op, Reveal};
use trefoil_nn::compile::{CompileOptions, Compiled, compile};
use trefoil_nn::graph::{Graph, Layer, NodeId, Post};
use trefoil_nn::range::{How, check};
use trefoil_nn::tape::Function;
use trefoil_ring::geometry::Pads;

/// The network for pairs.
fn pairs(graph: &Graph) -> Graph {
    Graph { post: Post::distance(0.5), ..graph.clone() }
}

fn names(c: &Compiled) -> Vec<&'static str> {
    c.program.steps.iter().map(|s| s.op.name()).collect()
}

/// The largest difference to the clear result in `f64`, on three samples of one input or of a pair.
fn worst(b: &mut Builder, compiled: &Compiled) -> f64 {
    let mut worst = 0.0f64;
    for _ in 0..3 {
        let x: Vec<f32> = (0..compiled.graph.towers()).flat_map(|_| b.input()).collect();
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let mut want = b.graph.forward_in(compiled.graph.towers(), &wide).unwrap();
        if compiled.graph.towers() == 2 {
            let (left, right) = want.split_at(want.len() / 2);
            want = vec![left.iter().zip(right).map(|(a, b)| (a - b) * (a - b)).sum()];
        }
        let got: Vec<f64> = evaluate(compiled, &x).into_iter().map(|v| compiled.graph.post.answer(v)).collect();
        assert_eq!(got.len(), want.len());
        worst = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(worst, f64::max);
    }
    worst
}

/// Every number of 16 fraction bits from -12 to 12, and some beyond.
#[test]
fn errors_are_as_stated_at_every_input() {
    let numbers = (-(12 << 16)..=12 << 16).chain([-(1 << 30), -(1 << 25), 1 << 25, 1 << 30]);
    let x: Vec<f32> = numbers.map(|i| i as f32 / 65536.0).collect();
    type Case = (Layer, fn(f64) -> f64, f64);
    let all: [Case; 8] = [
        (Layer::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 2e-4),
        (Layer::Tanh, f64::tanh, 3e-4),
        (Layer::Softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), 3e-4),
        (Layer::Elu { alpha: 1.0 }, |x| x.max(0.0) + x.min(0.0).exp_m1(), 3e-4),
        (Layer::Elu { alpha: 0.25 }, |x| x.max(0.0) + 0.25 * x.min(0.0).exp_m1(), 1e-4),
        (Layer::Silu, |x| x / (1.0 + (-x).exp()), 3e-4),
        (Layer::Gelu, |x| Function::Gelu.of(x), 3e-4),
        (Layer::HardSigmoid { slope: 0.2 }, |x| (0.2 * x + 0.5).clamp(0.0, 1.0), 2e-5),
    ];
    for (layer, f, stated) in all {
        // As many at once as a run may compute.
        let errors = x.chunks(1 << 18).map(|x| {
            let mut b = Builder::new(&[x.len()]);
            b.add(layer.clone(), &[0]);
            let y = run(&b.graph, &CompileOptions::default(), x);
            x.iter().zip(&y).map(|(x, y)| (y - f(f64::from(*x))).abs()).fold(0.0, f64::max)
        });
        let error = errors.fold(0.0, f64::max);
        assert!(error < stated && error > stated / 4.0, "{layer:?}: {error:.2e}, stated {stated:.0e}");
    }
}

#[test]
fn what_a_layer_becomes() {
    let mut b = Builder::new(&[6, 6, 2]);
    let h = b.conv(0, 4, 3, 1, true);
    let h = b.add(Layer::Sigmoid, &[h]);
    let h = b.average_pool(h, 2, 2, false);
    let h = b.flatten(h);
    let h = b.dense(h, 5);
    let h = b.add(Layer::Tanh, &[h]);
    b.dense(h, 3);
    let c = compile(&b.graph, &CompileOptions::default()).unwrap();
    let want = [
        "input",
        "open",
        "conv2d",
        "open",
        "truncate",
        "open",
        "piecewise",
        "average-pool",
        "open",
        "truncate",
        "open",
        "reshape",
        "dense",
        "open",
        "truncate",
        "open",
        "piecewise",
        "open",
        "truncate",
        "open",
        "dense",
    ];
    assert_eq!(names(&c), want, "a pool of whole windows comes before the opening: four times fewer elements");
    assert!(c.notes.iter().any(|n| n.contains("n2: sigmoid by a polynomial in 11 pieces")), "{:?}", c.notes);
    assert!(worst(&mut b, &c) < 1e-3);
    // Rounds do not grow with the batch, and all knots share them.
    let program = c.ending_in(Reveal::Logits).unwrap();
    let rounds = |batch| cost(&program, batch).unwrap().iter().map(|c| c.rounds).collect::<Vec<_>>();
    assert_eq!(rounds(1), rounds(128));
    assert_eq!((rounds(1)[6], rounds(1).iter().sum::<u64>()), (3, 15));
}

#[test]
fn parameters_have_bounds() {
    let bad = [f32::NAN, f32::INFINITY, -2000.0, 2000.0];
    let elus = bad.map(|alpha| Layer::Elu { alpha });
    let slopes = bad.into_iter().chain([0.0, -0.2]).map(|slope| Layer::HardSigmoid { slope });
    for layer in elus.into_iter().chain(slopes) {
        let said = layer.output_shape(&[&vec![4]]).unwrap_err();
        assert!(said.contains(": must"), "{layer:?}: {said}");
    }
}

/// The layers beside sigmoid and tanh.
fn relatives() -> [Layer; 6] {
    let elu = |alpha| Layer::Elu { alpha };
    [Layer::HardSigmoid { slope: 1.0 / 6.0 }, Layer::Softplus, elu(1.0), elu(1.75), Layer::Silu, Layer::Gelu]
}

#[test]
fn functions_meet_every_other_layer() {
    for f in [Layer::Sigmoid, Layer::Tanh].into_iter().chain(relatives()) {
        let mut b = Builder::new(&[9, 9, 2]);
        let h = b.average_pool(0, 3, 1, false);
        let h = b.add(f.clone(), &[h]);
        let h = b.max_pool(h, 2, 2);
        let h = b.add(f.clone(), &[h]);
        let h = b.average_pool(h, 3, 1, true);
        let a = b.add(f.clone(), &[h]);
        let r = b.relu(a);
        let l = b.add(Layer::LeakyRelu { slope: 0.5 }, &[a]);
        let s = b.add(Layer::Add, &[a, r, h]);
        let h = b.add(Layer::Concat { axis: 2 }, &[a, s, l]);
        let h = b.affine(h);
        let h = b.add(Layer::ZeroPad(Pads { top: 1, bottom: 0, left: 0, right: 2 }), &[h]);
        let h = b.average_pool(h, 2, 2, false);
        let h = b.add(f, &[h]);
        let h = b.average_pool(h, 2, 2, false);
        b.flatten(h);
        for options in [CompileOptions::default(), CompileOptions { fraction_bits: 12, window_bits: 24 }] {
            let c = compile(&b.graph, &options).unwrap();
            let off = worst(&mut b, &c);
            assert!(off < if options.fraction_bits == 16 { 2e-3 } else { 2e-2 }, "{off}");
            c.ending_in(Reveal::Label).unwrap();
        }
    }
}

#[test]
fn every_kind_of_fixed_point() {
    let mut b = Builder::new(&[6]);
    let h = b.add(Layer::Tanh, &[0]);
    let h = b.dense(h, 4);
    b.add(Layer::Sigmoid, &[h]);
    for (fraction_bits, window_bits) in [(1, 61), (4, 20), (8, 8), (10, 32), (13, 20), (20, 30), (24, 38), (30, 32)] {
        let c = compile(&b.graph, &CompileOptions { fraction_bits, window_bits }).unwrap();
        c.ending_in(Reveal::Logits).unwrap();
        let unit = (-f64::from(fraction_bits)).exp2();
        assert!(worst(&mut b, &c) < 1e-3 + 8.0 * unit, "{fraction_bits} fraction bits");
    }
}

#[test]
fn ranges_are_proved_however_large_the_weights() {
    for (f, low) in [(Layer::Sigmoid, 0.0), (Layer::Tanh, -1.0), (Layer::HardSigmoid { slope: 0.2 }, 0.0)] {
        let mut b = Builder::new(&[4]);
        let h = b.dense(0, 4);
        if let Layer::Dense { kernel, .. } = &mut b.graph.nodes[h].layer {
            kernel.data.iter_mut().for_each(|w| *w *= 500.0);
        }
        let h = b.add(f, &[h]);
        b.add(Layer::Reshape { shape: vec![2, 2] }, &[h]);
        let c = compile(&b.graph, &CompileOptions::default()).unwrap();
        let report = check(&c, Reveal::Logits, &(-1.0..=1.0), None).unwrap();
        assert!(report.wires.iter().all(|w| w.how == How::Proved) && report.notes.is_empty(), "{report:?}");
        let out = report.wires.iter().rfind(|w| w.op == "reveal").unwrap();
        assert!((out.low - low).abs() < 1e-3 && (out.high - 1.0).abs() < 1e-3, "{out:?}");
        assert!(report.wires.iter().any(|w| w.op == "piecewise"));
    }
}

/// What grows like x: proved for weights as they are, and refused where the samples leave the ring.
#[test]
fn growing_functions_have_their_ranges() {
    for f in relatives().into_iter().skip(1) {
        for (factor, fits) in [(1.0, true), (1e6, false)] {
            let mut b = Builder::new(&[4]);
            let h = b.dense(0, 4);
            if let Layer::Dense { kernel, .. } = &mut b.graph.nodes[h].layer {
                kernel.data.iter_mut().for_each(|w| *w *= factor);
            }
            b.add(f.clone(), &[h]);
            let c = compile(&b.graph, &CompileOptions::default()).unwrap();
            let report = check(&c, Reveal::Logits, &(-1.0..=1.0), None);
            assert_eq!(report.is_ok(), fits, "{f:?}: {report:?}");
            let proved = |r: trefoil_nn::range::RangeReport| r.wires.iter().all(|w| w.how == How::Proved);
            assert!(report.map_or(true, proved), "{f:?}");
        }
    }
}

/// Layers of a tower, one after the other.
fn tower(choices: &[(u8, u8)], image: bool) -> Builder {
    let mut b = Builder::new(if image { &[6, 6, 2] } else { &[12] });
    let mut seen: Vec<NodeId> = vec![0];
    for &(kind, pick) in choices {
        let x = seen[seen.len() - 1];
        let other = seen[usize::from(pick) % seen.len()];
        let shape = b.shape(x);
        let wide = shape.len() == 3 && shape[0] >= 3 && shape[1] >= 3;
        let id = match kind % 15 {
            0 if wide => b.conv(x, 3, 3, 1, true),
            1 if wide => b.max_pool(x, 2, 2),
            2 if wide => b.average_pool(x, 2 + usize::from(pick % 2), 2, pick > 4),
            3 => b.relu(x),
            4 => b.add(Layer::Sigmoid, &[x]),
            5 => b.add(Layer::Tanh, &[x]),
            6 if b.shape(other) == shape => b.add(Layer::Add, &[x, other]),
            7 if b.shape(other) == shape && shape[shape.len() - 1] < 20 => {
                b.add(Layer::Concat { axis: usize::from(pick) % shape.len() }, &[x, other])
            }
            8 if wide => b.add(Layer::ZeroPad(Pads { top: 1, bottom: 0, left: 0, right: 1 }), &[x]),
            9 => b.add(Layer::Reshape { shape: vec![shape.iter().product()] }, &[x]),
            10.. => b.add(relatives()[usize::from(kind % 15 - 9)].clone(), &[x]),
            _ => b.dense(x, 4),
        };
        seen.push(id);
    }
    let h = b.flatten(seen[seen.len() - 1]);
    b.dense(h, 3);
    b
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn random_networks_alone_and_in_pairs(
        choices in proptest::collection::vec((0u8..15, 0u8..8), 1..9),
        image: bool,
    ) {
        let mut b = tower(&choices, image);
        let options = CompileOptions::default();
        let one = compile(&b.graph, &options).unwrap();
        prop_assert!(worst(&mut b, &one) < 0.01);
        let pair = compile(&pairs(&b.graph), &options).unwrap();
        prop_assert!(worst(&mut b, &pair) < 0.1);
        prop_assert_eq!(&one.program.weights, &pair.program.weights, "weights are shared by the towers");
        let words = |c: &Compiled| c.weights.iter().map(|t| t.data().to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(words(&one), words(&pair));
        pair.ending_in(Reveal::Logits).unwrap().check_prediction().unwrap();
    }
}

#[test]
fn a_pair_takes_the_rounds_of_one_and_two_openings_more() {
    let mut b = Builder::new(&[10, 10, 1]);
    let h = b.conv(0, 4, 3, 1, false);
    let h = b.add(Layer::Tanh, &[h]);
    let h = b.average_pool(h, 2, 2, false);
    let h = b.flatten(h);
    let h = b.dense(h, 6);
    b.add(Layer::Tanh, &[h]);
    let options = CompileOptions::default();
    let (one, pair) = (compile(&b.graph, &options).unwrap(), compile(&pairs(&b.graph), &options).unwrap());
    assert_eq!((&one.program.input_shape[..], &pair.program.input_shape[..]), (&[10, 10, 1][..], &[2, 10, 10, 1][..]));
    let rounds = |c: &Compiled| -> u64 {
        // A single tower that ends in a function is truncated where a pair's difference is.
        cost(&c.program, 1).unwrap().iter().map(|c| c.rounds).sum()
    };
    assert_eq!(rounds(&pair), rounds(&one) + 1);
    assert!(worst(&mut b, &pair) < 2e-3);
    let opened = |c: &Compiled| c.program.steps.iter().filter(|s| matches!(s.op, Op::Open { .. })).count();
    assert_eq!(opened(&pair), opened(&one) + 1);
    let report = check(&pair, Reveal::Logits, &(0.0..=1.0), None).unwrap();
    assert!(report.wires.iter().all(|w| w.how == How::Proved), "{report:?}");
    let out = report.wires.iter().rfind(|w| w.op == "reveal").unwrap();
    assert!(out.high == 0.25 && (out.low + 23.75).abs() < 0.1, "six differences within -2 and 2: {out:?}");
    let mut b = Builder::new(&[1]);
    b.add(Layer::Reshape { shape: vec![] }, &[0]);
    assert!(compile(&b.graph, &options).is_ok());
    let e = compile(&pairs(&b.graph), &options).unwrap_err();
    assert!(e.to_string().contains("layer n1: a value without dimensions"), "{e}");
}
