//! The largest absolute values of a tape, measured on clear training: a warning where a value comes near the bounds
//! that lowering assumes.

use crate::tape::{Op, Role, Tape, ValueId};

/// Bits of an absolute value that is compared, or otherwise held at twice the fraction bits.
const COMPARED: f64 = 15.0;
/// Bits of a metric: a sum over an epoch that nothing multiplies.
const METRICS: f64 = 40.0;
/// Bits of everything else.
const OTHERS: f64 = 12.0;

/// The largest absolute value that each value of a tape has had so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges {
    largest: Vec<f64>,
}

/// A value that came within a factor of two of what it may be, or beyond.
#[derive(Debug, Clone, PartialEq)]
pub struct Warning {
    /// Which value.
    pub value: ValueId,
    /// Its layer.
    pub layer: String,
    /// The largest absolute value seen.
    pub seen: f64,
    /// What lowering assumes.
    pub assumed: f64,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Warning { value, layer, seen, assumed } = self;
        write!(f, "layer {layer}: value {value} reached {seen:.4}, and must stay below {assumed}")
    }
}

impl Ranges {
    /// Nothing seen yet.
    pub fn new(tape: &Tape) -> Self {
        Self { largest: vec![0.0; tape.values.len()] }
    }

    /// Takes in one value of a run: to be called by [`run_watched`](crate::tape::float::run_watched).
    pub fn see(&mut self, id: ValueId, values: impl IntoIterator<Item = f64>) {
        if let Some(largest) = self.largest.get_mut(id) {
            let seen = values.into_iter().map(f64::abs);
            *largest = seen.fold(*largest, |a, b| if b > a || b.is_nan() { b } else { a });
        }
    }

    /// The largest absolute value of each value.
    pub fn largest(&self) -> &[f64] {
        &self.largest
    }

    /// Every value that came near its bound; what is not a number did.
    pub fn warnings(&self, tape: &Tape) -> Vec<Warning> {
        let near = |(id, seen): (ValueId, &f64)| {
            let value = tape.values.get(id)?;
            let assumed = assumed(tape, &value.op).exp2();
            let fine = *seen < assumed / 2.0;
            (!fine).then(|| Warning { value: id, layer: value.layer.clone(), seen: *seen, assumed })
        };
        self.largest.iter().enumerate().filter_map(near).collect()
    }
}

/// Bits of the absolute value that lowering assumes for the result of an operation.
fn assumed(tape: &Tape, op: &Op) -> f64 {
    match op {
        Op::State { slot } | Op::Store { slot, .. } => match tape.states.get(*slot).map(|s| s.role) {
            Some(Role::Parameter) => 9.0,
            Some(Role::Metric) => METRICS,
            _ => 11.0,
        },
        Op::Add { x, y } if [x, y].into_iter().any(|id| is_metric(tape, *id)) => METRICS,
        Op::Product { .. } | Op::Sign { .. } | Op::Select { .. } => COMPARED,
        _ => OTHERS,
    }
}

/// Whether a value is a metric so far.
fn is_metric(tape: &Tape, id: ValueId) -> bool {
    let Some(Op::State { slot }) = tape.values.get(id).map(|v| &v.op) else { return false };
    tape.states.get(*slot).is_some_and(|s| s.role == Role::Metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_near_its_bound_is_named() {
        let mut tape = Tape::new(2).unwrap();
        tape.enter("layer");
        let sum = tape.sum(0, 0, false).unwrap();
        let mut ranges = Ranges::new(&tape);
        ranges.see(0, [1.0, -3.0]);
        ranges.see(sum, [-2.0]);
        assert_eq!(ranges.largest(), [3.0, 2.0]);
        assert_eq!(ranges.warnings(&tape), []);
        ranges.see(sum, [-3000.0]);
        let warnings = ranges.warnings(&tape);
        assert_eq!((warnings.len(), warnings[0].value), (1, sum));
        assert!(warnings[0].to_string().contains("layer layer: value 1 reached 3000"));
        let slot = tape.declare("count".into(), vec![2], Role::Metric);
        let before = tape.push(Op::State { slot }).unwrap();
        let batch = tape.sum(0, 1, true).unwrap();
        let after = tape.add(before, batch).unwrap();
        let mut counted = Ranges::new(&tape);
        counted.see(after, [60_000.0]);
        assert_eq!(counted.warnings(&tape), [], "a metric may grow over an epoch");
        ranges.see(sum, [f64::NAN]);
        ranges.see(sum, [1.0]);
        assert!(ranges.warnings(&tape)[0].seen.is_nan());
    }
}
