//! Just enough reading of Rust for the rules: comments, text literals, paths into the crate, lengths of functions.

/// A piece of Rust source.
enum Piece<'a> {
    Code(&'a str),
    Literal(&'a str),
    Comment,
}

/// Cuts source into code, the content of text literals, and comments.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let is_name_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let end = if rest.starts_with(b"//") {
            Some((at, text[at..].find('\n').map_or(bytes.len(), |n| at + n), None))
        } else if rest.starts_with(b"/*") {
            Some((at, text[at..].find("*/").map_or(bytes.len(), |n| at + n + 2), None))
        } else if rest.starts_with(b"r") && !is_name_before && raw_hashes(rest).is_some() {
            let n = raw_hashes(rest).unwrap();
            let close = format!("\"{}", "#".repeat(n));
            let inner = at + n + 2;
            let end = text[inner..].find(&close).map_or(bytes.len(), |m| inner + m);
            Some((at, (end + close.len()).min(bytes.len()), Some((inner, end))))
        } else if rest[0] == b'"' {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            let end = end.min(bytes.len());
            Some((at, (end + 1).min(bytes.len()), Some((at + 1, end))))
        } else if rest.starts_with(b"'\"'") || rest.starts_with(b"'\\") {
            // A character: only a quote or an escape could mislead the rest.
            let skip = text[at + 2..].find('\'').map_or(1, |n| n + 3);
            at += skip;
            continue;
        } else {
            None
        };
        match end {
            None => at += 1,
            Some((from, to, literal)) => {
                pieces.push(Piece::Code(&text[start..from]));
                pieces.push(literal.map_or(Piece::Comment, |(from, to)| Piece::Literal(&text[from..to])));
                (start, at) = (to, to);
            }
        }
    }
    pieces.push(Piece::Code(&text[start..]));
    pieces
}

/// The number of `#` of a raw literal that begins here.
fn raw_hashes(rest: &[u8]) -> Option<usize> {
    let n = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    (rest.get(n + 1) == Some(&b'"')).then_some(n)
}

/// The code alone; comments and the content of literals become spaces.
pub(super) fn without_comments(text: &str) -> String {
    pieces(text).iter().map(|piece| if let Piece::Code(code) = piece { code } else { " " }).collect()
}

/// The content of every text literal.
pub(super) fn literals(text: &str) -> Vec<&str> {
    pieces(text)
        .into_iter()
        .filter_map(|piece| if let Piece::Literal(text) = piece { Some(text) } else { None })
        .collect()
}

/// The source without the unit tests at its end.
pub(super) fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

/// Whether `word` stands in the text and is not the end of a longer name or path.
pub(super) fn mentions(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

/// The first segment of every path that begins with `crate::`, groups included.
pub(super) fn paths_into_crate(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("crate::") {
        // `$crate::` and names that end in `crate`.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + word.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_segments(group)),
            None => found.extend(name_at(rest)),
        }
    }
    found
}

fn name_at(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first segments of a group, up to its closing brace.
fn first_segments(group: &str) -> Vec<String> {
    let mut segments = Vec::from_iter(name_at(group));
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => segments.extend(name_at(&group[at + 1..])),
            _ => {}
        }
    }
    segments
}

/// Name and length of each function, by the indentation that rustfmt gives it.
pub(super) fn function_lines(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = code.starts_with("fn ")
            || (code.starts_with("pub") || code.starts_with("async") || code.starts_with("const"))
                && code.contains(" fn ");
        if !is_function {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - code.len()]);
        let name = code.split("fn ").nth(1).and_then(name_at).unwrap_or_default();
        if let Some(length) = lines[n..].iter().position(|line| *line == close) {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn literals_and_comments_are_told_apart() {
    let text = "let a = \"x // y\"; // \"z\"\nlet b = r#\"q\"u\"#; let c = '\"'; let d = \"e\\\"f\";";
    assert_eq!(literals(text), ["x // y", "q\"u", "e\\\"f"]);
    assert!(!without_comments(text).contains('z'));
}

#[test]
fn groups_of_imports_are_read_to_their_end() {
    let code = "use crate::{job::{JobId, visible}, store};\nuse crate::config::Config;";
    assert_eq!(paths_into_crate(code), ["job", "store", "config"]);
}
