//! Directories that a jumpscript reads.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::job::visible;

/// Longest path in bytes.
pub const PATH_BYTES_MAX: usize = 1024;

/// The path of a directory: absolute, without `.` and `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Directory(String);

impl Directory {
    /// The directory that all others lie in.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this directory or lies in it, as far as the names say.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.path().starts_with(self.path())
    }
}

impl FromStr for Directory {
    type Err = String;

    /// Reads a path. The error is a sentence that names it and the rule.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |rule: &str| Err(format!("the directory `{}` {rule}", visible(text)));
        if text.len() > PATH_BYTES_MAX {
            return Err(format!("a directory has {} bytes, at most {PATH_BYTES_MAX} are allowed", text.len()));
        }
        if !text.starts_with('/') {
            return bad("must be an absolute path, such as /etc/ssl");
        }
        if text.chars().any(char::is_control) {
            return bad("must not contain control characters");
        }
        let mut path = PathBuf::new();
        for component in Path::new(text).components() {
            match component {
                Component::ParentDir => return bad("must not contain `..`"),
                other => path.push(other),
            }
        }
        // It was text, so it still is.
        Ok(Self(path.to_string_lossy().into_owned()))
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Directory> for String {
    fn from(directory: Directory) -> Self {
        directory.0
    }
}

impl TryFrom<String> for Directory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(text: &str) -> Directory {
        text.parse().unwrap()
    }

    #[test]
    fn a_directory_has_one_spelling_and_covers_what_lies_in_it() {
        assert_eq!(directory("/etc//ssl/./").to_string(), "/etc/ssl");
        assert!(
            directory("/etc").covers(&directory("/etc/ssl")) && directory("/etc/ssl").covers(&directory("/etc/ssl"))
        );
        assert!(
            !directory("/etc/ssl").covers(&directory("/etc")) && !directory("/etc").covers(&directory("/etcetera"))
        );
        assert!(directory("/").covers(&directory("/etc")));
    }

    #[test]
    fn paths_that_could_lead_elsewhere_are_refused() {
        for (text, rule) in [("etc", "absolute"), ("", "absolute"), ("/etc/../root", "`..`"), ("/a\nb", "control")] {
            let error = text.parse::<Directory>().unwrap_err();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }
}
