//! Plans: what is listed in them, and which state becomes which weight of the published model.

use std::collections::BTreeMap;

use trefoil_link::Network;
use trefoil_mpc::program::Program;
use trefoil_nn::build::{Activation, Sequential, average_pool, batch_norm, conv, dense, flatten};
use trefoil_nn::compile::{CompileOptions, compile};
use trefoil_nn::graph::{Graph, Layer, Node};
use trefoil_nn::train::{Decay, Loss, Optimiser, Schedule, TrainSpec};
use trefoil_proto::control::{InputEncoding, encode};
use trefoil_proto::dataset::{Block, Content, Declaration, Part, SetInfo};
use trefoil_proto::run::{Order, RunSpec};

use super::size::order_bytes;
use super::{Features, PlannedRun, Reveals, Training, TrainingError};

fn set(rows: u32, width: u32) -> SetInfo {
    let blocks = vec![Block { name: "all".into(), width, content: Content::Values(InputEncoding::default()) }];
    let parts = vec![Part { owner: "owner".into(), block: 0, first: 0, end: rows }];
    let declaration = Declaration { name: "rows".into(), rows, fraction_bits: 16, metric_rows: 1, blocks, parts };
    SetInfo { epoch: 1, coordinator: "owner".into(), declaration, arrived: vec![true] }
}

fn training(epochs: usize, batch: usize) -> Training {
    let graph = Sequential::new(&[3]).add(dense(1)).build(1).unwrap();
    let spec = TrainSpec { loss: Loss::MeanSquaredError, epochs, batch, ..TrainSpec::classifier() };
    Training::new("r", graph, spec)
}

fn run(d: &Training, rows: u32) -> Result<RunSpec, TrainingError> {
    d.plan(&set(rows, 4), "owner", &Network::LAN).map(|p| p.spec)
}

#[test]
fn an_order_that_cannot_fit_is_refused_before_it_is_made() {
    let long = training(100_000, 128);
    let said = run(&long, 60_000).unwrap_err().to_string();
    assert!(said.contains("order = \"servers\"") && said.contains("fewer epochs"), "{said}");
    let drawn = run(&Training { drawn: true, ..training(100, 1000) }, 60_000).unwrap();
    assert_eq!(drawn.order, Order::Drawn);
}

#[test]
fn no_order_takes_less_than_the_bound_says() {
    for (rows, batch, epochs) in [(100, 16, 3), (127, 1, 1), (300, 7, 2), (20_000, 64, 2)] {
        let made = run(&training(epochs, batch), rows).unwrap();
        let Order::Fixed(rows) = &made.order else { panic!("not fixed") };
        let bytes: u64 = rows.iter().map(|r| encode(r).len() as u64).sum();
        let bound = order_bytes(made.training.end as usize, batch, epochs);
        assert!(bound <= bytes && bytes <= bound + bound / 8, "{bound} of {bytes}");
    }
}

#[test]
fn rates_are_listed_once_by_epoch_or_by_step_and_not_without_end() {
    let with = |decay, epochs| {
        let mut d = training(epochs, 1);
        (d.drawn, d.spec.schedule) = (true, Schedule { decay, ..Schedule::constant(0.1) });
        run(&d, 50).map(|s| s.rates)
    };
    let step = Decay::Step { every: 1, factor: 0.5 };
    assert_eq!(with(Decay::Constant, 4).unwrap().len(), 1);
    assert_eq!(with(step, 4).unwrap().len(), 4);
    let each = with(Decay::Exponential { factor: 0.5 }, 4).unwrap();
    assert!(each.len() == 200 && each[0] > each[199]);
    let said = with(Decay::Exponential { factor: 0.9999 }, 100_000).unwrap_err().to_string();
    assert!(said.contains("fewer epochs"), "{said}");
}

#[test]
fn layers_that_begin_alike_are_published_each_as_its_own() {
    let graph = Sequential::new(&[4])
        .add(dense(4).named("kept").activation(Activation::Relu))
        .add(dense(4).named("learnt").activation(Activation::Relu))
        .add(dense(4).named("also-kept"))
        .build(1)
        .unwrap();
    let frozen = vec!["kept".to_owned(), "also-kept".to_owned()];
    let optimiser = Optimiser::Sgd;
    let spec = TrainSpec { loss: Loss::MeanSquaredError, optimiser, frozen, batch: 4, ..training(1, 4).spec };
    let reveal = Reveals { publish: Some("m".into()), ..Reveals::default() };
    for features in [Features::Servers, Features::Steps] {
        let d = Training { features, reveal: reveal.clone(), ..Training::new("r", graph.clone(), spec.clone()) };
        let made = d.plan(&set(16, 8), "owner", &Network::LAN).unwrap().spec;
        let published = made.publish.unwrap();
        let Program { weights, .. } = &published.manifest.program;
        let state = |slot: u32| made.step.states[slot as usize].name.trim_start_matches("published/");
        let slots: BTreeMap<&str, &str> =
            weights.iter().zip(&published.weights).map(|(w, slot)| (w.name.as_str(), state(*slot))).collect();
        assert_eq!(slots.len(), 6);
        assert!(slots.iter().all(|(weight, state)| weight == state), "{slots:?}");
    }
}

/// Trains all layers but `frozen`, and publishes.
fn publishing(graph: Graph, frozen: &[&str], features: Features, validation: f64) -> Result<PlannedRun, TrainingError> {
    let frozen = frozen.iter().map(|f| (*f).to_owned()).collect();
    let spec = TrainSpec { optimiser: Optimiser::Sgd, frozen, validation, ..training(1, 4).spec };
    let reveal = Reveals { publish: Some("m".into()), ..Reveals::default() };
    Training { features, reveal, ..Training::new("r", graph, spec) }.plan(&set(16, 50 + 2), "owner", &Network::LAN)
}

fn normed() -> Graph {
    let layers = Sequential::new(&[5, 5, 2]).add(conv(3, 3).named("conv")).add(batch_norm().named("norm"));
    layers.add(flatten()).add(dense(2).named("classes")).build(1).unwrap()
}

#[test]
fn what_predictions_fold_is_computed_once_from_what_training_leaves() {
    for validation in [0.0, 0.25] {
        let made = publishing(normed(), &[], Features::Servers, validation).unwrap().spec;
        let publish = made.publish.clone().unwrap();
        let finish = publish.finish.as_ref().unwrap();
        // Without rows for validation nothing is checked: the last program truncates, too.
        assert_eq!(made.check.is_some(), validation > 0.0);
        assert_eq!(finish.states, made.step.states);
        let names: Vec<&str> = publish.weights.iter().map(|s| made.step.states[*s as usize].name.as_str()).collect();
        let weights = ["conv/kernel", "conv/bias", "classes/kernel", "classes/bias"];
        assert_eq!(names, weights.map(|w| format!("published/{w}")));
        assert!(publish.weights.iter().all(|slot| !made.metrics.contains(slot)));
        assert!(made.may_contain_rows(10).is_empty());
        let mut other = made.clone();
        other.publish.as_mut().unwrap().finish.as_mut().unwrap().steps[1].layer = "another".into();
        assert!(made.hash() != other.hash());
        assert!(made.difference(&other).unwrap().contains("the published model's weights"));
    }
    let pooled = Sequential::new(&[5, 5, 2]).add(average_pool(5)).add(flatten()).add(dense(2)).build(1).unwrap();
    assert!(publishing(pooled, &[], Features::Servers, 0.0).unwrap().spec.publish.unwrap().finish.is_some());
}

#[test]
fn what_comes_of_frozen_layers_alone_is_known_before_the_run() {
    let mut graph = normed();
    let Layer::BatchNorm(norm) = &mut graph.nodes[2].layer else { panic!() };
    norm.variance.data.fill(0.25);
    norm.mean.data.fill(-1.5);
    let compiled = compile(&graph, &CompileOptions::default()).unwrap();
    for features in [Features::Servers, Features::Steps] {
        let PlannedRun { spec, initial } = publishing(graph.clone(), &["conv", "norm"], features, 0.25).unwrap();
        let publish = spec.publish.unwrap();
        assert!(publish.finish.is_none());
        for (i, slot) in publish.weights[..2].iter().enumerate() {
            assert!(!spec.metrics.contains(slot));
            let off =
                initial[*slot as usize].data().iter().zip(compiled.weights[i].data()).map(|(a, b)| a.abs_diff(*b));
            // The passes compute in f32.
            assert!(off.max() <= Some([1, 1 << 12][i]));
        }
        // A trained normalisation behind a frozen kernel is computed as any other.
        let made = publishing(graph.clone(), &["conv"], features, 0.25).unwrap();
        assert_eq!(made.initial.len(), made.spec.step.states.len());
        assert!(made.spec.publish.unwrap().finish.is_some());
    }
}

#[test]
fn what_predictions_cannot_compute_is_not_published() {
    let mut graph = normed();
    let last = graph.nodes.pop().unwrap();
    graph.nodes.push(Node { name: "shares".into(), layer: Layer::Softmax, inputs: vec![3] });
    graph.nodes.push(Node { inputs: vec![4], ..last });
    let said = publishing(graph, &[], Features::Servers, 0.25).map(drop).unwrap_err().to_string();
    let why =
        "to be published, but private predictions cannot run this network: layer shares: private prediction computes";
    assert!(said.starts_with(why) && said.lines().count() == 1, "{said}");
}
