//! `config.json`, read key by key: what is missing gets diffusers' default, what the engine does not
//! do is refused by name.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The most of anything: channels, ids, positions. The largest published models are far below, and the bytes of a kernel from
/// so many channels to so many are still a number.
const MOST: usize = 1 << 20;
/// The most layers of one kind, one after the other.
const MOST_LAYERS: usize = 256;
/// The longest list: the levels of a network, each half as large as the one before.
const MOST_LEVELS: usize = 16;

/// One component's `config.json`.
#[derive(Clone, Debug)]
pub struct Config {
    file: String,
    map: Map<String, Value>,
}

impl Config {
    /// Reads `folder/config.json`.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read, [`Error::Config`] when it is no JSON object.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::file(
                &path,
                format!("cannot be read as a model configuration: {e}"),
            )
        })?;
        Self::parse(path.display().to_string(), &text)
    }

    /// Reads the text of a `config.json`; `file` is what messages call it.
    ///
    /// # Errors
    /// [`Error::Config`] when it is no JSON object.
    pub fn parse(file: impl Into<String>, text: &str) -> Result<Self> {
        let file = file.into();
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Config { file, map }),
            Ok(_) => Err(Error::config(file, "wanted a JSON object")),
            Err(e) => Err(Error::config(file, format!("is no valid JSON: {e}"))),
        }
    }

    /// `_class_name`, or transformers' first `architectures` entry.
    ///
    /// # Errors
    /// [`Error::Config`] when there is neither.
    pub fn class(&self) -> Result<&str> {
        let class = self
            .map
            .get("_class_name")
            .or_else(|| self.map.get("architectures")?.get(0));
        class
            .and_then(Value::as_str)
            .ok_or_else(|| self.wrong("_class_name", "a model class", None))
    }

    /// Checks the class.
    ///
    /// # Errors
    /// [`Error::Config`] naming the class that came.
    pub fn expect_class(&self, want: &[&str]) -> Result<&str> {
        let class = self.class()?;
        if want.contains(&class) {
            return Ok(class);
        }
        Err(Error::config(
            &self.file,
            format!("wanted a {}, got `{class}`", want.join(" or ")),
        ))
    }

    /// Refuses any value of `key` but those listed; missing or null passes.
    ///
    /// # Errors
    /// [`Error::Config`] naming key and value.
    pub fn only(&self, key: &str, accepted: &[Value]) -> Result<()> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(v) if accepted.iter().any(|a| same(a, v)) => Ok(()),
            Some(v) => {
                let accepted: Vec<_> = accepted.iter().map(Value::to_string).collect();
                Err(self.wrong(
                    key,
                    &format!("{} (all this engine does)", accepted.join(" or ")),
                    Some(v),
                ))
            }
        }
    }

    /// A count from 1 to 1048576.
    ///
    /// # Errors
    /// [`Error::Config`] when missing without a default, or no such number.
    pub fn count(&self, key: &str, default: Option<usize>) -> Result<usize> {
        self.between(key, [1, MOST], default)
    }

    /// A number of layers, from 1 to 256.
    ///
    /// # Errors
    /// As [`Config::count`].
    pub fn layers(&self, key: &str, default: Option<usize>) -> Result<usize> {
        self.between(key, [1, MOST_LAYERS], default)
    }

    /// A count from 2 to 1048576: of what begins and ends.
    ///
    /// # Errors
    /// As [`Config::count`].
    pub fn several(&self, key: &str, default: Option<usize>) -> Result<usize> {
        self.between(key, [2, MOST], default)
    }

    /// A whole number in a range, both ends in it.
    ///
    /// # Errors
    /// As [`Config::count`].
    pub fn between(
        &self,
        key: &str,
        [least, most]: [usize; 2],
        default: Option<usize>,
    ) -> Result<usize> {
        match (self.map.get(key), default) {
            (None | Some(Value::Null), Some(default)) => Ok(default),
            (value, _) => {
                let number = value.and_then(whole).filter(|n| (least..=most).contains(n));
                let want = || format!("a whole number from {least} to {most}");
                number.ok_or_else(|| self.wrong(key, &want(), value))
            }
        }
    }

    /// A real number.
    ///
    /// # Errors
    /// [`Error::Config`] when it is no number.
    pub fn real(&self, key: &str, default: f64) -> Result<f64> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => v
                .as_f64()
                .ok_or_else(|| self.wrong(key, "a number", Some(v))),
        }
    }

    /// A finite real number above 0.
    ///
    /// # Errors
    /// [`Error::Config`] when it is none.
    pub fn positive(&self, key: &str, default: f64) -> Result<f64> {
        let x = self.real(key, default)?;
        match x > 0.0 && x.is_finite() {
            true => Ok(x),
            false => Err(self.wrong(key, "a number above 0", self.map.get(key))),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`Error::Config`] when it is none.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => v
                .as_bool()
                .ok_or_else(|| self.wrong(key, "true or false", Some(v))),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// [`Error::Config`] when it is none.
    pub fn text<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => v.as_str().ok_or_else(|| self.wrong(key, "a text", Some(v))),
        }
    }

    /// A list of up to 16 counts.
    ///
    /// # Errors
    /// [`Error::Config`] when missing or empty without a default, or something else is in it.
    pub fn counts(&self, key: &str, default: Option<&[usize]>) -> Result<Vec<usize>> {
        let value = self.map.get(key);
        if let (None | Some(Value::Null), Some(default)) = (value, default) {
            return Ok(default.to_vec());
        }
        value
            .and_then(Value::as_array)
            .and_then(|list| {
                list.iter()
                    .map(|v| whole(v).filter(|n| (1..=MOST).contains(n)))
                    .collect::<Option<Vec<_>>>()
            })
            .filter(|list| (1..=MOST_LEVELS).contains(&list.len()))
            .ok_or_else(|| {
                let want = format!("a list of 1 to {MOST_LEVELS} whole numbers from 1 to {MOST}");
                self.wrong(key, &want, value)
            })
    }

    /// A list of `len` counts, or one count for all.
    ///
    /// # Errors
    /// [`Error::Config`] when it is neither.
    pub fn per_block(&self, key: &str, len: usize) -> Result<Vec<usize>> {
        let value = self.map.get(key);
        if value.is_some_and(Value::is_number) {
            return Ok(vec![self.count(key, None)?; len]);
        }
        let list = self.counts(key, None)?;
        if list.len() != len {
            return Err(self.wrong(key, &format!("{len} numbers, one a block"), value));
        }
        Ok(list)
    }

    /// A list of texts.
    ///
    /// # Errors
    /// [`Error::Config`] when missing, or something else is in it.
    pub fn texts(&self, key: &str) -> Result<Vec<&str>> {
        let value = self.map.get(key);
        value
            .and_then(Value::as_array)
            .and_then(|list| list.iter().map(Value::as_str).collect())
            .ok_or_else(|| self.wrong(key, "a list of texts", value))
    }

    /// Whether `key` is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|v| !v.is_null())
    }

    /// An error about `key`.
    pub fn wrong(&self, key: &str, want: &str, got: Option<&Value>) -> Error {
        let got = got.map_or("nothing".into(), Value::to_string);
        Error::config(&self.file, format!("`{key}`: wanted {want}, got {got}"))
    }
}

fn whole(v: &Value) -> Option<usize> {
    usize::try_from(v.as_u64()?).ok()
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_measure_are_refused() {
        let huge = usize::MAX;
        let long = vec!["8"; 70].join(",");
        let text = format!(
            "{{\"n\": {huge}, \"list\": [4, {huge}], \"long\": [{long}], \"zero\": 0, \"layers\": 257}}"
        );
        let config = Config::parse("config.json", &text).unwrap();
        let why = |result: Result<Vec<usize>>| result.unwrap_err().to_string();
        let one = |result: Result<usize>| why(result.map(|n| vec![n]));
        let count = one(config.count("n", None));
        let want = format!("config.json: `n`: wanted a whole number from 1 to 1048576, got {huge}");
        assert_eq!(count, want);
        assert!(one(config.count("zero", None)).contains("got 0"));
        assert!(one(config.layers("layers", None)).contains("from 1 to 256, got 257"));
        for key in ["list", "long"] {
            let text = why(config.counts(key, None));
            assert!(text.contains("a list of 1 to 16 whole numbers"), "{text}");
        }
        assert!(why(config.per_block("zero", 2)).contains("got 0"));
        assert!(why(config.per_block("n", 2)).contains("to 1048576"));
        assert_eq!(config.count("missing", Some(3)).unwrap(), 3);
    }
}
