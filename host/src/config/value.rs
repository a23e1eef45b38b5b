//! How a setting's value is read from TOML and from text (flags and environment), and shown again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::clock::{format_duration, parse_duration};
use crate::job::{check_name, visible};
use crate::permissions::{Ceiling, HttpPattern, Permissions};
use crate::protocol::Protocol;
use crate::signatures::Policy;

/// Largest weight of a queue.
pub const WEIGHT_MAX: u32 = 100;

/// A type that a setting may have.
pub(super) trait Value: Sized {
    /// What the value must be, as the end of a sentence: `must be …`.
    const EXPECTED: &'static str;

    /// Reads the value from a flag or an environment variable.
    ///
    /// # Errors
    /// The end of a sentence that says what it must be.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads the value from a TOML value.
    ///
    /// # Errors
    /// The end of a sentence that says what it must be.
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::from_text(text),
            _ => Err(Self::EXPECTED.to_owned()),
        }
    }

    /// The value as a person would write it.
    fn show(&self) -> String;
}

impl Value for String {
    const EXPECTED: &'static str = "must be a string";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        visible(self)
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "must be a path";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Self::from(text)) }
    }

    fn show(&self) -> String {
        visible(&self.to_string_lossy())
    }
}

impl Value for Duration {
    const EXPECTED: &'static str =
        "must be a duration in quotes, a number and a unit such as \"500ms\", \"30s\" or \"5m\"";

    fn from_text(text: &str) -> Result<Self, String> {
        parse_duration(text).map_err(|_| {
            if text.trim_start().starts_with('-') {
                "must not be negative".to_owned()
            } else {
                "must be a duration, a number and a unit such as 500ms, 30s or 5m".to_owned()
            }
        })
    }

    fn show(&self) -> String {
        format_duration(*self).replace(' ', "")
    }
}

impl Value for u64 {
    const EXPECTED: &'static str = "must be a whole number, zero or more";

    fn from_text(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| Self::EXPECTED.to_owned())
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_integer().and_then(|n| Self::try_from(n).ok()).ok_or_else(|| Self::EXPECTED.to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "must be true or false";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(Self::EXPECTED.to_owned()),
        }
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| Self::EXPECTED.to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Vec<String> {
    const EXPECTED: &'static str = "must be a list of strings";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let bad = || Self::EXPECTED.to_owned();
        value.as_array().ok_or_else(bad)?.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(bad)).collect()
    }

    fn show(&self) -> String {
        visible(&self.join(","))
    }
}

impl Value for Policy {
    const EXPECTED: &'static str = "must be one of off, warn, require";

    fn from_text(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        known.ok_or_else(|| Self::EXPECTED.to_owned())
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Value for Vec<HttpPattern> {
    const EXPECTED: &'static str = "must be a list of `HOST:PORT`";

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let bad = || Self::EXPECTED.to_owned();
        let list = value.as_array().ok_or_else(bad)?;
        list.iter().map(|pattern| pattern.as_str().ok_or_else(bad).and_then(str::parse)).collect()
    }

    fn show(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Value for Ceiling {
    const EXPECTED: &'static str = "must be tables such as { \"acme/mail\" = { enqueue = [\"mail-*\"] } }";

    fn from_text(text: &str) -> Result<Self, String> {
        let value = format!("it = {text}").parse::<toml::Table>().map_err(|_| Self::EXPECTED.to_owned())?;
        value.get("it").map_or_else(|| Err(Self::EXPECTED.to_owned()), Self::from_toml)
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_table().map_or_else(|| Err(Self::EXPECTED.to_owned()), Self::from_tables)
    }

    fn show(&self) -> String {
        let table =
            |(name, permissions): (&str, &Permissions)| format!("{}: {}", visible(name), permissions.in_words());
        self.tables().map(table).collect::<Vec<_>>().join("; ")
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| {
            let known = Self::ALL.map(Self::word);
            let distance = |word: &str| strsim::damerau_levenshtein(word, &text.to_lowercase());
            let near = known.into_iter().min_by_key(|word| distance(word)).filter(|word| distance(word) <= 2);
            let hint = near
                .map_or_else(|| format!("there are: {}", known.join(", ")), |word| format!("did you mean `{word}`?"));
            format!("but there is no protocol `{}`; {hint}", visible(text))
        })
    }
}

impl Value for Vec<Protocol> {
    const EXPECTED: &'static str = "must be a list of names of protocols";

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let bad = || Self::EXPECTED.to_owned();
        let list = value.as_array().ok_or_else(bad)?;
        list.iter().map(|name| name.as_str().ok_or_else(bad).and_then(str::parse)).collect()
    }

    fn show(&self) -> String {
        self.iter().map(|protocol| protocol.word()).collect::<Vec<_>>().join(",")
    }
}

/// A queue that a host serves, and its share under backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its share against the other queues, 1 to [`WEIGHT_MAX`].
    pub weight: u32,
}

impl FromStr for Queue {
    type Err = String;

    /// Reads `NAME` (weight 1) or `NAME=WEIGHT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
        let queue = Self { name: name.to_owned(), weight: weight.parse().unwrap_or(0) };
        queue.check().map_err(|error| {
            if weight.parse::<u32>().is_ok() {
                error
            } else {
                format!(
                    "queue `{}`: weight `{}` must be a number from 1 to {WEIGHT_MAX}",
                    visible(name),
                    visible(weight)
                )
            }
        })?;
        Ok(queue)
    }
}

impl Queue {
    fn check(&self) -> Result<(), String> {
        check_name("queue", &self.name)?;
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(format!(
                "queue `{}`: weight {} must be a number from 1 to {WEIGHT_MAX}",
                visible(&self.name),
                self.weight
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", visible(&self.name), self.weight)
    }
}

impl Value for Vec<Queue> {
    const EXPECTED: &'static str = "must be a table of names and weights such as { mail = 3, default = 1 }, or a list of \
                                    names";

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let bad = || Self::EXPECTED.to_owned();
        match value {
            toml::Value::Table(table) => table
                .iter()
                .map(|(name, weight)| {
                    let weight = weight.as_integer().ok_or_else(bad)?;
                    let queue = Queue { name: name.clone(), weight: u32::try_from(weight).unwrap_or(0) };
                    queue.check().map(|()| queue)
                })
                .collect(),
            toml::Value::Array(names) => {
                names.iter().map(|name| name.as_str().ok_or_else(bad).and_then(str::parse)).collect()
            }
            _ => Err(bad()),
        }
    }

    fn show(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text each.
    Text,
    /// One JSON object each.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}

impl Value for LogFormat {
    const EXPECTED: &'static str = "must be one of auto, text, json";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Self::EXPECTED.to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
        .to_owned()
    }
}

/// How much speed is given for defence in depth against faults of the compiler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hardening {
    /// The engine's usual guards.
    #[default]
    Default,
    /// Every guard there is.
    Strict,
}

impl FromStr for Hardening {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}

impl Value for Hardening {
    const EXPECTED: &'static str = "must be one of default, strict";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::Default),
            "strict" => Ok(Self::Strict),
            _ => Err(Self::EXPECTED.to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Default => "default",
            Self::Strict => "strict",
        }
        .to_owned()
    }
}

/// A text that must not be seen: it prints as `***` wherever it lands.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one call that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Value for Secret {
    const EXPECTED: &'static str = "must be a string";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The environment of a process, passed in so that a test needs none.
pub type Environment = BTreeMap<String, String>;
