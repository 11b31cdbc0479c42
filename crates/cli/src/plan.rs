//! What a program costs layer by layer, and how long that takes over a given link.

use serde::Serialize;
use trefoil_link::Network;
use trefoil_mpc::cost::{StepCost, cost};
use trefoil_mpc::plan;
use trefoil_mpc::program::{Bilinear, Linear, Op, Program, Rows, ValueInfo};
use trefoil_ring::geometry::Conv2d;

/// Ring multiply-adds that a core does in a second: an estimate for a current server.
const MULTIPLY_ADDS: f64 = 10e9;

/// Consecutive steps of one layer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Layer {
    /// The layer's name in the model.
    pub(crate) layer: String,
    /// What is done, such as "open, conv2d".
    pub(crate) operation: String,
    /// Shape that goes in, for one sample.
    pub(crate) input: Vec<usize>,
    /// Shape that comes out.
    pub(crate) output: Vec<usize>,
    /// Rounds between the evaluators.
    pub(crate) rounds: u64,
    /// Bytes online, those of a reveal included.
    pub(crate) bytes_online: u64,
    /// Bytes that carol sends beforehand.
    pub(crate) bytes_offline: u64,
    /// Bytes of these that bob passes on to alice.
    pub(crate) bytes_forwarded: u64,
    /// The ways of comparing chosen.
    pub(crate) compares: Vec<String>,
    /// The steps of the program.
    #[serde(skip)]
    pub(crate) steps: std::ops::Range<usize>,
    #[serde(skip)]
    cost: StepCost,
    /// Of the whole batch.
    #[serde(skip)]
    multiply_adds: f64,
}

/// The layers of a program that ends in a reveal, for `batch` samples.
pub(crate) fn layers(program: &Program, batch: usize) -> anyhow::Result<Vec<Layer>> {
    let values = program.infer()?;
    let costs = cost(program, batch)?;
    let mut layers: Vec<Layer> = Vec::new();
    for (i, (step, cost)) in program.steps.iter().zip(&costs).enumerate() {
        let multiply_adds = multiply_adds(&step.op, &values, i, batch as f64);
        match layers.last_mut() {
            Some(l) if l.layer == step.layer => {
                l.operation = format!("{}, {}", l.operation, step.op.name());
                l.cost.add(cost);
                l.multiply_adds += multiply_adds;
                l.steps.end = i + 1;
            }
            _ => layers.push(Layer {
                layer: step.layer.clone(),
                operation: step.op.name().into(),
                input: step
                    .op
                    .operands()
                    .first()
                    .map_or_else(|| program.input_shape.clone(), |x| values[*x].shape.clone()),
                output: Vec::new(),
                rounds: 0,
                bytes_online: 0,
                bytes_offline: 0,
                bytes_forwarded: 0,
                compares: Vec::new(),
                steps: i..i + 1,
                cost: *cost,
                multiply_adds,
            }),
        }
        if let Some(l) = layers.last_mut() {
            l.output = values[i].shape.clone();
            l.rounds = l.cost.rounds;
            l.bytes_online = l.cost.online + l.cost.revealed;
            l.bytes_offline = l.cost.offline;
            l.bytes_forwarded = l.cost.forwarded;
            let keys = if step.op.selects_by_keys() { " + keys" } else { "" };
            l.compares.extend(step.op.compare().map(|c| format!("{c}{keys}")));
        }
    }
    Ok(layers)
}

fn multiply_adds(op: &Op, values: &[ValueInfo], out: usize, batch: f64) -> f64 {
    let n = values[out].elements() as f64 * if values[out].rows == Rows::Each { batch } else { 1.0 };
    match op {
        Op::Linear { map: Linear::Dense { inputs, .. }, .. } => n * *inputs as f64,
        Op::Linear { map: Linear::Conv(g), .. } => {
            n * (g.kernel.0 * g.kernel.1 * g.in_channels / g.groups.max(1)) as f64
        }
        Op::Product { x, y, map } => 2.0 * inner(map, &values[*x], &values[*y], n, batch),
        _ => 0.0,
    }
}

/// Multiply-adds of a product of two secrets that has `n` elements: the online half of them is done twice.
fn inner(map: &Bilinear, x: &ValueInfo, y: &ValueInfo, n: f64, batch: f64) -> f64 {
    let last = |v: &ValueInfo| v.shape.last().map_or(0.0, |k| *k as f64);
    let conv = |g: &Conv2d| (g.kernel.0 * g.kernel.1 * g.in_channels / g.groups.max(1)) as f64;
    match map {
        Bilinear::Elementwise => n,
        Bilinear::MatMul | Bilinear::Dense | Bilinear::DenseInput => n * last(x),
        Bilinear::DenseWeights => batch * x.elements() as f64 * last(y),
        Bilinear::Conv(g) => n * conv(g),
        // The gradient of the output has as many elements as the output.
        Bilinear::ConvInput(g) => batch * x.elements() as f64 * conv(g),
        Bilinear::ConvWeights(g) => batch * y.elements() as f64 * conv(g),
    }
}

/// Predicted seconds of a layer online and offline.
pub(crate) fn predict(network: &Network, layer: &Layer) -> (f64, f64) {
    let products = layer.multiply_adds / MULTIPLY_ADDS;
    let ((online, offline), (using, making)) = (plan::predict(network, &layer.cost), plan::work(&layer.cost));
    (online + products + using, offline + products + making)
}

/// The program with the ways of comparing that suit a link best, for `batch` samples at once.
pub(crate) fn plan_for(network: &Network, program: &Program, batch: u32, ahead: bool) -> anyhow::Result<Program> {
    Ok(plan::choose(program, batch as usize, network, ahead)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_mpc::Reveal;
    use trefoil_nn::{build, compile};

    #[test]
    fn layers_add_up_to_the_program() {
        let graph = build::bench_net("B", 1).unwrap();
        let compiled = compile::compile(&graph, &compile::CompileOptions::default()).unwrap();
        for reveal in [Reveal::Logits, Reveal::Label] {
            let program = compiled.ending_in(reveal).unwrap();
            let layers = layers(&program, 3).unwrap();
            let mut total = StepCost::default();
            cost(&program, 3).unwrap().iter().for_each(|c| total.add(c));
            assert_eq!(layers.iter().map(|l| l.rounds).sum::<u64>(), total.rounds);
            assert_eq!(layers.iter().map(|l| l.bytes_online).sum::<u64>(), total.online + total.revealed);
            assert_eq!(layers.iter().map(|l| l.bytes_offline).sum::<u64>(), total.offline);
            assert_eq!(layers.last().unwrap().steps.end, program.steps.len());
            let far: f64 = layers.iter().map(|l| predict(&Network::WAN, l).0).sum();
            assert!(far > total.rounds as f64 * 0.02);
        }
    }
}
