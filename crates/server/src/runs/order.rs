//! The order in which an epoch uses its rows, drawn from the seed that the three servers made together.

use trefoil_prg::{Address, Pair, Purpose, Seed, Source, Stream};

/// The rows `first .. end` in the order of one epoch: a permutation that is uniform but for 2^-32 of its choices.
pub(super) fn drawn(seed: &Seed, run: [u8; 32], epoch: u32, (first, end): (u32, u32)) -> Vec<u32> {
    let source = Source::new(&seed.derive("trefoil 2026 order of rows", &[]), Pair::Common, run, 0);
    let mut stream = source.draw(Address::new(epoch, 0, 0, Purpose::Order));
    let mut rows: Vec<u32> = (first..end).collect();
    for i in (1..rows.len()).rev() {
        rows.swap(i, below(&mut stream, i as u64 + 1));
    }
    rows
}

fn below(stream: &mut Stream, n: u64) -> usize {
    let mut word = [0];
    stream.fill(&mut word);
    ((u128::from(word[0]) * u128::from(n)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_a_permutation_of_its_own() {
        let seed = Seed::from_bytes([3; 32]);
        let [a, b] = [0, 1].map(|epoch| drawn(&seed, [1; 32], epoch, (5, 105)));
        assert_ne!(a, b);
        assert_eq!(a, drawn(&seed, [1; 32], 0, (5, 105)));
        assert_ne!(a, drawn(&seed, [2; 32], 0, (5, 105)));
        for mut rows in [a, b] {
            rows.sort_unstable();
            assert_eq!(rows, (5..105).collect::<Vec<u32>>());
        }
        assert_eq!(drawn(&seed, [1; 32], 0, (7, 8)), [7]);
    }

    #[test]
    fn every_row_comes_first_about_equally_often() {
        let seed = Seed::from_bytes([4; 32]);
        let mut first = [0; 4];
        (0..4000).for_each(|epoch| first[drawn(&seed, [0; 32], epoch, (0, 4))[0] as usize] += 1);
        assert!(first.iter().all(|n| (850..1150).contains(n)), "{first:?}");
    }
}
