//! Networks with sigmoid and tanh, and pairs of inputs, served by three servers over sockets.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Trial, compiled, eventually, inputs, manifest, network};
use trefoil_client::{Client, ClientError, Manifest, ModelInfo};
use trefoil_mpc::Reveal;
use trefoil_mpc::cost::cost;
use trefoil_nn::compile::Compiled;
use trefoil_nn::graph::{Graph, Layer, Post};
use trefoil_proto::Transport;
use trefoil_proto::control::Ahead;

/// Batches of pairs get their verdicts and nothing else; whoever may ask for no more gets no distance.
fn judged(ann: &mut Client, model: &ModelInfo, compiled: &Compiled, graph: &Graph) {
    let program = compiled.ending_in(Reveal::Label).unwrap();
    for batch in [1, 5, 70] {
        let x = inputs(2 * batch, batch);
        let p = ann.predict(model, Reveal::Label, &x, batch).unwrap();
        assert!(p.logits.is_none(), "a distance beside the verdict");
        for (i, c) in cost(&program, batch).unwrap().iter().enumerate() {
            assert_eq!((p.alice.steps[i].rounds, p.alice.steps[i].online), (c.rounds, c.online));
        }
        let revealed: u64 = cost(&program, batch).unwrap().iter().map(|c| c.revealed).sum();
        assert_eq!(p.revealed, revealed, "{batch} bits in whole words, from each");
        for (label, squared) in p.labels.unwrap().into_iter().zip(graph.answers(batch, &x).unwrap()) {
            let near = (squared - 0.25).abs() < 0.02;
            assert!(
                near || graph.post.is_similar(squared) == Some(label == 1),
                "{label} at a squared distance of {squared}"
            );
        }
    }
    // A pair and a half, and a batch that is none.
    for (x, batch) in [(inputs(3, 1), 1), (inputs(3, 1), 2), (inputs(2, 1), 0), (vec![], 1)] {
        let e = ann.predict(model, Reveal::Label, &x, batch).unwrap_err();
        assert!(matches!(e, ClientError::Input(_)), "{e}");
    }
}

#[test]
fn functions_and_distances_are_served_at_once_and_ahead() {
    for (transport, count) in [(Transport::Tls, 0), (Transport::Tcp, 2)] {
        let trial = Trial::start(transport, "lanes = 2");
        let of = |seed, layer, post| {
            let mut graph = network(seed);
            graph.nodes[2].layer = layer;
            Graph { post, ..graph }
        };
        let graphs = [
            of(1, Layer::Sigmoid, Post::None),
            of(2, Layer::Tanh, Post::None),
            of(3, Layer::Tanh, Post::distance(0.5)),
        ];
        for (name, graph) in ["s", "t", "pairs"].into_iter().zip(&graphs) {
            let compiled = compiled(graph);
            let ahead = if count > 0 { vec![Ahead { batch: 2, reveal: Reveal::Logits, count }] } else { vec![] };
            let mut manifest = manifest(name, &compiled, ahead);
            manifest.post = graph.post;
            trial.client("owner").share(&manifest, &compiled.weights).unwrap();
            let mut ann = trial.client("ann");
            eventually("material", || ann.model(name).unwrap().ready == count);
            let model = ann.model(name).unwrap();
            assert_eq!(model.manifest.post, graph.post);
            let program = compiled.ending_in(Reveal::Logits).unwrap();
            for seed in 0..3 {
                let x = inputs(2 * graph.towers(), seed);
                let p = ann.predict(&model, Reveal::Logits, &x, 2).unwrap();
                assert!(p.alice.ahead == p.bob.ahead && (count == 0 || seed > 0 || p.alice.ahead));
                let (got, want) = (p.logits.unwrap(), graph.answers(2, &x).unwrap());
                assert_eq!((got.len(), p.outputs), (want.len(), want.len() / 2));
                for (got, want) in got.iter().zip(want) {
                    assert!((got - want).abs() < 5e-3, "{name}: {want} in the clear, {got} privately");
                }
                for (i, c) in cost(&program, 2).unwrap().iter().enumerate() {
                    assert_eq!((p.alice.steps[i].rounds, p.alice.steps[i].online), (c.rounds, c.online));
                }
            }
            if graph.towers() == 2 {
                let mut owner = trial.client("owner");
                for (bound, why) in [(0.6, "has another bound"), (0.0, "without a bound")] {
                    let said = Manifest { post: Post::distance(bound), name: "said".into(), ..manifest.clone() };
                    let e = owner.share(&said, &compiled.weights).unwrap_err().to_string();
                    assert!(e.contains(why), "{e}");
                }
                judged(&mut ann, &model, &compiled, graph);
            }
        }
    }
}
