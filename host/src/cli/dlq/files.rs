//! Dead jobs as JSON lines: `{"id": .., "queue": .., "fields": {name: value, ..}}`, one line a job.
//!
//! Bytes that are no text are written as `{"hex": ".."}`; a field whose name is no text is under `hex_fields`, by its
//! name in hexadecimal digits. What was exported is read back byte for byte.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use serde_json::{Map, Value, json};

use crate::cli::failure::INTERRUPTED;
use crate::cli::lines::{Lines, refused};
use crate::cli::{Failure, Global, Output, filter, print};
use crate::job::{ID_BYTES_MAX, JobId, JobState, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, check_name, visible};
use crate::store::{Error, Filter, Store};

/// Rows that are read at a time; each may have a payload of some megabytes.
const ROWS_AT_ONCE: usize = 16;
/// Longest line that is read, in bytes: the largest payload and result, each byte as up to six characters.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most fields of a row.
const FIELDS_MAX: usize = 1000;

// === Export ===

/// Writes the dead jobs that fit to a file, or to stdout.
pub(super) async fn export(global: &Global, filter: &Filter, file: Option<&Path>) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    let mut target = match file {
        Some(file) => Target::create(file)?,
        None => Target { part: None, out: Box::new(io::stdout()) },
    };
    let queues = match &filter.queue {
        Some(queue) => vec![queue.clone()],
        None => store.queue_names().await?,
    };
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut n = 0;
    for queue in &queues {
        let n_before = n;
        let mut walk = store.walk_dead(queue, filter.clone()).await?;
        loop {
            if interrupt.as_mut().now_or_never().is_some() {
                print::note("interrupted: the export is not complete");
                return Ok(ExitCode::from(INTERRUPTED));
            }
            let Some(ids) = walk.next().await? else { break };
            for some in ids.chunks(ROWS_AT_ONCE) {
                for (id, row) in some.iter().zip(try_join_all(some.iter().map(|id| store.row(id))).await?) {
                    // It may have been requeued or dropped since it was found.
                    if row.iter().any(|(name, value)| name == b"status" && value == JobState::Dlq.as_str().as_bytes()) {
                        target.write(&line(id, queue, &row))?;
                        n += 1;
                    }
                }
            }
        }
        if n == n_before && filter.queue.is_some() {
            filter::known(&store, queue).await?;
        }
    }
    target.finish()?;
    let jobs = if n == 1 { "dead job" } else { "dead jobs" };
    match (global.output, file) {
        (Output::Json, Some(file)) => print::json(&json!({ "exported": n, "file": file.display().to_string() })),
        (Output::Text, Some(file)) => print::line(&format!("{n} {jobs} written to {}", file.display())),
        (_, None) => print::note(&format!("{n} {jobs} written")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Where an export goes. A file has its name only once it is whole.
struct Target {
    /// The file while it is written, and its name.
    part: Option<(PathBuf, PathBuf)>,
    out: Box<dyn Write>,
}

impl Target {
    fn create(file: &Path) -> Result<Self, Failure> {
        let shown = file.display();
        if file.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!("file `{shown}` is there already")).hint("name another, or remove it"));
        }
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let out = File::create_new(&part).map_err(|error| {
            Failure::usage(format!("cannot write `{}`: {error}", part.display()))
                .hint("a folder that can be written, and no rest of an earlier export, is needed")
        })?;
        Ok(Self { part: Some((part, file.to_owned())), out: Box::new(BufWriter::new(out)) })
    }

    fn write(&mut self, value: &Value) -> Result<(), Failure> {
        let mut line = value.to_string();
        line.push('\n');
        match self.out.write_all(line.as_bytes()) {
            // A reader of stdout that has gone away has seen what it wanted.
            Err(error) if self.part.is_none() && error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            other => other.map_err(|error| Failure::new(format!("the export cannot be written: {error}"))),
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::new(format!("the export cannot be written: {error}"));
        self.out.flush().map_err(failed)?;
        if let Some((part, file)) = &self.part {
            File::open(part).and_then(|part| part.sync_all()).map_err(failed)?;
            // A hard link takes no name that somebody else took meanwhile.
            std::fs::hard_link(part, file).map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.part {
            // What is left of it is in nobody's way but that of the next export, which names it.
            let _removed = std::fs::remove_file(part);
        }
    }
}

fn line(id: &JobId, queue: &str, row: &[(Vec<u8>, Vec<u8>)]) -> Value {
    let (mut fields, mut hex_fields) = (Map::new(), Map::new());
    for (name, value) in row {
        match std::str::from_utf8(name) {
            Ok(name) => fields.insert(name.to_owned(), bytes_value(value)),
            Err(_) => hex_fields.insert(hex(name), bytes_value(value)),
        };
    }
    let mut line = Map::new();
    line.insert("id".to_owned(), bytes_value(id.as_bytes()));
    line.insert("queue".to_owned(), queue.into());
    line.insert("fields".to_owned(), fields.into());
    if !hex_fields.is_empty() {
        line.insert("hex_fields".to_owned(), hex_fields.into());
    }
    Value::Object(line)
}

fn bytes_value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

// === Import ===

/// A dead job that was read from a line.
#[derive(Debug, PartialEq)]
struct Read {
    id: JobId,
    queue: String,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an import has done so far.
#[derive(Default)]
struct Imported {
    n_new: u64,
    n_known: u64,
}

/// Writes the dead jobs of a file into the DLQ, line by line.
pub(super) async fn import(global: &Global, file: &Path) -> Result<ExitCode, Failure> {
    let mut lines = Lines::open(file, LINE_BYTES_MAX).await?;
    let store = global.connect().await?;
    let mut imported = Imported::default();
    let outcome = import_lines(&store, &mut lines, &mut imported).await;
    let Imported { n_new, n_known } = imported;
    match global.output {
        Output::Json => print::json_line(&json!({ "imported": n_new, "there_already": n_known })),
        Output::Text => print::line(&format!("{n_new} imported, {n_known} there already")),
    }
    outcome
}

async fn import_lines(store: &Store, lines: &mut Lines, imported: &mut Imported) -> Result<ExitCode, Failure> {
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let way_out = |failure: Failure| {
        failure.hint(
            "nothing of this line was written; mend it and import the file again: what is there already is left alone",
        )
    };
    loop {
        let is_line = tokio::select! {
            biased;
            _ = &mut interrupt => {
                print::note("interrupted: the same command again leaves alone what is there already");
                return Ok(ExitCode::from(INTERRUPTED));
            }
            is_line = lines.advance() => is_line.map_err(way_out)?,
        };
        if !is_line {
            return Ok(ExitCode::SUCCESS);
        }
        let read = parse(lines.text()).map_err(|why| way_out(refused(lines.number(), &why)))?;
        match store.import_dead(&read.queue, &read.id, &read.fields).await {
            Ok(true) => imported.n_new += 1,
            Ok(false) => imported.n_known += 1,
            Err(Error::Refused(why)) => {
                return Err(way_out(Failure::new(format!("line {} was refused: {why}", lines.number()))));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads a line and checks all of it.
fn parse(text: &[u8]) -> Result<Read, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let Value::Object(mut line) = value else { return Err("it is no JSON object".to_owned()) };
    let mut part = |name: &str| line.remove(name);
    let id = part("id").ok_or("it has no `id`")?;
    let id = value_bytes("id", id)?;
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(format!("its `id` has {} bytes, must have 1 to {ID_BYTES_MAX}", id.len()));
    }
    let Some(Value::String(queue)) = part("queue") else { return Err("it has no `queue`".to_owned()) };
    check_name("queue", &queue)?;
    let Some(Value::Object(named)) = part("fields") else { return Err("it has no `fields`".to_owned()) };
    let unnamed = match part("hex_fields") {
        None => Map::new(),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err("its `hex_fields` are no JSON object".to_owned()),
    };
    if let Some(name) = line.keys().next() {
        return Err(format!("it has `{}`, which is none of id, queue, fields, hex_fields", visible(name)));
    }
    let mut fields = Vec::with_capacity(named.len() + unnamed.len());
    for (name, value) in named {
        let value = value_bytes(&name, value)?;
        fields.push((name.into_bytes(), value));
    }
    for (name, value) in unnamed {
        let value = value_bytes(&name, value)?;
        fields.push((bytes_of_hex(&name).ok_or_else(|| format!("`{}` is not hexadecimal", visible(&name)))?, value));
    }
    check(&fields, &queue)?;
    Ok(Read { id: JobId::from_bytes(&id), queue, fields })
}

/// What a row must be like to be run again.
fn check(fields: &[(Vec<u8>, Vec<u8>)], queue: &str) -> Result<(), String> {
    if fields.is_empty() || fields.len() > FIELDS_MAX {
        return Err(format!("it has {} fields, must have 1 to {FIELDS_MAX}", fields.len()));
    }
    if let Some((name, _)) = fields.iter().find(|(name, _)| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        return Err(format!("the name of a field has {} bytes, must have 1 to {NAME_BYTES_MAX}", name.len()));
    }
    let field = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value.as_slice());
        found.map(|value| (value, visible(&String::from_utf8_lossy(value))))
    };
    match field("status") {
        Some((b"dlq", _)) => {}
        Some((_, status)) => return Err(format!("its status is `{status}`, must be `dlq`")),
        None => return Err("its fields have no `status`, must be `dlq`".to_owned()),
    }
    if let Some((_, other)) = field("queue").filter(|(value, _)| *value != queue.as_bytes()) {
        return Err(format!("its field `queue` is `{other}`, but the line says `{queue}`"));
    }
    let (job_type, _) = field("type").ok_or("its fields have no `type`")?;
    check_name("type", std::str::from_utf8(job_type).map_err(|_| "its type is no text")?)?;
    if let Some((payload, _)) = field("payload").filter(|(payload, _)| payload.len() > PAYLOAD_BYTES_MAX) {
        return Err(format!("its payload has {} bytes, at most {PAYLOAD_BYTES_MAX} are allowed", payload.len()));
    }
    Ok(())
}

fn value_bytes(name: &str, value: Value) -> Result<Vec<u8>, String> {
    let bad = || format!("`{}` is neither a text nor {{\"hex\": \"..\"}}", visible(name));
    match value {
        Value::String(text) => Ok(text.into_bytes()),
        Value::Object(object) if object.len() == 1 => {
            object.get("hex").and_then(Value::as_str).and_then(bytes_of_hex).ok_or_else(bad)
        }
        _ => Err(bad()),
    }
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(more: &[(&[u8], &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fixed: [(&[u8], &[u8]); 3] = [(b"type", b"echo"), (b"queue", b"q"), (b"status", b"dlq")];
        fixed.iter().chain(more).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn a_row_of_any_bytes_is_read_back_as_it_was() {
        let every: Vec<u8> = (0..=255).collect();
        let fields = row(&[(b"payload", &every), (b"\xff\x00", b"x"), (b"last_error", "ü\n\"\u{0}".as_bytes())]);
        let id = JobId::from_bytes(b"a\xfe");
        let text = line(&id, "q", &fields).to_string();
        assert!(!text.contains('\n'));
        let mut read = parse(text.as_bytes()).unwrap();
        let mut expected = fields;
        read.fields.sort();
        expected.sort();
        assert_eq!(read, Read { id, queue: "q".to_owned(), fields: expected });
    }

    #[test]
    fn a_line_that_is_no_dead_job_is_refused_with_the_reason() {
        for (text, why) in [
            ("{", "no JSON"),
            ("[]", "no JSON object"),
            (r#"{"queue":"q","fields":{}}"#, "no `id`"),
            (r#"{"id":"","queue":"q","fields":{}}"#, "must have 1 to"),
            (r#"{"id":7,"queue":"q","fields":{}}"#, "neither a text"),
            (r#"{"id":"a","queue":"q:r","fields":{}}"#, "must not contain `:`"),
            (r#"{"id":"a","queue":"q"}"#, "no `fields`"),
            (r#"{"id":"a","queue":"q","fields":{}}"#, "0 fields"),
            (r#"{"id":"a","queue":"q","fields":{"type":"t","status":"ready"}}"#, "is `ready`, must be `dlq`"),
            (r#"{"id":"a","queue":"q","fields":{"type":"t"}}"#, "no `status`"),
            (r#"{"id":"a","queue":"q","fields":{"status":"dlq"}}"#, "no `type`"),
            (r#"{"id":"a","queue":"q","fields":{"status":"dlq","type":"t","queue":"r"}}"#, "the line says `q`"),
            (r#"{"id":"a","queue":"q","fields":{"status":"dlq","type":"t","payload":{"hex":"f"}}}"#, "`payload`"),
            (r#"{"id":"a","queue":"q","fields":{"status":"dlq","type":"t"},"x":1}"#, "has `x`"),
        ] {
            let said = parse(text.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
