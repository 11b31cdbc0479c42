//! What a step of training costs: rounds and bytes of the benchmarks' networks, in batches of 128.

use trefoil_mpc::cost::{StepCost, cost};
use trefoil_nn::build::bench_net;
use trefoil_nn::lower::lower;
use trefoil_nn::train::{Optimiser, Tapes, TrainSpec};

/// Rounds, and the most megabytes between the evaluators and from the producer.
const BOUNDS: [(&str, u64, f64, f64); 4] =
    [("A", 38, 6.5, 6.5), ("B", 71, 62.0, 92.0), ("C", 71, 104.0, 143.0), ("D", 38, 13.5, 16.0)];

#[test]
fn stays_within_its_bounds() {
    for (name, rounds, online, dealt) in BOUNDS {
        let spec = TrainSpec { optimiser: Optimiser::Sgd, batch: 128, ..TrainSpec::classifier() };
        let tapes = Tapes::new(&bench_net(name, 1).unwrap(), &spec).unwrap();
        let program = lower(&tapes.step).unwrap();
        let mut total = StepCost::default();
        cost(&program, 128).unwrap().iter().for_each(|c| total.add(c));
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let found = (total.rounds, megabytes(total.online), megabytes(total.offline));
        println!("{name}: {} rounds, {:.2} MB online, {:.2} MB dealt", found.0, found.1, found.2);
        assert!(found.0 <= rounds && found.1 <= online && found.2 <= dealt, "{name}: {found:?}");
    }
}

#[test]
fn deep_networks_are_lowered() {
    for name in ["vgg16", "resnet18", "S"] {
        let spec = TrainSpec { batch: 4, ..TrainSpec::classifier() };
        let tapes = Tapes::new(&bench_net(name, 1).unwrap(), &spec).unwrap();
        let program = lower(&tapes.step).unwrap();
        let rounds: u64 = cost(&program, 4).unwrap().iter().map(|c| c.rounds).sum();
        assert!((40..=230).contains(&rounds), "{name}: {rounds} rounds");
    }
}
