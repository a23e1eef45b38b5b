//! The page that is made from the definition of the command line: `docs/cli.md`.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::submit::bulk::LINE_BYTES_MAX;
use crate::job::submission::FIELDS;

/// The text of `docs/cli.md`.
#[must_use]
pub fn reference_markdown() -> String {
    let mut root = super::command();
    root.build();
    let mut text = String::from(HEAD);
    let mut sections = String::new();
    for command in visible(&root) {
        write_command(&mut sections, command, &[root.get_name()]);
    }
    let everywhere: Vec<&Arg> = root.get_arguments().filter(|arg| is_shown(arg)).collect();
    text.push_str("\n## Options of every command\n\n");
    write_arguments(&mut text, &everywhere);
    text.push_str(&sections);
    text
}

const HEAD: &str = "# Commands

This page is made from the program's own definition of its command line, which `--help` shows, too; a test compares them.

Results go to standard output, everything else to standard error. `--output json` prints results for programs: one
document, or one a line where they arrive one after the other; an error is a line `{\"error\": .., \"hint\": ..}` there, too.
Durations are a number and a unit: `500ms`, `30s`, `5m`, `1h30m`.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed |
| 2 | the arguments, the input or the configuration are wrong |
| 75 | Redis is away; trying again may help |
| 130 | interrupted |

The settings behind the options of `run`, their variables and keys are in [configuration.md](configuration.md).
";

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

/// One command, or a word and the commands below it.
fn write_command(text: &mut String, command: &Command, before: &[&str]) {
    let words: Vec<&str> = before.iter().copied().chain([command.get_name()]).collect();
    let name = words.join(" ");
    let level = "#".repeat(words.len());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // Writing to a text cannot fail.
    let _ = write!(text, "\n{level} {name}\n\n{about}.\n");
    if visible(command).next().is_some() {
        for sub in visible(command) {
            write_command(text, sub, &words);
        }
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let _ = write!(text, "\n```\n{}\n```\n", usage.trim_start_matches("Usage:").trim());
    let own: Vec<&Arg> = command.get_arguments().filter(|arg| is_shown(arg) && !arg.is_global_set()).collect();
    if !own.is_empty() {
        text.push('\n');
        write_arguments(text, &own);
    }
    if name == "wasmhost submit" {
        write_fields(text);
    }
    if let Some(examples) = command.get_after_help().map(ToString::to_string) {
        let lines = examples.lines().skip_while(|line| *line == "Examples:").map(|line| line.trim_start().to_owned());
        let _ = write!(text, "\n```sh\n{}\n```\n", lines.collect::<Vec<_>>().join("\n"));
    }
}

fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
}

fn write_arguments(text: &mut String, args: &[&Arg]) {
    text.push_str("| argument or option | meaning |\n| --- | --- |\n");
    let (places, flags): (Vec<&Arg>, Vec<&Arg>) = args.iter().copied().partition(|arg| arg.is_positional());
    for arg in places.into_iter().chain(flags) {
        let _ = writeln!(text, "| `{}` | {} |", cell(&form(arg)), cell(&prose(&meaning(arg))));
    }
}

/// How an argument is written: `--limit <N>`, `[FILE]`, `--yes`.
fn form(arg: &Arg) -> String {
    let values = || {
        let names = arg.get_value_names().unwrap_or_default();
        let names: Vec<String> = names.iter().map(|name| format!("<{name}>")).collect();
        names.join(" ")
    };
    let many = if arg.get_num_args().is_some_and(|n| n.max_values() > 1) { "..." } else { "" };
    match arg.get_long() {
        None if arg.is_required_set() => values() + many,
        None => format!("[{}]{many}", values().trim_matches(['<', '>'])),
        Some(long) if !arg.get_action().takes_values() => format!("--{long}"),
        // An option that may come again does not take many values at once.
        Some(long) => format!("--{long} {}", values()),
    }
}

fn meaning(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if arg.is_positional() || !arg.get_action().takes_values() {
        return text;
    }
    let words: Vec<String> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if !words.is_empty() {
        let _ = write!(text, " ({})", words.join(", "));
    }
    let default: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if default.iter().any(|value| !value.is_empty()) {
        let _ = write!(text, " [default: {}]", default.join(" "));
    }
    if arg.is_required_set() {
        text.push_str(" (needed)");
    }
    text
}

/// The fields of a line, below `submit`.
fn write_fields(text: &mut String) {
    let _ = write!(
        text,
        "\nThe fields of a line of `--lines`. One that is `null` is not given; one that is not in this table is refused, \
         with the number of its line. The jobs of the lines before it are enqueued, in batches of which each is enqueued \
         whole or not at all. A line has at most {LINE_BYTES_MAX} bytes.\n\n| field | value | meaning |\n| --- | --- | --- |\n",
    );
    for field in FIELDS {
        let _ = writeln!(text, "| `{}` | {} | {} |", field.name, cell(field.form), cell(field.what));
    }
}

/// A text for people, with the characters escaped that Markdown would take for its own; what is code stays as it is.
fn prose(text: &str) -> String {
    let escaped = |(n, piece): (usize, &str)| {
        if n % 2 == 1 { piece.to_owned() } else { piece.replace('*', "\\*").replace('<', "\\<") }
    };
    text.split('`').enumerate().map(escaped).collect::<Vec<_>>().join("`")
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
