//! What a program costs layer by layer, and how long that takes over a given link.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use trefoil_mpc::cost::{StepCost, cost};
use trefoil_mpc::program::{Linear, Op, Program, ValueInfo};
use trefoil_mpc::{Compare, plan};

/// Ring multiply-adds that a core does in a second: an estimate for a current server.
const MULTIPLY_ADDS: f64 = 10e9;
/// Comparisons that an evaluator does in a second, online and offline: estimates for the same.
const COMPARISONS: [f64; 2] = [8e6, 4e6];

/// The same by keys.
const KEYS: [f64; 2] = [4e5, 2e5];

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
    #[serde(skip)]
    work: Work,
}

/// Arithmetic of a step for a whole batch.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    multiply_adds: f64,
    comparisons: f64,
    keys: f64,
}

/// The layers of a program that ends in a reveal, for `batch` samples.
pub(crate) fn layers(program: &Program, batch: usize) -> anyhow::Result<Vec<Layer>> {
    let values = program.infer()?;
    let costs = cost(program, batch)?;
    let mut layers: Vec<Layer> = Vec::new();
    for (i, (step, cost)) in program.steps.iter().zip(&costs).enumerate() {
        let work = work(&step.op, &values, i, batch as f64);
        match layers.last_mut() {
            Some(l) if l.layer == step.layer => {
                l.operation = format!("{}, {}", l.operation, step.op.name());
                l.cost.add(cost);
                l.work.multiply_adds += work.multiply_adds;
                l.work.comparisons += work.comparisons;
                l.work.keys += work.keys;
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
                work,
            }),
        }
        if let Some(l) = layers.last_mut() {
            l.output = values[i].shape.clone();
            l.rounds = l.cost.rounds;
            l.bytes_online = l.cost.online + l.cost.revealed;
            l.bytes_offline = l.cost.offline;
            l.bytes_forwarded = l.cost.forwarded;
            l.compares.extend(step.op.compare().map(|c| c.to_string()));
        }
    }
    Ok(layers)
}

fn work(op: &Op, values: &[ValueInfo], out: usize, batch: f64) -> Work {
    let n = values[out].elements() as f64 * batch;
    let mut w = Work::default();
    match op {
        Op::Linear { map: Linear::Dense { inputs, .. }, .. } => w.multiply_adds = n * *inputs as f64,
        Op::Linear { map: Linear::Conv(g), .. } => {
            w.multiply_adds = n * (g.kernel.0 * g.kernel.1 * g.in_channels / g.groups.max(1)) as f64;
        }
        Op::MatMul { x, .. } => w.multiply_adds = 2.0 * n * values[*x].shape.last().map_or(0.0, |k| *k as f64),
        Op::Relu { .. } => w.comparisons = n,
        Op::MaxPool { pool, .. } => w.comparisons = n * (pool.window.0 * pool.window.1 - 1) as f64,
        Op::Argmax { x, .. } => {
            let c = values[*x].elements() as f64;
            w.comparisons = batch * c * (c - 1.0) / 2.0;
        }
        _ => {}
    }
    if op.compare() == Some(Compare::Keys) {
        w.keys = std::mem::take(&mut w.comparisons);
    }
    w
}

/// A link between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Network {
    /// Round-trip time in seconds.
    pub(crate) round_trip_s: f64,
    /// Bits in a second, each way.
    pub(crate) bits_per_s: f64,
}

/// Processes of one host: 20 microseconds, 20 Gb/s.
pub(crate) const LOOPBACK: Network = Network::of(plan::Network::LOOPBACK);
/// A local network: 0.1 ms, 10 Gb/s.
pub(crate) const LAN: Network = Network::of(plan::Network::LAN);
/// A wide one: 40 ms, 352 Mb/s.
pub(crate) const WAN: Network = Network::of(plan::Network::WAN);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?}: loopback, lan, wan, or round trip and bandwidth such as 40ms,352mbit");
        match text {
            "lan" => return Ok(LAN),
            "wan" => return Ok(WAN),
            "loopback" => return Ok(LOOPBACK),
            _ => {}
        }
        let (trip, bits) = text.split_once(',').ok_or_else(bad)?;
        let round_trip_s = with_unit(trip, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]).ok_or_else(bad)?;
        let bits_per_s = with_unit(bits, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)]).ok_or_else(bad)?;
        if bits_per_s > 0.0 { Ok(Self { round_trip_s, bits_per_s }) } else { Err(bad()) }
    }
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let (digits, factor) = units.iter().find_map(|(u, f)| Some((text.strip_suffix(u)?, f)))?;
    let value: f64 = digits.trim().parse().ok()?;
    (value.is_finite() && (0.0..1e15).contains(&value)).then_some(value * factor)
}

impl Network {
    /// Predicted seconds of a layer online and offline.
    pub(crate) fn predict(&self, layer: &Layer) -> (f64, f64) {
        let products = layer.work.multiply_adds / MULTIPLY_ADDS;
        let compare = |i: usize| layer.work.comparisons / COMPARISONS[i] + layer.work.keys / KEYS[i];
        let (online, offline) = self.link().predict(&layer.cost);
        (online + products + compare(0), offline + products + compare(1))
    }

    const fn of(link: plan::Network) -> Self {
        Self { round_trip_s: link.round_trip.as_secs_f64(), bits_per_s: link.bits_per_second }
    }

    /// The link as the planner has it.
    fn link(&self) -> plan::Network {
        plan::Network { round_trip: Duration::from_secs_f64(self.round_trip_s), bits_per_second: self.bits_per_s }
    }

    /// The program with the ways of comparing that suit this link best, for `batch` samples at once.
    pub(crate) fn plan(&self, program: &Program, batch: u32, ahead: bool) -> anyhow::Result<Program> {
        Ok(plan::choose(program, batch as usize, &self.link(), ahead)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_mpc::Reveal;
    use trefoil_nn::{build, compile};

    #[test]
    fn networks_have_units() {
        assert_eq!("lan".parse(), Ok(LAN));
        assert_eq!("40ms,352mbit".parse(), Ok(WAN));
        assert_eq!("100us,10gbit".parse::<Network>().unwrap().bits_per_s, 10e9);
        for bad in ["", "dsl", "40,352", "40ms", "40ms,0mbit", "-1ms,1mbit", "nanms,1mbit", "1ms,1mb"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

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
            let far: f64 = layers.iter().map(|l| WAN.predict(l).0).sum();
            assert!(far > total.rounds as f64 * 0.02);
        }
    }
}
