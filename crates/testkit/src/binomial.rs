//! Exact binomial tails: how surprising a count is.

/// P[X >= k] for X ~ Binomial(n, p), summed term by term.
pub fn upper_tail(n: u64, p: f64, k: u64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    let (ln_p, ln_q) = (p.ln(), (-p).ln_1p());
    let mut ln_choose = 0.0;
    let mut sum = 0.0;
    for i in 0..=n {
        if i >= k {
            sum += (ln_choose + i as f64 * ln_p + (n - i) as f64 * ln_q).exp();
        }
        ln_choose += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
    }
    sum.min(1.0)
}

/// The smallest count that has at most the probability `alpha` of being reached; n + 1 if there is none.
pub fn threshold(n: u64, p: f64, alpha: f64) -> u64 {
    let (mut low, mut high) = (0, n + 1);
    while low < high {
        let mid = (low + high) / 2;
        if upper_tail(n, p, mid) <= alpha {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_small_cases() {
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
        close(upper_tail(3, 0.5, 2), 0.5);
        close(upper_tail(10, 0.5, 10), 1.0 / 1024.0);
        close(upper_tail(4, 0.25, 3), 4.0 * 0.75 / 64.0 + 1.0 / 256.0);
        assert_eq!(upper_tail(5, 0.5, 6), 0.0);
    }

    #[test]
    fn thresholds_are_the_smallest() {
        for (n, p, alpha) in [(256, 0.5, 1e-12), (256, 1.0 / 256.0, 1e-10), (64, 0.5, 1e-9)] {
            let t = threshold(n, p, alpha);
            assert!(upper_tail(n, p, t) <= alpha && upper_tail(n, p, t - 1) > alpha);
        }
        assert_eq!(threshold(10, 0.5, 1e-9), 11);
    }
}
