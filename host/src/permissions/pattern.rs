//! Patterns of names: buckets, keys, secrets, queues, variables.
//!
//! Invariant: a `*` stands only at the end, so that whether one pattern covers another is a comparison of two beginnings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::job::{check_name, visible};

/// Longest pattern in bytes.
pub const PATTERN_BYTES_MAX: usize = crate::job::NAME_BYTES_MAX;

/// A name, or with `*` at its end every name that begins so. `*` alone is every name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NamePattern {
    /// The name, or what comes before the `*`.
    text: String,
    is_prefix: bool,
}

impl NamePattern {
    /// The pattern `*`.
    #[must_use]
    pub const fn every() -> Self {
        Self { text: String::new(), is_prefix: true }
    }

    /// Whether the pattern names this name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.is_prefix { !name.is_empty() && name.starts_with(&self.text) } else { name == self.text }
    }

    /// Whether everything that `other` names is named by this pattern too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.is_prefix { other.text.starts_with(&self.text) } else { self == other }
    }

    /// The name, when the pattern is one and not many.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        (!self.is_prefix).then_some(self.text.as_str())
    }

    /// The name, or what comes before the `*`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl FromStr for NamePattern {
    type Err = String;

    /// Reads a pattern. The error is a sentence that names it and the rule.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(front) => (front, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(format!("the pattern `{}` must have its `*` at the end, such as `mail-*`", visible(text)));
        }
        if !(is_prefix && name.is_empty()) {
            check_name("the name", name)?;
        }
        Ok(Self { text: name.to_owned(), is_prefix })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.is_prefix { "*" } else { "" })
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for NamePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Buckets of state: `orders` to read and write, `orders:ro` to read only; `*` as in [`NamePattern`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StatePattern {
    /// The buckets.
    pub bucket: NamePattern,
    /// Whether nothing may be written.
    pub is_read_only: bool,
}

impl StatePattern {
    /// Whether everything that `other` may do is allowed by this pattern.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.bucket.covers(&other.bucket) && (!self.is_read_only || other.is_read_only)
    }
}

impl FromStr for StatePattern {
    type Err = String;

    /// Reads `BUCKET` or `BUCKET:ro`. The error is a sentence that names it and the rule.
    fn from_str(text: &str) -> Result<Self, String> {
        let (bucket, is_read_only) = match text.split_once(':') {
            None => (text, false),
            Some((bucket, "ro")) => (bucket, true),
            Some((bucket, "rw")) => (bucket, false),
            Some((_, mode)) => {
                return Err(format!(
                    "the bucket `{}` ends in `:{}`, must end in `:ro` (read only) or have no `:`",
                    visible(text),
                    visible(mode)
                ));
            }
        };
        Ok(Self { bucket: bucket.parse()?, is_read_only })
    }
}

impl fmt::Display for StatePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bucket.fmt(f)?;
        f.write_str(if self.is_read_only { ":ro" } else { "" })
    }
}

impl From<StatePattern> for String {
    fn from(pattern: StatePattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for StatePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    fn state(text: &str) -> StatePattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_names_what_begins_like_it() {
        assert!(name("mail").matches("mail") && !name("mail").matches("mail-in"));
        assert!(
            name("mail-*").matches("mail-in") && name("mail-*").matches("mail-") && !name("mail-*").matches("mail")
        );
        assert!(name("*").matches("anything") && !name("*").matches(""));
    }

    #[test]
    fn a_pattern_covers_what_names_no_more() {
        assert!(name("*").covers(&name("mail-*")) && name("mail-*").covers(&name("mail-in-*")));
        assert!(name("mail-*").covers(&name("mail-in")) && !name("mail-in").covers(&name("mail-*")));
        assert!(!name("mail-*").covers(&name("*")) && !name("mail-*").covers(&name("mai*")));
    }

    #[test]
    fn reading_is_covered_by_writing_and_not_the_other_way() {
        assert!(state("orders").covers(&state("orders:ro")) && !state("orders:ro").covers(&state("orders")));
        assert!(state("*:ro").covers(&state("orders:ro")) && state("orders:ro").covers(&state("orders:ro")));
        assert_eq!(state("orders:rw"), state("orders"));
        assert_eq!(state("cache-*:ro").to_string(), "cache-*:ro");
    }

    #[test]
    fn a_wrong_form_is_refused_with_the_rule() {
        for (text, rule) in
            [("", "must not be empty"), ("a*b", "at the end"), ("a\nb", "must not contain"), ("**", "at the end")]
        {
            let error = text.parse::<NamePattern>().unwrap_err();
            assert!(error.contains(rule), "{text}: {error}");
        }
        assert!("orders:rx".parse::<StatePattern>().unwrap_err().contains(":ro"));
        assert!(":ro".parse::<StatePattern>().unwrap_err().contains("must not be empty"));
    }
}
