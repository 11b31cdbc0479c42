//! Values split for the two evaluators: a fresh seed for alice, the rest for bob.

use trefoil_mpc::masked::input::bob_share;
use trefoil_prg::seed::random_bytes;
use trefoil_prg::{RandomError, Seed};
use trefoil_proto::control::RequestId;
use trefoil_ring::Words;

/// One request's label and shares. A repeat after a lost connection sends the very same.
pub(crate) struct Shared {
    pub(crate) id: RequestId,
    /// Alice's share.
    pub(crate) seed: Seed,
    /// Bob's share.
    pub(crate) rest: Words,
}

/// Splits `values` under a seed and a label that are used for nothing else.
pub(crate) fn split(values: &Words) -> Result<Shared, RandomError> {
    let seed = Seed::random()?;
    let mut id = RequestId::default();
    random_bytes(&mut id)?;
    let rest = bob_share(values, &seed);
    Ok(Shared { id, seed, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_mpc::masked::input::alice_share;

    #[test]
    fn shares_are_fresh_and_add_up() {
        let values = Words::from(vec![1, 2, u64::MAX]);
        let (a, b) = (split(&values).unwrap(), split(&values).unwrap());
        assert!(a.id != b.id && a.seed.expose() != b.seed.expose() && a.rest != b.rest);
        for s in [a, b] {
            let other = alice_share(&s.seed, 3);
            assert!(values.iter().zip(other.iter().zip(s.rest.iter())).all(|(v, (x, y))| x.wrapping_add(*y) == *v));
        }
    }
}
