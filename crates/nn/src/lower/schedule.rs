//! The order of steps that takes the fewest rounds: openings that do not depend on each other side by side, so that
//! they are one exchange.

use trefoil_mpc::program::{Op, Step};

/// The same steps in rounds: everything that can be done, then every opening that can be done, and again.
pub(super) fn side_by_side(steps: Vec<Step>) -> Vec<Step> {
    let mut names: Vec<Option<usize>> = vec![None; steps.len()];
    let mut ordered = Vec::with_capacity(steps.len());
    let is_open = |s: &Step| matches!(s.op, Op::Open { .. });
    let mut left: Vec<usize> = (0..steps.len()).collect();
    while !left.is_empty() {
        let before = left.len();
        for opening in [false, true] {
            let ready: Vec<Option<usize>> = if opening { names.clone() } else { Vec::new() };
            left.retain(|&i| {
                let known = if opening { &ready } else { &names };
                let step = &steps[i];
                let last = matches!(step.op, Op::Reveal { .. }) && ordered.len() + 1 != steps.len();
                let now = is_open(step) == opening && !last && step.op.operands().iter().all(|x| known[*x].is_some());
                if now {
                    let op = step.op.renamed(|x| names[x].unwrap_or(x));
                    ordered.push(Step { layer: step.layer.clone(), op });
                    names[i] = Some(ordered.len() - 1);
                }
                !now
            });
        }
        if left.len() == before {
            // Steps out of order: the check of the program says which.
            return steps;
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_stand_side_by_side_and_names_follow() {
        let ops = vec![
            Op::Rows,
            Op::State { slot: 0 },
            Op::Open { x: 1 },
            Op::Truncate { x: 2, shift: 4 },
            Op::Open { x: 3 },
            Op::State { slot: 1 },
            Op::Open { x: 5 },
            Op::Add { x: 4, y: 6 },
        ];
        let steps = ops.into_iter().map(|op| Step { layer: "l".into(), op }).collect();
        let ordered: Vec<Op> = side_by_side(steps).into_iter().map(|s| s.op).collect();
        let wanted = vec![
            Op::Rows,
            Op::State { slot: 0 },
            Op::State { slot: 1 },
            Op::Open { x: 1 },
            Op::Open { x: 2 },
            Op::Truncate { x: 3, shift: 4 },
            Op::Open { x: 5 },
            Op::Add { x: 6, y: 4 },
        ];
        assert_eq!(ordered, wanted);
    }
}
