//! Range analysis on the owner's side: does every value fit the window that reads it, proved or measured.
//!
//! Every wire is first bounded by interval arithmetic for all inputs of the declared range. Where that worst case
//! exceeds what the ring or a comparison's window holds, samples decide: a margin of [`MARGIN`] is demanded (a
//! note where it is missing), and only what the samples themselves exceed is refused.

mod bounds;
mod error;
mod functions;

use std::ops::RangeInclusive;

use rayon::prelude::*;
use trefoil_mpc::program::{Op, Program, Reveal};

use crate::compile::{CompileOptions, Compiled, compile};
use crate::rng::SplitMix;
use bounds::{Bounds, Demand, Evaluator};
pub use error::{Fit, RangeError};

/// How many times over a measured range must fit.
pub const MARGIN: f64 = 8.0;
/// Random inputs measured where the owner gives no samples.
const RANDOM_SAMPLES: usize = 64;
/// Samples tried when looking for options that would fit.
const TRIED: usize = 8;
/// Fewer fraction bits than this are not proposed.
const FEWEST_FRACTION_BITS: u32 = 6;

/// How a range is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// For every input of the declared range.
    Proved,
    /// On the samples only.
    Measured,
}

/// The range of a value where a step sets limits to it, as real numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct WireRange {
    /// The layer.
    pub layer: String,
    /// Index of the step that sets the limits.
    pub step: usize,
    /// Its operation. Of maxima it is a difference of two values that is limited.
    pub op: &'static str,
    /// Lowest value.
    pub low: f64,
    /// Highest value.
    pub high: f64,
    /// Lowest value that fits.
    pub limit_low: f64,
    /// Highest value that fits.
    pub limit_high: f64,
    /// Proved or measured.
    pub how: How,
}

/// What the analysis found.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeReport {
    /// One entry for each step that sets limits.
    pub wires: Vec<WireRange>,
    /// Samples measured; 0 where everything is proved.
    pub samples: usize,
    /// What the owner should know: ranges that fit by less than [`MARGIN`], and samples that were made up.
    pub notes: Vec<String>,
}

/// Checks the compiled network, ending in `reveal`, for inputs within `input`.
///
/// `samples` are inputs one after the other; without them random ones of the declared range are measured.
pub fn check(
    compiled: &Compiled,
    reveal: Reveal,
    input: &RangeInclusive<f64>,
    samples: Option<&[f32]>,
) -> Result<RangeReport, RangeError> {
    let (low, high) = (*input.start(), *input.end());
    if !(low.is_finite() && high.is_finite() && low <= high) {
        return Err(RangeError::Input { low, high });
    }
    let program = compiled.ending_in(reveal)?;
    let info = program.infer()?;
    let evaluator = Evaluator::new(&program, &info, &compiled.weights);
    let size = info[0].elements();
    let unit = f64::from(program.fraction_bits).exp2();
    let ends = Bounds::new(vec![(low * unit).floor(); size], vec![(high * unit).ceil(); size]);
    let proved = evaluator.demands(&ends, false);
    if let Some(s) = samples {
        check_samples(s, size, input)?;
    }
    let mut report = RangeReport { wires: Vec::new(), samples: 0, notes: Vec::new() };
    let measured = if proved.iter().flatten().all(|d| d.holds(1.0)) {
        Vec::new()
    } else {
        let random = if samples.is_none() { random_samples(size, low, high) } else { Vec::new() };
        let samples = samples.unwrap_or(&random);
        report.samples = samples.len() / size;
        if !random.is_empty() {
            report.notes.push(format!(
                "no samples given: {RANDOM_SAMPLES} random inputs stand in where nothing is proved; real ones tell more"
            ));
        }
        measure(compiled, reveal, &evaluator, &program, samples)?
    };
    for (step, demand) in proved.iter().enumerate() {
        let Some(demand) = demand else { continue };
        let (demand, how) = match measured.get(step) {
            Some(Some(m)) if !demand.holds(1.0) => (*m, How::Measured),
            _ => (*demand, How::Proved),
        };
        let wire = wire_range(&program, &evaluator, step, demand, how);
        if how == How::Measured && !demand.holds(MARGIN) {
            report.notes.push(format!(
                "layer {}: the samples reach {:.4}..{:.4} of {:.4}..{:.4} ({}), a margin below {MARGIN}",
                wire.layer, wire.low, wire.high, wire.limit_low, wire.limit_high, wire.op
            ));
        }
        report.wires.push(wire);
    }
    Ok(report)
}

fn wire_range(program: &Program, evaluator: &Evaluator<'_>, step: usize, d: Demand, how: How) -> WireRange {
    let s = &program.steps[step];
    // A product is limited in its result, everything else in its operand, which may have another scale.
    let value = match s.op.operands()[..] {
        [operand] if !matches!(s.op, Op::Linear { .. }) => operand,
        _ => step,
    };
    let unit = f64::from(evaluator.info[value].scale).exp2();
    WireRange {
        layer: s.layer.clone(),
        step,
        op: s.op.name(),
        low: d.low / unit,
        high: d.high / unit,
        limit_low: d.limit_low / unit,
        limit_high: d.limit_high / unit,
        how,
    }
}

fn check_samples(samples: &[f32], size: usize, input: &RangeInclusive<f64>) -> Result<(), RangeError> {
    if samples.is_empty() || !samples.len().is_multiple_of(size) {
        return Err(RangeError::Samples { elements: samples.len(), size });
    }
    match samples.iter().position(|&v| !input.contains(&f64::from(v))) {
        Some(i) => Err(RangeError::Sample {
            sample: i / size,
            element: i % size,
            value: samples[i],
            low: *input.start(),
            high: *input.end(),
        }),
        None => Ok(()),
    }
}

/// Uniform, two-valued, constant and sparse inputs in turn: means and extremes of the declared range.
fn random_samples(size: usize, low: f64, high: f64) -> Vec<f32> {
    let mut rng = SplitMix::new(1);
    let mut samples = Vec::with_capacity(RANDOM_SAMPLES * size);
    for s in 0..RANDOM_SAMPLES {
        let level = rng.uniform(low, high);
        for _ in 0..size {
            let v = rng.uniform(low, high);
            let ends = if rng.below(2) == 0 { low } else { high };
            let sparse = if rng.below(4) == 0 { v } else { 0f64.clamp(low, high) };
            samples.push([v, ends, level, sparse][s % 4] as f32);
        }
    }
    samples
}

/// One sample as integers of the program's fraction bits.
fn encoded(sample: &[f32], fraction_bits: u32) -> Bounds {
    let unit = f64::from(fraction_bits).exp2();
    Bounds::point(sample.iter().map(|&v| (f64::from(v) * unit).round()).collect())
}

/// The joined demands of all samples, or the refusal of what a sample breaks.
fn measure(
    compiled: &Compiled,
    reveal: Reveal,
    evaluator: &Evaluator<'_>,
    program: &Program,
    samples: &[f32],
) -> Result<Vec<Option<Demand>>, RangeError> {
    let size = evaluator.info[0].elements();
    let demands: Vec<Vec<Option<Demand>>> =
        samples.par_chunks(size).map(|s| evaluator.demands(&encoded(s, program.fraction_bits), true)).collect();
    let breaks = |d: &Vec<Option<Demand>>| d.iter().flatten().any(|d| !d.holds(1.0));
    let broken: Vec<f32> = demands
        .iter()
        .zip(samples.chunks(size))
        .filter(|(d, _)| breaks(d))
        .take(TRIED)
        .flat_map(|(_, s)| s)
        .copied()
        .collect();
    let joined = demands
        .into_iter()
        .reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| a.zip(b).map(|(a, b)| a.joined(b))).collect());
    let joined = joined.unwrap_or_default();
    for (step, demand) in joined.iter().enumerate() {
        if let Some(d) = demand.filter(|d| !d.holds(1.0)) {
            let wire = Box::new(wire_range(program, evaluator, step, d, How::Measured));
            return Err(RangeError::Broken { wire, fit: fit(compiled, reveal, &broken) });
        }
    }
    Ok(joined)
}

/// The options nearest to the ones used under which `samples` fit with the margin demanded.
fn fit(compiled: &Compiled, reveal: Reveal, samples: &[f32]) -> Fit {
    let used = compiled.options;
    let fits = |options: &CompileOptions| {
        let try_it = || -> Option<bool> {
            let compiled = compile(&compiled.graph, options).ok()?;
            let program = compiled.ending_in(reveal).ok()?;
            let info = program.infer().ok()?;
            let evaluator = Evaluator::new(&program, &info, &compiled.weights);
            let fits = |s| {
                evaluator.demands(&encoded(s, options.fraction_bits), true).iter().flatten().all(|d| d.holds(MARGIN))
            };
            Some(samples.par_chunks(info[0].elements()).all(fits))
        };
        try_it().unwrap_or(false)
    };
    let fewer = (FEWEST_FRACTION_BITS..used.fraction_bits).rev();
    let wider = used.window_bits + 1..=62u32.saturating_sub(used.fraction_bits);
    Fit {
        fraction_bits: fewer.into_iter().find(|&fraction_bits| fits(&CompileOptions { fraction_bits, ..used })),
        window_bits: wider.into_iter().find(|&window_bits| fits(&CompileOptions { window_bits, ..used })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::bench_net;

    #[test]
    fn every_sample_lies_within_the_proved_bounds() {
        for name in ["A", "B", "D", "S"] {
            let compiled = compile(&bench_net(name, 4).unwrap(), &CompileOptions::default()).unwrap();
            let program = compiled.ending_in(Reveal::Label).unwrap();
            let info = program.infer().unwrap();
            let evaluator = Evaluator::new(&program, &info, &compiled.weights);
            let one = f64::from(program.fraction_bits).exp2();
            let proved = evaluator.demands(&Bounds::new(vec![-one; 784], vec![one; 784]), false);
            for sample in random_samples(784, -1.0, 1.0).chunks(784).take(8) {
                let reached = evaluator.demands(&encoded(sample, program.fraction_bits), true);
                for (step, (p, r)) in proved.iter().zip(reached).enumerate() {
                    let (Some(p), Some(r)) = (p, r) else { continue };
                    assert!(p.low <= r.low && r.high <= p.high, "{name}, step {step}: {r:?} in {p:?}");
                    assert!(p.holds(1.0), "{name}, step {step}: {p:?}");
                }
            }
        }
    }
}
