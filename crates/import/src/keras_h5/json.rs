//! A layer's settings: typed access to JSON that may hold anything.

use serde_json::Value;

use crate::ImportError;

/// Largest number taken for a size; the product of two of them does not overflow.
const MAX_SIZE: u64 = i32::MAX as u64;

/// The settings of one layer.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a> {
    /// The layer's name.
    pub(super) layer: &'a str,
    /// Its type.
    pub(super) class: &'a str,
    config: &'a Value,
}

impl<'a> Settings<'a> {
    /// The settings `config` of the layer called `layer`.
    pub(super) fn new(layer: &'a str, class: &'a str, config: &'a Value) -> Self {
        Self { layer, class, config }
    }

    /// An error about this layer.
    pub(super) fn fail(&self, reason: impl Into<String>) -> ImportError {
        ImportError::Layer { layer: self.layer.into(), class: self.class.into(), reason: reason.into() }
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> ImportError {
        self.fail(format!("{key} is {}, must be {wanted}", brief(value)))
    }

    /// The value of `key`; `None` if absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.config.get(key).filter(|v| !v.is_null())
    }

    fn need(&self, key: &str) -> Result<&'a Value, ImportError> {
        self.get(key).ok_or_else(|| self.fail(format!("{key} is missing")))
    }

    /// A size.
    pub(super) fn size(&self, key: &str) -> Result<usize, ImportError> {
        let v = self.need(key)?;
        size(v).ok_or_else(|| self.wrong(key, v, "a size"))
    }

    /// A size, `default` if absent.
    pub(super) fn size_or(&self, key: &str, default: usize) -> Result<usize, ImportError> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    /// Height and width: a pair, or one number for both.
    pub(super) fn pair(&self, key: &str) -> Result<(usize, usize), ImportError> {
        let v = self.need(key)?;
        pair(v).ok_or_else(|| self.wrong(key, v, "a size or a pair of sizes"))
    }

    /// Height and width, `default` if absent.
    pub(super) fn pair_or(&self, key: &str, default: (usize, usize)) -> Result<(usize, usize), ImportError> {
        if self.get(key).is_some() { self.pair(key) } else { Ok(default) }
    }

    /// (top, bottom) and (left, right): pairs, or one size for both, or one for all.
    pub(super) fn pairs(&self, key: &str) -> Result<[(usize, usize); 2], ImportError> {
        let v = self.need(key)?;
        let parsed = match v {
            Value::Array(a) if a.len() == 2 => pair(&a[0]).zip(pair(&a[1])),
            v => size(v).map(|n| ((n, n), (n, n))),
        };
        parsed.map(|(a, b)| [a, b]).ok_or_else(|| self.wrong(key, v, "a size, a pair, or a pair of pairs"))
    }

    /// Sizes, or -1 where one is left open.
    pub(super) fn open_sizes(&self, key: &str) -> Result<Vec<Option<usize>>, ImportError> {
        let v = self.need(key)?;
        let one = |v: &Value| if v.as_i64() == Some(-1) { Some(None) } else { size(v).map(Some) };
        v.as_array()
            .and_then(|a| a.iter().map(one).collect())
            .ok_or_else(|| self.wrong(key, v, "a list of sizes, one of which may be -1"))
    }

    /// A flag, `default` if absent.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ImportError> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.wrong(key, v, "true or false")),
        }
    }

    /// A finite number, `default` if absent. Some versions wrap it as `{"type": ..., "value": 0.3}`, the archives of Keras 2
    /// as `{"class_name": "__numpy__", "config": {"value": 0.3, ...}}`.
    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64, ImportError> {
        Ok(self.number_if(key)?.unwrap_or(default))
    }

    /// A finite number, if there is one.
    pub(super) fn number_if(&self, key: &str) -> Result<Option<f64>, ImportError> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let bare = v.get("config").unwrap_or(v);
        let bare = bare.get("value").unwrap_or(bare);
        match bare.as_f64().filter(|x| x.is_finite()) {
            Some(x) => Ok(Some(x)),
            None => Err(self.wrong(key, v, "a number")),
        }
    }

    /// A text, `default` if absent.
    pub(super) fn text(&self, key: &str, default: &'a str) -> Result<&'a str, ImportError> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_str().ok_or_else(|| self.wrong(key, v, "a text")),
        }
    }

    /// An axis of a sample of `rank` dimensions, from Keras' count with the batch first; `default` if absent.
    pub(super) fn axis(&self, key: &str, rank: usize, default: i64) -> Result<usize, ImportError> {
        let given = match self.get(key) {
            None => default,
            Some(v) => {
                let one = v.as_array().filter(|a| a.len() == 1).map_or(v, |a| &a[0]);
                one.as_i64().ok_or_else(|| self.wrong(key, v, "an axis"))?
            }
        };
        let rank = rank as i64;
        let axis = if given < 0 { given.saturating_add(rank) } else { given - 1 };
        match usize::try_from(axis) {
            Ok(a) if axis < rank => Ok(a),
            _ => Err(self.fail(format!("{key} is {given}, which is no axis of one sample of {rank} dimensions"))),
        }
    }

    /// Refuses images with the channels first.
    pub(super) fn channels_last(&self) -> Result<(), ImportError> {
        match self.text("data_format", "channels_last")? {
            "channels_last" => Ok(()),
            other => Err(self.fail(format!("data_format is {other:?}, only channels_last can be run"))),
        }
    }
}

/// A size in range.
pub(super) fn size(v: &Value) -> Option<usize> {
    v.as_u64().filter(|&n| n <= MAX_SIZE).and_then(|n| usize::try_from(n).ok())
}

fn pair(v: &Value) -> Option<(usize, usize)> {
    match v {
        Value::Array(a) if a.len() == 2 => size(&a[0]).zip(size(&a[1])),
        v => size(v).map(|n| (n, n)),
    }
}

/// The start of a value, for messages.
pub(super) fn brief(v: &Value) -> String {
    let text = match v {
        Value::Array(a) if a.len() > 8 => format!("a list of {} values", a.len()),
        Value::Object(_) => "an object".into(),
        v => v.to_string(),
    };
    if text.chars().count() > 60 { text.chars().take(60).chain("...".chars()).collect() } else { text }
}
