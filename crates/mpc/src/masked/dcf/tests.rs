//! Comparison functions on whole small domains and on random points of large ones.

use proptest::prelude::*;
use trefoil_link::Link;
use trefoil_prg::{Address, Pair, Seed, Source};

use super::super::dealing::Producer;
use super::tree::add;
use super::*;

/// The draw's public number.
const NUMBER: [u8; 32] = [6; 32];

const GROUPS: [Group; 4] = [Group::Wide(16), Group::Wide(0), Group::Wide(62), Group::Bit];

/// Random words: the `part`th draw.
fn words(n: usize, part: u32) -> Words {
    let source = Source::new(&Seed::from_bytes([4; 32]), Pair::BobCarol, [0; 32], 0);
    source.draw(Address::new(0, 0, part, Purpose::KeyRoot)).words(n).into()
}

/// Both evaluators' keys of functions at `alpha` with random payloads, and the payloads.
fn keys(bits: u32, group: Group, alpha: &[u64], part: u32) -> ([Keys; 2], Vec<Value>) {
    let n = alpha.len();
    let payload: Vec<Value> = words(3 * n, part).chunks_exact(3).map(|v| reduced(group, [v[0], v[1], v[2]])).collect();
    let roots = [words(2 * n, part + 1), words(2 * n, part + 2)];
    let shape = Shape { bits, group };
    let mut corrections = Words::default();
    for start in (0..n).step_by(KEYS) {
        let chunk = start..n.min(start + KEYS);
        let own = [0, 1].map(|p: usize| &roots[p][2 * chunk.start..2 * chunk.end]);
        let out = corrections.grow(shape.piece_words(chunk.len()));
        correct(&Ciphers::new(&NUMBER), shape, own, &alpha[chunk.clone()], &payload[chunk], out);
    }
    (roots.map(|roots| Keys { number: NUMBER, roots, corrections: corrections.clone() }), payload)
}

/// What the group can hold of a value.
fn reduced(group: Group, v: Value) -> Value {
    let wide = u64::from(group.wide()).wrapping_neg();
    [v[0] & wide, v[1] & wide, v[2] & group.mask()]
}

/// The sums of both evaluators' shares at the points `x`.
fn values(keys: &[Keys; 2], bits: u32, group: Group, x: &[u64]) -> Vec<Value> {
    let shape = Shape { bits, group };
    let mut out = vec![[0; 3]; x.len()];
    for (role, keys) in [Role::A, Role::B].into_iter().zip(keys) {
        let mut shares = vec![0; 3 * x.len()];
        let pieces = shares.par_chunks_mut(3 * KEYS);
        evaluate(
            role,
            keys,
            x.len(),
            shape,
            |i| x[i],
            pieces,
            |_, values, out| {
                out.copy_from_slice(bytemuck::cast_slice(values));
            },
        );
        out.iter_mut().zip(shares.chunks_exact(3)).for_each(|(o, s)| *o = add(*o, [s[0], s[1], s[2]]));
    }
    out.into_iter().map(|v| reduced(group, v)).collect()
}

#[test]
fn whole_small_domains() {
    for group in GROUPS {
        for bits in [1, 2, 5, 6, 7, 8, 9] {
            let size = 1u64 << bits;
            let pairs: Vec<(u64, u64)> = (0..size).flat_map(|a| (0..size).map(move |x| (a, x))).collect();
            let (alpha, x): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
            let (keys, payload) = keys(bits, group, &alpha, 8 * bits);
            for (i, got) in values(&keys, bits, group, &x).into_iter().enumerate() {
                let want = if x[i] < alpha[i] { payload[i] } else { [0; 3] };
                assert_eq!(got, want, "{group:?}, {bits} bits, {} < {}", x[i], alpha[i]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_points(bits in 1u32..64, n in 1usize..600, group in 0usize..4, part: u16) {
        let group = GROUPS[group];
        let mask = (1u64 << bits) - 1;
        let part = u32::from(part) * 8;
        let alpha: Vec<u64> = words(n, part + 3).iter().map(|w| w & mask).collect();
        // Half of the points next to alpha or on it.
        let x: Vec<u64> = words(n, part + 4).iter().zip(&alpha).enumerate()
            .map(|(i, (w, a))| if i % 2 == 0 { w & mask } else { a.wrapping_add(w % 3).wrapping_sub(1) & mask })
            .collect();
        let (keys, payload) = keys(bits, group, &alpha, part);
        for (i, got) in values(&keys, bits, group, &x).into_iter().enumerate() {
            prop_assert_eq!(got, if x[i] < alpha[i] { payload[i] } else { [0; 3] }, "{} < {}", x[i], alpha[i]);
        }
    }
}

#[test]
fn correction_words_are_balanced_whatever_alpha() {
    let group = GROUPS[0];
    let n = KEYS;
    let (low, _) = keys(31, group, &vec![0; n], 1);
    let (high, _) = keys(31, group, &vec![u64::from(u32::MAX >> 1); n], 1);
    for set in [&low, &high] {
        let ones: u64 = set[0].corrections.iter().map(|w| u64::from(w.count_ones())).sum();
        let all = 64.0 * set[0].corrections.len() as f64;
        assert!((ones as f64 - all / 2.0).abs() < 5.0 * all.sqrt() / 2.0, "{ones} of {all}");
    }
}

#[test]
fn sizes_are_those_of_the_model() {
    // Bits of a key on 31 bits, the root seed drawn and not sent. Seven levels of a function of one bit are one block.
    let bits = |group| 64 * Shape { bits: 31, group }.words(4 * KEYS) / (4 * KEYS);
    assert_eq!(bits(Group::Wide(16)), 31 * (128 + 2 + 144) + 144);
    assert_eq!(bits(Group::Bit), 24 * (128 + 2 + 1) + 128);
}

/// What the producer sends for `n` keys.
fn dealt(n: usize, shape: Shape) -> Vec<u8> {
    let (mut carol, mut bob) = trefoil_link::pair("carol", "bob");
    let [alice_carol, bob_carol] =
        [Pair::AliceCarol, Pair::BobCarol].map(|pair| Source::new(&Seed::from_bytes([5; 32]), pair, [0; 32], 0));
    let mut d = Producer::new(&alice_carol, &bob_carol, &mut carol);
    let mut draw = open_keys(&mut d, At::step(0).unwrap()).unwrap();
    let point = |e: usize| (e as u64 * 0x9e37_79b9 % (1 << shape.bits), [1, e as u64, 1]);
    deal_keys(&mut d, &mut draw, n, shape, &mut Keys::default(), point).unwrap();
    d.end_step().unwrap();
    let mut frame = Vec::new();
    bob.recv_into(0, 1 << 24, &mut frame).unwrap();
    frame
}

#[test]
fn threads_change_nothing() {
    let n = 5 * KEYS + 77;
    for group in GROUPS {
        let alpha: Vec<u64> = words(n, 1).iter().map(|w| w >> 33).collect();
        let x: Vec<u64> = words(n, 2).iter().map(|w| w >> 33).collect();
        let (keys, _) = keys(31, group, &alpha, 8);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (dealt(n, Shape { bits: 31, group }), values(&keys, 31, group, &x)))
        };
        assert!(run(1) == run(3), "{group:?}");
    }
}
