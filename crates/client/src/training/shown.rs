//! What a run tells a server that computes class likelihoods, in words.

use trefoil_mpc::program::{Program, Shown};
use trefoil_proto::run::RunSpec;

/// The programs that may show some, each with the rows that it reads.
fn programs(spec: &RunSpec) -> impl Iterator<Item = (&'static str, &Program)> {
    [("training", &spec.step)].into_iter().chain(spec.check.iter().map(|c| ("validation", &c.program)))
}

/// What each such server is shown, of which rows.
pub(super) fn reveals(spec: &RunSpec) -> Vec<String> {
    programs(spec).flat_map(|(rows, program)| program.shown().into_iter().map(move |to| reveal(to, rows))).collect()
}

fn reveal(to: Shown, rows: &str) -> String {
    match to {
        Shown::Alice => format!("to alice (the server): every {rows} row's class likelihoods, each time it is used"),
        Shown::Carol => format!("to carol (the server): {}", hidden(rows)),
        Shown::Helper => format!("to helper (the fourth server): {}", hidden(rows)),
    }
}

fn hidden(rows: &str) -> String {
    format!("every {rows} row's class likelihoods, in an order that hides which class is which, each time it is used")
}

/// What they can tell from it.
pub(super) fn learnt(spec: &RunSpec) -> Vec<String> {
    let rows = |to: &Shown| -> Vec<&str> {
        programs(spec).filter(|(_, program)| program.shown().contains(to)).map(|(rows, _)| rows).collect()
    };
    spec.shows_likelihoods_to().iter().map(|to| leak(*to, &rows(to).join(" and "))).collect()
}

fn leak(to: Shown, rows: &str) -> String {
    match to {
        Shown::Alice => format!(
            "Alice, the server, learns every {rows} row's class likelihoods each time it is used: from them she can guess \
             labels and\ntell which rows are alike."
        ),
        Shown::Carol => format!(
            "Carol, the server, learns every {rows} row's class likelihoods each time it is used, in a fresh order of the \
             classes that\nonly alice and bob know: from them she can tell how sure the model is of a row and which rows are \
             alike and, where classes\nare of uneven size or difficulty, guess at labels."
        ),
        Shown::Helper => format!(
            "The helper, a fourth server, learns every {rows} row's class likelihoods each time it is used, in a fresh \
             order of the classes\nthat only alice and bob know, and not which row it is. It sees the batch and the number \
             of classes, and nothing else: it can\ntell how sure the model is of a batch's rows, and how that changes."
        ),
    }
}

#[cfg(test)]
mod tests {
    use trefoil_mpc::program::{Op, Step};
    use trefoil_proto::run::{Check, Order, RowRange};

    use super::*;
    use crate::training::plan;

    fn program(shown: Option<Shown>) -> Program {
        let shown = shown.map(|shown| Op::Likelihoods { x: 0, shift: 0, shown });
        let steps = [Op::Rows].into_iter().chain(shown).map(|op| Step { layer: "l".into(), op }).collect();
        Program { fraction_bits: 16, input_shape: vec![2], weights: vec![], states: vec![], rates: 0, steps }
    }

    fn run(step: Option<Shown>, check: Option<Shown>) -> RunSpec {
        let rows = RowRange { first: 0, end: 10 };
        RunSpec {
            name: "run".into(),
            owner: "owner".into(),
            coordinator: "owner".into(),
            set: 1,
            declaration: [0; 32],
            extraction: None,
            step: program(step),
            rates: vec![],
            training: rows,
            epochs: 1,
            batch: 10,
            order: Order::Drawn,
            shuffle: false,
            metrics: vec![],
            check: Some(Check { program: program(check), rows, batch: 10 }),
            reveals: vec![],
            publish: None,
            checkpoint: 1,
        }
    }

    #[test]
    fn servers_are_said_to_learn_likelihoods_of_the_rows_that_they_are_shown() {
        let (alice, carol) = (Some(Shown::Alice), Some(Shown::Carol));
        let said = |step, check| plan::learnt(&run(step, check)).join("\n");
        assert!(said(None, None).contains("gradients and likelihoods stay shared"));
        let by_check = said(None, alice);
        assert!(by_check.contains("Alice, the server, learns every validation row's class likelihoods"), "{by_check}");
        assert!(!by_check.contains("likelihoods stay shared"), "{by_check}");
        assert!(said(carol, carol).contains("Carol, the server, learns every training and validation row's class"));
        let apart = said(carol, alice);
        assert!(apart.contains("every validation row's") && apart.contains("every training row's"), "{apart}");
    }
}
