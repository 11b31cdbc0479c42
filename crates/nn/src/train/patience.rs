//! Stopping early: by the validation losses of the epochs, in the clear and at the servers alike.

/// Waits so many epochs for a lower validation loss.
#[derive(Debug, Clone)]
pub struct Patience {
    epochs: usize,
    best: Option<(usize, f64)>,
}

impl Patience {
    /// Waits `epochs` epochs.
    pub fn new(epochs: usize) -> Self {
        Self { epochs, best: None }
    }

    /// Whether waiting is over after epoch number `epoch`, whose validation loss is `loss`.
    pub fn is_over(&mut self, epoch: usize, loss: f64) -> bool {
        let lower = loss.is_finite() && self.best.is_none_or(|(_, best)| loss < best);
        if lower {
            self.best = Some((epoch, loss));
        }
        !lower && self.best.is_some_and(|(since, _)| epoch.saturating_sub(since) >= self.epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_loss_starts_the_wait_anew() {
        let stops = |epochs, losses: &[f64]| {
            let mut patience = Patience::new(epochs);
            losses.iter().enumerate().position(|(epoch, &loss)| patience.is_over(epoch, loss))
        };
        assert_eq!(stops(2, &[3.0, 2.0, 2.5, 2.0, 1.0]), Some(3));
        assert_eq!(stops(2, &[3.0, 2.0, 2.5, 1.0, 1.5, 0.5]), None);
        assert_eq!(stops(1, &[1.0, 1.0]), Some(1));
        assert_eq!(stops(1, &[f64::NAN, 1.0, f64::NAN]), Some(2));
    }
}
