//! Writes the first inputs of each target to `corpus/`: real messages, frames and files.

use std::error::Error;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use trefoil_link::frame;
use trefoil_mpc::Compare;
use trefoil_mpc::program::{Bilinear, Linear, Op, Program, Reveal, Step, WeightSpec, Window};
use trefoil_nn::graph::Post;
use trefoil_proto::control::{
    Ahead, Command, Grant, InputEncoding, Manifest, ModelInfo, Opening, Refusal, Reply, Request, Status, Terms, encode,
};
use trefoil_proto::dataset::{Block, Content, Declaration, Part};
use trefoil_proto::run::{Check, Disclosure, Order, Position, Resumed, RowRange, RunSpec, Saved, Training, When};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};
use zip::ZipArchive;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn program(input_shape: Vec<usize>, weights: Vec<(Vec<usize>, u32)>, ops: Vec<Op>) -> Program {
    let weights = weights.into_iter().map(|(shape, scale)| WeightSpec { name: "w".into(), shape, scale }).collect();
    let steps = std::iter::once(Op::Input).chain(ops).map(|op| Step { layer: "l".into(), op }).collect();
    Program { fraction_bits: 16, input_shape, weights, states: vec![], rates: 0, steps }
}

/// Programs that together hold every operation an owner may write.
fn programs() -> Vec<Program> {
    let window = Window { lo: 16, k: 32 };
    let conv = Conv2d {
        input: (4, 4),
        in_channels: 1,
        out_channels: 2,
        kernel: (2, 2),
        stride: (1, 1),
        dilation: (1, 1),
        pads: Pads { bottom: 1, right: 1, ..Pads::default() },
        groups: 1,
    };
    let pool = Pool2d { input: (4, 4), channels: 2, window: (2, 2), stride: (2, 2), pads: Pads::default() };
    let dense = Op::Linear { x: 8, weights: 2, bias: Some(3), map: Linear::Dense { inputs: 8, outputs: 3 } };
    let image = vec![
        Op::Open { x: 0 },
        Op::Linear { x: 1, weights: 0, bias: Some(1), map: Linear::Conv(conv) },
        Op::Open { x: 2 },
        Op::Relu { x: 3, shift: 16, window, compare: Compare::default() },
        Op::Open { x: 4 },
        Op::MaxPool { x: 5, pool, window: Window { lo: 0, k: 33 }, compare: Compare::default() },
        Op::Reshape { x: 6, shape: vec![8] },
        Op::Open { x: 7 },
        dense,
    ];
    let shapes = vec![(vec![2, 2, 1, 2], 16), (vec![2], 32), (vec![8, 3], 16), (vec![3], 32)];
    let pads = Pads { top: 1, bottom: 1, left: 1, right: 1 };
    let local = vec![
        Op::Pad { x: 0, pads },
        Op::Concat { xs: vec![1, 1], axis: 2 },
        Op::AveragePool { x: 2, pool, extra: 2 },
        Op::Scale { x: 3, factor: 3, extra: 2 },
        Op::Offset { x: 4, units: -1 },
        Op::Add { x: 4, y: 5 },
        Op::Slice { x: 6, axis: 0, start: 0, len: 1 },
        Op::Reshape { x: 7, shape: vec![2, 2] },
        Op::Open { x: 8 },
        Op::Truncate { x: 9, shift: 4 },
        Op::Open { x: 10 },
        Op::Product { x: 11, y: 11, map: Bilinear::MatMul },
    ];
    vec![program(vec![4, 4, 1], shapes, image), program(vec![2, 2, 1], vec![], local)]
}

/// A run on the declaration, with every kind of thing that one may have but a publication.
fn run(declaration: &Declaration) -> RunSpec {
    let states = vec![WeightSpec { name: "w".into(), shape: vec![2], scale: 16 }];
    let program = |ops: Vec<Op>| {
        let steps = ops.into_iter().map(|op| Step { layer: "l".into(), op }).collect();
        Program { fraction_bits: 16, input_shape: vec![3], weights: vec![], states: states.clone(), rates: 0, steps }
    };
    let learn = || program(vec![Op::Rows, Op::State { slot: 0 }, Op::Store { slot: 0, x: 1 }]);
    let show = program(vec![Op::Rows, Op::State { slot: 0 }, Op::Reveal { x: 1, shift: 0 }]);
    let reveal = |when| Disclosure { program: show.clone(), recipient: "eve".into(), purpose: "to see".into(), when };
    RunSpec {
        name: "run".into(),
        owner: "owner".into(),
        coordinator: "ann".into(),
        set: 1,
        declaration: declaration.hash(),
        extraction: None,
        step: learn(),
        rates: vec![],
        training: RowRange { first: 0, end: 42 },
        epochs: 3,
        batch: 10,
        order: Order::Fixed((0..40).collect()),
        shuffle: false,
        metrics: vec![0],
        check: Some(Check { program: learn(), rows: RowRange { first: 42, end: 50 }, batch: 4 }),
        reveals: vec![reveal(When::EachEpoch), reveal(When::AtEnd)],
        publish: None,
        checkpoint: 3,
    }
}

/// What is said about data sets and runs.
fn training() -> Vec<(u8, Vec<u8>)> {
    let part = Part { owner: "ann".into(), block: 0, first: 0, end: 50 };
    let block = Block { name: "b".into(), width: 3, content: Content::OneHot };
    let declaration = Declaration {
        name: "set".into(),
        rows: 50,
        fraction_bits: 16,
        metric_rows: 10,
        blocks: vec![block],
        parts: vec![part],
    };
    let spec = Box::new(run(&declaration));
    let drawn = Box::new(RunSpec { order: Order::Drawn, shuffle: true, ..*spec.clone() });
    let (id, hash, seed) = ([2; 16], declaration.hash(), || vec![3; 32].into());
    let declare = Request::Declare { declaration: Box::new(declaration.clone()) };
    let command = |t| encode(&Command::Training(Box::new(t)));
    let resumed = Resumed {
        seed: seed(),
        rows: Some(4),
        checkpoints: vec![Saved { at: Position::START, lot: 7 }],
        revealed: vec![],
        done: None,
    };
    vec![
        (1, encode(&declare)),
        (1, encode(&Request::Contribute { id, set: 1, declaration: hash, part: 0, seed: seed() })),
        (1, encode(&Request::Train { id, spec: spec.clone(), seed: seed() })),
        (1, encode(&Request::Train { id, spec: drawn, seed: seed() })),
        (2, encode(&Reply::Spec(spec.clone()))),
        (3, encode(&Command::Declare { epoch: 1, coordinator: "ann".into(), declaration: Box::new(declaration) })),
        (3, command(Training::Stage { id, run: 5, hash, spec: Some(spec) })),
        (
            3,
            command(Training::Begin {
                run: 5,
                at: Position::START,
                rows: 4,
                after: None,
                open: true,
                seeds: vec![seed(); 3],
            }),
        ),
        (4, encode(&Status::Resumed(Box::new(resumed)))),
    ]
}

fn control() -> Vec<Vec<u8>> {
    let window = Window { lo: 16, k: 32 };
    let mut all = vec![(0, encode(&Opening::Client { name: "ann".into() }))];
    all.push((0, encode(&Opening::Lane { party: "bob".into(), lane: 3 })));
    let terms = Terms { client: "ann".into(), epoch: 3, plan: [7; 32], batch: 2, reveal: Reveal::Label, lot: 9 };
    all.push((3, encode(&Command::Run { id: Some([1; 16]), terms, ahead: false })));
    all.push((4, encode(&Status::Refused { why: Refusal::Busy, reason: "busy".into() })));
    all.push((4, encode(&Status::Missing(vec![1, 2, 300]))));
    for program in programs() {
        let manifest = Manifest {
            name: "m".into(),
            program: program.clone(),
            window,
            input: InputEncoding::default(),
            post: Post::Softmax,
            grants: vec![Grant { client: "*".into(), reveals: vec![Reveal::Logits, Reveal::Label] }],
            ahead: vec![Ahead { batch: 1, reveal: Reveal::Label, count: 2 }],
        };
        all.push((5, encode(&manifest)));
        all.push((
            1,
            encode(&Request::Share { id: [2; 16], manifest: Box::new(manifest.clone()), seed: vec![3; 32].into() }),
        ));
        let info = ModelInfo { epoch: 4, owner: "owner".into(), manifest, ready: 0 };
        all.push((2, encode(&Reply::Models(vec![info]))));
        let program = Some(Box::new((program, window)));
        let upload = Command::Upload { id: [1; 16], owner: "owner".into(), epoch: 4, manifest_hash: [5; 32], program };
        all.push((3, encode(&upload)));
    }
    all.extend(training());
    all.push((6, [vec![1], vec![9; 96]].concat()));
    all.into_iter().map(|(kind, bytes)| [vec![kind], bytes].concat()).collect()
}

fn frames() -> Vec<Vec<u8>> {
    let frame = |tag, len: usize| [frame::encode(tag, len).to_vec(), vec![5; len]].concat();
    let two = [frame(7, 2), frame(1, 40)].concat();
    let script = [[0u8, 2, 1, 0, 0], [1, 2, 1, 0, 0], [0, 0x16, 1, 0, 0], [3, 0x16, 1, 0, 0]];
    let mut all: Vec<Vec<u8>> = script.iter().map(|s| [s.as_slice(), &two].concat()).collect();
    all.push([&[0u8, 2, 0, 0, 0][..], &frame(7, 2)[..9]].concat());
    all
}

fn tables() -> Vec<Vec<u8>> {
    let idx_images = [vec![0, 0, 8, 3], vec![0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2], vec![1, 2, 3, 4]].concat();
    let idx_labels = [vec![0, 0, 8, 1, 0, 0, 0, 2], vec![3, 4]].concat();
    let header = format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }");
    let npy = [b"\x93NUMPY\x01\x00\x76\x00".to_vec(), header.into_bytes(), vec![0; 8]].concat();
    let csv = b"a,b,label\n1,2.5,0\n-3,4e2,1\n".to_vec();
    let kinds = [(0, idx_images), (1, idx_labels), (2, npy.clone()), (3, npy), (4, csv)];
    kinds.into_iter().map(|(kind, bytes)| [vec![kind], bytes].concat()).collect()
}

/// An archive's architecture and weights, as the target `model` takes them.
fn parts(archive: &[u8]) -> Result<Vec<u8>> {
    let mut zip = ZipArchive::new(Cursor::new(archive))?;
    let mut part = |name| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        zip.by_name(name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let config = part("config.json")?;
    let (len, weights) = (u16::try_from(config.len())?.to_le_bytes(), part("model.weights.h5")?);
    Ok([b"A", &len[..], &config, &weights].concat())
}

fn write(target: &str, inputs: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
    let dir = Path::new("corpus").join(target);
    fs::create_dir_all(&dir)?;
    for (i, input) in inputs.into_iter().enumerate() {
        fs::write(dir.join(format!("seed-{i}")), input)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    write("control", control())?;
    write("frame", frames())?;
    write("tables", tables())?;
    let mut files = Vec::new();
    for entry in fs::read_dir("../crates/import/tests/data")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "h5" || e == "keras") {
            let bytes = fs::read(&path)?;
            if path.extension().is_some_and(|e| e == "keras") {
                files.push(parts(&bytes)?);
            }
            files.push(bytes);
        }
    }
    write("model", files)
}
