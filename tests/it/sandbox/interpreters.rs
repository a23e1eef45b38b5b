//! The interpreters of `scripts/`: a script in, its value or its error with the line out, and nothing left behind.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, FirstTier, Options, Sandbox, Script};

use super::{Heard, block_on};
use crate::support::guests;

/// One sandbox that begins on the first tier: compiling Python with all optimisation takes longer than all tests.
fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| {
        let first_tier = FirstTier { is_optimised: false, ..FirstTier::default() };
        Sandbox::new(Options { pool_size: 8, first_tier, ..Options::default() }).unwrap()
    })
}

type Named = (&'static str, Arc<Script>);

/// The interpreters that can be built here.
fn interpreters() -> Vec<Named> {
    static LOADED: OnceLock<Vec<Named>> = OnceLock::new();
    let load = |name| match guests::interpreter(name) {
        Ok(code) => Some((name, sandbox().load(Digest::of(&code), &code).unwrap())),
        Err(missing) => {
            eprintln!("skipped: {missing}");
            None
        }
    };
    LOADED.get_or_init(|| ["rhai", "javascript", "python"].into_iter().filter_map(load).collect()).clone()
}

/// Runs one script in each language: texts for Rhai, JavaScript and Python.
fn each(texts: [&str; 3], check: impl Fn(&str, Outcome)) {
    for (name, script) in interpreters() {
        let text = texts[["rhai", "javascript", "python"].iter().position(|other| *other == name).unwrap()];
        let call = Call { timeout: Duration::from_secs(20), ..Call::new(text) };
        check(name, block_on(sandbox().run(&script, call)).outcome);
    }
}

fn value(name: &str, outcome: &Outcome) -> Value {
    let Outcome::Done { result } = outcome else { panic!("{name}: {outcome:?}") };
    serde_json::from_slice(result).unwrap_or_else(|error| panic!("{name}: {error}: {result:?}"))
}

fn failure(name: &str, outcome: Outcome) -> String {
    let Outcome::Failed { message } = outcome else { panic!("{name}: {outcome:?}") };
    message
}

#[test]
fn the_value_of_the_last_statement_is_the_result() {
    let texts = [
        "let x = 20; #{sum: x + 1, list: [1, \"a\", true, ()]}",
        "const x = 20; ({sum: x + 1, list: [1, 'a', true, null]})",
        "x = 20\n{'sum': x + 1, 'list': [1, 'a', True, None]}",
    ];
    each(texts, |name, outcome| {
        assert_eq!(value(name, &outcome), json!({"sum": 21, "list": [1, "a", true, null]}), "{name}");
    });
}

#[test]
fn a_json_payload_brings_script_and_arguments() {
    let order = |script: &str| json!({"script": script, "args": {"n": [20, 22]}}).to_string();
    let texts = [order("args.n[0] + args.n[1]"), order("args.n[0] + args.n[1]"), order("sum(args['n'])")];
    each([&texts[0], &texts[1], &texts[2]], |name, outcome| assert_eq!(value(name, &outcome), json!(42), "{name}"));
    let odd = json!({"script": "1", "arg": 2}).to_string();
    each([&odd; 3], |name, outcome| {
        assert!(matches!(&outcome, Outcome::Rejected { reason } if reason.contains("`arg`")), "{name}: {outcome:?}");
    });
}

#[test]
fn a_script_sees_its_job_and_is_heard() {
    for (name, script) in interpreters() {
        let text = match name {
            "rhai" => {
                "print(\"printed\"); log(\"warn\", \"logged\"); progress(50, \"half\"); job.metadata.a + job.attempt"
            }
            "javascript" => {
                "print('printed'); log('warn', 'logged'); progress(50, 'half'); job.metadata.a + job.attempt"
            }
            _ => {
                "print('printed'); log('warn', 'logged'); progress(50, 'half'); job['metadata']['a'] + str(job['attempt'])"
            }
        };
        let heard = Arc::new(Heard::default());
        let metadata = vec![("a".to_owned(), "b".to_owned())];
        let sink = Arc::clone(&heard) as Arc<dyn wasmhost::ports::JobSink>;
        let call = Call { sink, metadata, attempt: 3, ..Call::new(text) };
        assert_eq!(value(name, &block_on(sandbox().run(&script, call)).outcome), json!("b3"), "{name}");
        let lines = heard.lines.lock().unwrap().join("\n");
        assert!(
            lines.contains("info|") && lines.contains("|printed") && lines.contains("warn||logged"),
            "{name}: {lines}"
        );
        assert_eq!(*heard.progress.lock().unwrap(), [(50, "half".to_owned())], "{name}");
    }
}

#[test]
fn an_error_says_the_line_of_the_script() {
    let texts = [
        "fn half(x) {\n  x / 0\n}\n\nhalf(1)",
        "function half(x) {\n  return x.y.z;\n}\n\nhalf(1)",
        "def half(x):\n  return x / 0\n\n\nhalf(1)",
    ];
    each(texts, |name, outcome| {
        let message = failure(name, outcome);
        assert!(message.starts_with("line 2: ") && message.contains("line 5"), "{name}: {message}");
    });
    each(["1\n2 3 4"; 3], |name, outcome| {
        let message = failure(name, outcome);
        assert!(message.starts_with("line 2: "), "{name}: {message}");
    });
}

#[test]
fn an_import_of_what_is_absent_says_so() {
    let texts = ["\nimport \"fs\" as fs;", "\nimport fs from 'fs'", "\nimport requests"];
    each(texts, |name, outcome| {
        let message = failure(name, outcome).to_lowercase();
        assert!(message.starts_with("line 2: ") && message.contains("no module"), "{name}: {message}");
    });
}

#[test]
fn a_script_ends_its_job_as_it_says_and_cannot_take_it_back() {
    let texts = [
        "try { reject(\"no\") } catch { }\n1",
        "try { reject('no') } catch { }\n1",
        "try:\n  reject('no')\nexcept BaseException:\n  pass\n1",
    ];
    each(texts, |name, outcome| assert_eq!(outcome, Outcome::Rejected { reason: "no".to_owned() }, "{name}"));
    each(["retry(\"busy\", 1500)"; 3], |name, outcome| {
        let after = Some(Duration::from_millis(1500));
        assert_eq!(outcome, Outcome::Retry { after, reason: "busy".to_owned() }, "{name}");
    });
}

#[test]
fn an_endless_loop_is_stopped_and_a_flood_of_memory_ends_at_the_limit() {
    let endless = ["loop { }", "while (true) { }", "while True:\n  pass"];
    let flood = [
        "let a = []; loop { a.push(blob(10000)); }",
        "const a = []; while (true) { a.push('x'.repeat(10000) + a.length); }",
        "a = []\nwhile True:\n  a.append(bytes(10000))",
    ];
    for (at, (name, script)) in interpreters().iter().enumerate() {
        let call = |text: &str, ms| Call { timeout: Duration::from_millis(ms), ..Call::new(text) };
        let outcome = block_on(sandbox().run(script, call(endless[at], 200))).outcome;
        assert!(matches!(outcome, Outcome::TimedOut { .. }), "{name}: {outcome:?}");
        let outcome = block_on(sandbox().run(script, call(flood[at], 20_000))).outcome;
        assert!(matches!(outcome, Outcome::OutOfMemory { .. }), "{name}: {outcome:?}");
    }
}

#[test]
fn nothing_of_a_job_is_left_for_the_next() {
    let write =
        ["let kept = 1; 0", "globalThis.kept = 1; Array.prototype.kept = 1; 0", "import json\njson.kept = 1\n0"];
    each(write, |name, outcome| assert_eq!(value(name, &outcome), json!(0), "{name}"));
    let read = ["is_def_var(\"kept\")", "'kept' in globalThis || 'kept' in []", "import json\nhasattr(json, 'kept')"];
    each(read, |name, outcome| assert_eq!(value(name, &outcome), json!(false), "{name}"));
}

#[test]
fn each_job_draws_its_own_random_numbers() {
    for (name, script) in interpreters().into_iter().filter(|(name, _)| *name != "rhai") {
        let text = if name == "python" { "import random\nrandom.random()" } else { "Math.random()" };
        let draw = |id: &str| {
            let call = Call { id: id.to_owned(), ..Call::new(text) };
            value(name, &block_on(sandbox().run(&script, call)).outcome)
        };
        assert_ne!(draw("a"), draw("b"), "{name}");
    }
}

#[test]
fn the_documentation_lists_what_javascript_and_python_have() {
    let page = std::fs::read_to_string(guests::root().join("docs/interpreters.md")).unwrap();
    let mut fresh = page.clone();
    for (name, script) in interpreters().into_iter().filter(|(name, _)| *name != "rhai") {
        let metadata = vec![("wasmhost.mode".to_owned(), "library".to_owned())];
        let outcome = block_on(sandbox().run(&script, Call { metadata, ..Call::new("") })).outcome;
        let names: Vec<String> = serde_json::from_value(value(name, &outcome)).unwrap();
        let mark = format!("<!-- {name} -->");
        let parts: Vec<&str> = fresh.split(mark.as_str()).collect();
        assert_eq!(parts.len(), 3, "docs/interpreters.md has one place for {name}");
        fresh = format!("{}{mark}\n{}\n{mark}{}", parts[0], names.join(" "), parts[2]);
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(guests::root().join("docs/interpreters.md"), &fresh).unwrap();
    } else {
        assert_eq!(page, fresh, "run this test with UPDATE_DOCS=1");
    }
}
