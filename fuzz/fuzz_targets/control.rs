//! Control messages from hostile peers, and what is done with a program before anything is computed with it.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trefoil_client::encode_samples;
use trefoil_mpc::cost::cost;
use trefoil_mpc::masked::weights::masked_weights;
use trefoil_mpc::program::{Program, Reveal, Window};
use trefoil_proto::agreement::Hello;
use trefoil_proto::control::{Command, Manifest, Opening, Reply, Request, Status, decode, encode};
use trefoil_proto::dataset::{Block, Content, Declaration, Part, pieces};
use trefoil_proto::run::{Phase, Position, RunSpec, Training};

/// Decodes; what decodes must survive being sent on.
fn read<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = decode("message", bytes).ok()?;
    let again = encode(&message);
    assert_eq!(encode(&decode::<T>("message", &again).unwrap()), again);
    Some(message)
}

fn program(program: &Program, window: Window) {
    let Ok(values) = program.infer() else { return };
    assert_eq!(values.len(), program.steps.len());
    assert_eq!(masked_weights(program).len(), program.weights.len());
    for reveal in [Reveal::Logits, Reveal::Label] {
        let Ok(plan) = program.ending_in(reveal, window) else { continue };
        assert_ne!(plan.hash(), program.hash());
        for batch in [1, 1000, u32::MAX as usize] {
            if let Ok(costs) = cost(&plan, batch) {
                assert_eq!(costs.len(), plan.steps.len());
            }
        }
    }
}

fn manifest(m: &Manifest) {
    program(&m.program, m.window);
    // Whatever the owner wrote: the encoding of a sample is refused or done.
    let _ = encode_samples(&m.input, m.program.fraction_bits, &[0.0, 1.0, -1.0, 1e30], 2);
    m.reveals_to("ann");
}

/// What passes the check can be gone through: parts lie in the table, pieces make each of them.
fn declaration(d: &Declaration) {
    if d.check().is_err() {
        return;
    }
    for i in 0..d.parts.len() as u32 {
        let (part, block) = d.part(i).unwrap();
        assert!(part.end <= d.rows && d.column(part.block) + block.width as usize <= d.width());
        assert_eq!(pieces(part.rows(), block.width as usize).sum::<usize>(), part.rows());
    }
}

/// The data set that every run is checked against.
fn small_set() -> Declaration {
    let part = Part { owner: "ann".into(), block: 0, first: 0, end: 50 };
    let block = Block { name: "b".into(), width: 3, content: Content::OneHot };
    Declaration { name: "set".into(), rows: 50, fraction_bits: 16, metric_rows: 1, blocks: vec![block], parts: vec![part] }
}

/// What passes the check can be gone through from its beginning to its end.
fn run(spec: &RunSpec, d: &Declaration) {
    let spec = &RunSpec { declaration: d.hash(), ..spec.clone() };
    if spec.check(d).is_err() || spec.all_steps() > 1000 {
        return;
    }
    let mut at = spec.due(Position::START, false);
    while at.phase != Phase::Done {
        if let Some(rows) = spec.listed_rows(at) {
            assert!(rows.iter().all(|r| *r < d.rows as usize));
        }
        assert!(at.phase != Phase::Train || spec.rates_at(at).len() == spec.step.rates);
        let next = spec.due(spec.after(at, 1), false);
        assert!(next > at);
        at = next;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 7 {
        0 => drop(read::<Opening>(bytes)),
        1 => match read(bytes) {
            Some(Request::Share { manifest: m, .. }) => manifest(&m),
            Some(Request::Declare { declaration: d }) => declaration(&d),
            Some(Request::Train { spec, .. }) => run(&spec, &small_set()),
            _ => {}
        },
        2 => match read(bytes) {
            Some(Reply::Models(models)) => models.iter().for_each(|m| manifest(&m.manifest)),
            Some(Reply::Sets(sets)) => sets.iter().for_each(|s| declaration(&s.declaration)),
            Some(Reply::Spec(spec)) => run(&spec, &small_set()),
            _ => {}
        },
        3 => match read(bytes) {
            Some(Command::Upload { program: Some(p), .. }) => program(&p.0, p.1),
            Some(Command::Declare { declaration: d, .. }) => declaration(&d),
            Some(Command::Training(training)) => {
                if let Training::Stage { spec: Some(spec), .. } = *training {
                    run(&spec, &small_set());
                }
            }
            _ => {}
        },
        4 => drop(read::<Status>(bytes)),
        5 => {
            if let Some(m) = read::<Manifest>(bytes) {
                manifest(&m);
            }
        }
        _ => {
            if let Ok(hello) = Hello::decode(bytes) {
                assert_eq!(hello.encode(), bytes);
            }
        }
    }
});
