//! A network built, trained on three servers and asked for predictions, with nothing but the public Rust API.
#![allow(clippy::unwrap_used)]

#[path = "../../server/tests/common/mod.rs"]
mod common;

use std::ops::ControlFlow;

use common::Trial;
use trefoil_client::training::Update;
use trefoil_client::{
    Block, Client, ClientError, Content, Contribution, Declaration, InputEncoding, Part, Reveal, Reveals, Training,
    TrainingError,
};
use trefoil_link::Network;
use trefoil_nn::build::{Activation, Sequential, average_pool, conv, dense, flatten, max_pool};
use trefoil_nn::train::clear::labelled;
use trefoil_nn::train::{Optimiser, Schedule, TrainSpec};
use trefoil_proto::Transport;

const ROWS: usize = 240;

/// Digits of 28 x 28 pixels at one owner, their labels at another.
struct Digits {
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Digits {
    fn new() -> Self {
        let set = trefoil_data::digits::generate(ROWS, 3);
        Self { pixels: set.data, labels: set.labels.unwrap() }
    }

    fn declaration(&self) -> Declaration {
        let part = |owner: &str, block| Part { owner: owner.into(), block, first: 0, end: ROWS as u32 };
        let block = |name: &str, width, content| Block { name: name.into(), width, content };
        let pixels = block("pixels", 784, Content::Values(InputEncoding::default()));
        let label = block("label", 10, Content::OneHot);
        let (blocks, parts) = (vec![pixels, label], vec![part("ann", 0), part("bert", 1)]);
        Declaration { name: "digits".into(), rows: ROWS as u32, fraction_bits: 16, metric_rows: 10, blocks, parts }
    }

    fn records(&self) -> Vec<f32> {
        let pixels: Vec<f32> = self.pixels.iter().map(|v| v / 255.0).collect();
        let labels: Vec<u8> = self.labels.iter().map(|l| *l as u8).collect();
        labelled(&pixels, &labels, 10).unwrap()
    }
}

fn training() -> Training {
    let graph = Sequential::new(&[28, 28, 1])
        .add(average_pool(2))
        .add(conv(4, 3).same().stride(2).activation(Activation::Relu))
        .add(max_pool(2).same())
        .add(flatten())
        .add(dense(10).named("classes").activation(Activation::Softmax))
        .build(5)
        .unwrap();
    let (optimiser, schedule) = (Optimiser::Momentum { momentum: 0.5 }, Schedule::constant(0.1));
    let spec = TrainSpec { optimiser, schedule, epochs: 8, batch: 24, validation: 0.2, ..TrainSpec::classifier() };
    let (weights, publish) = (Some("owner".into()), Some("digits".into()));
    let reveal = Reveals { metrics: true, weights, publish, ..Reveals::default() };
    Training { set: "digits".into(), reveal, ..Training::new("first", graph, spec) }
}

fn contributed(trial: &Trial, digits: &Digits) -> Client {
    let mut owner = trial.client("owner");
    owner.declare(&digits.declaration()).unwrap();
    let own = [Contribution::Values(&digits.pixels), Contribution::Labels(&digits.labels)];
    for ((name, part), own) in [("ann", 0), ("bert", 1)].into_iter().zip(own) {
        let mut client = trial.client(name);
        let set = client.set("digits").unwrap();
        client.contribute(&set, part, own).unwrap();
    }
    owner
}

#[test]
fn a_network_is_trained_on_shares_and_asked() {
    let trial = Trial::start(Transport::Tls, "lanes = 1");
    let digits = Digits::new();
    let mut owner = contributed(&trial, &digits);
    let mut training = training();

    let run = owner.begin(&training, &Network::LOOPBACK).unwrap();
    assert_eq!(owner.begin(&training, &Network::LOOPBACK).unwrap(), run, "the servers have this very run");
    for name in ["ann", "bert"] {
        let mut client = trial.client(name);
        let status = client.run_status("first").unwrap();
        let read = client.run_spec(&status).unwrap();
        assert_eq!(read, run);
        client.agree(&status, &read).unwrap();
    }
    let mut heard = Vec::new();
    let trained = owner
        .follow(&run, None, |update| {
            if let Update::Epoch(e) = update {
                heard.push(*e);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((&heard, heard.len()), (&trained.epochs, 8));

    let private = training.network(&trained.weights).unwrap();
    let clear = training.fit_clear(&digits.records(), |_| {}).unwrap();
    for (p, c) in trained.epochs.iter().zip(&clear) {
        assert!((p.trained.loss - c.trained.loss).abs() < 0.02, "{p:?} on shares, {c:?} in the clear");
        let losses = p.validated.unwrap().loss - c.validated.unwrap().loss;
        assert!(losses.abs() < 0.02, "{p:?} on shares, {c:?} in the clear");
    }
    assert!(trained.epochs[7].trained.accuracy.unwrap() > 0.4, "{:?}", trained.epochs);

    let model = owner.model("digits").unwrap();
    let asked = &digits.pixels[200 * 784..];
    let answer = owner.predict(&model, Reveal::Logits, asked, 40).unwrap().logits.unwrap();
    let scaled: Vec<f32> = asked.iter().map(|v| v / 255.0).collect();
    for (got, want) in answer.iter().zip(private.forward(40, &scaled).unwrap()) {
        assert!((got - want).abs() < 0.01, "{got} for {want}");
    }
}

#[test]
fn what_cannot_be_trained_is_told_before_anything_is_sent() {
    let trial = Trial::start(Transport::Tcp, "lanes = 1");
    let digits = Digits::new();
    let mut owner = contributed(&trial, &digits);
    let mut refused = |change: &dyn Fn(&mut Training), said: &str| {
        let mut wrong = training();
        change(&mut wrong);
        let e = owner.begin(&wrong, &Network::LOOPBACK).unwrap_err();
        let text = e.to_string();
        assert!(text.contains(said) && text.lines().count() == 1, "{said:?} is not in {text:?}");
        e
    };
    let e = refused(&|t| t.spec.batch = 193, "a batch of 193, but there are 192 rows to train on");
    assert!(matches!(e, ClientError::Training(e) if matches!(*e, TrainingError::Batch { .. })));
    refused(&|t| t.spec.batch = 0, "batch is 0");
    refused(&|t| t.spec.epochs = 0, "0 epochs: must be 1 to 100000");
    refused(&|t| t.set = "numbers".into(), "no data set \"numbers\"");
    refused(&|t| t.name = "First!".into(), "\"First!\" is no name");
    refused(&|t| t.spec.frozen = vec!["clases".into()], "layer clases: to be frozen, but there is no such layer");
    refused(&|t| t.spec.schedule = Schedule::constant(1e-9), "learning rate: public number 0");
    refused(&|t| t.reveal.publish = Some("../x".into()), "published model \"../x\" is no name");
    refused(&|t| (t.patience, t.spec.validation) = (Some(2), 0.0), "patience needs rows kept for validation");
    refused(&|t| (t.patience, t.reveal.metrics) = (Some(2), false), "and metrics revealed");
    let narrow = Sequential::new(&[28, 27, 1]).add(flatten()).add(dense(10)).build(1).unwrap();
    refused(&|t| t.graph = narrow.clone(), "rows of 794 numbers, the network and its loss take 766");
    let nan = |t: &mut Training| {
        let trefoil_nn::graph::Layer::Dense { kernel, .. } = &mut t.graph.nodes.last_mut().unwrap().layer else {
            panic!()
        };
        kernel.data[7] = f32::NAN;
        t.reveal.publish = None;
    };
    refused(&nan, "first weights: classes/kernel holds NaN");
    let mut twice = training();
    let relu = twice.graph.nodes.iter().position(|n| n.name == "relu").unwrap();
    twice.graph.nodes[relu].name = "classes".into();
    twice.graph.nodes[2].name = "classes".into();
    refused(&|t| t.graph = twice.graph.clone(), "layer classes: is called twice with the same weights");
}
