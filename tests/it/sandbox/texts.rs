//! The page that says what each kind of death looks like, with the texts that the sandbox really gives.

use std::time::Duration;

use wasmhost::outcome::Outcome;
use wasmhost::sandbox::Call;

use super::{load, run_call, run_text};
use crate::support::docs::assert_document;
use crate::support::guests;

const HEAD: &str = "# Troubleshooting a jumpscript

What the author of a jumpscript is told when it ends without a result. The same text stands in `jobs show`, in the
dead-letter queue, in `exec`, `test` and `jobs replay`, and in what waits for the job. The first word is the outcome
(`error_kind` in the job's row); only the first line of a longer text is shown here, and for a trap the functions that
were running follow. Each row is made by a test that dies in this way.

| what it did | outcome | what is said | what to do |
| --- | --- | --- | --- |
";

const FOOT: &str = "
`wasmhost jobs replay ID` runs a job that died again on your machine, with the same code and input; `--file FIXED.wasm`
tries a fix on it. Backtraces name source lines where the code has debug information: [testing.md](testing.md).
";

/// The guest, its payload, what that does, and what to do about it.
const DEATHS: [(&str, &str, &str, &str); 16] = [
    ("end", "failed", "returned `failed`", "mend what it says; it runs again by the retry policy"),
    ("end", "question", "returned an error with `?`", "the same; the error's causes follow line by line"),
    ("end", "reject", "returned `reject`", "send another payload: it is not run again"),
    ("end", "later", "returned `retry`", "nothing: it runs again"),
    ("die", "panic", "panicked", "look at the file and line"),
    ("die", "divide", "divided by zero", "look at the file and line"),
    (
        "die",
        "abort",
        "aborted, or executed `unreachable`",
        "have it say why on stderr: the end of stderr is shown here",
    ),
    ("die", "exit", "called `exit` in a component", "return from the job function instead"),
    ("die", "recursion", "recursed too deeply", "recurse less, or link it with a larger stack"),
    ("die", "memory", "asked for more memory than it may have", "keep less, or raise `memory_mib` in its manifest"),
    ("die", "memory at once", "asked for it in one piece", "the same"),
    ("die", "loop", "computed beyond its timeout", "see the function it was in; raise `timeout`, or do less"),
    ("end", "sleep", "waited beyond its timeout", "wait less, or raise `timeout`"),
    ("command-preview1", "exit 75", "was a command and ended with exit code 75", "nothing: it runs again"),
    ("command-preview1", "exit 3", "was a command and ended with another exit code", "have it say why on stderr"),
    ("say", "result 2000000", "returned more than 1 MiB", "store it elsewhere, return where it is"),
];

/// What a module in text form does, the value that it drops, and what to do about it.
const MODULES: [(&str, &str, &str); 2] = [
    ("read outside its memory", "(i32.load (i32.const -8))", "a bug of code without bounds checks, such as C"),
    (
        "called a function of another type",
        "(call_indirect (type $other) (i32.const 1) (i32.const 0))",
        "a wrong function pointer",
    ),
];

/// A row of the page.
fn row(what: &str, outcome: &Outcome, remedy: &str) -> String {
    let error = outcome.error_text();
    let mut lines = error.lines();
    let first = lines.next().unwrap_or_default();
    // A panic has its place in the first line and its message in the second.
    let text = match lines.next() {
        Some(message) if first.starts_with("panicked at") => format!("{first} {message}"),
        _ => first.to_owned(),
    };
    format!(
        "| {what} | `{}` | {} | {remedy} |\n",
        outcome.kind(),
        text.replace('|', "\\|").replace('`', "'").trim_end()
    )
}

#[test]
fn the_page_on_deaths_says_what_the_sandbox_says() {
    let mut page = HEAD.to_owned();
    for (guest, payload, what, remedy) in DEATHS {
        let timeout = Duration::from_millis(if matches!(payload, "loop" | "sleep") { 100 } else { 20_000 });
        let call = Call { timeout, memory_bytes_max: 8 << 20, ..Call::new(payload) };
        let outcome = run_call(&load(&guests::wasm(guest)), call).outcome;
        assert!(!outcome.error_text().is_empty(), "{what}: {outcome:?}");
        page.push_str(&row(what, &outcome, remedy));
    }
    for (what, body, remedy) in MODULES {
        let wat = format!(
            "(module (type $other (func (param i32) (result i32))) (memory (export \"memory\") 1) (table 1 funcref) \
             (elem (i32.const 0) $f) (func $f) (func (export \"_start\") (drop {body})))"
        );
        page.push_str(&row(what, &run_text(&wat, Duration::from_secs(20)).outcome, remedy));
    }
    page.push_str(FOOT);
    assert_document("troubleshooting.md", &page);
}
