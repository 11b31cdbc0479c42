//! From a description of training to what the servers run: programs, first states, public numbers, and every reveal.

use std::collections::BTreeSet;

use trefoil_link::Network;
use trefoil_mpc::plan::choose;
use trefoil_mpc::program::{Op, Program, Step, WeightSpec};
use trefoil_nn::graph::Graph;
use trefoil_nn::lower::{FRACTION_BITS, encode, encode_rates, lower};
use trefoil_nn::train::Tapes;
use trefoil_nn::train::clear::first_states;
use trefoil_nn::train::order::batches;
use trefoil_proto::control::Manifest;
use trefoil_proto::dataset::Declaration;
use trefoil_proto::run::{Check, Disclosure, MAX_EPOCHS, Order, RowRange, RunSpec, When};
use trefoil_ring::Tensor;

use super::features::extracting;
use super::publication::publication;
use super::served::told;
use super::{Training, TrainingError, shown, size};

/// Fraction bits of revealed weights: those of predictions.
const REVEALED_BITS: u32 = FRACTION_BITS;

/// A run that the servers can be given.
pub struct PlannedRun {
    /// Its specification.
    pub spec: RunSpec,
    /// The first values of its states.
    pub initial: Vec<Tensor>,
}

/// The slots of the sums that are revealed.
struct Sums {
    /// Loss and right answers over the rows trained on.
    trained: Vec<usize>,
    /// The same over the validation rows.
    validated: Vec<usize>,
}

/// Plans the run of `owner` on data set number `set`.
pub(super) fn plan(
    d: &Training,
    (set, declaration): (u64, &Declaration),
    owner: &str,
    network: &Network,
) -> Result<PlannedRun, TrainingError> {
    if d.patience.is_some() && !(d.reveal.metrics && d.spec.validation > 0.0) {
        return Err(TrainingError::Patience);
    }
    if !(1..=MAX_EPOCHS as usize).contains(&d.spec.epochs) {
        return Err(TrainingError::Epochs { epochs: d.spec.epochs, most: MAX_EPOCHS });
    }
    let cut = d.cut()?;
    let (graph, method) = cut.as_ref().map_or((&d.graph, &d.spec), |c| (&c.rest, &c.spec));
    let tapes = Tapes::new(graph, method)?;
    let due = cut.as_ref().map_or(Ok(tapes.record()), |c| c.tape().map(|t| t.record()))?;
    let (width, rows) = (declaration.width(), declaration.rows as usize);
    if width != due {
        return Err(TrainingError::Width { got: width, expected: due });
    }
    let trained = d.spec.trained(rows);
    let kept = rows - trained;
    let batch = d.spec.batch;
    if trained < batch {
        return Err(TrainingError::Batch { batch, rows: trained });
    }
    size::order(d, trained)?;
    let mut step = lower(&tapes.step)?;
    let (extraction, features) = match &cut {
        Some(c) => extracting(c, &mut step, batch, network).map(|(e, first)| (Some(e), first))?,
        None => (None, Vec::new()),
    };
    let sums: Vec<usize> = std::iter::once(tapes.metrics.loss).chain(tapes.metrics.right).collect();
    let first = step.states.len();
    for slot in &sums {
        let WeightSpec { name, shape, scale } = step.states[*slot].clone();
        step.states.push(WeightSpec { name: format!("validation-{name}"), shape, scale });
    }
    let sums = Sums { validated: (first..first + sums.len()).collect(), trained: sums };
    let (check_rows, check_batch) = match kept {
        0 => (RowRange { first: 0, end: batch as u32 }, batch),
        _ => (RowRange { first: trained as u32, end: rows as u32 }, even(kept, batch)),
    };
    let mut check = validation(&tapes, &sums)?;
    let published = match &d.reveal.publish {
        Some(name) => Some(publication(d, name, declaration, (owner, network), &mut step, &mut check)?),
        None => None,
    };
    let (publish, known) = published.map(|p| (p.publication, p.known)).unzip();
    step = choose(&step, batch, network, false)?;
    check.states.clone_from(&step.states);
    check = choose(&check, check_batch, network, false)?;
    let stored = |slot: usize| check.steps.iter().any(|s| matches!(s.op, Op::Store { slot: i, .. } if i == slot));
    let checked: Vec<usize> = (first..step.states.len()).filter(|i| stored(*i)).collect();
    let needed = kept > 0 || checked.len() > sums.validated.len();
    let initial = first_values(graph, &tapes, features, known.unwrap_or_default(), &step.states)?;
    let metrics = sums.trained.iter().chain(&checked).map(|i| *i as u32).collect();
    let spec = RunSpec {
        name: d.name.clone(),
        owner: owner.into(),
        coordinator: owner.into(),
        set,
        declaration: declaration.hash(),
        rates: rates(d, &tapes, trained / batch)?,
        training: RowRange { first: 0, end: trained as u32 },
        epochs: d.spec.epochs as u32,
        batch: batch as u32,
        order: order(d, trained),
        shuffle: d.shuffle,
        metrics,
        extraction,
        check: needed.then_some(Check { program: check, rows: check_rows, batch: check_batch as u32 }),
        reveals: reveals(d, owner, &step, &parameters(graph, &step), &sums, kept > 0),
        publish,
        checkpoint: d.checkpoint,
        step,
    };
    spec.check(declaration)?;
    Ok(PlannedRun { spec, initial })
}

/// The largest batch up to `batch` that leaves few of `rows` over.
fn even(rows: usize, batch: usize) -> usize {
    rows / rows.div_ceil(batch)
}

/// The metrics of the evaluation tape, into sums of their own.
fn validation(tapes: &Tapes, sums: &Sums) -> Result<Program, TrainingError> {
    let mut program = lower(&tapes.eval)?;
    let own = |slot: usize| sums.trained.iter().position(|s| *s == slot).map(|i| sums.validated[i]);
    for step in &mut program.steps {
        if let Op::State { slot } | Op::Store { slot, .. } = &mut step.op {
            *slot = own(*slot).unwrap_or(*slot);
        }
    }
    Ok(program)
}

/// What the states are at first: those of the step, then those of the extraction; then `later`; all others are zero.
fn first_values(
    graph: &Graph,
    tapes: &Tapes,
    features: Vec<Tensor>,
    later: Vec<(usize, Tensor)>,
    states: &[WeightSpec],
) -> Result<Vec<Tensor>, TrainingError> {
    let known = first_states::<f64>(graph, &tapes.step);
    let mut all = Vec::with_capacity(states.len());
    for (s, values) in states.iter().zip(&known) {
        all.push(Tensor::new(s.shape.clone(), encode(&s.name, values, s.scale)?.to_vec())?);
    }
    all.extend(features);
    for s in &states[all.len()..] {
        all.push(Tensor::new(s.shape.clone(), vec![0; s.shape.iter().product()])?);
    }
    for (slot, values) in later {
        all[slot] = values;
    }
    Ok(all)
}

/// The public numbers: one list where all steps or all steps of an epoch have the same ones.
fn rates(d: &Training, tapes: &Tapes, steps: usize) -> Result<Vec<Vec<i64>>, TrainingError> {
    let (epochs, steps) = (d.spec.epochs as u64, steps as u64);
    let at = |i: u64| encode_rates(&tapes.rates(i, steps)).map_err(TrainingError::Rate);
    let mut by_epoch = Vec::new();
    for first in (0..epochs).map(|e| e * steps) {
        let rates = at(first)?;
        for i in first + 1..first + steps {
            if at(i)? != rates {
                size::rates(epochs * steps, tapes.step.rates)?;
                return (0..epochs * steps).map(at).collect();
            }
        }
        by_epoch.push(rates);
    }
    if by_epoch.iter().all(|r| *r == by_epoch[0]) {
        by_epoch.truncate(1);
    }
    Ok(by_epoch)
}

fn order(d: &Training, trained: usize) -> Order {
    if d.drawn {
        return Order::Drawn;
    }
    let epoch = |e| batches(d.spec.seed, e, trained, d.spec.batch).into_iter().flatten().map(|r| r as u32);
    Order::Fixed((0..d.spec.epochs).flat_map(epoch).collect())
}

/// A program that reveals states as they are, joined if there are several.
fn reveal(step: &Program, slots: &[usize], bits: u32) -> Program {
    let mut steps = vec![Op::Rows];
    steps.extend(slots.iter().map(|slot| Op::State { slot: *slot }));
    if slots.len() > 1 {
        steps.push(Op::Concat { xs: (1..=slots.len()).collect(), axis: 0 });
    }
    let scale = slots.first().map_or(0, |s| step.states[*s].scale);
    steps.push(Op::Reveal { x: steps.len() - 1, shift: scale.saturating_sub(bits) });
    let steps = steps.into_iter().map(|op| Step { layer: "reveal".into(), op }).collect();
    Program { weights: Vec::new(), rates: 0, steps, ..step.clone() }
}

fn reveals(
    d: &Training,
    owner: &str,
    step: &Program,
    trained: &[(usize, &WeightSpec)],
    sums: &Sums,
    validated: bool,
) -> Vec<Disclosure> {
    let mut all = Vec::new();
    if d.reveal.metrics {
        let mut slots = sums.trained.clone();
        let what =
            if sums.trained.len() > 1 { "sum of the loss and number of right answers" } else { "sum of the loss" };
        let mut purpose = format!("{what} over the epoch's training rows");
        if validated {
            slots.extend(&sums.validated);
            purpose.push_str(" and over the validation rows");
        }
        purpose.push_str(", to follow the training");
        let program = reveal(step, &slots, u32::MAX);
        all.push(Disclosure { program, recipient: owner.into(), purpose, when: When::EachEpoch });
    }
    if let Some(recipient) = &d.reveal.weights {
        let recipient = if recipient == "owner" { owner } else { recipient };
        for (slot, s) in trained {
            let program = reveal(step, &[*slot], REVEALED_BITS);
            let n: usize = s.shape.iter().product();
            let purpose = format!("trained weights {} ({}), to use the model", s.name, numbers(n));
            all.push(Disclosure { program, recipient: recipient.into(), purpose, when: When::AtEnd });
        }
    }
    all
}

/// The network's tensors that training changes, in order.
fn parameters<'a>(graph: &Graph, step: &'a Program) -> Vec<(usize, &'a WeightSpec)> {
    let stored = |slot: usize| step.steps.iter().any(|s| matches!(s.op, Op::Store { slot: i, .. } if i == slot));
    let tensors = trefoil_nn::layers::initial::<f32>(graph).len();
    step.states.iter().enumerate().take(tensors).filter(|(i, _)| stored(*i)).collect()
}

fn numbers(n: usize) -> String {
    if n == 1 { "1 number".into() } else { format!("{n} numbers") }
}

/// What a revealed value is by its program, whatever its author says of it: how many numbers, of which states.
fn computed(program: &Program) -> String {
    let count = program.infer().ok().and_then(|infos| infos.last().map(|v| v.elements())).unwrap_or(0);
    let read = program.steps.iter().filter_map(|s| match s.op {
        Op::State { slot } => program.states.get(slot).map(|s| s.name.as_str()),
        _ => None,
    });
    let read: BTreeSet<&str> = read.collect();
    format!("{} of {}", numbers(count), read.into_iter().collect::<Vec<_>>().join(", "))
}

/// Everything that a run reveals, in words.
pub fn words(spec: &RunSpec) -> Vec<String> {
    let when = |w| if w == When::AtEnd { "at the end" } else { "after each epoch" };
    let reveal =
        |d: &Disclosure| format!("to {}, {}: {} [{}]", d.recipient, when(d.when), d.purpose, computed(&d.program));
    let mut all = shown::reveals(spec);
    all.extend(spec.reveals.iter().map(reveal));
    if let Some(p) = &spec.publish {
        let Manifest { name, post, grants, .. } = &p.manifest;
        all.extend(grants.iter().filter(|g| !g.reveals.is_empty()).map(|g| {
            let what = told(*post, &g.reveals);
            format!("to {}, on request: {what} the trained model, served as {name}", g.client)
        }));
    }
    all
}

/// What the servers learn of a run, in words.
pub fn learnt(spec: &RunSpec) -> Vec<String> {
    let learn = "The servers learn the network's shape, the number of rows and columns";
    let order = match spec.shuffled() {
        None => format!("{learn}, the schedule and the order of rows."),
        Some((words, _)) => format!(
            "{learn} and the schedule.\nTraining rows are shuffled on shares first ({:.3} MB between the servers, once): no server knows \
             whose a row is.",
            32e-6 * words.len() as f64
        ),
    };
    let leaks = shown::learnt(spec);
    let rest = if leaks.is_empty() {
        "Rows, labels, gradients and likelihoods stay shared, and weights and losses unless listed."
    } else {
        "Rows, labels and gradients stay shared, and weights and losses unless listed."
    };
    std::iter::once(order).chain(leaks).chain([rest.into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revealed_is_told_from_its_program() {
        let ops = [Op::Rows, Op::State { slot: 0 }, Op::Reveal { x: 1, shift: 0 }];
        let steps = ops.into_iter().map(|op| Step { layer: "l".into(), op }).collect();
        let states = vec![WeightSpec { name: "copied/rows".into(), shape: vec![28, 28], scale: 16 }];
        let program = Program { fraction_bits: 16, input_shape: vec![1], weights: vec![], states, rates: 0, steps };
        assert_eq!(computed(&program), "784 numbers of copied/rows");
    }

    #[test]
    fn validation_batches_leave_few_rows_over() {
        assert_eq!((even(1000, 128), even(71, 64), even(10, 128)), (125, 35, 10));
        for (rows, batch) in [(1, 1), (999, 100), (6000, 128)] {
            let even = even(rows, batch);
            assert!(even <= batch && rows % even <= rows.div_ceil(batch));
        }
    }
}
