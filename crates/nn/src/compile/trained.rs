//! A network compiled before it is trained: the program that will serve it, and how that program's weights come of the
//! tensors that training leaves.
//!
//! The passes fold batch normalisations into linear layers, and the rounding of an average pool goes into the weights
//! behind it. What they do to numbers is put on a tape here, which runs on shares as well as in the clear. The program is
//! the same whatever the tensors hold. Tensors that training leaves as they are count as known, and so does all that comes
//! of them alone.

use std::collections::{HashMap, HashSet};

use super::{CompileError, CompileOptions, Compiled, compile_saying, layers};
use crate::graph::{Array, Graph, Layer};
use crate::layers::apply::settled;
use crate::layers::initial;
use crate::layers::tensors::tensors;
use crate::pass::Fold;
use crate::tape::{Function, Op, Role, Tape, TapeError, ValueId};

/// A network that is compiled, whose weights are to come.
#[derive(Clone)]
pub struct Trained {
    /// The program. The weights beside it mean nothing.
    pub compiled: Compiled,
    /// Its weights, as outputs in the order of the program's. The states are tensors of the graph, by their names, and
    /// what was computed of those that do not change.
    pub weights: Tape,
    /// What these states hold before training.
    pub values: Vec<Vec<f64>>,
}

/// Compiles `graph` for whatever its tensors will hold. `changes` tells by a tensor's name (`layer/tensor`) whether training
/// changes it.
pub fn compile_trained(
    graph: &Graph,
    options: &CompileOptions,
    changes: impl Fn(&str) -> bool,
) -> Result<Trained, CompileError> {
    let mut folds = Vec::new();
    let (compiled, factors) = compile_saying(&unlike_zero(graph), options, &mut folds)?;
    let mut tape = Tape::new(1)?;
    let known = declared(&mut tape, graph, &changes)?;
    let tape = weights(tape, known, &compiled, &factors, &folds)?;
    let (weights, values) = tape.folded_where(&initial(graph), |slot| !changes(&tape.states[slot].name))?;
    Ok(Trained { compiled, weights, values })
}

/// The graph with every shift different from zero: where it is zero, a pass may do what is wrong for others.
fn unlike_zero(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let fill = |array: &mut Array, v: f32| array.data.fill(v);
    for node in &mut graph.nodes {
        match &mut node.layer {
            Layer::BatchNorm(n) => {
                [&mut n.gamma, &mut n.beta, &mut n.variance].into_iter().for_each(|a| fill(a, 1.0));
                fill(&mut n.mean, 0.0);
            }
            Layer::ChannelAffine { scale, shift } => [scale, shift].into_iter().for_each(|a| fill(a, 1.0)),
            _ => {}
        }
    }
    graph
}

/// The tensors of a layer, as far as they have been folded.
#[derive(Debug, Clone, Copy)]
enum Folded {
    Linear { kernel: ValueId, bias: Option<ValueId>, groups: usize },
    Affine { scale: ValueId, shift: ValueId },
}

/// The tensors of every layer that has some, as states; those of batch normalisations as the affine that they are. The
/// inverse square roots of all that change are one operation: they share its rounds.
fn declared<'a>(
    tape: &mut Tape,
    graph: &'a Graph,
    changes: &impl Fn(&str) -> bool,
) -> Result<HashMap<&'a str, Folded>, CompileError> {
    let (mut known, mut names) = (HashMap::new(), HashSet::new());
    let mut norms: Vec<(&str, Vec<ValueId>, ValueId)> = Vec::new();
    for node in graph.nodes.iter().filter(|n| !tensors(&n.layer).is_empty()) {
        if !names.insert(node.name.as_str()) {
            let reason = "is called twice with the same weights, or two layers have this name";
            return Err(layers::fault(&node.name, reason.into()));
        }
        tape.enter(&node.name);
        let mut values = Vec::new();
        for (what, _, array) in tensors(&node.layer) {
            let slot = tape.declare(format!("{}/{what}", node.name), array.shape.clone(), Role::Fixed);
            values.push(tape.push(Op::State { slot })?);
        }
        let folded = match &node.layer {
            Layer::Dense { .. } => Folded::Linear { kernel: values[0], bias: values.get(1).copied(), groups: 1 },
            Layer::Conv2d { geometry, .. } => {
                Folded::Linear { kernel: values[0], bias: values.get(1).copied(), groups: geometry.groups }
            }
            Layer::ChannelAffine { .. } => Folded::Affine { scale: values[0], shift: values[1] },
            Layer::BatchNorm(norm) => {
                let variance = tape.offset(values[3], f64::from(norm.epsilon))?;
                if changes(&format!("{}/variance", node.name)) {
                    norms.push((&node.name, values, variance));
                    continue;
                }
                let inverse = tape.function(variance, Function::InverseSqrt)?;
                affine(tape, &values, inverse)?
            }
            _ => continue,
        };
        known.insert(node.name.as_str(), folded);
    }
    if norms.is_empty() {
        return Ok(known);
    }
    tape.enter("batch_norm");
    let all = tape.push(Op::Concat { xs: norms.iter().map(|(.., v)| *v).collect(), axis: 0 })?;
    let all = tape.function(all, Function::InverseSqrt)?;
    let mut start = 0;
    for (name, values, variance) in norms {
        tape.enter(name);
        let channels = tape.values[variance].elements();
        let inverse = tape.slice(all, 0, start, channels)?;
        known.insert(name, affine(tape, &values, inverse)?);
        start += channels;
    }
    Ok(known)
}

/// A batch normalisation of these tensors, by its moving averages.
fn affine(tape: &mut Tape, tensors: &[ValueId], inverse: ValueId) -> Result<Folded, TapeError> {
    let (scale, shift) = settled(tape, tensors, inverse)?;
    Ok(Folded::Affine { scale, shift })
}

/// Does what the passes did, and gives the tape whose outputs are the weights.
fn weights(
    mut tape: Tape,
    mut known: HashMap<&str, Folded>,
    compiled: &Compiled,
    factors: &[f64],
    folds: &[Fold],
) -> Result<Tape, CompileError> {
    let missing = |name: &str| layers::fault(name, "is folded, but has no tensors".into());
    for Fold { affine, into, behind } in folds {
        let Some(&Folded::Affine { scale, shift }) = known.get(affine.as_str()) else { return Err(missing(affine)) };
        let target = known.get_mut(into.as_str()).ok_or_else(|| missing(into))?;
        tape.enter(into);
        *target = match (*target, behind) {
            (Folded::Linear { kernel, bias, groups }, true) => {
                absorb(&mut tape, (scale, shift), (kernel, bias, groups))?
            }
            (Folded::Linear { kernel, bias, groups }, false) => {
                let kernel = tape.mul(kernel, scale)?;
                let bias = bias.map_or(Ok(shift), |b| after(&mut tape, b, (scale, shift)))?;
                Folded::Linear { kernel, bias: Some(bias), groups }
            }
            (Folded::Affine { scale: first, shift: offset }, _) => {
                let product = tape.mul(first, scale)?;
                Folded::Affine { scale: product, shift: after(&mut tape, offset, (scale, shift))? }
            }
        };
    }
    for (spec, factor) in compiled.program.weights.iter().zip(factors) {
        let found = spec.name.rsplit_once('/').and_then(|(layer, what)| match (*known.get(layer)?, what) {
            (Folded::Linear { kernel, .. }, "kernel") => Some(kernel),
            (Folded::Linear { bias, .. }, "bias") => bias,
            (Folded::Affine { scale, .. }, "kernel") => Some(scale),
            (Folded::Affine { shift, .. }, "bias") => Some(shift),
            _ => None,
        });
        let x = found.ok_or_else(|| missing(&spec.name))?;
        tape.enter(spec.name.rsplit_once('/').map_or("", |(layer, _)| layer));
        let x = tape.scale(x, *factor)?;
        let x = tape.reshape(x, &spec.shape)?;
        tape.outputs.push(x);
    }
    Ok(tape.swept())
}

/// s b + t.
fn after(tape: &mut Tape, b: ValueId, (scale, shift): (ValueId, ValueId)) -> Result<ValueId, TapeError> {
    let b = tape.mul(b, scale)?;
    tape.add(b, shift)
}

/// (s x + t) W + b = x (s W) + (b + t W).
fn absorb(
    tape: &mut Tape,
    (scale, shift): (ValueId, ValueId),
    (kernel, bias, groups): (ValueId, Option<ValueId>, usize),
) -> Result<Folded, TapeError> {
    let (shape, channels) = (tape.values[kernel].shape.clone(), tape.values[scale].elements());
    let outputs = shape.last().copied().unwrap_or(1).max(1);
    let each = channels / groups.max(1);
    let rows = shape.iter().product::<usize>() / (each * outputs).max(1);
    let by_rows = tape.reshape(kernel, &[rows, each, outputs])?;
    let factors = by_input(tape, scale, (each, groups, outputs))?;
    let scaled = tape.mul(by_rows, factors)?;
    let scaled = tape.reshape(scaled, &shape)?;
    let summands = by_input(tape, shift, (each, groups, outputs))?;
    let sum = tape.mul(by_rows, summands)?;
    let sum = tape.sum(sum, 1, false)?;
    let bias = bias.map_or(Ok(sum), |b| tape.add(b, sum))?;
    Ok(Folded::Linear { kernel: scaled, bias: Some(bias), groups })
}

/// Numbers of input channels, `each` for each group, beside every output that reads them: `[each, outputs]`.
fn by_input(tape: &mut Tape, x: ValueId, (each, groups, outputs): (usize, usize, usize)) -> Result<ValueId, TapeError> {
    if each == 1 && groups == outputs {
        return tape.reshape(x, &[1, outputs]);
    }
    let mut columns = Vec::with_capacity(outputs);
    for group in 0..groups {
        let own = if groups == 1 { x } else { tape.slice(x, 0, group * each, each)? };
        let own = tape.reshape(own, &[each, 1])?;
        columns.extend(vec![own; outputs / groups]);
    }
    tape.push(Op::Concat { xs: columns, axis: 1 })
}
