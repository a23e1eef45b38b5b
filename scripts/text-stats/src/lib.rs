//! Counts what is in a text: bytes, lines, words, SHA-256, and the most frequent words.
//!
//! The payload is `{"path": …, "text": …}` or the text itself; a text that is not UTF-8 is counted as far as it can be
//! read. Words are runs of letters, digits and `_`, compared in lower case.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmhost_guest::{Job, JobError, Raw};

/// How many words are listed.
const TOP: usize = 5;
/// Shorter words say nothing about a text.
const WORD_CHARS_MIN: usize = 3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    path: String,
    text: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Stats {
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    bytes: usize,
    lines: usize,
    words: usize,
    sha256: String,
    top: Vec<(String, usize)>,
}

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Stats, JobError> {
    let Raw(payload) = job.args;
    // Only a whole record counts as one: a JSON file sent as raw text is still a text.
    Ok(match serde_json::from_slice::<Named>(&payload) {
        Ok(Named { path, text }) => stats(path, text.as_bytes()),
        Err(_) => stats(String::new(), &payload),
    })
}

fn stats(path: String, bytes: &[u8]) -> Stats {
    let text = String::from_utf8_lossy(bytes);
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut words = 0;
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()) {
        words += 1;
        if word.chars().count() >= WORD_CHARS_MIN && word.chars().any(char::is_alphabetic) {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
    }
    let mut top: Vec<(String, usize)> = counts.into_iter().collect();
    top.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    top.truncate(TOP);
    let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Stats { path, bytes: bytes.len(), lines: text.lines().count(), words, sha256, top }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(payload: &str) -> Stats {
        run(Job::test(Raw(payload.as_bytes().to_vec()))).unwrap()
    }

    #[test]
    fn a_named_text_and_a_raw_one_are_counted_alike() {
        let raw = run_on("The cat\nand the hat");
        assert_eq!((raw.bytes, raw.lines, raw.words), (19, 2, 5));
        assert_eq!(raw.top[0], ("the".to_owned(), 2));
        let named = run_on(r#"{"path":"a.txt","text":"The cat\nand the hat"}"#);
        assert_eq!(named, Stats { path: "a.txt".to_owned(), ..raw });
    }

    #[test]
    fn an_empty_text_has_the_digest_of_nothing() {
        let stats = run_on("");
        assert_eq!((stats.bytes, stats.lines, stats.words), (0, 0, 0));
        assert!(stats.sha256.starts_with("e3b0c44298fc1c14"));
    }

    #[test]
    fn other_json_is_a_text() {
        assert_eq!(run_on(r#"{"a":1}"#).words, 2);
    }
}
