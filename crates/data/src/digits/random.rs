//! Random numbers for pictures: SplitMix64, the same on every machine. Not for secrets.

/// A stream of random numbers.
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// Stream number `stream` of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut start = Self { state: seed };
        let mixed = start.next();
        let mut keyed = Self { state: mixed ^ stream.wrapping_mul(0xd134_2543_de82_ef95) };
        Self { state: keyed.next() }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform between two numbers.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Nearly normal, mean 0 and variance 1, never beyond 3.5: the sum of four uniform numbers.
    pub(super) fn normal(&mut self) -> f32 {
        let sum = self.unit() + self.unit() + self.unit() + self.unit();
        (sum - 2.0) * 1.732_050_8
    }

    /// Uniform below `n`, which is small and not 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    /// The numbers below `N` in random order (Fisher and Yates).
    pub(super) fn permutation<const N: usize>(&mut self) -> [usize; N] {
        let mut order = std::array::from_fn(|i| i);
        for i in (1..N).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_its_published_numbers() {
        let mut r = Random { state: 1_234_567 };
        assert_eq!([r.next(), r.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn moments_and_ranges_are_right() {
        let mut r = Random::new(1, 2);
        let n: Vec<f32> = (0..20_000).map(|_| r.normal()).collect();
        let mean = n.iter().sum::<f32>() / 20_000.0;
        let variance = n.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!((0..1000).all(|_| (2.0..3.0).contains(&r.between(2.0, 3.0)) && r.below(3) < 3));
        let mut p = r.permutation::<10>();
        p.sort_unstable();
        assert_eq!(p, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
