//! What the user sees: the only place that writes to stdout and stderr.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::config::environment;
use crate::job::visible_json;
use crate::telemetry::wants_color;

/// Writes a line to stdout. A reader that has gone away ends the program quietly: it has seen what it wanted.
pub(super) fn line(text: &str) {
    write_all(&mut io::stdout().lock(), text.as_bytes(), true);
}

/// Writes bytes to stdout as they are.
pub(super) fn bytes(bytes: &[u8]) {
    write_all(&mut io::stdout().lock(), bytes, false);
}

/// Writes a value as JSON, readable, to stdout.
pub(super) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&visible_json(&text)),
        Err(error) => note(&format!("error: the result cannot be written as JSON: {error}")),
    }
}

/// Writes a value as one line of JSON to stdout.
pub(super) fn json_line(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&visible_json(&text)),
        Err(error) => note(&format!("error: the result cannot be written as JSON: {error}")),
    }
}

/// Writes a line to stderr.
pub(super) fn note(text: &str) {
    write_all(&mut io::stderr().lock(), text.as_bytes(), true);
}

/// Whether colours on stdout are wanted: it is a terminal, and nothing in the environment speaks against them.
pub(super) fn has_color() -> bool {
    io::stdout().is_terminal() && wants_color(&environment())
}

/// Columns of the terminal; plenty when stdout is none.
pub(super) fn width() -> usize {
    const NO_TERMINAL: usize = 240;
    terminal_size::terminal_size_of(io::stdout()).map_or(NO_TERMINAL, |(width, _)| usize::from(width.0).max(20))
}

/// Whether somebody is there to read a question and to answer it.
pub(super) fn is_person_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a person; nobody is there to answer unless stdin and stderr are a terminal.
pub(super) fn confirms(question: &str) -> bool {
    if !is_person_there() {
        return false;
    }
    note(question);
    let mut answer = String::new();
    let is_read = io::stdin().read_line(&mut answer).is_ok();
    is_read && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn write_all(to: &mut impl Write, bytes: &[u8], with_newline: bool) {
    let newline: &[u8] = if with_newline { b"\n" } else { b"" };
    let written = to.write_all(bytes).and_then(|()| to.write_all(newline)).and_then(|()| to.flush());
    if let Err(error) = written
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(0);
    }
}

/// Columns with a head and no lines, as other tools of the shell print them.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    table_of(head.into(), rows.into_iter().map(Vec::from));
}

/// The same with as many columns as the head has.
pub(super) fn table_of(head: Vec<impl Into<comfy_table::Cell>>, rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in table.lines() {
        line(row.trim_end());
    }
}

/// Prints what clap says about the arguments: help and versions to stdout, mistakes to stderr with code 2.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        note(error.render().to_string().trim_end());
        ExitCode::from(2)
    } else {
        line(error.render().to_string().trim_end());
        ExitCode::SUCCESS
    }
}
