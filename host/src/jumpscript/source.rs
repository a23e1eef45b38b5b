//! Jumpscripts of kind `source`: a text, the interpreter that runs it, and its manifest, as one piece of bytes under one
//! digest.
//!
//! The bytes are [`HEAD`], a line of JSON (`interpreter`, `file`, `manifest_bytes`), the manifest's TOML text, the text.
//!
//! Next: `docs/interpreters.md` for people.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{MANIFEST_BYTES_MAX, Manifest, OWN_ORGANIZATION, ScriptName};

/// Longest text of a script in bytes.
pub const SOURCE_BYTES_MAX: usize = 1024 * 1024;
/// What the bytes of a source begin with.
const HEAD: &[u8] = b"wasmhost source 1\n";
/// Longest line of JSON after it.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// A language whose texts are jumpscripts.
#[derive(Debug, PartialEq, Eq)]
pub struct Language {
    /// The ending of its files, without the dot.
    pub extension: &'static str,
    /// The jumpscript of organization `wasmhost` that runs them.
    pub interpreter: &'static str,
    /// What begins a comment to the end of the line.
    comment: &'static str,
}

/// The languages whose texts are jumpscripts.
pub const LANGUAGES: [Language; 3] = [
    Language { extension: "rhai", interpreter: "rhai", comment: "//" },
    Language { extension: "js", interpreter: "javascript", comment: "//" },
    Language { extension: "py", interpreter: "python", comment: "#" },
];

impl Language {
    /// The language of a file, by its ending.
    #[must_use]
    pub fn of(path: &Path) -> Option<&'static Self> {
        let extension = path.extension()?;
        LANGUAGES.iter().find(|language| extension == language.extension)
    }

    /// The manifest that a text carries in comments: the lines between `# /// jumpscript` and `# ///` (`//` instead of
    /// `#` in JavaScript and Rhai), as in the inline metadata of Python scripts.
    #[must_use]
    pub fn manifest_in(&self, text: &str) -> Option<String> {
        let mut lines =
            text.lines().map(|line| line.strip_prefix(self.comment).map(|rest| rest.strip_prefix(' ').unwrap_or(rest)));
        lines.by_ref().find(|line| line.map(str::trim_end) == Some("/// jumpscript"))?;
        let mut manifest = String::new();
        for line in lines {
            match line {
                Some(end) if end.trim_end() == "///" => return Some(manifest),
                Some(line) => {
                    manifest.push_str(line);
                    manifest.push('\n');
                }
                None => return None,
            }
        }
        None
    }
}

/// A jumpscript of kind `source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The jumpscript that runs it.
    pub interpreter: ScriptName,
    /// What errors call it.
    pub file: String,
    /// The text of its manifest.
    pub manifest: String,
    /// The script.
    pub text: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    interpreter: String,
    file: String,
    manifest_bytes: usize,
}

impl Source {
    /// A source from a file: its name, its bytes, and the manifest beside it, which counts before one in comments.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn new(language: &Language, file: &str, text: Vec<u8>, manifest: Option<&str>) -> Result<Self, String> {
        if text.len() > SOURCE_BYTES_MAX {
            return Err(format!("the script has {} bytes, at most {SOURCE_BYTES_MAX} are allowed", text.len()));
        }
        let text = String::from_utf8(text).map_err(|error| format!("the script is not UTF-8 text: {error}"))?;
        if text.trim().is_empty() {
            return Err("the script is empty".to_owned());
        }
        let manifest = manifest.map(str::to_owned).or_else(|| language.manifest_in(&text)).unwrap_or_default();
        Manifest::parse(&manifest)?;
        let interpreter = ScriptName::new(OWN_ORGANIZATION, language.interpreter)?;
        Ok(Self { interpreter, file: file.to_owned(), manifest, text })
    }

    /// Whether bytes claim to be a source.
    #[must_use]
    pub fn is_source(bytes: &[u8]) -> bool {
        bytes.starts_with(HEAD)
    }

    /// The bytes that are stored and whose digest is its address.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let line = Line {
            interpreter: self.interpreter.to_string(),
            file: self.file.clone(),
            manifest_bytes: self.manifest.len(),
        };
        let line = serde_json::to_string(&line).unwrap_or_default();
        [HEAD, line.as_bytes(), b"\n", self.manifest.as_bytes(), self.text.as_bytes()].concat()
    }

    /// Reads the bytes back.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(HEAD).ok_or("they are no source of this version")?;
        let end =
            rest.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n').ok_or("the first line has no end")?;
        let (line, rest) = (&rest[..end], &rest[end + 1..]);
        let line: Line = serde_json::from_slice(line).map_err(|error| format!("the first line is no JSON: {error}"))?;
        let fits = line.manifest_bytes <= MANIFEST_BYTES_MAX;
        let (manifest, text) = rest.split_at_checked(line.manifest_bytes).filter(|_| fits).ok_or("they are cut off")?;
        let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| format!("no UTF-8 text: {error}"));
        let source = Self {
            interpreter: line.interpreter.parse()?,
            file: line.file,
            manifest: utf8(manifest)?,
            text: utf8(text)?,
        };
        source.manifest()?;
        Ok(source)
    }

    /// What it says about itself.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn manifest(&self) -> Result<Manifest, String> {
        Manifest::parse(&self.manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(text: &str, manifest: Option<&str>) -> Result<Source, String> {
        let language = Language::of(Path::new("scripts/hello.py")).unwrap();
        Source::new(language, "hello.py", text.as_bytes().to_vec(), manifest)
    }

    #[test]
    fn a_source_reads_back_what_it_was() {
        let source = python("print(1)\n", Some("types = ['hi']\n")).unwrap();
        assert_eq!(source.interpreter.to_string(), "wasmhost/python");
        let bytes = source.encode();
        assert!(Source::is_source(&bytes));
        assert_eq!(Source::decode(&bytes), Ok(source));
        for cut in 0..bytes.len() - b"print(1)\n".len() {
            assert!(Source::decode(&bytes[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn a_manifest_in_comments_counts_unless_one_lies_beside() {
        let text = "#!/usr/bin/env python\n# /// jumpscript\n# timeout = '5s'\n#\n# types = ['hi']\n# ///\nprint(1)\n";
        let source = python(text, None).unwrap();
        assert_eq!(source.manifest, "timeout = '5s'\n\ntypes = ['hi']\n");
        assert_eq!(python(text, Some("")).unwrap().manifest, "");
        assert_eq!(LANGUAGES[1].manifest_in("// /// jumpscript\n// types = []\n// ///\n").unwrap(), "types = []\n");
        assert_eq!(LANGUAGES[2].manifest_in("# /// jumpscript\n# types = []\nprint(1)"), None, "it has no end");
    }

    #[test]
    fn what_can_be_no_script_is_named() {
        assert!(python(" \n", None).unwrap_err().contains("empty"));
        assert!(python("# /// jumpscript\n# tpyes = []\n# ///\n", None).unwrap_err().contains("tpyes"));
        assert!(Language::of(Path::new("a.mjs")).is_none());
    }
}
