//! Plans: what is listed in them, and which state becomes which weight of the published model.

use std::collections::BTreeMap;

use trefoil_link::Network;
use trefoil_mpc::program::Program;
use trefoil_nn::build::{Activation, Sequential, dense};
use trefoil_nn::train::{Decay, Loss, Optimiser, Schedule, TrainSpec};
use trefoil_proto::control::{InputEncoding, encode};
use trefoil_proto::dataset::{Block, Content, Declaration, Part, SetInfo};
use trefoil_proto::run::{Order, RunSpec};

use super::size::order_bytes;
use super::{Features, Reveals, Training, TrainingError};

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
