//! What can be wrong with the configuration, each with the key, the value and the rule.

use std::fmt;
use std::path::PathBuf;

use super::keys::KeySpec;
use crate::job::visible;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// An environment variable, by name.
    Environment(&'static str),
    /// The configuration file.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(variable) => f.write_str(variable),
            Self::File(path) => f.write_str(&visible(&path.to_string_lossy())),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configuration file could not be read.
    #[error("cannot read the configuration file `{path}`: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// The configuration file is not TOML; the text shows the line.
    #[error("the configuration file `{path}` is not TOML: {text}")]
    Syntax {
        /// The file.
        path: String,
        /// The parser's words with the line and a caret.
        text: String,
    },
    /// A key that nobody knows.
    #[error("unknown config key `{key}` in `{path}`")]
    UnknownKey {
        /// The key.
        key: String,
        /// The file.
        path: String,
        /// The known key that is nearest, if one is near.
        nearest: Option<&'static str>,
    },
    /// A value that breaks its rule.
    #[error("{name} is `{value}`, {rule}")]
    BadValue {
        /// What the person wrote: ``config key `lease` ``, ``environment variable `WASMHOST_LEASE` ``, ``flag `--lease` ``.
        name: String,
        /// The value; `***` for a secret.
        value: String,
        /// The end of the sentence.
        rule: String,
        /// What to do, when it is surely useful.
        hint: Option<String>,
    },
}

impl Error {
    /// What to do about it, for a `hint:` line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest: Some(key), .. } => Some(format!("did you mean `{key}`?")),
            Self::UnknownKey { nearest: None, .. } => Some("docs/configuration.md lists every key".to_owned()),
            Self::BadValue { hint, .. } => hint.clone(),
            Self::Unreadable { .. } | Self::Syntax { .. } => None,
        }
    }

    pub(super) fn bad(spec: &KeySpec, origin: &Origin, value: &str, rule: impl Into<String>) -> Self {
        let value = if spec.is_secret { "***".to_owned() } else { visible(value) };
        Self::BadValue { name: spec.named_by(origin), value, rule: rule.into(), hint: None }
    }

    pub(super) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::BadValue { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }
}
