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
