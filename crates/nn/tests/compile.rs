//! Compiled programs, run exactly over integers, give the clear logits.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Builder, run};
use proptest::prelude::*;
use trefoil_mpc::program::Op;
use trefoil_nn::compile::{CompileError, CompileOptions, Compiled, compile};
use trefoil_nn::graph::{Array, Layer, NodeId};
use trefoil_ring::geometry::Pads;

/// Compiles, runs on three samples, compares with the clear result of the unedited graph in `f64`.
fn check(mut b: Builder) -> Compiled {
    let options = CompileOptions::default();
    for _ in 0..3 {
        let x = b.input();
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let want = b.graph.forward_in(1, &wide).unwrap();
        let got = run(&b.graph, &options, &x);
        assert_eq!(got.len(), want.len());
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert!((g - w).abs() < 1e-3, "output {i}: {g}, must be {w}");
        }
    }
    compile(&b.graph, &options).unwrap()
}

fn count(c: &Compiled, name: &str) -> usize {
    c.program.steps.iter().filter(|s| s.op.name() == name).count()
}

fn head(b: &mut Builder, x: NodeId) {
    let flat = b.flatten(x);
    b.dense(flat, 5);
}

#[test]
fn perceptron() {
    let mut b = Builder::new(&[12]);
    let h = b.dense(0, 9);
    let h = b.relu(h);
    b.dense(h, 4);
    let c = check(b);
    let names: Vec<_> = c.program.steps.iter().map(|s| s.op.name()).collect();
    assert_eq!(names, ["input", "open", "dense", "open", "relu", "open", "dense"]);
}

#[test]
fn two_products_in_a_row_are_truncated_between() {
    let mut b = Builder::new(&[12]);
    let h = b.dense(0, 9);
    b.dense(h, 4);
    let c = check(b);
    let names: Vec<_> = c.program.steps.iter().map(|s| s.op.name()).collect();
    assert_eq!(names, ["input", "open", "dense", "open", "truncate", "open", "dense"]);
}

#[test]
fn padded_pools_see_real_pixels_only() {
    for stride in [1, 2] {
        let mut b = Builder::new(&[5, 5, 2]);
        let h = b.conv(0, 3, 3, 1, true);
        let pool = b.pool(h, 2, stride, true);
        let h = b.add(Layer::MaxPool(pool), &[h]);
        let h = b.average_pool(h, 2, stride, true);
        head(&mut b, h);
        check(b);
    }
}

#[test]
fn max_pool_comes_before_its_activation() {
    for layer in [Layer::Relu, Layer::ClippedRelu { ceiling: 0.5 }, Layer::LeakyRelu { slope: 0.25 }] {
        let mut b = Builder::new(&[8, 8, 2]);
        let h = b.conv(0, 3, 3, 1, true);
        let h = b.add(layer, &[h]);
        let h = b.max_pool(h, 2, 2);
        let h = b.add(Layer::ZeroPad(Pads { top: 1, bottom: 0, left: 0, right: 1 }), &[h]);
        let h = b.conv(h, 3, 3, 1, false);
        let h = b.relu(h);
        let h = b.add(Layer::ZeroPad(Pads { top: 1, bottom: 1, left: 1, right: 1 }), &[h]);
        let h = b.max_pool(h, 3, 2);
        head(&mut b, h);
        let c = check(b);
        let order: Vec<_> =
            c.program.steps.iter().map(|s| s.op.name()).filter(|n| ["max-pool", "relu"].contains(n)).collect();
        assert_eq!(order[0], "max-pool", "{:?}", c.notes);
        assert_eq!(order[order.len() - 2..], ["max-pool", "relu"], "{:?}", c.notes);
        assert_eq!(count(&c, "pad"), 1, "one padding belongs to the second convolution");
    }
}

#[test]
fn average_pools() {
    for (k, stride, same) in [(2, 2, false), (3, 2, true), (2, 2, true), (3, 3, false), (9, 9, false)] {
        let mut b = Builder::new(&[9, 9, 2]);
        let h = b.conv(0, 4, 3, 1, true);
        let h = b.average_pool(h, k, stride, same);
        let h = b.relu(h);
        let h = b.conv(h, 4, 1, 1, false);
        let h = b.relu(h);
        let h = b.average_pool(h, 2.min(b.shape(h)[0]), 1, false);
        head(&mut b, h);
        let c = check(b);
        assert_eq!(count(&c, "truncate"), 0, "pool {k}/{stride}");
    }
}

#[test]
fn the_rounding_of_an_even_average_is_taken_back() {
    for activation in [Layer::Relu, Layer::ClippedRelu { ceiling: 0.75 }, Layer::LeakyRelu { slope: 0.5 }] {
        let mut b = Builder::new(&[9, 9, 1]);
        let h = b.average_pool(0, 9, 9, false);
        let h = b.add(activation, &[h]);
        let h = b.flatten(h);
        let kernel = Array::new(vec![1, 1], vec![50.0]).unwrap();
        b.add(Layer::Dense { kernel, bias: None }, &[h]);
        let y = run(&b.graph, &CompileOptions::default(), &[1.0; 81])[0];
        let want = b.graph.forward(1, &[1.0; 81]).unwrap()[0];
        assert!((y - f64::from(want)).abs() < 3e-3, "{y}, must be {want}");
    }
}

#[test]
fn where_no_weights_follow_it_is_taken_back_by_a_factor() {
    let exact = |b: &Builder, want: f64| {
        let y = run(&b.graph, &CompileOptions::default(), &[1.0; 81])[0];
        assert!((y - want).abs() < 1e-4, "{y}, must be {want}");
    };
    let mut b = Builder::new(&[9, 9, 1]);
    let average = b.average_pool(0, 9, 9, false);
    exact(&b, 1.0);
    let most = b.max_pool(0, 9, 9);
    b.add(Layer::Add, &[average, most]);
    exact(&b, 2.0);
}

#[test]
fn a_global_average_may_be_the_output() {
    let mut b = Builder::new(&[7, 7, 2]);
    let h = b.conv(0, 5, 3, 1, true);
    let h = b.relu(h);
    let h = b.average_pool(h, 7, 7, false);
    b.flatten(h);
    check(b);
}

#[test]
fn batch_normalisation_anywhere() {
    let mut b = Builder::new(&[6, 6, 3]);
    let h = b.affine(0);
    let h = b.conv(h, 4, 3, 1, true);
    let h = b.affine(h);
    let h = b.affine(h);
    let h = b.relu(h);
    let h = b.affine(h);
    let h = b.conv(h, 4, 3, 2, false);
    let h = b.average_pool(h, 2, 2, false);
    let h = b.affine(h);
    let h = b.relu(h);
    let h = b.affine(h);
    let flat = b.flatten(h);
    let h = b.dense(flat, 6);
    let h = b.affine(h);
    let h = b.relu(h);
    let h = b.affine(h);
    let h = b.relu(h);
    let h = b.affine(h);
    let h = b.dense(h, 5);
    b.affine(h);
    let c = check(b);
    // Only the first (padding follows) and the one between two ReLUs need a product of their own.
    assert_eq!(count(&c, "conv2d"), 4, "{:#?}", c.notes);
    assert_eq!(c.notes.iter().filter(|n| n.contains("folded")).count(), 8, "{:#?}", c.notes);
}

#[test]
fn batch_normalisation_as_the_output_and_on_rows() {
    let mut b = Builder::new(&[4, 3]);
    let h = b.relu(0);
    let h = b.affine(h);
    let h = b.relu(h);
    b.affine(h);
    check(b);
}

#[test]
fn residual_blocks_need_no_truncation() {
    let mut b = Builder::new(&[6, 6, 3]);
    let h = b.conv(0, 4, 3, 1, true);
    let mut h = b.relu(h);
    for _ in 0..2 {
        let y = b.conv(h, 4, 3, 1, true);
        let y = b.affine(y);
        let y = b.relu(y);
        let y = b.conv(y, 4, 3, 1, true);
        h = b.add(Layer::Add, &[y, h]);
        h = b.relu(h);
    }
    head(&mut b, h);
    let c = check(b);
    assert_eq!(count(&c, "truncate"), 0);
    assert_eq!(count(&c, "scale"), 2);
}

#[test]
fn pre_activation_residuals() {
    let mut b = Builder::new(&[5, 5, 2]);
    let mut h = b.conv(0, 3, 3, 1, true);
    for _ in 0..2 {
        let y = b.affine(h);
        let y = b.relu(y);
        let y = b.conv(y, 3, 3, 1, true);
        h = b.add(Layer::Add, &[h, y]);
    }
    let h = b.affine(h);
    let h = b.relu(h);
    head(&mut b, h);
    check(b);
}

#[test]
fn a_value_used_twice_is_opened_once() {
    let mut b = Builder::new(&[6, 6, 2]);
    let a = b.conv(0, 3, 3, 1, true);
    let c = b.conv(0, 3, 1, 1, false);
    let s = b.add(Layer::Add, &[a, c, a]);
    let flat = b.flatten(0);
    let d = b.dense(flat, 3);
    let s = b.flatten(s);
    let e = b.dense(s, 3);
    b.add(Layer::Add, &[d, e]);
    let c = check(b);
    let opened: Vec<_> =
        c.program.steps.iter().filter_map(|s| if let Op::Open { x } = s.op { Some(x) } else { None }).collect();
    assert_eq!(opened.iter().filter(|&&x| x == 0).count(), 1);
    assert_eq!(opened.len(), 3, "the input, the sum, the truncated sum: {:#?}", c.program.steps);
}

#[test]
fn concatenations_of_different_scales() {
    let mut b = Builder::new(&[6, 6, 2]);
    let x = b.conv(0, 3, 3, 1, true);
    let x = b.relu(x);
    let y = b.conv(x, 2, 3, 1, true);
    let z = b.average_pool(x, 3, 1, true);
    let m = b.max_pool(x, 3, 1);
    let m = b.add(Layer::ZeroPad(Pads { top: 1, bottom: 1, left: 1, right: 1 }), &[m]);
    let j = b.add(Layer::Concat { axis: 2 }, &[x, y, z, m]);
    let k = b.conv(j, 3, 1, 1, false);
    let k = b.relu(k);
    let r = b.relu(j);
    let j = b.add(Layer::Concat { axis: 2 }, &[k, r]);
    head(&mut b, j);
    check(b);
}

#[test]
fn clipped_and_leaky() {
    let mut b = Builder::new(&[6, 6, 2]);
    let h = b.conv(0, 4, 3, 1, true);
    let h = b.add(Layer::ClippedRelu { ceiling: 6.0 }, &[h]);
    let h = b.conv(h, 4, 3, 4, true);
    let h = b.add(Layer::LeakyRelu { slope: 0.3 }, &[h]);
    let h = b.add(Layer::LeakyRelu { slope: 0.0 }, &[h]);
    let h = b.conv(h, 4, 3, 2, true);
    let h = b.add(Layer::LeakyRelu { slope: -0.5 }, &[h]);
    let h = b.average_pool(h, 3, 3, false);
    let h = b.add(Layer::ClippedRelu { ceiling: 0.1 }, &[h]);
    let h = b.add(Layer::LeakyRelu { slope: 1.0 }, &[h]);
    head(&mut b, h);
    check(b);
}

#[test]
fn layers_without_products() {
    let mut b = Builder::new(&[2, 3]);
    let a = b.add(Layer::Reshape { shape: vec![3, 2] }, &[0]);
    b.add(Layer::Reshape { shape: vec![6] }, &[a]);
    assert_eq!(check(b).program.steps.len(), 2);
    let b = Builder::new(&[2]);
    assert_eq!(check(b).program.steps.len(), 1);
    let mut b = Builder::new(&[2]);
    b.relu(0);
    b.relu(0);
    let c = check(b);
    assert_eq!(count(&c, "relu"), 1, "what the output does not need is dropped");
}

#[test]
fn few_fraction_bits_leave_out_truncations() {
    let mut b = Builder::new(&[12]);
    let h = b.dense(0, 9);
    b.dense(h, 4);
    let options = CompileOptions { fraction_bits: 10, window_bits: 32 };
    assert_eq!(count(&compile(&b.graph, &options).unwrap(), "truncate"), 0);
}

#[test]
fn a_long_chain_of_sums_is_no_deep_recursion() {
    let mut b = Builder::new(&[2]);
    let mut h = b.relu(0);
    for i in 0..6_000 {
        h = b.add(Layer::Add, &[h, i % 2]);
    }
    let c = compile(&b.graph, &CompileOptions::default()).unwrap();
    assert_eq!((count(&c, "add"), count(&c, "open")), (6_000, 1));
}

#[test]
fn refusals_name_the_layer() {
    let mut b = Builder::new(&[3]);
    b.add(Layer::ClippedRelu { ceiling: -1.0 }, &[0]);
    let e = compile(&b.graph, &CompileOptions::default()).unwrap_err();
    assert!(e.to_string().contains("layer n1: ceiling -1"), "{e}");
    let mut b = Builder::new(&[3]);
    let d = b.dense(0, 2);
    if let Layer::Dense { kernel, .. } = &mut b.graph.nodes[d].layer {
        kernel.data[1] = f32::NAN;
    }
    let e = compile(&b.graph, &CompileOptions::default()).unwrap_err();
    assert!(e.to_string().contains("layer n1, kernel: element 1"), "{e}");
    for (f, k) in [(0, 32), (31, 31), (16, 47), (16, 1)] {
        let e = compile(&b.graph, &CompileOptions { fraction_bits: f, window_bits: k }).unwrap_err();
        assert!(matches!(e, CompileError::FractionBits(_) | CompileError::WindowBits { .. }));
    }
}

/// A random graph of image layers; each number picks a layer and its inputs.
fn random_graph(choices: &[(u8, u8)]) -> Builder {
    let mut b = Builder::new(&[6, 6, 2]);
    let mut images: Vec<NodeId> = vec![0];
    for &(kind, pick) in choices {
        let x = images[usize::from(pick) % images.len()];
        let y = images[images.len() - 1];
        let shape = b.shape(x);
        let fits = shape[0] >= 3 && shape[1] >= 3;
        let id = match kind % 12 {
            0 => b.conv(x, 3, 3, 1, true),
            1 if fits => b.conv(x, 2, 2, 1, false),
            2 => b.conv(x, shape[2] * 2, 2, shape[2], true),
            3 | 4 => b.relu(x),
            5 => b.affine(x),
            6 if fits => b.max_pool(x, 2, 2),
            7 => b.average_pool(x, 3, 2, true),
            8 => b.add(Layer::ClippedRelu { ceiling: 1.0 }, &[x]),
            9 => b.add(Layer::LeakyRelu { slope: 0.25 }, &[x]),
            10 if shape == b.shape(y) => b.add(Layer::Add, &[x, y]),
            11 if shape[..2] == b.shape(y)[..2] && shape[2] < 20 => b.add(Layer::Concat { axis: 2 }, &[x, y, x]),
            _ => b.add(Layer::ZeroPad(Pads { top: 1, bottom: 0, left: 0, right: 1 }), &[x]),
        };
        images.push(id);
    }
    let last = images[images.len() - 1];
    head(&mut b, last);
    b
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_graphs(choices in proptest::collection::vec((0u8..12, 0u8..8), 1..12)) {
        check(random_graph(&choices));
    }
}

#[test]
fn the_result_is_the_same_on_every_call() {
    let mut b = Builder::new(&[6, 6, 3]);
    let h = b.conv(0, 4, 3, 1, true);
    head(&mut b, h);
    let (one, two) = (check(b).program.hash(), {
        let mut b = Builder::new(&[6, 6, 3]);
        let h = b.conv(0, 4, 3, 1, true);
        head(&mut b, h);
        compile(&b.graph, &CompileOptions::default()).unwrap().program.hash()
    });
    assert_eq!(one, two);
}
