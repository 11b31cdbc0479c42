//! What is trained: a classifier of digits, with a witness in the shared states that adds up every row used.
//!
//! The witness is a state of a row's width to which each step adds the sum of its batch, without rounding. It survives
//! a failure only as far as the step it belongs to does, so that at the end it is the sum of all rows, once for each
//! epoch, just if every step counted once and every row was used as often.

use std::path::PathBuf;

use trefoil_client::{
    Block, Client, Content, Contribution, Declaration, Disclosure, InputEncoding, Order, Part, RowRange, RunSpec, When,
};
use trefoil_data::{Samples, Split, digits, load_dir};
use trefoil_mpc::program::{Op, Program, Step, WeightSpec};
use trefoil_nn::build::bench_net;
use trefoil_nn::graph::Graph;
use trefoil_nn::lower::{encode, encode_rates, lower};
use trefoil_nn::train::clear::{evaluate, first_states, labelled};
use trefoil_nn::train::order::batches;
use trefoil_nn::train::{Decay, Schedule};
use trefoil_nn::train::{Tapes, TrainSpec};
use trefoil_ring::{Tensor, Words};

const CLASSES: usize = 10;
/// Name of the data set at the servers.
const SET: &str = "digits";

/// A network, its rows, and those that it is tested on.
pub(crate) struct Task {
    /// One step of training, with the witness.
    pub(crate) program: Program,
    /// Rows of each step.
    pub(crate) batch: usize,
    /// Values of a row: pixels, then the label.
    pub(crate) width: usize,
    /// Where the rows come from, in words.
    pub(crate) source: String,
    tapes: Tapes,
    graph: Graph,
    records: Vec<f32>,
    tests: Vec<f32>,
    /// Slots of the weights that are trained.
    trained: Vec<usize>,
    witness: usize,
}

/// MNIST, where `TREFOIL_SHARED` or the folder beside the workspace has it.
fn mnist() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    let folder = std::env::var_os("TREFOIL_SHARED").map_or_else(beside, PathBuf::from).join("data/mnist");
    folder.is_dir().then_some(folder)
}

/// Pixels in steps of 1/256, which fixed point holds exactly; then the label.
fn rows(samples: &Samples) -> Vec<f32> {
    let pixels: Vec<f32> = samples.data.iter().map(|p| (p / 255.0 * 256.0).round() / 256.0).collect();
    let labels: Vec<u8> = samples.labels.iter().flatten().map(|l| *l as u8).collect();
    labelled(&pixels, &labels, CLASSES).unwrap()
}

impl Task {
    /// Trains the benchmark network `net` on `count` rows: of MNIST, or drawn by the program.
    pub(crate) fn new(net: &str, count: usize, batch: usize, drawn: bool) -> Result<Self, String> {
        let (train, test, source) = match mnist().filter(|_| !drawn) {
            Some(folder) => {
                let load = |split| load_dir(&folder, split).map_err(|e| e.to_string());
                (load(Split::Train)?, load(Split::Test)?, "MNIST")
            }
            None => (digits::generate(count, 1), digits::generate(4000, 2), "digits drawn by the program"),
        };
        let (graph, spec) =
            (bench_net(net, 1).map_err(|e| e.to_string())?, TrainSpec { batch, ..TrainSpec::classifier() });
        let tapes = Tapes::new(&graph, &spec).map_err(|e| e.to_string())?;
        let mut program = lower(&tapes.step).map_err(|e| e.to_string())?;
        let tensors = first_states::<f64>(&graph, &tapes.step).len() - 2;
        let stored =
            |slot: &usize| program.steps.iter().any(|s| matches!(s.op, Op::Store { slot: s, .. } if s == *slot));
        let trained = (0..tensors).filter(stored).collect();
        let (witness, width) = (program.states.len(), tapes.record());
        program.states.push(WeightSpec { name: "witness".into(), shape: vec![width], scale: program.fraction_bits });
        let value = program.steps.len();
        // Doubled before it is halved: a truncation of an even number rounds nothing.
        let ops = [
            Op::Sum { x: 0, keep: 1, batch: true },
            Op::Scale { x: value, factor: 2, extra: 1 },
            Op::Truncate { x: value + 1, shift: 1 },
            Op::State { slot: witness },
            Op::Add { x: value + 3, y: value + 2 },
            Op::Store { slot: witness, x: value + 4 },
        ];
        program.steps.extend(ops.map(|op| Step { layer: "witness".into(), op }));
        program.infer().map_err(|e| e.to_string())?;
        let (records, tests) = (rows(&train.take(count)), rows(&test));
        let source = format!("{} rows of {source}", records.len() / width);
        Ok(Self { program, batch, width, source, tapes, graph, records, tests, trained, witness })
    }

    /// How many rows there are.
    pub(crate) fn count(&self) -> usize {
        self.records.len() / self.width
    }

    /// The row at a place, in fixed point.
    pub(crate) fn row(&self, at: usize) -> Vec<u64> {
        self.units(&self.records[at * self.width..][..self.width]).collect()
    }

    fn units<'a>(&self, values: &'a [f32]) -> impl Iterator<Item = u64> + 'a {
        let one = f64::from(self.program.fraction_bits).exp2();
        values.iter().map(move |v| (f64::from(*v) * one) as i64 as u64)
    }

    /// What the witness must be after `epochs`.
    pub(crate) fn due(&self, epochs: u32) -> Vec<i64> {
        let mut sum = vec![0_i64; self.width];
        for row in self.records.chunks(self.width) {
            sum.iter_mut().zip(self.units(row)).for_each(|(s, v)| *s += v as i64);
        }
        sum.iter().map(|s| s * i64::from(epochs)).collect()
    }

    /// First values of the states.
    pub(crate) fn initial(&self) -> Vec<Words> {
        let known = first_states::<f64>(&self.graph, &self.tapes.step);
        let state = |(i, s): (usize, &WeightSpec)| match known.get(i) {
            Some(values) => encode(&s.name, values, s.scale).unwrap(),
            None => Words::zeros(s.shape.iter().product()),
        };
        self.program.states.iter().enumerate().map(state).collect()
    }

    /// The public numbers of an epoch: a rate that falls, whatever the number of epochs.
    pub(crate) fn rates(&self, epoch: u32) -> Vec<i64> {
        let rate = (0.02 / (1.0 + f64::from(epoch) / 4.0)).max(0.001);
        let schedule = Schedule { rate, decay: Decay::Constant, warm_up: 0 };
        let spec = TrainSpec { batch: self.batch, schedule, ..TrainSpec::classifier() };
        let tapes = Tapes::new(&self.graph, &spec).unwrap();
        encode_rates(&tapes.rates(0, 1)).unwrap()
    }

    /// Accuracy in percent of the network with these weights on the rows it is tested on.
    pub(crate) fn accuracy(&self, weights: &[Vec<f64>]) -> f64 {
        let mut states = first_states::<f64>(&self.graph, &self.tapes.step);
        self.trained.iter().zip(weights).for_each(|(slot, w)| states[*slot].clone_from(w));
        100.0 * evaluate(&self.tapes, &states, &self.tests).unwrap().accuracy.unwrap()
    }

    /// Declares the data set; ann and bert contribute half of the rows each.
    pub(crate) fn contribute(&self, owner: &mut Client, ann: &mut Client, bert: &mut Client) {
        let pixels = self.width - CLASSES;
        let values = Content::Values(InputEncoding { scale: 1.0, offset: 0.0, low: 0.0, high: 1.0 });
        let block = |name: &str, width: usize, content| Block { name: name.into(), width: width as u32, content };
        let (half, all) = (self.count() as u32 / 2, self.count() as u32);
        let part = |owner: &str, block, first, end| Part { owner: owner.into(), block, first, end };
        let declaration = Declaration {
            name: SET.into(),
            rows: all,
            fraction_bits: self.program.fraction_bits,
            blocks: vec![block("pixels", pixels, values), block("label", CLASSES, Content::OneHot)],
            parts: vec![
                part("ann", 0, 0, half),
                part("ann", 1, 0, half),
                part("bert", 0, half, all),
                part("bert", 1, half, all),
            ],
        };
        owner.declare(&declaration).unwrap();
        for (client, first, records) in [
            (ann, 0, &self.records[..half as usize * self.width]),
            (bert, 2, &self.records[half as usize * self.width..]),
        ] {
            let set = client.set(SET).unwrap();
            let rows = || records.chunks(self.width).map(|r| r.split_at(pixels));
            let values: Vec<f32> = rows().flat_map(|(x, _)| x).copied().collect();
            let label = |y: &[f32]| y.iter().position(|v| *v == 1.0).unwrap() as u32;
            let labels: Vec<u32> = rows().map(|(_, y)| label(y)).collect();
            client.contribute(&set, first, Contribution::Values(&values)).unwrap();
            client.contribute(&set, first + 1, Contribution::Labels(&labels)).unwrap();
        }
    }

    fn reveal(&self, slots: &[usize], purpose: &str, when: When) -> Disclosure {
        let mut ops = vec![Op::Rows];
        ops.extend(slots.iter().map(|slot| Op::State { slot: *slot }));
        if slots.len() > 1 {
            ops.push(Op::Concat { xs: (1..=slots.len()).collect(), axis: 0 });
        }
        let scale = self.program.states[slots[0]].scale;
        let shift = scale.saturating_sub(self.program.fraction_bits);
        ops.push(Op::Reveal { x: ops.len() - 1, shift });
        let steps = ops.into_iter().map(|op| Step { layer: "reveal".into(), op }).collect();
        let program = Program { rates: 0, steps, ..self.program.clone() };
        Disclosure { program, recipient: "owner".into(), purpose: purpose.into(), when }
    }

    /// The run: the metrics of every epoch and, at the end, the witness and the weights go to the owner.
    pub(crate) fn spec(&self, owner: &mut Client, name: &str, epochs: u32, drawn: bool) -> RunSpec {
        let set = owner.set(SET).unwrap();
        let metrics: Vec<usize> = std::iter::once(self.tapes.metrics.loss).chain(self.tapes.metrics.right).collect();
        let mut reveals = vec![
            self.reveal(&metrics, "loss and right answers of an epoch", When::EachEpoch),
            self.reveal(&[self.witness], "the sum of all rows used", When::AtEnd),
        ];
        reveals.extend(self.trained.iter().map(|slot| self.reveal(&[*slot], "trained weights", When::AtEnd)));
        let fixed = || batches(1, 0, self.count(), self.batch).concat().into_iter().map(|r| r as u32).collect();
        RunSpec {
            name: name.into(),
            owner: "owner".into(),
            coordinator: "owner".into(),
            set: set.epoch,
            declaration: set.declaration.hash(),
            extraction: None,
            step: self.program.clone(),
            rates: (0..epochs).map(|e| self.rates(e)).collect(),
            training: RowRange { first: 0, end: self.count() as u32 },
            epochs,
            batch: self.batch as u32,
            shuffle: false,
            order: if drawn { Order::Drawn } else { Order::Fixed(fixed()) },
            metrics: metrics.iter().map(|m| *m as u32).collect(),
            check: None,
            reveals,
            publish: None,
            checkpoint: 16,
        }
    }

    /// First values as the owner gives them.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let states = self.program.states.iter().zip(self.initial());
        states.map(|(s, words)| Tensor::new(s.shape.clone(), words.into_vec()).unwrap()).collect()
    }
}
