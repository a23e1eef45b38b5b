//! What an interpreter is asked for: the script and its arguments, from whichever form the job has.

use serde_json::{Map, Value};
use wasmhost_guest::{Job, Raw};

/// Names of metadata that the host writes; a script does not see them.
const RESERVED: &str = "wasmhost.";
/// The text of a jumpscript of kind `source`.
const SCRIPT: &str = "wasmhost.script";
/// The name of its file.
const FILE: &str = "wasmhost.file";
/// `check` when the script is only to be read.
const MODE: &str = "wasmhost.mode";

/// What is to be run.
pub(crate) struct Order {
    pub(crate) script: String,
    /// The name of the script's file; empty when the job brought the text.
    pub(crate) file: String,
    pub(crate) args: Value,
    pub(crate) payload: String,
    pub(crate) is_check: bool,
}

impl Order {
    pub(crate) fn read(job: &Job<Raw>) -> Result<Self, String> {
        let payload = std::str::from_utf8(&job.args.0)
            .map_err(|error| format!("the payload is not UTF-8 text: {error}"))?
            .to_owned();
        let file = job.metadata(FILE).unwrap_or_default().to_owned();
        let is_check = job.metadata(MODE) == Some("check");
        if let Some(script) = job.metadata(SCRIPT) {
            let args = match payload.as_str() {
                "" => Value::Null,
                text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(payload.clone())),
            };
            return Ok(Self { script: script.to_owned(), file, args, payload, is_check });
        }
        match serde_json::from_str::<Value>(&payload) {
            Ok(Value::Object(fields)) if fields.contains_key("script") => {
                let (script, args) = take(fields)?;
                Ok(Self { script, file, args, payload, is_check })
            }
            _ => Ok(Self { script: payload.clone(), file, args: Value::Null, payload, is_check }),
        }
    }

    /// How a message begins: where in the script it is.
    pub(crate) fn at(&self, line: Option<usize>) -> String {
        match (self.file.as_str(), line) {
            ("", None) => String::new(),
            ("", Some(line)) => format!("line {line}: "),
            (file, None) => format!("{file}: "),
            (file, Some(line)) => format!("{file} line {line}: "),
        }
    }
}

/// Script and arguments of the JSON form.
fn take(mut fields: Map<String, Value>) -> Result<(String, Value), String> {
    let script = match fields.remove("script") {
        Some(Value::String(script)) => script,
        _ => return Err("`script` in the payload is not a text".to_owned()),
    };
    let args = fields.remove("args").unwrap_or(Value::Null);
    match fields.keys().next() {
        Some(key) => Err(format!("`{key}` in the payload is not known, only `script` and `args` are")),
        None => Ok((script, args)),
    }
}

/// The producer's metadata; of a name that occurs twice the first counts.
pub(crate) fn metadata(job: &Job<Raw>) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in &job.metadata {
        if !name.starts_with(RESERVED) {
            all.entry(name.clone()).or_insert_with(|| Value::String(value.clone()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(payload: &str, metadata: &[(&str, &str)]) -> Result<(String, Value, String), String> {
        let mut job = Job::test(Raw(payload.as_bytes().to_vec()));
        job.metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Order::read(&job).map(|order| (order.script, order.args, order.file))
    }

    #[test]
    fn each_form_of_a_job_gives_script_and_arguments() {
        let plain = |script: &str, args| Ok((script.to_owned(), args, String::new()));
        assert_eq!(order("1 + 1", &[]), plain("1 + 1", Value::Null));
        assert_eq!(order(r#"{"script":"args","args":[1]}"#, &[]), plain("args", json!([1])));
        assert_eq!(order(r#"{"a":1}"#, &[]), plain(r#"{"a":1}"#, Value::Null));
        let source = [(FILE, "a.rhai"), (SCRIPT, "args")];
        assert_eq!(order(r#"{"script":7}"#, &source), Ok(("args".into(), json!({"script": 7}), "a.rhai".into())));
        assert_eq!(order("no json", &source).unwrap().1, json!("no json"));
        assert_eq!(order("", &source).unwrap().1, Value::Null);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(order(r#"{"script":7}"#, &[]).unwrap_err().contains("`script`"));
        assert!(order(r#"{"script":"1","arg":2}"#, &[]).unwrap_err().contains("`arg`"));
    }
}
