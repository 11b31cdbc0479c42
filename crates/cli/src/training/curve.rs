//! A training curve as a small SVG picture: loss, and accuracy where it is known, over the epochs.

use std::fmt::Write as _;

use super::report::EpochRow;

/// Size of a panel, and the room left of and below it.
const PANEL: (f64, f64) = (320.0, 200.0);
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const GAP: f64 = 70.0;

/// Colours of training and validation: told apart by colour-blind readers too.
const COLOURS: [&str; 2] = ["#0072b2", "#d55e00"];

type Pick = fn(&EpochRow) -> Option<f64>;

/// The picture of a run.
pub(crate) fn svg(title: &str, epochs: &[EpochRow]) -> String {
    let panels: [(&str, [Pick; 2]); 2] =
        [("loss", [|e| e.loss, |e| e.validation_loss]), ("accuracy", [|e| e.accuracy, |e| e.validation_accuracy])];
    let shown = panels.iter().filter(|(_, f)| epochs.iter().any(|e| f.iter().any(|f| f(e).is_some())));
    let mut out = String::new();
    let width = LEFT + 2.0 * (PANEL.0 + GAP);
    let height = TOP + PANEL.1 + 60.0;
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    for (i, (name, picks)) in shown.enumerate() {
        panel(&mut out, LEFT + i as f64 * (PANEL.0 + GAP), name, picks, epochs);
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, x0: f64, name: &str, picks: &[Pick; 2], epochs: &[EpochRow]) {
    let values = epochs.iter().flat_map(|e| picks.iter().filter_map(|f| f(e))).filter(|v| v.is_finite());
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let room = ((high - low) * 0.05).max(1e-6);
    let (low, high) = if low <= high { (low - room, high + room) } else { (0.0, 1.0) };
    let last = epochs.iter().map(|e| e.epoch).max().unwrap_or(1).max(2);
    let x = |epoch: usize| x0 + (epoch as f64 - 1.0) / (last as f64 - 1.0) * PANEL.0;
    let y = |v: f64| TOP + (high - v) / (high - low) * PANEL.1;
    let bottom = TOP + PANEL.1;
    let _ = writeln!(
        out,
        "<rect x=\"{x0}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#999\"/>\n\
         <text x=\"{x0}\" y=\"{}\">{name}</text>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">epoch</text>",
        PANEL.0,
        PANEL.1,
        TOP - 6.0,
        x0 + PANEL.0 / 2.0,
        bottom + 32.0
    );
    for i in 0..=4 {
        let v = low + (high - low) * f64::from(i) / 4.0;
        let at = y(v);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{v:.3}</text>", x0 - 6.0, at + 4.0);
    }
    for epoch in [1, last] {
        let at = x(epoch);
        let _ = writeln!(out, "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{epoch}</text>", bottom + 16.0);
    }
    for ((pick, colour), label) in picks.iter().zip(COLOURS).zip(["training", "validation"]) {
        let points: Vec<(f64, f64)> =
            epochs.iter().filter_map(|e| Some((x(e.epoch), y(pick(e).filter(|v| v.is_finite())?)))).collect();
        if points.is_empty() {
            continue;
        }
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (x, y) in &points {
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let (side, anchor) = if label == "training" { (x0, "start") } else { (x0 + PANEL.0, "end") };
        let at = bottom + 50.0;
        let _ =
            writeln!(out, "<text x=\"{side}\" y=\"{at}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{label}</text>");
    }
}

/// A text as XML has it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_drawn_and_texts_are_escaped() {
        let row = |epoch, loss, accuracy| EpochRow { epoch, loss: Some(loss), accuracy, ..EpochRow::default() };
        let picture = svg("<run> & \"more\"", &[row(1, 2.0, None), row(2, 1.0, None)]);
        assert!(picture.contains("&lt;run&gt; &amp; &quot;more&quot;") && !picture.contains("accuracy"));
        assert_eq!(picture.matches("<circle").count(), 2);
        assert_eq!(svg("", &[row(1, 2.0, Some(0.5))]).matches("<polyline").count(), 2);
        assert!(!svg("", &[row(1, f64::NAN, None)]).contains("NaN"));
        assert!(svg("", &[]).ends_with("</svg>\n"));
    }
}
