//! The planner: which way of comparing each operation should use on a given link.
//!
//! Rounds cost half a round trip each, bytes the link's bandwidth, dealt bytes the work of making and using them. On a
//! wide network rounds rule, on one host bytes and instructions do. The choice becomes part of the program, and so of
//! the hash that all parties compare.

use trefoil_link::Network;

use crate::compare::{Compare, Selecting};
use crate::cost::{StepCost, step_cost};
use crate::error::MpcError;
use crate::masked::{check, count_step};
use crate::program::{Op, Program};

/// Seconds that producer and evaluators take for each byte dealt for a tree, and for keys: as the bench `planner`
/// measures them.
pub const DEALING: [f64; 2] = [1.2e-9, 4e-9];
/// Seconds that an evaluator takes online for each byte dealt for a tree, and for keys: from the same.
pub const EVALUATING: [f64; 2] = [4e-10, 3e-9];
/// What a second of dealing counts, beside one online, where material is dealt ahead of requests.
const AHEAD: f64 = 1.0 / 32.0;
/// Another way than the default must be better by this factor: estimates are no better than that.
const MARGIN: f64 = 0.95;
/// With keys a program is prepared before it is evaluated: a function of fewer values does not take them for its pieces,
/// unless keys compare anyway.
const MANY: usize = 1 << 12;

/// Seconds that a link needs for a step, online and offline, arithmetic left out.
pub fn predict(network: &Network, cost: &StepCost) -> (f64, f64) {
    let on_the_way = |bytes: f64| bytes * 8.0 / network.bits_per_s;
    // Both evaluators send at once, half of the bytes each; an answer takes half a round trip more.
    let trips = cost.rounds as f64 + if cost.revealed > 0 { 1.0 } else { 0.0 };
    let online = trips * network.round_trip_s / 2.0 + on_the_way((cost.online + cost.revealed) as f64 / 2.0);
    // What is passed on leaves while the rest still arrives.
    (online, on_the_way(cost.offline.max(cost.forwarded) as f64))
}

/// The program with the way of comparing chosen for every operation that minimises the predicted time of a request of
/// `batch` samples. `ahead`: material is dealt before requests come, so that dealing counts for little.
pub fn choose(program: &Program, batch: usize, network: &Network, ahead: bool) -> Result<Program, MpcError> {
    let infos = check(program, batch)?;
    let mut chosen = program.clone();
    for i in 0..chosen.steps.len() {
        if chosen.steps[i].op.compare().is_none() {
            continue;
        }
        let mut ways = Vec::new();
        let before = chosen.steps[i].op.clone();
        for op in Compare::all().flat_map(|way| selections(before.comparing(way), infos[i].elements())) {
            chosen.steps[i].op = op;
            let cost = step_cost(&chosen, &infos, i, batch, count_step(&chosen, &infos, i, batch)?);
            let op = chosen.steps[i].op.clone();
            let usual = op.compare() == Some(Compare::default()) && !op.selects_by_keys();
            let margin = if usual { MARGIN } else { 1.0 };
            ways.push((margin * time(&cost, network, ahead), op));
        }
        ways.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Keys take memory: the fastest way with which a server may still run the batch.
        let fits = ways.into_iter().any(|(_, op)| {
            chosen.steps[i].op = op;
            chosen.largest_batch().is_ok_and(|most| most >= batch)
        });
        if !fits {
            chosen.steps[i].op = before;
        }
    }
    Ok(chosen)
}

/// An operation on so many values of a sample with each way of selecting pieces that it may take.
fn selections(op: Op, elements: usize) -> Vec<Op> {
    let keys = match &op {
        Op::Piecewise { knots, compare, .. } => !knots.is_empty() && (*compare == Compare::Keys || elements >= MANY),
        _ => false,
    };
    let by = |way| op.selecting(way);
    if keys { vec![by(Selecting::Products), by(Selecting::Keys)] } else { vec![by(Selecting::Products)] }
}

/// Seconds that it takes to use what is dealt for a step, and to make it: online and offline, the link left out. What is
/// passed on is keys.
pub fn work(cost: &StepCost) -> (f64, f64) {
    let keys = cost.forwarded.min(cost.offline);
    let dealt = [(cost.offline - keys) as f64, keys as f64];
    let sum = |rates: [f64; 2]| dealt[0] * rates[0] + dealt[1] * rates[1];
    (sum(EVALUATING), sum(DEALING))
}

/// What a comparing step costs in seconds online, dealing weighed.
fn time(cost: &StepCost, network: &Network, ahead: bool) -> f64 {
    let ((online, offline), (evaluating, dealing)) = (predict(network, cost), work(cost));
    online + evaluating + (offline + dealing) * if ahead { AHEAD } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::cost;
    use crate::program::{Step, Window};

    fn relu(n: usize) -> Program {
        let window = Window { lo: 16, k: 32 };
        let ops = [Op::Input, Op::Open { x: 0 }, Op::Relu { x: 1, shift: 16, window, compare: Compare::default() }];
        let steps = ops.into_iter().map(|op| Step { layer: "l".into(), op }).collect();
        Program { fraction_bits: 16, input_shape: vec![n], weights: vec![], states: vec![], rates: 0, steps }
    }

    fn way(n: usize, network: &Network, ahead: bool) -> Compare {
        choose(&relu(n), 1, network, ahead).unwrap().steps[2].op.compare().unwrap()
    }

    #[test]
    fn rounds_rule_far_away_and_bytes_near() {
        assert_eq!(way(128, &Network::WAN, true), Compare::Keys);
        assert_eq!(way(128, &Network::WAN, false), Compare::Keys);
        for ahead in [false, true] {
            assert_ne!(way(1 << 20, &Network::LOOPBACK, ahead), Compare::Keys);
            assert_ne!(way(1 << 20, &Network::LAN, ahead), Compare::Keys);
        }
        let slow = Network { bits_per_s: 1e5, ..Network::WAN };
        assert_ne!(way(1 << 16, &slow, false), Compare::Keys);
    }

    #[test]
    fn pieces_are_selected_by_keys_where_bytes_are_dear() {
        let window = Window { lo: 16, k: 32 };
        let knots: Vec<i64> = (-5..5).map(|i| i << 16).collect();
        let pieces = vec![vec![1, 2, 3, 4]; 11];
        let (compare, select) = (Compare::default(), Selecting::default());
        let function = Op::Piecewise { x: 1, knots, pieces, scale: 48, window, compare, select };
        let by_keys = |n: usize, network: &Network| {
            let mut program = relu(n);
            program.steps[2].op = function.clone();
            choose(&program, 1, network, false).unwrap().steps[2].op.selects_by_keys()
        };
        assert!(!by_keys(MANY, &Network::LOOPBACK));
        assert!(by_keys(MANY, &Network::WAN));
        let slow = Network { bits_per_s: 1e6, round_trip_s: 0.0 };
        assert!(by_keys(MANY, &slow));
        assert!(!by_keys(64, &slow), "no keys for few values that a tree compares");
    }

    #[test]
    fn a_choice_is_never_predicted_slower_than_the_default() {
        for network in [Network::LOOPBACK, Network::LAN, Network::WAN] {
            for (n, ahead) in [(1, false), (1000, false), (100_000, true)] {
                let chosen = choose(&relu(n), 1, &network, ahead).unwrap();
                let total = |p: &Program| time(&cost(p, 1).unwrap()[2], &network, ahead);
                assert!(total(&chosen) <= total(&relu(n)));
            }
        }
    }

    #[test]
    fn a_batch_that_keys_have_no_memory_for_is_compared_by_a_tree() {
        let most = relu(1 << 10).largest_batch().unwrap();
        let chosen = choose(&relu(1 << 10), most, &Network { round_trip_s: 60.0, ..Network::WAN }, true);
        let chosen = chosen.unwrap();
        assert_ne!(chosen.steps[2].op.compare(), Some(Compare::Keys));
        assert!(chosen.largest_batch().unwrap() >= most);
    }
}
