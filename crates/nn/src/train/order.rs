//! The order in which samples are seen: public and made beforehand, so that every way of training sees the same batches.

use crate::rng::SplitMix;

/// The samples of each step of an epoch, all batches full. Every epoch leaves out others.
pub fn batches(seed: u64, epoch: usize, samples: usize, batch: usize) -> Vec<Vec<usize>> {
    let mut rng = SplitMix::new(seed ^ (epoch as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut order: Vec<usize> = (0..samples).collect();
    rng.shuffle(&mut order);
    order.chunks_exact(batch.max(1)).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_batches_of_different_samples() {
        let a = batches(1, 0, 100, 16);
        assert_eq!((a.len(), &a), (6, &batches(1, 0, 100, 16)));
        let mut seen = a.concat();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 96);
        assert_ne!(a, batches(1, 1, 100, 16));
        assert_ne!(a, batches(2, 0, 100, 16));
        assert!(batches(1, 0, 3, 4).is_empty());
    }
}
