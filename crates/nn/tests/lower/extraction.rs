//! Frozen layers cut off: features on shares beside floating point, and features with the rest beside the whole step.

use proptest::prelude::*;
use trefoil_mpc::cost::cost;
use trefoil_mpc::ideal;
use trefoil_mpc::program::{Form, Op, Program};
use trefoil_nn::graph::{BatchNorm, Graph, Layer};
use trefoil_nn::layers::initial;
use trefoil_nn::lower::{decode, encode, encode_rates, extraction, lower};
use trefoil_nn::train::clear::first_states;
use trefoil_nn::train::frozen::{Cut, cut};
use trefoil_nn::train::{Loss, Optimiser, Schedule, Tapes, TrainSpec};
use trefoil_ring::{Tensor, Words};
use trefoil_testkit::World;

use crate::common::{F, array, chain, dense, numbers};
use crate::layers::{conv, pool};

fn spec(loss: Loss, frozen: &[&str]) -> TrainSpec {
    let frozen = frozen.iter().map(|f| (*f).to_owned()).collect();
    let (optimiser, schedule) = (Optimiser::Sgd, Schedule::constant(0.1));
    TrainSpec { loss, optimiser, schedule, batch: 4, frozen, ..TrainSpec::classifier() }
}

fn norm(channels: usize) -> Layer {
    let variance = array(9, &[channels], 0.3);
    let variance = trefoil_nn::graph::Array { data: variance.data.iter().map(|v| v.abs() + 0.2).collect(), ..variance };
    let [gamma, beta, mean] = [4, 5, 6].map(|seed| array(seed, &[channels], 0.5));
    Layer::BatchNorm(BatchNorm { gamma, beta, mean, variance, epsilon: 1e-3, momentum: 0.9 })
}

/// What is frozen of `graph`, as a program with its weights.
fn program(cut: &Cut) -> (Program, Vec<Tensor>) {
    let (tape, values) = cut.tape().unwrap().folded(&initial(&cut.frozen)).unwrap();
    let program = extraction(&tape).unwrap();
    let encoded = program.weights.iter().zip(&values).map(|(w, v)| {
        let words = encode(&w.name, v, w.scale).unwrap();
        Tensor::new(w.shape.clone(), words.to_vec()).unwrap()
    });
    let weights = encoded.collect();
    (program, weights)
}

/// Features on shares are those in the clear; labels are the same to the bit; the batch is read once, weights never.
fn agrees(graph: &Graph, spec: &TrainSpec, tolerance: f64) {
    let cut = cut(graph, spec).unwrap().unwrap();
    let (p, weights) = program(&cut);
    let last = p.infer().unwrap().pop().unwrap();
    assert_eq!((last.form, last.scale, p.states.len()), (Form::Additive, F, 0));
    let opened =
        |s: &trefoil_mpc::program::Step| matches!(s.op, Op::Open { x } if matches!(p.steps[x].op, Op::Weight { .. }));
    assert!(!p.steps.iter().any(opened));
    let (samples, record) = (3, p.input_shape[0]);
    let rows = numbers(3, samples * record, 1.0);
    let want: Vec<f64> = cut.features(&rows).unwrap();
    let words = encode("rows", &rows, F).unwrap();
    let mut world = World::new(8);
    let model = world.share(&p, &weights).unwrap();
    let shared = world.share_rows(&words).unwrap();
    // Twice with the same fixed masks: what is drawn for a batch is drawn once all the same.
    for _ in 0..2 {
        let mut none = world.split_states(&[]);
        let answer = world.step(&model, &shared, &[0, 1, 2], &mut none, &[]).unwrap();
        let got: Vec<f64> = answer.value().iter().map(|v| *v as f64 / f64::from(F).exp2()).collect();
        assert_eq!(got.len(), want.len());
        let worst = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
        assert!(worst < tolerance, "off by {worst}");
        let rounds: u64 = cost(&p, samples).unwrap().iter().map(|c| c.rounds).sum();
        assert_eq!(answer.online.values().map(|c| c.rounds).sum::<u64>(), rounds);
    }
    assert_eq!(world.alice_draws.repeated(), []);
    assert_eq!(world.carol_draws.repeated(), []);
}

#[test]
fn sigmoids_behind_convolutions() {
    let graph = chain(vec![
        Layer::Input { shape: vec![6, 6, 1] },
        conv(1, (6, 6), (1, 3), true),
        Layer::Sigmoid,
        conv(3, (6, 6), (3, 2), true),
        Layer::Sigmoid,
        Layer::AveragePool(pool((6, 6), 2, 2)),
        Layer::Dropout { rate: 0.25 },
        Layer::Reshape { shape: vec![18] },
        dense(5, 18, 3),
    ]);
    let spec = spec(Loss::SoftmaxCrossEntropy, &["n1", "n3"]);
    let both = cut(&graph, &spec).unwrap().unwrap();
    assert_eq!((both.frozen.nodes.len(), both.rest.nodes.len(), both.width().unwrap()), (6, 4, 18));
    agrees(&graph, &spec, 2e-3);
}

#[test]
fn normalisation_and_maxima() {
    let graph = chain(vec![
        Layer::Input { shape: vec![6, 6, 2] },
        conv(1, (6, 6), (2, 3), true),
        norm(3),
        Layer::Relu,
        Layer::MaxPool(pool((6, 6), 3, 2)),
        Layer::Reshape { shape: vec![27] },
        dense(5, 27, 3),
    ]);
    agrees(&graph, &spec(Loss::SoftmaxCrossEntropy, &["n1", "n2"]), 1e-3);
}

#[test]
fn every_tower_has_features() {
    let graph = chain(vec![Layer::Input { shape: vec![8] }, dense(1, 8, 5), Layer::Tanh, dense(3, 5, 4)]);
    for (loss, width) in [(Loss::Contrastive { margin: 1.0 }, 10), (Loss::Triplet { margin: 1.0 }, 15)] {
        let spec = spec(loss, &["n1"]);
        assert_eq!(cut(&graph, &spec).unwrap().unwrap().width().unwrap(), width);
        agrees(&graph, &spec, 1e-3);
    }
}

#[test]
fn nothing_is_cut_where_nothing_before_the_trained_layers_is_frozen() {
    let first = Layer::Dropout { rate: 0.5 };
    let graph = chain(vec![Layer::Input { shape: vec![8] }, first, dense(1, 8, 5), dense(3, 5, 4)]);
    assert!(cut(&graph, &spec(Loss::SoftmaxCrossEntropy, &["n2"])).unwrap().is_none());
    let graph = chain(vec![Layer::Input { shape: vec![8] }, dense(1, 8, 5), dense(3, 5, 4)]);
    assert!(cut(&graph, &spec(Loss::SoftmaxCrossEntropy, &["n2"])).unwrap().is_none());
    assert!(cut(&graph, &spec(Loss::SoftmaxCrossEntropy, &[])).unwrap().is_none());
    // A skip over the border moves it to where one value passes.
    let mut skip = chain(vec![
        Layer::Input { shape: vec![5] },
        dense(1, 5, 5),
        Layer::Relu,
        dense(3, 5, 5),
        Layer::Add,
        dense(5, 5, 3),
    ]);
    skip.nodes[4].inputs = vec![1, 3];
    let cut = |frozen: &[&str]| cut(&skip, &spec(Loss::SoftmaxCrossEntropy, frozen)).unwrap().unwrap();
    assert_eq!(cut(&["n1"]).frozen.nodes.len(), 2);
    assert_eq!(cut(&["n1", "n3"]).frozen.nodes.len(), 5);
    let mut joined = skip.clone();
    let part = cut(&["n1"]);
    part.join(&part.rest, &mut joined);
    assert_eq!(joined, skip);
}

/// States after one ideal step.
fn stepped(graph: &Graph, spec: &TrainSpec, rows: &[u64]) -> Vec<(String, Vec<f64>)> {
    let tapes = Tapes::new(graph, spec).unwrap();
    let program = lower(&tapes.step).unwrap();
    let first = first_states::<f64>(graph, &tapes.step);
    let mut states: Vec<Words> =
        program.states.iter().zip(&first).map(|(s, v)| encode(&s.name, v, s.scale).unwrap()).collect();
    let rates = encode_rates(&tapes.rates(0, 1)).unwrap();
    let common = World::new(1).last_common();
    ideal::step(&program, spec.batch, rows, &[], &mut states, &rates, &common).unwrap();
    program.states.iter().zip(&states).map(|(s, v)| (s.name.clone(), decode(v, s.scale))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Features, then a step on them: the whole step up to its truncations.
    #[test]
    fn features_and_a_step_are_the_whole_step(
        seed in 0_u64..1000, inputs in 2_usize..7, hidden in 2_usize..6, function in 0_usize..3, size in 0.1_f64..1.0,
    ) {
        let act = [Layer::Relu, Layer::Sigmoid, Layer::Tanh][function].clone();
        let graph = chain(vec![
            Layer::Input { shape: vec![inputs] }, dense(seed, inputs, hidden), act, dense(seed + 3, hidden, 3),
        ]);
        let spec = spec(Loss::SoftmaxCrossEntropy, &["n1"]);
        let mut rows = Vec::new();
        for (i, x) in numbers(seed + 7, 4 * inputs, size).chunks(inputs).enumerate() {
            rows.extend_from_slice(x);
            rows.extend((0..3).map(|c| f64::from(u8::from(i % 3 == c))));
        }
        let rows = encode("rows", &rows, F).unwrap();
        let cut = cut(&graph, &spec).unwrap().unwrap();
        let (program, weights) = program(&cut);
        let weights: Vec<&[u64]> = weights.iter().map(Tensor::data).collect();
        let common = World::new(1).last_common();
        let values = ideal::step(&program, 4, &rows, &weights, &mut [], &[], &common).unwrap();
        let whole = stepped(&graph, &spec, &rows);
        for (name, got) in stepped(&cut.rest, &cut.spec, values.last().unwrap()) {
            let want = &whole.iter().find(|(n, _)| *n == name).unwrap().1;
            let bound = if name.starts_with("metrics") { 4e-3 } else { 1e-4 };
            let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
            prop_assert!(worst < bound, "{}: off by {}", name, worst);
        }
    }
}
