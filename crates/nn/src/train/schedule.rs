//! Learning rates over time: public numbers, known before training.

use serde::{Deserialize, Serialize};

/// How the learning rate changes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Not at all.
    #[default]
    Constant,
    /// Times `factor` after every `every` epochs.
    Step {
        /// Epochs between two changes, at least one.
        every: usize,
        /// What the rate is multiplied with.
        factor: f64,
    },
    /// Times `factor` for each epoch, at every step a little.
    Exponential {
        /// What the rate is multiplied with over an epoch.
        factor: f64,
    },
    /// The rate of each epoch; the last one goes on.
    Table {
        /// The rates.
        rates: Vec<f64>,
    },
}

/// The learning rate of every step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The rate to start with; a table's rates stand for themselves.
    pub rate: f64,
    /// How it changes.
    #[serde(default)]
    pub decay: Decay,
    /// Steps over which the rate first grows from zero in equal parts.
    #[serde(default)]
    pub warm_up: u64,
}

impl Schedule {
    /// The same rate throughout.
    pub fn constant(rate: f64) -> Self {
        Self { rate, decay: Decay::Constant, warm_up: 0 }
    }

    /// The rate of step `step`, counted from 0 over all epochs of `steps` steps.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        let steps = steps.max(1);
        let epoch = usize::try_from(step / steps).unwrap_or(usize::MAX);
        let rate = match &self.decay {
            Decay::Constant => self.rate,
            Decay::Step { every, factor } => self.rate * factor.powf((epoch / every.max(&1)) as f64),
            Decay::Exponential { factor } => self.rate * factor.powf(step as f64 / steps as f64),
            Decay::Table { rates } => rates.get(epoch).or(rates.last()).copied().unwrap_or(self.rate),
        };
        if step < self.warm_up { rate * (step + 1) as f64 / self.warm_up as f64 } else { rate }
    }

    /// What makes no sense: the setting and its value.
    pub(super) fn fault(&self) -> Option<(&'static str, f64)> {
        let positive = |what, v: f64| (!(v > 0.0 && v.is_finite())).then_some((what, v));
        let rest = match &self.decay {
            Decay::Constant => None,
            Decay::Step { every: 0, .. } => Some(("epochs between changes of the rate", 0.0)),
            Decay::Step { factor, .. } | Decay::Exponential { factor } => positive("factor of the rate", *factor),
            Decay::Table { rates } if rates.is_empty() => Some(("rates in the table", 0.0)),
            Decay::Table { rates } => rates.iter().find_map(|&r| positive("rate in the table", r)),
        };
        positive("learning rate", self.rate).or(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule() {
        let with = |decay| Schedule { rate: 8.0, decay, warm_up: 0 };
        let rates = |s: &Schedule| (0..6).map(|i| s.at(i, 2)).collect::<Vec<_>>();
        assert_eq!(rates(&Schedule::constant(8.0)), [8.0; 6]);
        assert_eq!(rates(&with(Decay::Step { every: 1, factor: 0.5 })), [8.0, 8.0, 4.0, 4.0, 2.0, 2.0]);
        assert_eq!(rates(&with(Decay::Exponential { factor: 0.25 })), [8.0, 4.0, 2.0, 1.0, 0.5, 0.25]);
        assert_eq!(rates(&with(Decay::Table { rates: vec![3.0, 1.0] })), [3.0, 3.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(rates(&Schedule { warm_up: 4, ..Schedule::constant(8.0) }), [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]);
        assert!(Schedule::constant(f64::NAN).fault().is_some());
        assert!(with(Decay::Table { rates: vec![] }).fault().is_some());
        assert!(with(Decay::Exponential { factor: 0.9 }).fault().is_none());
    }
}
