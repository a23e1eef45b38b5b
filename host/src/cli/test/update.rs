//! `--update`: what came is written into the file of cases as what is expected. Everything else in the file stays as it
//! is, comments included.

use std::path::{Path, PathBuf};

use serde_json::Value;
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike};

use super::case::Expect;
use crate::outcome::Outcome;

/// A file of cases that is being changed.
pub(super) struct Update {
    path: PathBuf,
    document: DocumentMut,
    is_changed: bool,
}

impl Update {
    pub(super) fn new(path: &Path, text: &str) -> Result<Self, String> {
        let document = text.parse().map_err(|error| format!("it cannot be changed: {error}"))?;
        Ok(Self { path: path.to_owned(), document, is_changed: false })
    }

    /// Writes what came of the `n`th case. What a person wrote as a rule (a subset, a pattern, a limit, a part of the
    /// log) is never replaced by an example; a sentence says so.
    pub(super) fn expect(&mut self, n: usize, expect: Option<&Expect>, outcome: &Outcome) -> Result<(), String> {
        let missing = || "its cases are not tables `[[case]]`; change them by hand".to_owned();
        let cases = self.document.get_mut("case").and_then(Item::as_array_of_tables_mut).ok_or_else(missing)?;
        let case = cases.get_mut(n).ok_or_else(missing)?;
        let table = case.entry("expect").or_insert_with(|| Item::Table(Table::new()));
        let table = table.as_table_like_mut().ok_or("its `expect` is no table")?;
        let nothing = Expect::default();
        let expect = expect.unwrap_or(&nothing);
        if let Outcome::Done { result } = outcome {
            for key in ["error", "error_regex", "retry_after"] {
                table.remove(key);
            }
            if expect.outcome.is_some() {
                set(table, "outcome", "done");
            }
            write_result(table, self.path.parent().unwrap_or(Path::new(".")), expect, result)?;
        } else {
            for key in ["result", "text", "subset", "regex", "result_file", "retry_after", "error_regex"] {
                table.remove(key);
            }
            set(table, "outcome", outcome.kind());
            let error = outcome.error_text();
            // The backtrace below it changes with every build.
            let message: Vec<&str> = error.lines().take_while(|line| !line.starts_with("  at ")).collect();
            set(table, "error", message.join("\n"));
            if let Outcome::Retry { after: Some(after), .. } = outcome {
                set(table, "retry_after", crate::clock::format_duration(*after));
            }
        }
        self.is_changed = true;
        Ok(())
    }

    /// Writes the file, whole or not at all.
    pub(super) fn save(&self) -> std::io::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let draft = self.path.with_extension("toml.draft");
        std::fs::write(&draft, self.document.to_string())?;
        std::fs::rename(&draft, &self.path)
    }
}

fn write_result(table: &mut dyn TableLike, folder: &Path, expect: &Expect, result: &[u8]) -> Result<(), String> {
    let rule = [("subset", expect.subset.is_some()), ("regex", expect.regex.is_some())];
    if let Some((key, _)) = rule.iter().find(|(_, is_given)| *is_given) {
        return Err(format!("`{key}` is a rule of yours; change it by hand"));
    }
    if let Some(file) = &expect.result_file {
        let path = folder.join(file);
        return std::fs::write(&path, result).map_err(|error| format!("`{}`: {error}", path.display()));
    }
    let text = std::str::from_utf8(result).map_err(|_| "the result is no text; name a `result_file` for it".to_owned());
    let as_json = serde_json::from_slice::<Value>(result).ok().and_then(|value| toml_of(&value));
    match as_json {
        Some(value) if expect.text.is_none() => set(table, "result", value),
        _ if expect.result.is_none() => set(table, "text", text?),
        _ => {
            table.remove("result");
            set(table, "text", text?);
        }
    }
    Ok(())
}

fn set(table: &mut dyn TableLike, key: &str, value: impl Into<toml_edit::Value>) {
    let mut value = value.into();
    if let Some(Item::Value(before)) = table.get(key) {
        // A comment behind the value stays there.
        *value.decor_mut() = before.decor().clone();
    }
    table.insert(key, Item::Value(value));
}

/// A JSON value in TOML; `None` when it has a null or a number that TOML does not know.
fn toml_of(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(is) => (*is).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None if number.is_u64() => return None,
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text.into(),
        Value::Array(values) => values.iter().map(toml_of).collect::<Option<toml_edit::Array>>()?.into(),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| Some((key, toml_of(value)?)));
            pairs.collect::<Option<Vec<_>>>()?.into_iter().collect::<InlineTable>().into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::case::CaseFile;
    use super::*;

    /// The file after the outcome of its first case was written into it.
    fn updated(text: &str, outcome: &Outcome) -> Result<String, String> {
        let file = CaseFile::parse(text).unwrap();
        let mut update = Update::new(Path::new("x.toml"), text).unwrap();
        update.expect(0, file.cases[0].expect.as_ref(), outcome)?;
        CaseFile::parse(&update.document.to_string()).unwrap();
        Ok(update.document.to_string())
    }

    fn done(result: &str) -> Outcome {
        Outcome::Done { result: result.into() }
    }

    #[test]
    fn what_came_replaces_what_was_expected_and_nothing_else() {
        let text = "# about\n[[case]]\nname = \"x\"\n[case.expect]\nresult = 1 # the sum\n";
        assert_eq!(updated(text, &done("2")).unwrap(), text.replace("= 1", "= 2"));
        let plain = "[[case]]\nname = \"x\"\nexpect = { text = \"a\" }\n";
        assert_eq!(updated(plain, &done("2")).unwrap(), plain.replace("\"a\"", "\"2\""));
        let null = updated("[[case]]\nname = 'x'\n", &done("{\"a\": null}")).unwrap();
        assert!(null.contains("text = '{\"a\": null}'") || null.contains("text = \"{"), "{null}");
        let new = updated("[[case]]\nname = 'x'\n", &done("{\"a\": [1]}")).unwrap();
        assert!(new.contains("result = { a = [1] }"), "{new}");
    }

    #[test]
    fn an_error_replaces_a_result_without_its_backtrace() {
        let text = "[[case]]\nname = 'x'\n[case.expect]\nresult = 1\n";
        let trapped = Outcome::Trapped { message: "it broke".into(), backtrace: "  at run".into() };
        let text = updated(text, &trapped).unwrap();
        assert!(text.contains("outcome = \"trapped\"\nerror = \"it broke\"") && !text.contains("result"), "{text}");
    }

    #[test]
    fn a_rule_of_a_person_is_never_replaced_by_an_example() {
        let text = "[[case]]\nname = 'x'\nexpect = { subset = { a = 1 } }\n";
        assert!(updated(text, &done("{\"a\": 2}")).unwrap_err().contains("`subset`"));
    }
}
