//! Config files: TOML.

use posteriori::{Error, Result};

/// The keys of a file, each with the text of its single value.
pub(crate) fn read(path: &str) -> Result<Vec<(String, String)>> {
    let text = |(key, value)| match text_of(&value) {
        Ok(text) => Ok((key, text)),
        Err(why) => Err(Error::config(path, format!("`{key}`: {why}"))),
    };
    parse(path, &text_of_file(path)?)?
        .into_iter()
        .map(text)
        .collect()
}

/// The content of a file.
pub(crate) fn text_of_file(path: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| Error::config(path, format!("cannot be read as a config file: {e}")))
}

/// The table that the content of the file `path` is.
pub(crate) fn parse(path: &str, text: &str) -> Result<toml::Table> {
    text.parse()
        .map_err(|e: toml::de::Error| Error::config(path, format!("is no valid TOML: {e}")))
}

/// The text of a single value, or why it is none.
pub(crate) fn text_of(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(n) => Ok(n.to_string()),
        toml::Value::Float(x) => Ok(x.to_string()),
        toml::Value::Boolean(b) => Ok(b.to_string()),
        other => {
            let kind = other.type_str();
            Err(format!("wanted a text, number or truth value, got {kind}"))
        }
    }
}
