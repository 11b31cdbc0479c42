//! What commands write: lines to standard output, progress to a terminal, errors as one line.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use trefoil_client::{ClientError, Torn};
use trefoil_proto::is_plain;

/// Writes a text and a line break to standard output at once.
pub(crate) fn line(text: impl AsRef<str>) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    out.write_all(printable(text.as_ref()).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// A text that commands no terminal: names and reasons may come from elsewhere.
fn printable(text: &str) -> String {
    text.replace(|c: char| c != '\n' && !is_plain(c.encode_utf8(&mut [0; 4])), "?")
}

/// Writes a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// An error and its causes, leaving out what an earlier one said already.
pub(crate) fn chain(e: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in e.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            // A file that was named already.
            let named = |(first, _): &(&str, &str)| text.split([' ', ':', ',']).any(|w| w == *first && w.contains('.'));
            let rest = cause.split_once(": ").filter(named).map_or(&*cause, |(_, rest)| rest);
            let _ = write!(text, ": {rest}");
        }
    }
    printable(&text.lines().map(str::trim).collect::<Vec<_>>().join(" "))
}

/// A bar over `steps` on a terminal, nothing elsewhere.
pub(crate) fn progress(what: &str, steps: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{msg:24} {bar:30} {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    bar
}

/// Writes a line to standard error: progress where there is no terminal.
pub(crate) fn note(text: &str) {
    // Whoever does not hear it misses nothing that matters.
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(&text.replace('\n', " ")));
}

/// Ends a listing, which is printed, with what the evaluators differ in, if anything.
pub(crate) fn refuse_torn(torn: &[Torn]) -> anyhow::Result<()> {
    let all: Vec<&str> = torn.iter().map(|t| t.what.as_str()).collect();
    match &all[..] {
        [] => Ok(()),
        all => Err(ClientError::Disagree { what: all.join("; ") }.into()),
    }
}

/// "once", "2 times".
pub(crate) fn times(n: u32) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// "1 epoch", "2 epochs".
pub(crate) fn count(n: u32, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes as people read them.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// Seconds as people read them.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// Nanoseconds of a report in seconds.
pub(crate) fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn what_is_torn_is_named_behind_the_rest() {
        let torn = |name: &str| Torn { name: name.into(), what: format!("model {name}, which bob does not list") };
        refuse_torn(&[]).unwrap();
        let e = refuse_torn(&[torn("a"), torn("b")]).unwrap_err().to_string();
        assert!(e.contains("disagree on model a, which bob does not list; model b, which"), "{e}");
    }

    #[test]
    fn causes_are_said_once() {
        let e = anyhow!("no such file").context("cluster.toml: no such file").context("cannot read the cluster file");
        assert_eq!(chain(&e), "cannot read the cluster file: cluster.toml: no such file");
        let e = anyhow!("x.h5: no such file").context("cannot use the model x.h5");
        assert_eq!(chain(&e), "cannot use the model x.h5: no such file");
    }

    #[test]
    fn no_terminal_is_commanded() {
        assert_eq!(chain(&anyhow!("bob refused: \x1b[2Jgone\r\nnext")), "bob refused: ?[2Jgone next");
    }

    #[test]
    fn units_fit_the_size() {
        assert_eq!((bytes(999).as_str(), bytes(12_345).as_str()), ("999 B", "12.3 kB"));
        assert_eq!(
            (time(0.00012).as_str(), time(0.0123).as_str(), time(2.0).as_str()),
            ("120 us", "12.30 ms", "2.00 s")
        );
    }
}
