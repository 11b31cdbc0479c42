//! What is timed: a network or an operation, with its weights and an input.

use trefoil_client::{InputEncoding, Manifest, Reveal, manifest};
use trefoil_link::Network;
use trefoil_mpc::Compare;
use trefoil_mpc::Program;
use trefoil_mpc::cost::{StepCost, cost};
use trefoil_mpc::program::{Bilinear, Op, Step, Window};
use trefoil_nn::build::bench_net;
use trefoil_nn::compile::{CompileOptions, compile};
use trefoil_nn::graph::Post;
use trefoil_prg::{Address, Pair, Purpose, Seed, Source};
use trefoil_proto::control::{Ahead, Grant};
use trefoil_ring::{Tensor, Words};

use super::Operation;
use crate::plan::plan_for;

/// Fraction bits of everything timed.
const FRACTION_BITS: u32 = 16;
/// Bits that comparisons read.
const WINDOW_BITS: u32 = 32;

/// One network at one batch size, or one operation.
pub(super) struct Case {
    pub(super) net: Option<String>,
    pub(super) op: Option<(Operation, u32)>,
    pub(super) batch: u32,
    /// Ends with additive shares of the result.
    program: Program,
    window: Window,
    pub(super) weights: Vec<Tensor>,
    pub(super) input: InputEncoding,
    /// Raw values for one batch.
    pub(super) samples: Vec<f32>,
}

impl Case {
    /// A benchmark network on pixels.
    pub(super) fn network(net: &str, batch: u32) -> anyhow::Result<Self> {
        let graph = bench_net(net, 1)?;
        let options = CompileOptions { fraction_bits: FRACTION_BITS, window_bits: WINDOW_BITS };
        let compiled = compile(&graph, &options)?;
        let input = InputEncoding::default();
        let Manifest { program, window, .. } = manifest("bench", &compiled, input, Vec::new())?;
        let n = batch as usize * program.input_shape.iter().product::<usize>();
        let samples = values(n, 0.0, 255.0);
        Ok(Self { net: Some(net.into()), op: None, batch, program, window, weights: compiled.weights, input, samples })
    }

    /// An operation on values within +-1.
    pub(super) fn operation(op: Operation, size: u32) -> anyhow::Result<Self> {
        let n = size as usize;
        let window = Window { lo: 0, k: WINDOW_BITS };
        let (shape, ops) = match op {
            Operation::Relu => {
                (vec![n], vec![Op::Open { x: 0 }, Op::Relu { x: 1, shift: 0, window, compare: Compare::default() }])
            }
            Operation::Matmul => (
                vec![n.saturating_mul(2), n],
                vec![
                    Op::Open { x: 0 },
                    Op::Slice { x: 1, axis: 0, start: 0, len: n },
                    Op::Slice { x: 1, axis: 0, start: n, len: n },
                    Op::Product { x: 2, y: 3, map: Bilinear::MatMul },
                    Op::Open { x: 4 },
                    Op::Truncate { x: 5, shift: FRACTION_BITS },
                ],
            ),
        };
        let steps = std::iter::once(Op::Input).chain(ops).map(|op| Step { layer: op.name().into(), op }).collect();
        let program = Program {
            fraction_bits: FRACTION_BITS,
            input_shape: shape,
            weights: Vec::new(),
            states: Vec::new(),
            rates: 0,
            steps,
        };
        let values_of = program.infer()?;
        let input = InputEncoding { scale: 1.0, offset: 0.0, low: -1.0, high: 1.0 };
        let samples = values(values_of[0].elements(), -1.0, 1.0);
        Ok(Self { net: None, op: Some((op, size)), batch: 1, program, window, weights: Vec::new(), input, samples })
    }

    /// The same with the ways of comparing that suit a link best.
    pub(super) fn for_link(mut self, network: Option<&Network>) -> anyhow::Result<Self> {
        if let Some(network) = network {
            self.program = plan_for(network, &self.program, self.batch, false)?;
        }
        Ok(self)
    }

    /// Its name in tables.
    pub(super) fn name(&self) -> String {
        match (&self.net, self.op) {
            (Some(net), _) => net.clone(),
            (None, Some((op, size))) => format!("{op:?} {size}").to_lowercase(),
            (None, None) => String::new(),
        }
    }

    /// The program that is evaluated in one process: an operation ends in additive shares.
    pub(super) fn program(&self) -> anyhow::Result<Program> {
        match self.op {
            Some(_) => Ok(self.program.clone()),
            None => Ok(self.program.ending_in(Reveal::Logits, self.window)?),
        }
    }

    /// The public description that the owner shares: servers answer clients, so here operations are revealed, too.
    pub(super) fn manifest(&self, name: &str, ahead: u32) -> Manifest {
        let ahead = (ahead > 0).then_some(Ahead { batch: self.batch, reveal: Reveal::Logits, count: ahead });
        Manifest {
            name: name.into(),
            program: self.program.clone(),
            window: self.window,
            input: self.input,
            post: Post::None,
            grants: vec![Grant { client: "client".into(), reveals: vec![Reveal::Logits] }],
            ahead: ahead.into_iter().collect(),
        }
    }

    /// Whether the bytes of the reveal belong to the case.
    pub(super) fn counts_reveal(&self) -> bool {
        self.op.is_none()
    }

    /// What is due: rounds, bytes online, bytes that carol sends, and those that bob passes on of them.
    pub(super) fn due(&self) -> anyhow::Result<StepCost> {
        let mut sum = StepCost::default();
        cost(&self.program()?, self.batch as usize)?.iter().for_each(|c| sum.add(c));
        Ok(sum)
    }
}

/// `n` values within `low..=high`, the same every time.
fn values(n: usize, low: f64, high: f64) -> Vec<f32> {
    let seed = Seed::from_bytes([7; 32]);
    let mut words = Words::zeros(n);
    Source::new(&seed, Pair::OwnerAlice, [0; 32], 0).draw(Address::new(0, 0, 0, Purpose::Share)).fill(&mut words);
    words.iter().map(|w| (low + (high - low) * (*w >> 40) as f64 / (1u64 << 24) as f64) as f32).collect()
}
