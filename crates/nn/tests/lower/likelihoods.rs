//! Training whose likelihoods one server is shown: the same learning, cheaper.

use trefoil_mpc::cost::{StepCost, cost};
use trefoil_mpc::program::Shown;
use trefoil_nn::build::bench_net;
use trefoil_nn::graph::Layer;
use trefoil_nn::lower::lower;
use trefoil_nn::train::clear::first_states;
use trefoil_nn::train::loss::Loss;
use trefoil_nn::train::{Optimiser, Tapes, TrainError, TrainSpec};

use crate::common::{Trial, chain, dense, numbers};

const SERVERS: [Shown; 2] = [Shown::Alice, Shown::Carol];

fn shown(batch: usize, to: Option<Shown>) -> TrainSpec {
    TrainSpec { likelihoods: to, optimiser: Optimiser::Sgd, batch, ..TrainSpec::classifier() }
}

#[test]
fn a_step_is_that_of_softmax_on_shares() {
    let graph = chain(vec![Layer::Input { shape: vec![6] }, dense(1, 6, 8), Layer::Relu, dense(3, 8, 4)]);
    let samples = 8;
    let mut rows = Vec::new();
    for i in 0..samples {
        rows.extend(numbers(40 + i as u64, 6, 1.0));
        rows.extend((0..4).map(|c| if c == i * 3 % 4 { 1.0 } else { 0.0 }));
    }
    let [closed, open @ ..] = [None, Some(Shown::Alice), Some(Shown::Carol)].map(|to| {
        let tapes = Tapes::new(&graph, &shown(samples, to)).unwrap();
        let mut trial = Trial::new(&tapes.step, first_states(&graph, &tapes.step));
        let mut got = Vec::new();
        for i in 0..4 {
            let rates = tapes.rates(i, 4);
            got = trial.on_shares(samples, &rows, &rates);
            trial.step(samples, &rows, &rates);
            trial.within(&got, |name| if name.starts_with("metrics") { 5e-2 } else { 2e-3 });
        }
        (got, trial.real)
    });
    let near = |a: &[Vec<f64>], b: &[Vec<f64>], most: f64| {
        assert!(a.concat().iter().zip(b.concat()).all(|(a, b)| (a - b).abs() <= most), "{a:?}\n{b:?}");
    };
    for open in open {
        near(&open.1, &closed.1, 1e-9);
        near(&open.0, &closed.0, 5e-2);
    }
}

#[test]
fn it_takes_fewer_rounds_and_bytes() {
    for name in ["A", "B"] {
        let graph = bench_net(name, 1).unwrap();
        let [closed, open @ ..] = [None, Some(Shown::Alice), Some(Shown::Carol)].map(|to| {
            let program = lower(&Tapes::new(&graph, &shown(128, to)).unwrap().step).unwrap();
            let mut total = StepCost::default();
            cost(&program, 128).unwrap().iter().for_each(|c| total.add(c));
            total
        });
        for (to, open) in SERVERS.into_iter().zip(open) {
            println!(
                "{name}, {to:?}: {} rounds for {}, {:.2} MB online for {:.2}, {:.2} MB dealt for {:.2}",
                open.rounds,
                closed.rounds,
                open.online as f64 / 1e6,
                closed.online as f64 / 1e6,
                open.offline as f64 / 1e6,
                closed.offline as f64 / 1e6
            );
            assert!(open.rounds + 15 <= closed.rounds && open.online < closed.online && open.offline < closed.offline);
        }
    }
}

#[test]
fn only_softmax_has_likelihoods() {
    for to in SERVERS {
        let spec = TrainSpec { loss: Loss::MeanSquaredError, ..shown(1, Some(to)) };
        assert!(matches!(spec.check(), Err(TrainError::Likelihoods)));
    }
}
