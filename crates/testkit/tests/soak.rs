//! A short soak: a million truncations and a million comparisons.
#![allow(clippy::unwrap_used)]

use trefoil_testkit::soak::{COMPARISONS, Case, TRUNCATIONS};

fn soak(cases: &[Case]) {
    let each = 1_000_000 / cases.len() + 1;
    for (seed, case) in cases.iter().enumerate() {
        case.run(seed as u64, each).unwrap();
    }
}

#[test]
fn a_million_truncations() {
    soak(&TRUNCATIONS);
}

#[test]
fn a_million_comparisons() {
    soak(&COMPARISONS);
}

/// The judge itself: what it must and must not let pass.
#[test]
fn wrong_results_are_wrong() {
    let [truncate, compare] = [TRUNCATIONS[0], COMPARISONS[0]];
    assert!(truncate.allows(3 << 16, 3) && truncate.allows(3 << 16, 4));
    assert!(!truncate.allows(3 << 16, 2) && !truncate.allows(3 << 16, 5));
    assert!(compare.allows(-1, 0) && compare.allows(-1, -1) && !compare.allows(-1, 1));
    assert!(compare.allows(-(1 << 17), 0) && !compare.allows(-(1 << 17), -2) && !compare.allows(1 << 16, 0));
}
