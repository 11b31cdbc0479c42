//! Networks whose weights predictions fold: trained and published on three servers, then asked, beside the trained weights.
#![allow(clippy::unwrap_used)]

#[path = "../../server/tests/common/mod.rs"]
mod common;

use std::ops::ControlFlow;

use common::Trial;
use trefoil_client::{Block, Content, Contribution, Declaration, InputEncoding, Part, Reveal, Reveals, Training};
use trefoil_link::Network;
use trefoil_nn::build::{Activation, LayerSpec, Sequential, average_pool, batch_norm_with, conv, dense, flatten, relu};
use trefoil_nn::graph::Graph;
use trefoil_nn::train::{Optimiser, Schedule, TrainSpec};
use trefoil_proto::Transport;

const ROWS: usize = 72;
const ASKED: usize = 20;

/// How far answers of a network with a normalisation may be off. Revealed tensors and published weights are truncated to
/// units of 2^-16: of a weight that is one unit each and a half for the clear one's rounding, of a variance v a part of 2^-17 / v
/// of what it divides (v is above 0.01, numbers below 5: 4e-3). The largest of 20 runs was 7.4e-4.
const TOLERANCE: f32 = 5e-3;
/// The same of one dense layer on 16 averages within 1: 16 times 2.5 units of a weight, and the units of the averages.
const POOLED: f32 = 7e-4;

/// Averages that follow the batches fast.
fn norm() -> LayerSpec {
    batch_norm_with(1e-3, 0.5)
}

/// Trains `graph` on shares, publishes it, and gives the largest difference of an answer from the revealed weights'
/// answers in the clear.
fn published(name: &str, graph: Graph, frozen: &[&str]) -> f32 {
    let trial = Trial::start(Transport::Tcp, "lanes = 1");
    let digits = trefoil_data::digits::generate(ROWS, 3);
    let (pixels, labels) = (digits.data, digits.labels.unwrap());
    let mut owner = trial.client("owner");
    let part = |block| Part { owner: "owner".into(), block, first: 0, end: ROWS as u32 };
    let block = |name: &str, width, content| Block { name: name.into(), width, content };
    let values = block("pixels", 784, Content::Values(InputEncoding::default()));
    let blocks = vec![values, block("label", 10, Content::OneHot)];
    let (set, rows, parts) = ("digits".to_owned(), ROWS as u32, vec![part(0), part(1)]);
    owner.declare(&Declaration { name: set.clone(), rows, fraction_bits: 16, metric_rows: 10, blocks, parts }).unwrap();
    for (part, own) in [(0, Contribution::Values(&pixels)), (1, Contribution::Labels(&labels))] {
        let set = owner.set("digits").unwrap();
        owner.contribute(&set, part, own).unwrap();
    }
    let (optimiser, schedule) = (Optimiser::Sgd, Schedule::constant(0.05));
    let frozen = frozen.iter().map(|f| (*f).to_owned()).collect();
    let spec = TrainSpec { optimiser, schedule, frozen, epochs: 2, batch: 24, ..TrainSpec::classifier() };
    let reveal = Reveals { weights: Some("owner".into()), publish: Some(name.into()), ..Reveals::default() };
    let training = Training { set, reveal, ..Training::new(name, graph, spec) };
    let run = owner.begin(&training, &Network::LOOPBACK).unwrap();
    let publish = run.publish.as_ref().unwrap();
    assert!(publish.finish.is_some() && run.check.is_none());
    let trained = owner.follow(&run, None, |_| ControlFlow::Continue(())).unwrap();
    let clear = training.network(&trained.weights).unwrap();
    let tensors = |g: &Graph| trefoil_nn::layers::initial::<f32>(g);
    assert!(tensors(&clear) != tensors(&training.graph), "it has learned something");

    let model = owner.model(name).unwrap();
    let asked = &pixels[..ASKED * 784];
    let answer = owner.predict(&model, Reveal::Logits, asked, ASKED).unwrap().logits.unwrap();
    let scaled: Vec<f32> = asked.iter().map(|v| v / 255.0).collect();
    let want = clear.forward(ASKED, &scaled).unwrap();
    answer.iter().zip(&want).map(|(a, w)| (a - w).abs()).fold(0.0, f32::max)
}

#[test]
fn normalised_networks_answer_as_they_were_trained() {
    let layers = Sequential::new(&[28, 28, 1]).add(norm()).add(conv(4, 5).stride(2).named("first"));
    let layers = layers.add(norm()).add(relu()).add(average_pool(3)).add(flatten());
    let layers = layers.add(dense(12).activation(Activation::Relu)).add(norm()).add(dense(10));
    let off = published("normed", layers.build(5).unwrap(), &[]);
    println!("off by {off}");
    assert!(off < TOLERANCE, "off by {off}");
}

#[test]
fn averages_over_no_power_of_two_answer_as_they_were_trained() {
    let layers = Sequential::new(&[28, 28, 1]).add(average_pool(7)).add(flatten()).add(dense(10));
    let off = published("pooled", layers.build(5).unwrap(), &[]);
    println!("off by {off}");
    assert!(off < POOLED, "off by {off}");
}

#[test]
fn a_frozen_kernel_takes_up_a_trained_normalisation() {
    let layers = Sequential::new(&[28, 28, 1]).add(conv(4, 5).stride(4).named("first")).add(norm());
    let layers = layers.add(flatten()).add(dense(10));
    let off = published("tuned", layers.build(5).unwrap(), &["first"]);
    println!("off by {off}");
    assert!(off < TOLERANCE, "off by {off}");
}
