//! Ranges are proved where they can be, measured where not, and refused where samples break them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Builder, run};
use trefoil_mpc::program::Reveal;
use trefoil_nn::compile::{CompileOptions, compile};
use trefoil_nn::graph::{Array, Layer};
use trefoil_nn::range::{How, MARGIN, RangeError, check};

/// A perceptron whose hidden layer multiplies each input by `factor`.
fn scaled(factor: f32) -> Builder {
    let mut b = Builder::new(&[4]);
    let kernel = |v: f32| {
        let mut k = Array::new(vec![4, 4], vec![0.0; 16]).unwrap();
        (0..4).for_each(|i| k.data[i * 5] = v);
        k
    };
    let h = b.add(Layer::Dense { kernel: kernel(factor), bias: None }, &[0]);
    let h = b.relu(h);
    b.add(Layer::Dense { kernel: kernel(1.0 / factor), bias: None }, &[h]);
    b
}

#[test]
fn a_small_network_is_proved() {
    let mut b = Builder::new(&[8, 8, 2]);
    let h = b.conv(0, 4, 3, 1, true);
    let h = b.affine(h);
    let h = b.max_pool(h, 2, 2);
    let h = b.add(Layer::ClippedRelu { ceiling: 6.0 }, &[h]);
    let r = b.conv(h, 4, 3, 1, true);
    let h = b.add(Layer::Add, &[h, r]);
    let h = b.add(Layer::LeakyRelu { slope: 0.1 }, &[h]);
    let h = b.average_pool(h, 3, 2, true);
    let h = b.flatten(h);
    b.dense(h, 5);
    let compiled = compile(&b.graph, &CompileOptions::default()).unwrap();
    for reveal in [Reveal::Logits, Reveal::Label] {
        let report = check(&compiled, reveal, &(-1.0..=1.0), None).unwrap();
        assert_eq!((report.samples, report.notes.len()), (0, 0));
        assert!(report.wires.iter().all(|w| w.how == How::Proved));
        assert!(report.wires.iter().any(|w| w.op == "max-pool"));
        assert_eq!(report.wires.iter().any(|w| w.op == "argmax"), reveal == Reveal::Label);
    }
}

#[test]
fn proved_bounds_hold_what_inputs_reach() {
    let mut b = Builder::new(&[6, 6, 2]);
    let h = b.conv(0, 4, 3, 1, true);
    let h = b.add(Layer::ClippedRelu { ceiling: 0.5 }, &[h]);
    let h = b.conv(h, 3, 3, 1, false);
    let h = b.flatten(h);
    let h = b.dense(h, 5);
    let compiled = compile(&b.graph, &CompileOptions::default()).unwrap();
    let report = check(&compiled, Reveal::Logits, &(-1.0..=1.0), None).unwrap();
    let out = report.wires.iter().rfind(|w| w.op == "reveal").unwrap();
    let mut reached = (f64::MAX, f64::MIN);
    for _ in 0..200 {
        let x = b.input();
        for y in run(&b.graph, &CompileOptions::default(), &x) {
            reached = (reached.0.min(y), reached.1.max(y));
        }
    }
    assert!(out.low <= reached.0 && reached.1 <= out.high, "{reached:?} in {out:?}");
    // Worst case by hand for the last layer, whose inputs the conv bounds cannot shrink below zero width.
    assert!(out.high - out.low > reached.1 - reached.0);
    assert_eq!(b.shape(h), [5]);
}

#[test]
fn a_single_dense_layer_is_bounded_exactly() {
    let b = scaled(100.0);
    let compiled = compile(&b.graph, &CompileOptions::default()).unwrap();
    let report = check(&compiled, Reveal::Logits, &(-1.0..=2.0), None).unwrap();
    let relu = report.wires.iter().find(|w| w.op == "relu").unwrap();
    assert!((relu.low + 100.0).abs() < 1e-3 && (relu.high - 200.0).abs() < 1e-3, "{relu:?}");
    assert!((relu.limit_low + 32768.0).abs() < 1e-6 && relu.limit_high < 32768.0);
}

#[test]
fn what_samples_break_is_refused_and_what_would_fit_is_named() {
    let b = scaled(40_000.0);
    let compiled = compile(&b.graph, &CompileOptions::default()).unwrap();
    let e = check(&compiled, Reveal::Logits, &(0.0..=1.0), Some(&[0.1, 0.2, 0.3, 1.0])).unwrap_err();
    let RangeError::Broken { wire, fit } = &e else { panic!("{e}") };
    assert_eq!((wire.layer.as_str(), wire.op, wire.how), ("n2", "relu", How::Measured));
    // 40,000 eight times over needs 2^19 on either side.
    assert_eq!((fit.fraction_bits, fit.window_bits), (Some(12), Some(36)), "{e}");
    assert!(e.to_string().contains("layer n2") && e.to_string().contains("12 fraction bits"), "{e}");
    for options in
        [CompileOptions { fraction_bits: 12, window_bits: 32 }, CompileOptions { fraction_bits: 16, window_bits: 36 }]
    {
        let compiled = compile(&b.graph, &options).unwrap();
        let report = check(&compiled, Reveal::Logits, &(0.0..=1.0), Some(&[0.1, 0.2, 0.3, 1.0])).unwrap();
        assert!(report.notes.is_empty());
    }
}

#[test]
fn a_thin_margin_is_noted_only_where_nothing_is_proved() {
    let b = scaled(40_000.0);
    let compiled = compile(&b.graph, &CompileOptions::default()).unwrap();
    let samples = [0.1, 0.2, 0.3, 0.5, 0.0, 0.0, 0.1, 0.1];
    let report = check(&compiled, Reveal::Logits, &(0.0..=1.0), Some(&samples)).unwrap();
    assert_eq!(report.samples, 2);
    assert!(report.notes[0].contains("layer n2") && report.notes[0].contains("margin"), "{:?}", report.notes);
    let relu = report.wires.iter().find(|w| w.op == "relu").unwrap();
    assert_eq!((relu.how, relu.high), (How::Measured, 20_000.0));
    let small = samples.map(|v| v / MARGIN as f32);
    let report = check(&compiled, Reveal::Logits, &(0.0..=1.0), Some(&small)).unwrap();
    assert!(report.notes.is_empty());
    // The same range proved needs no margin.
    let report = check(&compiled, Reveal::Logits, &(0.0..=0.5), None).unwrap();
    assert!(report.notes.is_empty() && report.wires.iter().all(|w| w.how == How::Proved));
}

#[test]
fn a_label_needs_its_differences_to_fit() {
    let mut b = Builder::new(&[2]);
    let kernel = Array::new(vec![2, 2], vec![1.0, 0.0, 0.0, 1.0]).unwrap();
    b.add(Layer::Dense { kernel, bias: None }, &[0]);
    let compiled = compile(&b.graph, &CompileOptions { fraction_bits: 16, window_bits: 20 }).unwrap();
    let x = [7.0f32, -7.0];
    assert!(check(&compiled, Reveal::Label, &(-7.0..=7.0), Some(&x)).is_ok());
    let x = [9.0f32, -9.0];
    let e = check(&compiled, Reveal::Label, &(-9.0..=9.0), Some(&x)).unwrap_err();
    assert!(e.to_string().contains("argmax"), "{e}");
    assert!(check(&compiled, Reveal::Logits, &(-9.0..=9.0), Some(&x)).is_ok());
}

#[test]
fn products_and_openings_stay_below_bit_62() {
    let mut b = Builder::new(&[1]);
    for _ in 0..2 {
        let kernel = Array::new(vec![1, 1], vec![40_000.0]).unwrap();
        b.add(Layer::Dense { kernel, bias: None }, &[b.graph.nodes.len() - 1]);
    }
    let compiled = compile(&b.graph, &CompileOptions::default()).unwrap();
    let e = check(&compiled, Reveal::Logits, &(0.0..=1.0), Some(&[1.0])).unwrap_err();
    let RangeError::Broken { wire, fit } = &e else { panic!("{e}") };
    assert_eq!((wire.op, wire.layer.as_str(), fit.window_bits), ("dense", "n2", None));
    assert!(fit.fraction_bits.is_some_and(|f| f < 16), "{e}");
}

#[test]
fn wrong_inputs_are_refused() {
    let compiled = compile(&scaled(1.0).graph, &CompileOptions::default()).unwrap();
    let checked = |range, samples: Option<&[f32]>| check(&compiled, Reveal::Logits, &range, samples).unwrap_err();
    assert!(matches!(checked(0.0..=f64::NAN, None), RangeError::Input { .. }));
    assert!(matches!(checked(1.0..=0.0, None), RangeError::Input { .. }));
    assert!(matches!(checked(0.0..=1.0, Some(&[0.0; 5])), RangeError::Samples { elements: 5, size: 4 }));
    assert!(matches!(checked(0.0..=1.0, Some(&[])), RangeError::Samples { .. }));
    let e = checked(0.0..=1.0, Some(&[0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]));
    assert!(matches!(e, RangeError::Sample { sample: 1, element: 1, .. }));
}

#[test]
fn a_clipped_value_is_bounded_by_its_ceiling() {
    let mut b = scaled(1000.0);
    b.graph.nodes[2].layer = Layer::ClippedRelu { ceiling: 6.0 };
    let compiled = compile(&b.graph, &CompileOptions::default()).unwrap();
    let report = check(&compiled, Reveal::Logits, &(-1.0..=1.0), None).unwrap();
    let out = report.wires.iter().rfind(|w| w.op == "dense").unwrap();
    assert!(out.low > -1e-4 && (out.high - 0.006).abs() < 1e-4, "{out:?}");
}

#[test]
fn random_inputs_stand_in_for_samples_and_are_named() {
    let mut b = Builder::new(&[40]);
    let data = (0..40).map(|i| if i % 2 == 0 { 2000.0 } else { -2000.0 }).collect();
    let h = b.add(Layer::Dense { kernel: Array::new(vec![40, 1], data).unwrap(), bias: None }, &[0]);
    b.relu(h);
    let compiled = compile(&b.graph, &CompileOptions::default()).unwrap();
    let report = check(&compiled, Reveal::Logits, &(0.0..=1.0), None).unwrap();
    assert!(report.samples > 0 && report.notes[0].contains("no samples given"), "{:?}", report.notes);
    let relu = report.wires.iter().find(|w| w.op == "relu").unwrap();
    assert!(relu.how == How::Measured && relu.high < 40_000.0 && relu.high > 1000.0, "{relu:?}");
    assert!(report.wires.iter().any(|w| w.how == How::Proved));
}
