//! What a step of training costs: rounds and bytes of the benchmarks' networks.

use trefoil_mpc::cost::{StepCost, cost};
use trefoil_nn::build::bench_net;
use trefoil_nn::lower::lower;
use trefoil_nn::train::{Optimiser, Tapes, TrainSpec};

#[test]
fn of_the_benchmarks() {
    for name in ["A", "B", "C", "D"] {
        let spec = TrainSpec { optimiser: Optimiser::Sgd, batch: 128, ..TrainSpec::classifier() };
        let tapes = Tapes::new(&bench_net(name, 1).unwrap(), &spec).unwrap();
        let program = lower(&tapes.step).unwrap();
        let mut total = StepCost::default();
        for (step, c) in program.steps.iter().zip(cost(&program, 128).unwrap()) {
            total.add(&c);
            if std::env::var("VERBOSE").is_ok() && (c.rounds > 0 || c.online > 0 || c.offline > 0) {
                println!(
                    "{name} {:20} {:14} {:3} rounds {:9} online {:10} dealt",
                    step.layer,
                    step.op.name(),
                    c.rounds,
                    c.online,
                    c.offline
                );
            }
        }
        println!(
            "{name}: {} steps, {} rounds, {:.2} MB online, {:.2} MB dealt",
            program.steps.len(),
            total.rounds,
            total.online as f64 / 1e6,
            total.offline as f64 / 1e6
        );
    }
}
