//! Runs whose authors are after the rows: what their form gives away, and what it does not.

use trefoil_mpc::program::{Bilinear, Op, Program, Step, WeightSpec};

use super::tests::{declaration, spec};
use super::*;

const BATCH: u32 = 10;

/// Programs over four states: weights, something kept, a metric, another metric.
fn program(ops: Vec<Op>) -> Program {
    let state = |name: &str, shape: &[usize]| WeightSpec { name: name.into(), shape: shape.to_vec(), scale: 16 };
    let states = vec![state("weights", &[3, 1]), state("kept", &[3]), state("loss", &[1]), state("other", &[1])];
    let steps = ops.into_iter().map(|op| Step { layer: "l".into(), op }).collect();
    Program { fraction_bits: 16, input_shape: vec![3], weights: vec![], states, rates: 1, steps }
}

fn show(slot: usize) -> Program {
    Program { rates: 0, ..program(vec![Op::Rows, Op::State { slot }, Op::Reveal { x: 1, shift: 0 }]) }
}

/// A run whose step does `ops` after the rows (0), the weights (1) and both opened, multiplied and opened again (2 to 4):
/// one number for each row.
fn run(ops: Vec<Op>, shown: usize) -> RunSpec {
    let mut all = vec![
        Op::Rows,
        Op::State { slot: 0 },
        Op::Open { x: 1 },
        Op::Product { x: 0, y: 2, map: Bilinear::Dense },
        Op::Open { x: 3 },
    ];
    all.extend(ops);
    let mut run = spec();
    (run.step, run.check, run.batch, run.rates, run.metrics) = (program(all), None, BATCH, vec![vec![1]], vec![2, 3]);
    run.reveals.truncate(1);
    run.reveals[0].program = show(shown);
    run
}

/// Sums of one or more rows end where a row is due.
fn cut(x: usize) -> Op {
    Op::Truncate { x, shift: 16 }
}

#[test]
fn rows_that_are_stored_as_they_are_are_named() {
    let sum = |x| Op::Sum { x, keep: 1, batch: true };
    let store = |x| Op::Store { slot: 1, x };
    let kept = |ops: Vec<Op>, batch: u32| {
        let mut run = run(ops, 1);
        run.batch = batch;
        run.check(&declaration()).unwrap();
        run.may_contain_rows(declaration().metric_rows)
    };
    // The sum of the batch's rows: of many rows it is no row, of one it is that row.
    let copied = [Op::Scale { x: 5, factor: 1 << 16, extra: 16 }, cut(6), store(7)];
    let summed: Vec<Op> = [&[sum(0)], &copied[..]].concat();
    assert_eq!((kept(summed.clone(), 10), kept(summed.clone(), 1)), (vec![], vec![1]));
    // Added to what was there, through another form, or chosen at random before it is summed.
    let added = vec![sum(0), Op::State { slot: 1 }, Op::Open { x: 6 }, Op::Add { x: 5, y: 7 }];
    let added = [added, vec![Op::Scale { x: 8, factor: 1 << 16, extra: 16 }, cut(9), store(10)]].concat();
    assert_eq!(kept(added, 1), [1]);
    let dropped = vec![Op::Pattern { shape: vec![3], keep: 6000 }, Op::Drop { x: 0, pattern: 5 }, sum(6)];
    let dropped = [dropped, vec![Op::Scale { x: 7, factor: 1 << 16, extra: 16 }, cut(8), store(9)]].concat();
    assert_eq!(kept(dropped, 10), [1]);
    // With a weight in between it is a number like any gradient. A weight of one would not show: hence descriptions.
    let weighted = vec![Op::Product { x: 0, y: 4, map: Bilinear::DenseWeights }, Op::Reshape { x: 5, shape: vec![3] }];
    let weighted = [weighted, vec![Op::Open { x: 6 }, Op::Truncate { x: 7, shift: 32 }, store(8)]].concat();
    assert_eq!(kept(weighted, 1), []);
    // By way of another state, and into a published model's weights.
    let mut run = run([summed, vec![Op::State { slot: 1 }, Op::Reshape { x: 9, shape: vec![3, 1] }]].concat(), 0);
    run.step.steps.push(Step { layer: "l".into(), op: Op::Store { slot: 0, x: 10 } });
    run.batch = 1;
    assert_eq!(run.may_contain_rows(8), [0]);
    // What nobody is shown is nobody's concern.
    run.reveals.clear();
    assert_eq!(run.may_contain_rows(8), []);
}

/// Steps that add the sum over the batch of the rows' numbers to metric 2.
fn summing() -> Vec<Op> {
    let former = [Op::State { slot: 2 }, Op::Add { x: 7, y: 6 }, Op::Store { slot: 2, x: 8 }];
    let sum = vec![Op::Sum { x: 4, keep: 1, batch: true }, cut(5)];
    sum.into_iter().chain(former).chain([Op::Store { slot: 0, x: 1 }]).collect()
}

#[test]
fn metrics_are_sums_over_many_rows() {
    let refused = |run: RunSpec| run.check(&declaration()).unwrap_err().to_string();
    let good = run(summing(), 2);
    good.check(&declaration()).unwrap();
    assert_eq!((good.rows_behind(&good.reveals[0].program), good.rows_behind(&show(0))), (Some(40), None));
    // The value of the last batch alone, less what was there, or of the batches that the public numbers pick.
    let mut last = summing();
    last[4] = Op::Store { slot: 2, x: 6 };
    let less = [Op::Scale { x: 7, factor: -1, extra: 0 }, Op::Add { x: 8, y: 6 }, Op::Store { slot: 2, x: 9 }];
    let less = [&summing()[..3], &less].concat();
    for ops in [last, less] {
        assert!(refused(run(ops, 2)).contains("stores in metric 2 something else than its former value and a sum"));
    }
    let picked = vec![
        Op::Sum { x: 4, keep: 1, batch: true },
        Op::Rate { x: 5, rate: 0, extra: 0 },
        cut(6),
        Op::State { slot: 2 },
        Op::Add { x: 8, y: 7 },
        Op::Store { slot: 2, x: 9 },
    ];
    assert!(refused(run(picked, 2)).contains("weighs rows in metric 2 by public numbers"));
    // A metric copied to where it is none.
    let copied = [summing(), vec![Op::Store { slot: 3, x: 8 }]].concat();
    let copied = RunSpec { metrics: vec![2], ..run(copied, 2) };
    assert!(refused(copied).contains("stores in state 3, which is no metric, what it makes of metrics"));
    // Few rows: as they are, in an order of one row again and again, and where validation has but a few.
    let few = RunSpec { training: RowRange { first: 0, end: 7 }, batch: 7, ..run(summing(), 2) };
    let said = "metric loss is a sum over 7 rows: the data set demands at least 8 behind a revealed metric: raise \
                [train] validation, or declare the set with a smaller metric_rows";
    assert_eq!(refused(few), said);
    let again = RunSpec { order: Order::Fixed((0..40).map(|i| i % 7).collect()), ..run(summing(), 2) };
    assert_eq!(refused(again), said);
    let mut checked = run(summing(), 2);
    let mut program = Program { rates: 0, ..checked.step.clone() };
    program.steps.truncate(10);
    checked.step.steps.truncate(5);
    checked.step.steps.push(Step { layer: "l".into(), op: Op::Store { slot: 0, x: 1 } });
    checked.check = Some(Check { program, rows: RowRange { first: 42, end: 50 }, batch: 3 });
    assert!(refused(checked.clone()).contains("a sum over 6 rows"));
    // Nobody is shown it: then it may be.
    checked.reveals.clear();
    checked.check(&declaration()).unwrap();
}

#[test]
fn the_first_difference_is_named() {
    let good = run(summing(), 2);
    assert_eq!(good.difference(&good), None);
    let differs = |change: &dyn Fn(&mut RunSpec)| {
        let mut other = good.clone();
        change(&mut other);
        good.difference(&other).unwrap()
    };
    assert_eq!(differs(&|s| s.epochs = 4), "epochs: 3 here, 4 there");
    assert_eq!(differs(&|s| s.owner = "eve".into()), "owner: \"owner\" here, \"eve\" there");
    assert_eq!(
        differs(&|s| s.reveals[0].recipient = "bob".into()),
        "recipient of reveal 0: \"eve\" here, \"bob\" there"
    );
    assert_eq!(differs(&|s| s.reveals.clear()), "values revealed: 1 here, 0 there");
    assert_eq!(differs(&|s| s.step.states[1].scale = 9).split(": ").next(), Some("state 1"));
    let other = differs(&|s| s.step.steps[5].op = Op::Sum { x: 4, keep: 0, batch: true });
    assert_eq!(other, "program of a step, step 5 (sum of layer l): differs in its details");
    let other = differs(&|s| s.step.steps[6].op = Op::Open { x: 5 });
    assert_eq!(other, "program of a step, step 6: \"truncate of layer l\" here, \"open of layer l\" there");
    assert_eq!(differs(&|s| s.rates[0][0] = 2), "public numbers of the steps: number 0 is another");
    assert_eq!(differs(&|s| s.check = spec().check), "whether there is a check: false here, true there");
}
