//! The languages of jumpscripts: what a new project of each is made of, and which tools build it.
//!
//! Invariant: nothing is installed here, and a project is written whole or not at all.
//!
//! Next: `template` for the files, `tools` for what must be on the machine.

mod template;
mod tools;

use std::fmt;
use std::str::FromStr;

pub use template::{NewProject, check_name};
pub use tools::{Missing, Tool, missing_tools, resolve, search_path};

/// A language that `wasmhost new` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// A component, with the SDK.
    Rust,
    /// A component, by componentize-qjs.
    JavaScript,
    /// A component, by componentize-py.
    Python,
    /// A command of WASI preview 1.
    Go,
    /// A command of WASI preview 1, by zig.
    C,
    /// A command of WASI preview 1.
    AssemblyScript,
}

impl Language {
    /// Every language, in the order in which they are listed.
    pub const ALL: [Self; 6] = [Self::Rust, Self::JavaScript, Self::Python, Self::Go, Self::C, Self::AssemblyScript];

    /// The word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Go => "go",
            Self::C => "c",
            Self::AssemblyScript => "assemblyscript",
        }
    }

    /// The name in a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::C => "C",
            Self::AssemblyScript => "AssemblyScript",
        }
    }

    /// A payload that the template's function takes, for the commands that a person is shown.
    #[must_use]
    pub const fn payload(self) -> &'static str {
        match self {
            Self::C | Self::AssemblyScript => "Ada",
            _ => r#"{"name": "Ada"}"#,
        }
    }

    /// The words of all languages, for a person.
    #[must_use]
    pub fn listed() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Language {
    type Err = String;

    /// Reads the word of a language, or a usual short form of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.to_lowercase();
        let alias = match word.as_str() {
            "rs" => Some(Self::Rust),
            "js" => Some(Self::JavaScript),
            "py" => Some(Self::Python),
            "golang" => Some(Self::Go),
            "as" => Some(Self::AssemblyScript),
            _ => None,
        };
        if let Some(found) = alias.or_else(|| Self::ALL.into_iter().find(|language| language.as_str() == word)) {
            return Ok(found);
        }
        let near = |language: &Self| strsim::damerau_levenshtein(language.as_str(), &word);
        let hint = match word.as_str() {
            "ts" | "typescript" => {
                "; TypeScript is compiled to JavaScript first (`javascript`), or written as AssemblyScript".to_owned()
            }
            "c++" | "cpp" => "; `c` builds C++ too: name the file `.cpp` and call `zig c++`".to_owned(),
            _ => {
                match Self::ALL.into_iter().min_by_key(near).filter(|language| near(language) <= 3 && word.len() > 2) {
                    Some(nearest) => format!("; did you mean `{nearest}`?"),
                    None => String::new(),
                }
            }
        };
        Err(format!(
            "there is no template for the language `{}`{hint}; known are {}",
            crate::job::visible(text),
            Self::listed()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_its_word_and_its_short_forms() {
        for language in Language::ALL {
            assert_eq!(language.as_str().parse(), Ok(language));
        }
        for (short, language) in
            [("JS", Language::JavaScript), ("py", Language::Python), ("as", Language::AssemblyScript)]
        {
            assert_eq!(short.parse(), Ok(language));
        }
    }

    #[test]
    fn an_unknown_language_is_answered_with_the_known_ones_and_the_nearest() {
        let refused = |word: &str| Language::from_str(word).unwrap_err();
        assert!(refused("pyhton").contains("did you mean `python`?"));
        assert!(refused("cobol").ends_with("known are rust, javascript, python, go, c, assemblyscript"));
        assert!(!refused("cobol").contains("did you mean"));
        assert!(refused("ts").contains("compiled to JavaScript"));
    }
}
