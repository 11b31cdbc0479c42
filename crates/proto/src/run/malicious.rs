//! Runs whose authors are after the rows: what their form gives away, and what it does not.

use trefoil_mpc::Compare;
use trefoil_mpc::program::{Bilinear, Linear, Op, Program, Reveal, Shown, Step, WeightSpec, Window};
use trefoil_nn::graph::Post;

use super::tests::{declaration, spec};
use super::*;
use crate::control::{Grant, InputEncoding};

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
    // Its former value cut off, or pushed out of the ring and back; not so where that leaves it whole.
    let through = |x, shift: u32| [Op::Open { x }, Op::Truncate { x: x + 1, shift }];
    let up = |x, extra: u32| Op::Scale { x, factor: 1 << extra, extra };
    let end = [Op::Add { x: 10, y: 6 }, Op::Store { slot: 2, x: 11 }];
    let begin = &summing()[..3];
    let erased = [begin, &through(7, 16), &[up(9, 16)], &end].concat();
    let pushed = |extra| [begin, &[up(7, extra)], &through(8, extra), &end, &[Op::Store { slot: 0, x: 1 }]].concat();
    run(pushed(32), 2).check(&declaration()).unwrap();
    for ops in [last, less, erased, pushed(40)] {
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
    // Few rows: as they are, in an order that repeats some in an epoch, and where validation has but a few.
    let few = RunSpec { training: RowRange { first: 0, end: 7 }, batch: 7, ..run(summing(), 2) };
    let said = "metric loss is a sum over 7 rows: the data set demands at least 8 behind a revealed metric: raise \
                [train] validation, or declare the set with a smaller metric_rows";
    assert_eq!(refused(few), said);
    let again = |list: Vec<u32>| RunSpec { order: Order::Fixed(list), ..run(summing(), 2) };
    assert_eq!(refused(again((0..40).map(|i| i % 7).collect())), "row 0 comes twice in epoch 0 of the order");
    let once = (0..40).chain((0..40).rev()).chain([5]).chain(1..39).chain([5]);
    assert_eq!(refused(again(once.collect())), "row 5 comes twice in epoch 2 of the order");
    let mut checked = run(summing(), 2);
    let mut program = Program { rates: 0, ..checked.step.clone() };
    program.steps.truncate(10);
    checked.step.steps.truncate(5);
    checked.step.steps.push(Step { layer: "l".into(), op: Op::Store { slot: 0, x: 1 } });
    checked.check = Some(Check { program, rows: RowRange { first: 42, end: 50 }, batch: 3 });
    assert!(refused(checked.clone()).contains("a sum over 6 rows"));
    assert!(refused(RunSpec { check: checked.check.clone(), ..run(summing(), 2) }).contains("a sum over 6 rows"));
    // Nobody is shown it: then it may be.
    checked.reveals.clear();
    checked.check(&declaration()).unwrap();
}

#[test]
fn likelihoods_are_of_one_value_and_not_of_rows() {
    let show = |x| Op::Likelihoods { x, shift: 0, shown: Shown::Carol };
    let store = Op::Store { slot: 0, x: 1 };
    // Values 7 and 8: the rows times a state, which is taken for weights, and those at the rows' fraction bits.
    let weighted = [
        Op::State { slot: 1 },
        Op::Open { x: 5 },
        Op::Product { x: 0, y: 6, map: Bilinear::Elementwise },
        Op::Open { x: 7 },
        Op::Truncate { x: 8, shift: 16 },
    ];
    run([&weighted[..], &[show(9), store.clone()]].concat(), 0).check(&declaration()).unwrap();
    let refused = |ops: &[Op]| run(ops.to_vec(), 0).check(&declaration()).unwrap_err().to_string();
    let twice = [&weighted[..], &[show(9), show(9), store.clone()]].concat();
    assert!(refused(&twice).contains("a step: shows likelihoods of 2 values: one at most"));
    // Rows themselves, and by way of a state.
    let plain = [Op::Scale { x: 0, factor: 1 << 16, extra: 16 }, cut(5), show(6), store.clone()];
    assert!(refused(&plain).contains("a step: shows a server rows as they are, as if they were logits"));
    let dropped = [Op::Pattern { shape: vec![3], keep: 6000 }, Op::Drop { x: 0, pattern: 5 }];
    let sum = [Op::Sum { x: 6, keep: 1, batch: true }, Op::Scale { x: 7, factor: 1 << 16, extra: 16 }, cut(8)];
    let kept = [Op::Store { slot: 1, x: 9 }, Op::State { slot: 1 }];
    let spread = [Op::Broadcast { x: 11, shape: vec![3], batch: true }, show(12), store];
    assert!(refused(&[&dropped[..], &sum, &kept, &spread].concat()).contains("a step: shows a server rows"));
    let checked = run(vec![Op::Store { slot: 0, x: 1 }], 0);
    let program = Program {
        rates: 0,
        ..program(
            [
                &[Op::Rows],
                &[Op::Scale { x: 0, factor: 1 << 16, extra: 16 }, Op::Truncate { x: 1, shift: 16 }, show(2)][..],
            ]
            .concat(),
        )
    };
    let check = Some(Check { program, rows: RowRange { first: 42, end: 50 }, batch: 4 });
    let said = RunSpec { check, ..checked }.check(&declaration()).unwrap_err().to_string();
    assert!(said.contains("the check: shows a server rows"), "{said}");
}

#[test]
fn what_a_published_model_names_is_seen_as_it_stands() {
    let map = Linear::Dense { inputs: 3, outputs: 1 };
    let ops = vec![Op::Input, Op::Open { x: 0 }, Op::Linear { x: 1, weights: 0, bias: None, map }];
    let weights = vec![program(vec![]).states.remove(0)];
    let manifest = Manifest {
        name: "served".into(),
        program: Program { weights, states: vec![], rates: 0, ..program(ops) },
        window: Window { lo: 16, k: 32 },
        input: InputEncoding { scale: 1.0, offset: 0.0, low: -1.0, high: 1.0 },
        post: Post::None,
        grants: vec![Grant { client: "*".into(), reveals: vec![Reveal::Logits] }],
        ahead: vec![],
    };
    let said = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        let publish = Some(Publication { manifest, weights: vec![0], finish: None });
        RunSpec { publish, ..run(summing(), 2) }.check(&declaration()).map_err(|e| e.to_string())
    };
    assert_eq!(said(&|m| m.grants[0].client = "ann".into()), Ok(()));
    let unseen =
        "the program of the published model: names something \"a\\u{200b}\", with control or invisible characters";
    assert_eq!(said(&|m| m.program.weights[0].name = "a\u{200b}".into()).unwrap_err(), unseen);
    assert_eq!(said(&|m| m.program.steps[1].layer = "a\u{200b}".into()).unwrap_err(), unseen);
    let client = said(&|m| m.grants[0].client = "a\u{200b}".into()).unwrap_err();
    assert!(client.contains("client of the published model \"a\\u{200b}\" is no name"), "{client}");
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
    let units = good.rates[0][0];
    let said = differs(&|s| s.rates[0][0] = units + (1 << 20));
    let (here, there) = (units as f64 / 1048576.0, units as f64 / 1048576.0 + 1.0);
    assert_eq!(said, format!("learning rate of every step, as the step uses it: {here:.7} here, {there:.7} there"));
    let each = |n: usize| RunSpec { rates: vec![good.rates[0].clone(); n], ..good.clone() };
    let mut second = each(3);
    second.rates[1][0] += 1;
    assert!(each(3).difference(&second).unwrap().starts_with("learning rate of epoch 2, as the step uses it: "));
    assert_eq!(good.difference(&each(3)).unwrap(), "learning rates: one for all steps here, one for each epoch there");
    assert_eq!(differs(&|s| s.rates.clear()), "learning rates: one for all steps here, none there");
    assert_eq!(differs(&|s| s.rates[0].push(1)), "public numbers of every step, how many: 1 here, 2 there");
    let sign = |compare| {
        let mut s = good.clone();
        s.step.steps[5].op = Op::Sign { x: 4, window: Window { lo: 0, k: 32 }, compare };
        s
    };
    assert_eq!(
        sign(Compare::default()).difference(&sign(Compare::Keys)).unwrap(),
        "program of a step, step 5 (sign of layer l): compares by tree 4x4 here, by keys there"
    );
    assert_eq!(differs(&|s| s.check = spec().check), "whether there is a check: false here, true there");
}
