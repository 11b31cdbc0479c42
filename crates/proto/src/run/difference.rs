//! What distinguishes two runs, in words: for owners who compare the run at the servers with the one they were told of.

use std::fmt::Debug;

use trefoil_mpc::program::{Program, Step, WeightSpec};
use trefoil_nn::lower::RATE_BITS;

use super::{Check, Disclosure, Extraction, Publication, RunSpec};

/// Characters of a value that is shown.
const SHOWN: usize = 80;

fn values<T: Debug + PartialEq>(what: impl Into<String>, here: T, there: T) -> Option<String> {
    let short = |v: T| {
        let text = format!("{v:?}");
        if text.chars().count() > SHOWN { text.chars().take(SHOWN).chain("...".chars()).collect() } else { text }
    };
    (here != there).then(|| format!("{}: {} here, {} there", what.into(), short(here), short(there)))
}

/// The same of what is too long to be shown.
fn lists<T: PartialEq>(what: &str, here: &[T], there: &[T]) -> Option<String> {
    let at = here.iter().zip(there).position(|(a, b)| a != b);
    let number = || values(format!("{what}, their number"), here.len(), there.len());
    at.map(|i| format!("{what}: number {i} is another")).or_else(number)
}

/// Whether something is there, and otherwise how it differs.
fn options<T>(
    what: &str,
    here: Option<&T>,
    there: Option<&T>,
    differ: impl FnOnce(&T, &T) -> Option<String>,
) -> Option<String> {
    match (here, there) {
        (Some(a), Some(b)) => differ(a, b),
        (a, b) => values(format!("whether there is {what}"), a.is_some(), b.is_some()),
    }
}

fn tensors(what: &str, here: &[WeightSpec], there: &[WeightSpec]) -> Option<String> {
    let one = |(i, (a, b)): (usize, (&WeightSpec, &WeightSpec))| {
        values(format!("{what} {i}"), (&a.name, &a.shape, a.scale), (&b.name, &b.shape, b.scale))
    };
    let number = || values(format!("{what}s, their number"), here.len(), there.len());
    here.iter().zip(there).enumerate().find_map(one).or_else(number)
}

fn programs(which: &str, here: &Program, there: &Program) -> Option<String> {
    let Program { fraction_bits, input_shape, weights, states, rates, steps } = here;
    let step = || {
        let at = steps.iter().zip(&there.steps).position(|(a, b)| a != b);
        at.map(|i| {
            let (a, b) = (&steps[i], &there.steps[i]);
            let of = |s: &Step| format!("{} of layer {}", s.op.name(), s.layer);
            if let (Some(here), Some(there)) = (a.op.compare(), b.op.compare())
                && a.op.comparing(there) == b.op
            {
                let at = format!("program of {which}, step {i} ({})", of(a));
                return format!("{at}: compares by {here} here, by {there} there");
            }
            match values(format!("program of {which}, step {i}"), of(a), of(b)) {
                Some(differ) => differ,
                None => format!("program of {which}, step {i} ({}): differs in its details", of(a)),
            }
        })
    };
    values(format!("fraction bits of {which}"), *fraction_bits, there.fraction_bits)
        .or_else(|| values(format!("row of {which}"), input_shape, &there.input_shape))
        .or_else(|| tensors("state", states, &there.states))
        .or_else(|| tensors("weight", weights, &there.weights))
        .or_else(|| values(format!("public numbers of {which}"), *rates, there.rates))
        .or_else(step)
        .or_else(|| values(format!("steps of the program of {which}"), steps.len(), there.steps.len()))
}

/// What the public numbers of a step are, in their order.
const NUMBERS: [&str; 2] = ["learning rate", "weight decay"];

/// Public numbers, in words and as numbers.
fn rates(here: &RunSpec, there: &RunSpec) -> Option<String> {
    let given = |s: &RunSpec| match s.rates.len() {
        0 => "none".to_owned(),
        1 => "one for all steps".to_owned(),
        n if n == s.epochs as usize => "one for each epoch".to_owned(),
        n => format!("{n}, for each step one"),
    };
    let (a, b) = (given(here), given(there));
    if a != b {
        return Some(format!("learning rates: {a} here, {b} there"));
    }
    let (list, (a, b)) = here.rates.iter().zip(&there.rates).enumerate().find(|(_, (a, b))| a != b)?;
    let of = match here.rates.len() {
        1 => "every step".to_owned(),
        n if n == here.epochs as usize => format!("epoch {}", list + 1),
        _ => format!("step {}", list + 1),
    };
    let Some((i, (a, b))) = a.iter().zip(b).enumerate().find(|(_, (a, b))| a != b) else {
        return values(format!("public numbers of {of}, how many"), a.len(), b.len());
    };
    let what = NUMBERS.get(i).map_or_else(|| format!("public number {i}"), |n| (*n).to_owned());
    let number = |n: i64| n as f64 / f64::from(RATE_BITS).exp2();
    Some(format!("{what} of {of}, as the step uses it: {:.7} here, {:.7} there", number(*a), number(*b)))
}

fn reveals(here: &[Disclosure], there: &[Disclosure]) -> Option<String> {
    let one = |(i, (a, b)): (usize, (&Disclosure, &Disclosure))| {
        let Disclosure { program, recipient, purpose, when } = a;
        values(format!("recipient of reveal {i}"), recipient, &b.recipient)
            .or_else(|| values(format!("time of reveal {i}"), *when, b.when))
            .or_else(|| values(format!("purpose of reveal {i}"), purpose, &b.purpose))
            .or_else(|| programs(&format!("reveal {i}"), program, &b.program))
    };
    values("values revealed", here.len(), there.len()).or_else(|| here.iter().zip(there).enumerate().find_map(one))
}

fn publications(here: &Publication, there: &Publication) -> Option<String> {
    let Publication { manifest, weights, finish } = here;
    values("name of the published model", &manifest.name, &there.manifest.name)
        .or_else(|| values("who may ask the published model", &manifest.grants, &there.manifest.grants))
        .or_else(|| programs("the published model", &manifest.program, &there.manifest.program))
        .or_else(|| lists("states of the published model's weights", weights, &there.weights))
        .or_else(|| {
            options("a last program before publication", finish.as_ref(), there.finish.as_ref(), |a, b| {
                programs("the published model's weights", a, b)
            })
        })
        .or_else(|| (*manifest != there.manifest).then(|| "published model: another input, window or answer".into()))
}

impl RunSpec {
    /// The first field in which `there` differs from this run, with both values. None if they are the same.
    pub fn difference(&self, there: &RunSpec) -> Option<String> {
        let check_of = |a: &Check, b: &Check| {
            values("validation rows", a.rows, b.rows)
                .or_else(|| values("rows of a validation batch", a.batch, b.batch))
                .or_else(|| programs("the check", &a.program, &b.program))
        };
        let extraction_of = |a: &Extraction, b: &Extraction| {
            values("rows of a batch of the extraction", a.batch, b.batch)
                .or_else(|| lists("states of the extraction's weights", &a.weights, &b.weights))
                .or_else(|| programs("the extraction", &a.program, &b.program))
        };
        values("name", &self.name, &there.name)
            .or_else(|| values("owner", &self.owner, &there.owner))
            .or_else(|| values("coordinator", &self.coordinator, &there.coordinator))
            .or_else(|| values("number of the data set", self.set, there.set))
            .or_else(|| values("declaration of the data set", self.declaration, there.declaration))
            .or_else(|| values("epochs", self.epochs, there.epochs))
            .or_else(|| values("rows of a batch", self.batch, there.batch))
            .or_else(|| values("training rows", self.training, there.training))
            .or_else(|| values("whether rows are shuffled", self.shuffle, there.shuffle))
            .or_else(|| values("order of rows", &self.order, &there.order))
            .or_else(|| values("steps between checkpoints", self.checkpoint, there.checkpoint))
            .or_else(|| reveals(&self.reveals, &there.reveals))
            .or_else(|| options("a published model", self.publish.as_ref(), there.publish.as_ref(), publications))
            .or_else(|| options("an extraction", self.extraction.as_ref(), there.extraction.as_ref(), extraction_of))
            .or_else(|| programs("a step", &self.step, &there.step))
            .or_else(|| rates(self, there))
            .or_else(|| values("metrics", &self.metrics, &there.metrics))
            .or_else(|| options("a check", self.check.as_ref(), there.check.as_ref(), check_of))
            .or_else(|| (self.hash() != there.hash()).then(|| "something that has no name here".into()))
    }
}
