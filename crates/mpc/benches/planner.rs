//! The planner's constants, measured: seconds for each byte dealt, of dealing and of evaluating, by way of comparing.
//!
//! `cargo bench -p trefoil-mpc --bench planner` prints the least of some runs, three parties in memory, beside what
//! `plan.rs` says: numbers to be compared with it on a quiet server, not a test.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::Instant;

use trefoil_link::pair;
use trefoil_mpc::cost::cost;
use trefoil_mpc::masked::{deal, prepare};
use trefoil_mpc::plan::{DEALING, EVALUATING};
use trefoil_mpc::program::{Op, Step, Window};
use trefoil_mpc::{Compare, Prediction, Program};
use trefoil_testkit::World;
use trefoil_testkit::world::Shared;

const RUNS: usize = 5;
const ELEMENTS: usize = 1 << 16;

fn relu(compare: Compare) -> Op {
    Op::Relu { x: 1, shift: 16, window: Window { lo: 16, k: 32 }, compare }
}

fn sign(compare: Compare) -> Op {
    Op::Sign { x: 1, window: Window { lo: 16, k: 32 }, compare }
}

fn program(op: Op) -> Program {
    let ops = [Op::Input, Op::Open { x: 0 }, op];
    let steps = ops.map(|op| Step { layer: op.name().into(), op }).into();
    Program { fraction_bits: 16, input_shape: vec![ELEMENTS], weights: vec![], states: vec![], rates: 0, steps }
}

fn dealing(world: &World, model: &Shared) -> f64 {
    let [ac, ab, bc, ba, ca, cb] = world.last_sources();
    let (mut carol, mut dealt) = pair("carol", "bob");
    let (mut alice, mut bob) = pair("alice", "bob");
    let program = &Prediction::new(model.program.clone()).unwrap();
    let began = Instant::now();
    thread::scope(|s| {
        s.spawn(|| deal(program, 1, &model.carol, &ca, &cb, &mut carol).unwrap());
        s.spawn(|| prepare(program, 1, &model.alice, &ac, &ab, &mut alice, None).unwrap());
        prepare(program, 1, &model.bob, &bc, &ba, &mut bob, Some(&mut dealt)).unwrap();
    });
    began.elapsed().as_secs_f64()
}

fn main() {
    println!("{:<5} {:<10} {:>10} {:>22} {:>22}", "step", "compare", "bytes", "dealing, s/byte", "evaluating, s/byte");
    let trees = [(2, 4), (4, 4), (6, 4)].map(|(block, arity)| Compare::Tree { block, arity });
    let ops = trees.into_iter().chain([Compare::Keys]).map(relu).chain([sign(Compare::Keys)]);
    for op in ops {
        let compare = op.compare().unwrap();
        let program = program(op.clone());
        let bytes = cost(&program, 1).unwrap()[2].offline as f64;
        let mut world = World::unlogged(1);
        let shared = world.share(&program, &[]).unwrap();
        let input = vec![1 << 20; ELEMENTS];
        let (mut dealt, mut evaluated) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..RUNS {
            let answer = world.run(&shared, 1, &input).unwrap();
            evaluated = evaluated.min(answer.alice.times[2].max(answer.bob.times[2]).as_secs_f64());
            dealt = dealt.min(dealing(&world, &shared));
        }
        let kind = usize::from(compare == Compare::Keys);
        let (dealt, evaluated) = (dealt / bytes, evaluated / bytes);
        let beside = |measured: f64, said: f64| format!("{measured:.1e} ({said:.1e})");
        println!(
            "{:<5} {:<10} {bytes:>10} {:>22} {:>22}",
            op.name(),
            compare.to_string(),
            beside(dealt, DEALING[kind]),
            beside(evaluated, EVALUATING[kind])
        );
    }
}
