//! Whether an attempt came out as a case expects, and what differs.

use std::path::Path;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::super::local::Ran;
use super::case::{Expect, json, read_beside};
use super::stored::{differently_enqueued, unwritten};
use crate::clock::format_duration;
use crate::job::{visible, visible_lines};
use crate::outcome::Outcome;

/// Something that came out otherwise than expected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The key of the expectation.
    pub(super) key: &'static str,
    /// What differs, in lines; those of a diff begin with `-` (expected) and `+` (what came).
    pub(super) lines: Vec<String>,
}

/// Everything in which an attempt differs from what was expected; `folder` is that of the file of cases.
pub(super) fn differences(expect: &Expect, folder: &Path, ran: &Ran) -> Result<Vec<Difference>, String> {
    let (outcome, usage) = (&ran.finished.outcome, &ran.finished.usage);
    let mut found = Vec::new();
    let mut differ = |key: &'static str, lines: Vec<String>| found.push(Difference { key, lines });
    let kind = outcome.kind();
    match &expect.outcome {
        Some(word) if word != kind => differ("outcome", vec![format!("-{word}"), format!("+{kind}")]),
        None if expect.fails() && kind == "done" => differ("outcome", vec!["-an error".to_owned(), "+done".to_owned()]),
        None if !expect.fails() && kind != "done" => {
            differ("outcome", vec!["-done".to_owned(), format!("+{kind}")]);
        }
        _ => {}
    }
    if let Outcome::Done { result } = outcome
        && let Some((key, lines)) = result_difference(expect, folder, result)?
    {
        differ(key, lines);
    }
    let error = outcome.error_text();
    let told = || error.lines().map(|line| format!("+{}", visible(line))).collect::<Vec<_>>();
    if let Some(part) = expect.error.as_ref().filter(|part| !error.contains(part.as_str())) {
        differ("error", [vec![format!("-{}", visible_lines(part))], told()].concat());
    }
    if let Some(pattern) = expect.error_regex.as_ref().filter(|pattern| !is_match(pattern, &error)) {
        differ("error_regex", [vec![format!("-{pattern}")], told()].concat());
    }
    if let Some(after) = expect.retry_after()? {
        let asked = if let Outcome::Retry { after, .. } = outcome { *after } else { None };
        if asked != Some(after) {
            let asked = asked.map_or_else(|| "no time asked for".to_owned(), format_duration);
            differ("retry_after", vec![format!("-{}", format_duration(after)), format!("+{asked}")]);
        }
    }
    for part in expect.log.iter().filter(|part| !usage.log_tail.contains(part.as_str())) {
        differ("log", vec![format!("-{}", visible(part)), "+it is not in the log".to_owned()]);
    }
    let own = [("", &expect.state)];
    let named = expect.buckets.iter().map(|(name, values)| (name.as_str(), values));
    for (key, (bucket, values)) in
        own.into_iter().map(|own| ("state", own)).chain(named.map(|named| ("buckets", named)))
    {
        let lines = unwritten(&ran.finished, bucket, values);
        if !lines.is_empty() {
            differ(key, lines);
        }
    }
    if let Some(expected) = &expect.enqueued {
        let lines = differently_enqueued(&ran.finished, expected);
        if !lines.is_empty() {
            differ("enqueued", lines);
        }
    }
    let wall = Duration::from_micros(usage.wall_us);
    if let Some(most) = expect.wall_max()?.filter(|most| wall > *most) {
        differ("wall_max", vec![format!("-{}", format_duration(most)), format!("+{}", format_duration(wall))]);
    }
    let mib = usage.memory_bytes_peak.div_ceil(1024 * 1024);
    let counts = [
        ("memory_mib_max", expect.memory_mib_max.map(u64::from), mib),
        ("host_calls_max", expect.host_calls_max, ran.calls.total()),
        ("log_lines_max", expect.log_lines_max, ran.log_lines),
    ];
    for (key, most, n) in counts {
        if let Some(most) = most.filter(|most| n > *most) {
            differ(key, vec![format!("-{most}"), format!("+{n}")]);
        }
    }
    Ok(found)
}

fn result_difference(
    expect: &Expect,
    folder: &Path,
    result: &[u8],
) -> Result<Option<(&'static str, Vec<String>)>, String> {
    let text = String::from_utf8_lossy(result);
    let as_json = || serde_json::from_slice::<Value>(result).map_err(|_| text_lines('+', &text));
    let equal_json = |key, expected: &Value| match as_json() {
        Ok(came) if is_equal(expected, &came) => None,
        Ok(came) => Some((key, diff(&pretty(expected), &pretty(&came)))),
        Err(came) => Some((key, [text_lines('-', &pretty(expected)), vec!["+no JSON:".to_owned()], came].concat())),
    };
    if let Some(expected) = &expect.result {
        return Ok(equal_json("result", &json(expected)));
    }
    if let Some(expected) = &expect.text {
        return Ok((expected.as_bytes() != result).then(|| ("text", diff(expected, &text))));
    }
    if let Some(file) = &expect.result_file {
        let expected = read_beside(folder, file)?;
        if file.extension().is_some_and(|extension| extension == "json") {
            let expected = serde_json::from_slice(&expected)
                .map_err(|error| format!("`{}` is no JSON: {error}", file.display()))?;
            return Ok(equal_json("result_file", &expected));
        }
        let expected_text = String::from_utf8_lossy(&expected);
        return Ok((expected != result).then(|| ("result_file", diff(&expected_text, &text))));
    }
    if let Some(expected) = &expect.subset {
        let mut missing = Vec::new();
        match as_json() {
            Ok(came) => subset(&json(expected), &came, "", &mut missing),
            Err(came) => missing = [vec!["+no JSON:".to_owned()], came].concat(),
        }
        return Ok((!missing.is_empty()).then_some(("subset", missing)));
    }
    if let Some(pattern) = expect.regex.as_ref().filter(|pattern| !is_match(pattern, &text)) {
        return Ok(Some(("regex", [vec![format!("-{pattern}")], text_lines('+', &text)].concat())));
    }
    Ok(None)
}

fn is_match(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
}

/// Equality of JSON in which 1 and 1.0 are the same number.
pub(super) fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_equal(a, b)))
        }
        _ => a == b,
    }
}

/// What of `expected` is not in `came`: objects may have more keys, arrays have the same length.
fn subset(expected: &Value, came: &Value, place: &str, missing: &mut Vec<String>) {
    let mut differ = |came: &str| {
        let place = if place.is_empty() { "the result" } else { place };
        missing.extend([format!("-{place}: {expected}"), format!("+{place}: {came}")]);
    };
    match (expected, came) {
        (Value::Object(wanted), Value::Object(given)) => {
            for (key, wanted) in wanted {
                let inside = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                match given.get(key) {
                    Some(given) => subset(wanted, given, &inside, missing),
                    None => missing.extend([format!("-{inside}: {wanted}"), format!("+{inside}: absent")]),
                }
            }
        }
        (Value::Array(wanted), Value::Array(given)) if wanted.len() == given.len() => {
            for (n, (wanted, given)) in wanted.iter().zip(given).enumerate() {
                subset(wanted, given, &format!("{place}[{n}]"), missing);
            }
        }
        _ if is_equal(expected, came) => {}
        _ => differ(&came.to_string()),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// Lines of a text, each with a mark.
fn text_lines(mark: char, text: &str) -> Vec<String> {
    text.lines().map(|line| format!("{mark}{}", visible(line))).collect()
}

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;

/// What differs, line by line. A line end that one side lacks is said, since nobody sees it.
fn diff(expected: &str, came: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(expected, came);
    let has_open_end = expected.ends_with('\n') != came.ends_with('\n');
    let mut lines = Vec::new();
    for (n, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if n > 0 {
            lines.push(" …".to_owned());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let mark = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let text: &str = change.value();
            let is_open = has_open_end && change.tag() != ChangeTag::Equal && !text.ends_with('\n');
            let end = if is_open { " (without line end)" } else { "" };
            lines.push(format!("{mark}{}{end}", visible(text.trim_end_matches('\n'))));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_subset_may_have_more_keys_and_tells_the_place_of_what_is_missing() {
        let missing = |expected: Value, came: Value| {
            let mut missing = Vec::new();
            subset(&expected, &came, "", &mut missing);
            missing
        };
        assert_eq!(missing(json!({"a": {"b": 1}}), json!({"a": {"b": 1.0, "c": 2}, "d": 3})), Vec::<String>::new());
        assert_eq!(missing(json!({"a": {"b": 1}}), json!({"a": {"b": 2}})), ["-a.b: 1", "+a.b: 2"]);
        assert_eq!(missing(json!({"a": [{"b": 1}]}), json!({"a": [{}]})), ["-a[0].b: 1", "+a[0].b: absent"]);
        assert_eq!(missing(json!({"a": [1]}), json!({"a": [1, 2]})), ["-a: [1]", "+a: [1,2]"]);
        assert_eq!(missing(json!(1), json!("1")), ["-the result: 1", "+the result: \"1\""]);
    }

    #[test]
    fn numbers_are_equal_by_value_and_large_ones_exactly() {
        assert!(is_equal(&json!({"n": [1]}), &json!({"n": [1.0]})));
        assert!(!is_equal(&json!(9_007_199_254_740_993_i64), &json!(9_007_199_254_740_992_i64)));
        assert!(!is_equal(&json!({"a": 1}), &json!({"a": 1, "b": 2})));
    }

    #[test]
    fn a_diff_shows_what_changed_and_a_missing_line_end() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\n"), [" a", "-b", "+x", " c"]);
        assert_eq!(diff("a\n", "a"), ["-a", "+a (without line end)"]);
    }
}
