//! A section of a description in TOML: every key is asked for by name, and what nobody asked for is refused.

use anyhow::{Context, anyhow, bail};
use toml::{Table, Value};
use trefoil_proto::nearest;

/// A table, where it stands, and the keys that were asked for.
pub(super) struct Section {
    at: String,
    table: Table,
    known: Vec<&'static str>,
}

impl Section {
    /// The table `table`, which errors call `at`; nothing for the file itself.
    pub(super) fn new(at: impl Into<String>, table: Table) -> Self {
        Self { at: at.into(), table, known: Vec::new() }
    }

    /// An error about a key of this section.
    pub(super) fn wrong(&self, key: &str, what: impl std::fmt::Display) -> anyhow::Error {
        anyhow!("{}{key}: {what}", self.place())
    }

    fn place(&self) -> String {
        if self.at.is_empty() { String::new() } else { format!("[{}] ", self.at) }
    }

    /// Any value.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> anyhow::Result<Option<String>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(v) => Err(self.wrong(key, format!("a text is due, not {v}"))),
        }
    }

    /// A finite number within `low ..= high`. Fractions such as "1/255" are numbers too.
    pub(super) fn number(&mut self, key: &'static str, low: f64, high: f64) -> anyhow::Result<Option<f64>> {
        let number = match self.value(key) {
            None => return Ok(None),
            Some(Value::Float(v)) => v,
            Some(Value::Integer(v)) => v as f64,
            Some(Value::String(s)) => crate::model::number(&s).map_err(|e| self.wrong(key, e))?,
            Some(v) => return Err(self.wrong(key, format!("a number is due, not {v}"))),
        };
        if !(low..=high).contains(&number) {
            let most = if high == f64::MAX { "more".into() } else { high.to_string() };
            return Err(self.wrong(key, format!("{number} is not within {low} to {most}")));
        }
        Ok(Some(number))
    }

    /// A whole number within `low ..= high`.
    pub(super) fn count(&mut self, key: &'static str, low: u64, high: u64) -> anyhow::Result<Option<u64>> {
        match self.value(key) {
            None => Ok(None),
            Some(v) => whole(&v, low, high).map(Some).map_err(|e| self.wrong(key, e)),
        }
    }

    /// Whole numbers, or one of them alone.
    pub(super) fn counts(&mut self, key: &'static str, low: u64, high: u64) -> anyhow::Result<Option<Vec<usize>>> {
        let all = match self.value(key) {
            None => return Ok(None),
            Some(Value::Array(all)) => all,
            Some(one) => vec![one],
        };
        let each = |v: &Value| whole(v, low, high).map(|n| n as usize).map_err(|e| self.wrong(key, e));
        all.iter().map(each).collect::<anyhow::Result<_>>().map(Some)
    }

    /// Texts.
    pub(super) fn texts(&mut self, key: &'static str) -> anyhow::Result<Option<Vec<String>>> {
        let all = match self.value(key) {
            None => return Ok(None),
            Some(Value::Array(all)) => all,
            Some(one) => vec![one],
        };
        let each = |v: &Value| match v {
            Value::String(s) => Ok(s.clone()),
            v => Err(self.wrong(key, format!("texts are due, not {v}"))),
        };
        all.iter().map(each).collect::<anyhow::Result<_>>().map(Some)
    }

    /// A part of this section.
    pub(super) fn section(&mut self, key: &'static str) -> anyhow::Result<Option<Section>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Table(t)) => {
                let at = if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) };
                Ok(Some(Section::new(at, t)))
            }
            Some(v) => Err(self.wrong(key, format!("a section is due, not {v}"))),
        }
    }

    /// What was asked for and must be there.
    pub(super) fn need<T>(&self, key: &str, found: Option<T>) -> anyhow::Result<T> {
        let close = self.table.keys().filter(|k| !self.known.contains(&k.as_str()));
        let close = nearest(key, close.map(String::as_str));
        let hint = close.map(|k| format!(" (is {k:?} meant for it?)")).unwrap_or_default();
        found.with_context(|| format!("{}{key} is missing{hint}", self.place()))
    }

    /// Refuses keys that nobody asked for.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let Some(key) = self.table.keys().find(|k| !self.known.contains(&k.as_str())) else { return Ok(()) };
        match nearest(key, self.known.iter().copied()) {
            Some(near) => bail!("{}{key}: no such key; {near:?} is the nearest", self.place()),
            None => bail!("{}{key}: no such key; there are: {}", self.place(), self.known.join(", ")),
        }
    }
}

/// One of some names, or an error that names the nearest.
pub(super) fn choose<T: Copy>(text: &str, known: &[(&'static str, T)]) -> Result<T, String> {
    let names = || known.iter().map(|(n, _)| *n);
    match (known.iter().find(|(n, _)| *n == text), nearest(text, names())) {
        (Some((_, v)), _) => Ok(*v),
        (None, Some(near)) => Err(format!("{text:?} is not known; {near:?} is the nearest")),
        (None, None) => Err(format!("{text:?} is not known; there are: {}", names().collect::<Vec<_>>().join(", "))),
    }
}

fn whole(v: &Value, low: u64, high: u64) -> Result<u64, String> {
    let n = v.as_integer().ok_or_else(|| format!("a whole number is due, not {v}"))?;
    let within = u64::try_from(n).ok().filter(|n| (low..=high).contains(n));
    within.ok_or_else(|| format!("{n} is not within {low} to {high}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_refused() {
        let mut s = Section::new("train", "epochs = 3\nbtach = 5\nrate = \"1/4\"".parse().unwrap());
        assert_eq!(s.count("epochs", 1, 9).unwrap(), Some(3));
        assert_eq!(s.number("rate", 0.0, 1.0).unwrap(), Some(0.25));
        assert_eq!(s.count("batch", 1, 9).unwrap(), None);
        let missing = s.need::<u64>("batch", None).unwrap_err().to_string();
        assert_eq!(missing, "[train] batch is missing (is \"btach\" meant for it?)");
        assert_eq!(s.end().unwrap_err().to_string(), "[train] btach: no such key; \"batch\" is the nearest");
    }
}
