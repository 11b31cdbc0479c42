//! The trained model under a name: of which states its weights are made, how, and who may ask it.
//!
//! Weights that predictions take as training keeps them are truncated with the metrics. Where predictions fold a batch
//! normalisation or the factor of an average pool into weights, a last program computes all of them, once.

use trefoil_link::Network;
use trefoil_mpc::plan::choose;
use trefoil_mpc::program::{Op, Program, Step, ValueId, WeightSpec};
use trefoil_nn::compile::{CompileOptions, Trained, compile_trained};
use trefoil_nn::lower::{MEMORY_BITS, encode, folding};
use trefoil_nn::tape::{self, Role, Tape};
use trefoil_nn::train::TrainError;
use trefoil_proto::dataset::Declaration;
use trefoil_proto::run::Publication;
use trefoil_ring::Tensor;

use super::served::{grant, input, served};
use super::{Training, TrainingError};
use crate::manifest;

/// What a run publishes.
pub(super) struct Published {
    pub(super) publication: Publication,
    /// States that nothing changes, and their values: what comes of frozen tensors alone.
    pub(super) known: Vec<(usize, Tensor)>,
}

/// Adds to the states of `step` those of the published model, and to `check` what truncates weights.
pub(super) fn publication(
    d: &Training,
    name: &str,
    declaration: &Declaration,
    (owner, network): (&str, &Network),
    step: &mut Program,
    check: &mut Program,
) -> Result<Published, TrainingError> {
    let graph = served(d.spec.loss, &d.reveal, &d.graph)?;
    let stored = |slot: usize| step.steps.iter().any(|s| matches!(s.op, Op::Store { slot: i, .. } if i == slot));
    let changes = |name: &str| position(step, name).is_some_and(stored);
    let trained = compile_trained(&graph, &CompileOptions::default(), changes)?;
    let Trained { mut compiled, weights: mut tape, values } = trained;
    compiled.program = choose(&compiled.program, 1, network, false)?;
    let outputs = std::mem::take(&mut tape.outputs);
    let as_it_is = |tape: &Tape, x: ValueId| match tape.values[x].op {
        tape::Op::State { slot } => Some(slot),
        _ => None,
    };
    let computed = outputs.iter().any(|x| as_it_is(&tape, *x).is_none());

    let mut known = Vec::new();
    let mut keep = |step: &mut Program, spec: WeightSpec, values: &[f64]| -> Result<usize, TrainingError> {
        let words = encode(&spec.name, values, spec.scale)?.to_vec();
        known.push((step.states.len(), Tensor::new(spec.shape.clone(), words)?));
        step.states.push(spec);
        Ok(step.states.len() - 1)
    };
    let specs = &compiled.program.weights;
    // The state of the run that each of the tape's is.
    let mut slots = Vec::with_capacity(tape.states.len());
    for (i, (s, values)) in tape.states.iter().zip(&values).enumerate() {
        let served = outputs.iter().position(|x| as_it_is(&tape, *x) == Some(i));
        let spec = served.map(|at| WeightSpec { name: published(&specs[at]), ..specs[at].clone() });
        let operand = || WeightSpec { name: s.name.clone(), shape: s.shape.clone(), scale: MEMORY_BITS };
        slots.push(match position(step, &s.name) {
            Some(slot) => slot,
            None => keep(step, spec.unwrap_or_else(operand), values)?,
        });
    }
    let mut weights = Vec::with_capacity(specs.len());
    for (x, spec) in outputs.into_iter().zip(specs) {
        let slot = as_it_is(&tape, x).map(|i| slots[i]);
        // What training leaves as it is may be kept at the scale of prediction already.
        if let Some(slot) = slot.filter(|s| step.states[*s].scale <= spec.scale) {
            weights.push(slot as u32);
            continue;
        }
        let copy = step.states.len();
        if let Some(slot) = slot.filter(|_| !computed) {
            let x = truncated(check, slot, (step.states[slot].scale, spec.scale));
            check.steps.push(Step { layer: "publish".into(), op: Op::Store { slot: copy, x } });
        } else {
            tape.enter("publish");
            let slot = tape.declare(published(spec), spec.shape.clone(), Role::Fixed);
            tape.push(tape::Op::Store { slot, x }).map_err(TrainError::from)?;
            slots.push(copy);
        }
        step.states.push(WeightSpec { name: published(spec), ..spec.clone() });
        weights.push(copy as u32);
    }
    let finish = match computed {
        true => Some(choose(&folding(&tape.swept(), step, &slots)?, 1, network, false)?),
        false => None,
    };
    let grants = vec![grant(owner, &d.reveal, &graph)];
    for what in &grants[0].reveals {
        compiled.ending_in(*what)?;
    }
    let manifest = manifest(name, &compiled, input(&graph, declaration)?, grants)?;
    Ok(Published { publication: Publication { manifest, weights, finish }, known })
}

fn published(spec: &WeightSpec) -> String {
    format!("published/{}", spec.name)
}

fn position(program: &Program, name: &str) -> Option<usize> {
    program.states.iter().position(|s| s.name == name)
}

/// The value of state `slot` with `scale` fraction bits of `from`, additive: where the program has it, or truncated anew.
fn truncated(program: &mut Program, slot: usize, (from, scale): (u32, u32)) -> ValueId {
    let shift = from - scale;
    let find = |program: &Program, wanted: &dyn Fn(&Op) -> bool| program.steps.iter().position(|s| wanted(&s.op));
    let push = |program: &mut Program, op| {
        program.steps.push(Step { layer: "publish".into(), op });
        program.steps.len() - 1
    };
    let state = find(program, &|op| matches!(op, Op::State { slot: s } if *s == slot));
    let state = state.unwrap_or_else(|| push(program, Op::State { slot }));
    let open = find(program, &|op| matches!(op, Op::Open { x } if *x == state));
    let open = open.unwrap_or_else(|| push(program, Op::Open { x: state }));
    let cut = find(program, &|op| matches!(op, Op::Truncate { x, shift: s } if *x == open && *s == shift));
    cut.unwrap_or_else(|| push(program, Op::Truncate { x: open, shift }))
}
