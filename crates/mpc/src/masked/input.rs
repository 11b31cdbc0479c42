//! Inputs: additive shares of what a client or an owner holds. Alice's share is a seed, bob's the rest.

use trefoil_prg::{Address, Pair, Purpose, Seed, Source, Stream};
use trefoil_ring::Words;

/// Alice's share of `n` elements: the stream of a seed that is fresh for each value shared.
pub fn alice_share(seed: &Seed, n: usize) -> Words {
    let mut words = Words::zeros(n);
    alice_stream(seed).fill(&mut words);
    words
}

/// Alice's share of a value that is too long to be held at once, to be drawn from its beginning.
pub fn alice_stream(seed: &Seed) -> Stream {
    Source::new(seed, Pair::OwnerAlice, [0; 32], 0).draw(Address::new(0, 0, 0, Purpose::Share))
}

/// Bob's share of `values`: what alice's lacks.
pub fn bob_share(values: &[u64], seed: &Seed) -> Words {
    let mut words = alice_share(seed, values.len());
    words.iter_mut().zip(values).for_each(|(a, v)| *a = v.wrapping_sub(*a));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let seed = Seed::from_bytes([4; 32]);
        let x = [0, 1, u64::MAX, 1 << 63];
        let (a, b) = (alice_share(&seed, 4), bob_share(&x, &seed));
        assert!(x.iter().zip(a.iter().zip(b.iter())).all(|(x, (a, b))| a.wrapping_add(*b) == *x));
    }
}
