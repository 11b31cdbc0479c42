//! What a run tells a server that computes class likelihoods, in words.

use trefoil_mpc::program::{Program, Shown};
use trefoil_proto::run::RunSpec;

/// What each such server is shown, of which rows.
pub(super) fn reveals(spec: &RunSpec) -> Vec<String> {
    let programs = [("training", Some(&spec.step)), ("validation", spec.check.as_ref().map(|c| &c.program))];
    let each = programs.into_iter().filter_map(|(rows, program)| Some((rows, program?)));
    each.flat_map(|(rows, program)| program.shown().into_iter().map(move |to| reveal(to, rows))).collect()
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
pub(super) fn learnt(step: &Program) -> Vec<String> {
    let leak = |to| match to {
        Shown::Alice => {
            "Alice, the server, learns every training row's class likelihoods each time it is used: from them she can guess \
             labels and\ntell which rows are alike."
        }
        Shown::Carol => {
            "Carol, the server, learns every training row's class likelihoods each time it is used, in a fresh order of the \
             classes that\nonly alice and bob know: from them she can tell how sure the model is of a row and which rows are \
             alike and, where classes\nare of uneven size or difficulty, guess at labels."
        }
        Shown::Helper => {
            "The helper, a fourth server, learns every training row's class likelihoods each time it is used, in a fresh \
             order of the classes\nthat only alice and bob know, and not which row it is. It sees the batch and the number \
             of classes, and nothing else: it can\ntell how sure the model is of a batch's rows, and how that changes."
        }
    };
    step.shown().into_iter().map(leak).map(String::from).collect()
}
