//! What each evaluator is sent in a step of training looks uniform, bit by bit, on the same rows and states.

use std::sync::Arc;

use trefoil_mpc::masked::Role;
use trefoil_mpc::masked::rows::open_rows;
use trefoil_mpc::program::{Bilinear, Op, Program, WeightSpec, Window};
use trefoil_mpc::{Compare, Selecting};
use trefoil_prg::replay::Interceptor;
use trefoil_prg::{DrawId, Pair, Purpose};
use trefoil_ring::Tensor;
use trefoil_testkit::record::Transcripts;
use trefoil_testkit::{Links, Random, World};

use crate::common::{program, states};
use crate::network::{data, step};

/// How often each view is taken.
const SESSIONS: u32 = 200;

/// The worst deviation from half ones of any bit that an evaluator received, in standard deviations.
fn worst(p: &Program, x: &[u64], rates: &[i64], planted: Option<Arc<dyn Interceptor>>) -> f64 {
    let mut world = World::unlogged(41);
    let clear = states(p, &mut Random::new(41), 1 << 14);
    let model = world.share(p, &[]).unwrap();
    let rows = world.share_rows(x).unwrap();
    if let Some(planted) = planted {
        world.intercept(planted);
    }
    let mut ones = [vec![], vec![], vec![]];
    for _ in 0..SESSIONS {
        let (mut links, seen) = Links::memory().recorded();
        let mut shared = world.split_states(&clear);
        world.step_over(&model, &rows, &[0, 1], &mut shared, rates, &mut links).unwrap();
        count(&mut ones, &seen);
    }
    deviation(&ones)
}

/// Adds up what alice, bob and the dealing received, bit by bit.
fn count(ones: &mut [Vec<u32>; 3], seen: &Transcripts) {
    for (counts, view) in ones.iter_mut().zip([&seen.alice, &seen.bob, &seen.dealt]) {
        let bytes: Vec<u8> = view.lock().unwrap().iter().filter(|f| !f.sent).flat_map(|f| f.bytes.clone()).collect();
        counts.resize(8 * bytes.len(), 0);
        counts.iter_mut().enumerate().for_each(|(i, c)| *c += u32::from(bytes[i / 8] >> (i % 8) & 1));
    }
}

fn deviation(ones: &[Vec<u32>; 3]) -> f64 {
    assert!(ones.iter().all(|counts| counts.len() > 64));
    let (mean, deviation) = (f64::from(SESSIONS) / 2.0, f64::from(SESSIONS).sqrt() / 2.0);
    ones.iter().flatten().map(|c| (f64::from(*c) - mean).abs() / deviation).fold(0.0, f64::max)
}

/// Alice's shares of one kind of dealt value are zero at everyone: bob is dealt it in the clear.
struct Bare(Purpose);

impl Interceptor for Bare {
    fn filled(&self, draw: &DrawId, _: u64, words: &mut [u64]) {
        if draw.pair == Pair::AliceCarol && draw.purpose == self.0 {
            words.fill(0);
        }
    }
}

/// What both evaluators see of an extraction, from the opening of its weights to that of its features.
#[test]
fn an_extraction_looks_uniform() {
    let window = Window { lo: 0, k: 40 };
    let (compare, pieces) = (Compare::default(), vec![vec![5, 3, 1], vec![2, 1, 0], vec![0, 7, 9]]);
    let ops = vec![
        Op::Slice { x: 0, axis: 0, start: 0, len: 4 },
        Op::Weight { index: 0 },
        Op::Product { x: 1, y: 2, map: Bilinear::Dense },
        Op::Open { x: 3 },
        Op::Piecewise { x: 4, knots: vec![-9, 4], pieces, scale: 60, window, compare, select: Selecting::default() },
        Op::Open { x: 5 },
        Op::Truncate { x: 6, shift: 44 },
        // As many as fill the byte in which single bits are dealt.
        Op::Slice { x: 0, axis: 0, start: 4, len: 4 },
        Op::Scale { x: 8, factor: 2, extra: 1 },
        Op::Truncate { x: 9, shift: 1 },
        Op::Concat { xs: vec![7, 10], axis: 0 },
    ];
    let mut p = program(vec![8], &[], ops);
    p.weights = vec![WeightSpec { name: "w".into(), shape: vec![4, 3], scale: 0 }];
    let weights = [Tensor::new(vec![4, 3], vec![5; 12]).unwrap()];
    let clean = extractions(&p, &weights, None);
    assert!(clean < LIMIT, "{clean}");
    for planted in [Purpose::BetaPower, Purpose::Power] {
        assert!(extractions(&p, &weights, Some(Arc::new(Bare(planted)))) > LIMIT, "{planted:?}");
    }
}

/// The worst deviation over 200 extractions of the same rows by the same weights, two batches each.
fn extractions(p: &Program, weights: &[Tensor], planted: Option<Arc<dyn Interceptor>>) -> f64 {
    let mut world = World::unlogged(43);
    let rows = world.share_rows(&[7; 32]).unwrap();
    if let Some(planted) = planted {
        world.intercept(planted);
    }
    let mut ones = [vec![], vec![], vec![]];
    for _ in 0..SESSIONS {
        let (mut links, seen) = Links::memory().recorded();
        let model = world.share_over(p, weights, &mut links).unwrap();
        for batch in [[0, 1], [2, 3]] {
            let mut none = world.split_states(&[]);
            let done = world.step_over(&model, &rows, &batch, &mut none, &[], &mut links).unwrap();
            let [ac, _, bc, ..] = world.last_sources();
            let Links { alice, bob, .. } = &mut links;
            std::thread::scope(|s| {
                s.spawn(|| open_rows(Role::A, done.alice.share, &ac, alice.as_mut()).unwrap());
                open_rows(Role::B, done.bob.share, &bc, bob.as_mut()).unwrap();
            });
        }
        count(&mut ones, &seen);
    }
    deviation(&ones)
}

// 10^5 bits: 7 deviations have a probability below 10^-6.
const LIMIT: f64 = 7.0;

#[test]
fn a_step_of_the_network_looks_uniform() {
    let x = data(&mut Random::new(42), 2);
    let (p, rates) = (step(Compare::default(), false), [1 << 12, 1 << 28]);
    let deviation = worst(&p, &x, &rates, None);
    assert!(deviation < LIMIT, "{deviation}");
    for planted in [Purpose::Beta, Purpose::Tau, Purpose::Top, Purpose::BetaTau] {
        assert!(worst(&p, &x, &rates, Some(Arc::new(Bare(planted)))) > LIMIT, "{planted:?}");
    }
}

#[test]
fn a_sign_by_keys_looks_uniform() {
    // 128 elements: as many as fill the words in which keys hold single bits.
    let window = Window { lo: 0, k: 24 };
    let sign = Op::Sign { x: 0, window, compare: Compare::Keys };
    let p = program(vec![64], &[], vec![sign, Op::Bit { bit: 1 }]);
    let deviation = worst(&p, &[7; 128], &[], None);
    assert!(deviation < LIMIT, "{deviation}");
    assert!(worst(&p, &[7; 128], &[], Some(Arc::new(Bare(Purpose::WindowTop)))) > LIMIT);
    assert!(worst(&p, &[7; 128], &[], Some(Arc::new(Bare(Purpose::Beta)))) > LIMIT);
}

#[test]
fn a_piecewise_polynomial_looks_uniform() {
    let window = Window { lo: 0, k: 40 };
    let pieces = vec![vec![5, 3, 1], vec![2, 1, 0], vec![0, 7, 9]];
    let compare = Compare::default();
    let p = program(
        vec![20],
        &[],
        vec![Op::Piecewise {
            x: 0,
            knots: vec![-9, 4],
            pieces,
            scale: 60,
            window,
            compare,
            select: Selecting::default(),
        }],
    );
    let deviation = worst(&p, &[3; 40], &[], None);
    assert!(deviation < LIMIT, "{deviation}");
    assert!(worst(&p, &[3; 40], &[], Some(Arc::new(Bare(Purpose::BetaPower)))) > LIMIT);
    assert!(worst(&p, &[3; 40], &[], Some(Arc::new(Bare(Purpose::Power)))) > LIMIT);
}

/// Seven knots: one set of leaves for all, and the piece is selected by powers of masks or by a key.
#[test]
fn a_piecewise_polynomial_of_many_knots_looks_uniform() {
    let window = Window { lo: 0, k: 12 };
    let pieces: Vec<Vec<i64>> = (0..8).map(|i| vec![i, 3, 1 - i, 2]).collect();
    let tree = [Purpose::Leaf, Purpose::WindowTop, Purpose::NodeMonomial];
    for (compare, elements, all) in [(Compare::default(), 64, &tree[..]), (Compare::Keys, 64, &tree[1..2])] {
        let knots = vec![-9, -4, 0, 2, 4, 8, 9];
        let op =
            Op::Piecewise { x: 0, knots, pieces: pieces.clone(), scale: 60, window, compare, select: Selecting::Keys };
        let p = program(vec![elements], &[], vec![op]);
        let x = vec![3; 2 * elements];
        let clean = worst(&p, &x, &[], None);
        assert!(clean < LIMIT, "{compare}: {clean}");
        for planted in all {
            let found = worst(&p, &x, &[], Some(Arc::new(Bare(*planted))));
            assert!(found > LIMIT, "{compare}: {planted:?}");
        }
    }
}
