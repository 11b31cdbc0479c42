//! Linear regression as a training run: rows of two owners, four features and a target, everything by hand.

use trefoil_client::{
    Block, Check, Client, Content, Contribution, Declaration, Disclosure, Extraction, InputEncoding, Order, Part,
    Publication, RowRange, RunSpec, RunStatus, Stage, When,
};
use trefoil_mpc::ideal;
use trefoil_mpc::program::{Bilinear, Linear, Op, Program, Reveal, Shown, Step, WeightSpec, Window};
use trefoil_nn::graph::Post;
use trefoil_prg::{Pair, Seed, Source};
use trefoil_proto::control::{Grant, Manifest};
use trefoil_ring::{Tensor, Words};

use super::eventually;

pub const ROWS: u32 = 48;
/// Rows to train on; the others are for validation.
pub const TRAINING: u32 = 40;
pub const BATCH: u32 = 8;
pub const FEATURES: usize = 4;
/// What the regression is to find.
pub const TRUTH: [f64; FEATURES] = [0.5, -1.0, 0.25, 1.5];

fn program(states: Vec<WeightSpec>, rates: usize, ops: Vec<Op>) -> Program {
    let steps = ops.into_iter().map(|op| Step { layer: "regression".into(), op }).collect();
    Program { fraction_bits: 16, input_shape: vec![FEATURES + 1], weights: vec![], states, rates, steps }
}

fn states() -> Vec<WeightSpec> {
    let state = |name: &str, shape: &[usize]| WeightSpec { name: name.into(), shape: shape.to_vec(), scale: 16 };
    let weights = |name: &str| state(name, &[FEATURES, 1]);
    let mix = state("mix", &[FEATURES, FEATURES]);
    vec![weights("weights"), state("loss", &[1]), state("validation", &[1]), weights("served"), mix]
}

/// Error and its square over the batch: value 10 is the opened error, the last one the state plus the squares.
fn forward(metric: usize) -> Vec<Op> {
    vec![
        Op::Rows,
        Op::Slice { x: 0, axis: 0, start: 0, len: FEATURES },
        Op::Slice { x: 0, axis: 0, start: FEATURES, len: 1 },
        Op::State { slot: 0 },
        Op::Open { x: 3 },
        Op::Product { x: 1, y: 4, map: Bilinear::Dense },
        Op::Open { x: 5 },
        Op::Scale { x: 2, factor: -(1 << 16), extra: 16 },
        Op::Add { x: 6, y: 7 },
        Op::Truncate { x: 8, shift: 16 },
        Op::Open { x: 9 },
        Op::Product { x: 10, y: 10, map: Bilinear::Elementwise },
        Op::Sum { x: 11, keep: 1, batch: true },
        Op::Open { x: 12 },
        Op::Truncate { x: 13, shift: 16 },
        Op::State { slot: metric },
        Op::Add { x: 15, y: 14 },
        Op::Store { slot: metric, x: 16 },
    ]
}

pub fn step() -> Program {
    let mut ops = forward(1);
    ops.extend([
        Op::Product { x: 1, y: 10, map: Bilinear::DenseWeights },
        Op::Rate { x: 18, rate: 0, extra: 10 },
        Op::Open { x: 19 },
        Op::Truncate { x: 20, shift: 26 },
        Op::Add { x: 3, y: 21 },
        Op::Store { slot: 0, x: 22 },
    ]);
    program(states(), 1, ops)
}

/// The same, where the gradient does without some of the features, as the servers draw them.
pub fn step_with_dropout() -> Program {
    let mut ops = forward(1);
    ops.extend([
        Op::Pattern { shape: vec![FEATURES], keep: 50_000 },
        Op::Drop { x: 1, pattern: 18 },
        Op::Product { x: 19, y: 10, map: Bilinear::DenseWeights },
        Op::Rate { x: 20, rate: 0, extra: 10 },
        Op::Open { x: 21 },
        Op::Truncate { x: 22, shift: 26 },
        Op::Add { x: 3, y: 23 },
        Op::Store { slot: 0, x: 24 },
    ]);
    program(states(), 1, ops)
}

/// The same, where one server computes the likelihoods of features as if they were logits: the loss counts -ln p of all.
pub fn step_showing(shown: Shown) -> Program {
    let mut ops = forward(1);
    ops.pop();
    ops.extend([
        Op::Reshape { x: 3, shape: vec![FEATURES] },
        Op::Open { x: 17 },
        Op::Product { x: 1, y: 18, map: Bilinear::Elementwise },
        Op::Likelihoods { x: 19, shift: 16, shown },
        Op::Slice { x: 20, axis: 0, start: 1, len: 1 },
        Op::Sum { x: 21, keep: 0, batch: true },
        Op::Add { x: 16, y: 22 },
        Op::Store { slot: 1, x: 23 },
        Op::Product { x: 1, y: 10, map: Bilinear::DenseWeights },
        Op::Rate { x: 25, rate: 0, extra: 10 },
        Op::Open { x: 26 },
        Op::Truncate { x: 27, shift: 26 },
        Op::Add { x: 3, y: 28 },
        Op::Store { slot: 0, x: 29 },
    ]);
    program(states(), 1, ops)
}

pub fn reveal(slot: usize) -> Program {
    program(states(), 0, vec![Op::Rows, Op::State { slot }, Op::Reveal { x: 1, shift: 0 }])
}

/// The target of each row follows from its features.
pub fn table() -> (Vec<f32>, Vec<f32>) {
    let x: Vec<f32> = (0..ROWS as usize * FEATURES).map(|i| ((i * 7919 + 13) % 2001) as f32 / 1000.0 - 1.0).collect();
    let y = x.chunks(FEATURES).map(|row| row.iter().zip(TRUTH).map(|(a, b)| a * b as f32).sum()).collect();
    (x, y)
}

fn declaration() -> Declaration {
    let content = Content::Values(InputEncoding { scale: 1.0, offset: 0.0, low: -8.0, high: 8.0 });
    let block = |name: &str, width: usize| Block { name: name.into(), width: width as u32, content };
    let part = |owner: &str, block, first, end| Part { owner: owner.into(), block, first, end };
    Declaration {
        name: "houses".into(),
        rows: ROWS,
        fraction_bits: 16,
        metric_rows: ROWS - TRAINING,
        blocks: vec![block("features", FEATURES), block("target", 1)],
        parts: vec![part("ann", 0, 0, 24), part("ann", 1, 0, 24), part("bert", 0, 24, ROWS), part("bert", 1, 24, ROWS)],
    }
}

/// Declares the set; ann and bert contribute their rows.
pub fn contribute(owner: &mut Client, ann: &mut Client, bert: &mut Client) {
    owner.declare(&declaration()).unwrap();
    let (x, y) = table();
    for (client, first, end, parts) in [(ann, 0, 24, [0, 1]), (bert, 24, ROWS as usize, [2, 3])] {
        let set = client.set("houses").unwrap();
        client.contribute(&set, parts[0], Contribution::Values(&x[first * FEATURES..end * FEATURES])).unwrap();
        client.contribute(&set, parts[1], Contribution::Values(&y[first..end])).unwrap();
    }
}

/// Batches in a fixed order that is another in every epoch.
pub fn order(epochs: u32) -> Vec<u32> {
    (0..epochs * TRAINING).map(|i| (i * 7 + i / TRAINING * 3) % TRAINING).collect()
}

/// The run: the loss of every epoch goes to ann, that of validation to the owner, the weights at the end to the owner.
pub fn spec(owner: &mut Client, name: &str, epochs: u32) -> RunSpec {
    let set = owner.set("houses").unwrap();
    let disclosure = |slot: usize, recipient: &str, purpose: &str, when| Disclosure {
        program: reveal(slot),
        recipient: recipient.into(),
        purpose: purpose.into(),
        when,
    };
    RunSpec {
        name: name.into(),
        owner: "owner".into(),
        coordinator: "owner".into(),
        set: set.epoch,
        declaration: set.declaration.hash(),
        extraction: None,
        step: step(),
        rates: vec![vec![-64]],
        training: RowRange { first: 0, end: TRAINING },
        epochs,
        batch: BATCH,
        order: Order::Fixed(order(epochs)),
        shuffle: false,
        metrics: vec![1, 2],
        check: Some(Check {
            program: program(states(), 0, forward(2)),
            rows: RowRange { first: TRAINING, end: ROWS },
            batch: ROWS - TRAINING,
        }),
        reveals: vec![
            disclosure(1, "ann", "training loss", When::EachEpoch),
            disclosure(0, "owner", "the weights, which are the owner's", When::AtEnd),
            disclosure(2, "owner", "validation loss", When::EachEpoch),
        ],
        publish: None,
        checkpoint: 3,
    }
}

pub fn publication(name: &str) -> Publication {
    let ops = [
        Op::Input,
        Op::Open { x: 0 },
        Op::Linear { x: 1, weights: 0, bias: None, map: Linear::Dense { inputs: FEATURES, outputs: 1 } },
    ];
    let weights = vec![WeightSpec { name: "weights".into(), shape: vec![FEATURES, 1], scale: 16 }];
    let steps = ops.into_iter().map(|op| Step { layer: "regression".into(), op }).collect();
    let served = Program { fraction_bits: 16, input_shape: vec![FEATURES], weights, states: vec![], rates: 0, steps };
    let manifest = Manifest {
        name: name.into(),
        program: served,
        window: Window { lo: 16, k: 32 },
        input: InputEncoding { scale: 1.0, offset: 0.0, low: -1.0, high: 1.0 },
        post: Post::None,
        grants: vec![Grant { client: "bert".into(), reveals: vec![Reveal::Logits] }],
        ahead: vec![],
    };
    let up = vec![Op::Rows, Op::State { slot: 0 }, Op::Scale { x: 1, factor: 1 << 20, extra: 20 }];
    let back = [Op::Open { x: 2 }, Op::Truncate { x: 3, shift: 20 }, Op::Store { slot: 3, x: 4 }];
    let finish = program(states(), 0, up.into_iter().chain(back).collect());
    Publication { manifest, weights: vec![3], finish: Some(finish) }
}

/// First values of the states: zero.
pub fn initial() -> Vec<Tensor> {
    states().iter().map(|s| Tensor::new(s.shape.clone(), vec![0; s.shape.iter().product()]).unwrap()).collect()
}

/// The same run on features: the mixed columns of each row, and its target.
pub fn on_features(spec: RunSpec, batch: u32) -> RunSpec {
    let ops = vec![
        Op::Rows,
        Op::Slice { x: 0, axis: 0, start: 0, len: FEATURES },
        Op::Weight { index: 0 },
        Op::Product { x: 1, y: 2, map: Bilinear::Dense },
        Op::Open { x: 3 },
        Op::Truncate { x: 4, shift: 16 },
        Op::Slice { x: 0, axis: 0, start: FEATURES, len: 1 },
        Op::Scale { x: 6, factor: 2, extra: 1 },
        Op::Truncate { x: 7, shift: 1 },
        Op::Concat { xs: vec![5, 8], axis: 0 },
    ];
    let weights = vec![states().remove(MIX)];
    let program = Program { weights, ..program(vec![], 0, ops) };
    RunSpec { extraction: Some(Extraction { program, weights: vec![MIX as u32], batch }), ..spec }
}

/// The state that mixes columns.
const MIX: usize = 4;

/// First values of the states of a run on features.
pub fn initial_with_features() -> Vec<Tensor> {
    let mut all = initial();
    let mix = (0..FEATURES * FEATURES).map(|i| if i % (FEATURES + 1) == 0 { 3 << 14 } else { 1 << 13 });
    all[MIX] = Tensor::new(vec![FEATURES, FEATURES], mix.collect()).unwrap();
    all
}

/// Every owner reads the run and agrees.
pub fn agree(clients: &mut [&mut Client], name: &str) {
    for client in clients {
        let status = client.run_status(name).unwrap();
        let spec = client.run_spec(&status).unwrap();
        client.agree(&status, &spec).unwrap();
    }
}

/// Waits for the end of a run.
pub fn finished(client: &mut Client, name: &str) -> RunStatus {
    let mut over = None;
    eventually("the run is over", || {
        over = client.run_status(name).ok().filter(|s| s.stage == Stage::Done);
        over.is_some()
    });
    over.unwrap()
}

/// States after each epoch as the ideal functionality computes them, with the losses that the run reveals.
pub struct Ideal {
    pub weights: Vec<i64>,
    pub losses: Vec<i64>,
    pub validation: Vec<i64>,
}

pub fn ideal(spec: &RunSpec, epochs: u32) -> Ideal {
    let (x, y) = table();
    let fixed = |v: f32| (f64::from(v) * 65536.0).round() as i64 as u64;
    let row = |r: usize| -> Vec<u64> {
        x[r * FEATURES..(r + 1) * FEATURES].iter().chain(&y[r..=r]).map(|v| fixed(*v)).collect()
    };
    let common = Source::new(&Seed::from_bytes([0; 32]), Pair::Common, [0; 32], 0);
    let mut states: Vec<Words> = initial_with_features().into_iter().map(|t| t.into_vec().into()).collect();
    let mut table: Vec<Vec<u64>> = (0..ROWS as usize).map(row).collect();
    if let Some(e) = &spec.extraction {
        let mix: &[u64] = &states[MIX].clone();
        let all = ideal::step(&e.program, table.len(), &table.concat(), &[mix], &mut [], &[], &common).unwrap();
        table = all.last().unwrap().chunks(FEATURES + 1).map(<[u64]>::to_vec).collect();
    }
    let rows = |list: &mut dyn Iterator<Item = usize>| list.flat_map(|r| table[r].clone()).collect::<Vec<u64>>();
    let Order::Fixed(order) = &spec.order else { panic!("a fixed order") };
    let mut out = Ideal { weights: vec![], losses: vec![], validation: vec![] };
    for epoch in 0..epochs as usize {
        states[1].fill(0);
        states[2].fill(0);
        let each = (spec.steps() * BATCH) as usize;
        for batch in order[epoch * each..][..each].chunks(BATCH as usize) {
            let batch = rows(&mut batch.iter().map(|r| *r as usize));
            ideal::step(&spec.step, BATCH as usize, &batch, &[], &mut states, &spec.rates[0], &common).unwrap();
        }
        if let Some(check) = &spec.check {
            let batch = rows(&mut (TRAINING as usize..ROWS as usize));
            ideal::step(&check.program, check.batch as usize, &batch, &[], &mut states, &[], &common).unwrap();
        }
        out.losses.push(states[1][0] as i64);
        out.validation.push(states[2][0] as i64);
    }
    out.weights = states[0].iter().map(|w| *w as i64).collect();
    out
}

/// What was revealed to a client of one value of the list, epoch by epoch.
pub fn shown(client: &mut Client, name: &str, index: u32) -> Vec<Vec<i64>> {
    let status = client.run_status(name).unwrap();
    let spec = client.run_spec(&status).unwrap();
    let mine = spec.reveals.get(index as usize).is_some_and(|d| d.recipient == client.name());
    let of_index = status.revealed.iter().filter(|r| r.index == index && mine);
    of_index.map(|r| client.revealed(&spec, &status, *r).unwrap().units).collect()
}

/// Two results that differ by what truncation may add up to.
pub fn close(got: &[i64], want: &[i64], units: i64) {
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() <= units), "{got:?} privately, {want:?} in the clear");
}
