//! The interpreters of `scripts/`: a script in, its value or its error with the line out, and nothing left behind.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use wasmhost::effects::Effect;
use wasmhost::jumpscript::{Digest, LANGUAGES, Source};
use wasmhost::outcome::Outcome;
use wasmhost::permissions::Granted;
use wasmhost::sandbox::{Call, Finished, FirstTier, HttpOptions, Options, Sandbox, Script};

use super::{Heard, block_on};
use crate::support::guests;
use crate::support::http::Server;

/// One sandbox that begins on the first tier: compiling Python with all optimisation takes longer than all tests.
fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| {
        let first_tier = FirstTier { is_optimised: false, ..FirstTier::default() };
        let http = HttpOptions { allow: vec!["127.0.0.1:*".parse().unwrap()], keep_out: vec![] };
        Sandbox::new(Options { pool_size: 8, first_tier, http, ..Options::default() }).unwrap()
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

/// Runs a published script, with all that its manifest requests granted.
fn published(name: &str, interpreter: &Arc<Script>, manifest: &str, text: &str, args: &Value) -> Finished {
    let language = LANGUAGES.iter().find(|language| language.interpreter == name).unwrap();
    let file = format!("own.{}", language.extension);
    let source = Source::new(language, &file, text.into(), Some(manifest)).unwrap();
    let asked = source.manifest().unwrap().permissions;
    let granted = Arc::new(Granted::of(&asked, &asked).unwrap());
    let bytes = source.encode();
    let script = sandbox().link_source(Digest::of(&bytes), &bytes, interpreter).unwrap();
    let call = Call { timeout: Duration::from_secs(20), granted, ..Call::new(args.to_string()) };
    block_on(sandbox().run(&script, call))
}

const ASKING: [&str; 3] = [
    "let orders = state(\"orders\"); orders.set(\"a\", #{n: 1}); let own = state(); own.increment(\"seen\", 2);
     let id = enqueue(\"mail\", \"send\", #{to: \"ada\"}, #{delay_ms: 60000, metadata: #{by: \"test\"}, priority: 3});
     let got = http::get(args + \"/rate?key=1\");
     let sent = http::request(\"PUT\", args, #{headers: #{\"x-way\": \"there\"}, body: #{a: 1}});
     [orders.get(\"a\"), own.increment(\"seen\"), orders.get(\"none\"), id.len() > 0, cancelled(), got.status, got.text, got.headers[\"x-way\"], sent.json]",
    "const orders = state('orders'); orders.set('a', {n: 1}); const own = state(); own.increment('seen', 2);
     const id = enqueue('mail', 'send', {to: 'ada'}, {delay_ms: 60000, metadata: {by: 'test'}, priority: 3});
     const got = http.get(args + '/rate?key=1');
     const sent = http.request('PUT', args, {headers: {'x-way': 'there'}, body: {a: 1}});
     [orders.get('a'), own.increment('seen'), orders.get('none'), id.length > 0, cancelled(), got.status, got.text, got.headers['x-way'], sent.json]",
    "orders = state('orders'); orders.set('a', {'n': 1}); own = state(); own.increment('seen', 2)
id = enqueue('mail', 'send', {'to': 'ada'}, delay_ms=60000, metadata={'by': 'test'}, priority=3)
got = http.get(args + '/rate?key=1')
sent = http.request('PUT', args, headers={'x-way': 'there'}, body={'a': 1})
[orders.get('a'), own.increment('seen'), orders.get('none'), len(id) > 0, cancelled(), got.status, got.text, got.headers['x-way'], sent.json]",
];

#[test]
fn a_published_script_keeps_state_enqueues_and_sends_requests() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-way: back\r\n\r\n42");
    let manifest = "[permissions]\nstate = ['orders']\nenqueue = ['mail']\nhttp = ['127.0.0.1:*']\n";
    for (at, (name, interpreter)) in interpreters().iter().enumerate() {
        let finished = published(name, interpreter, manifest, ASKING[at], &json!(server.url()));
        let expected = json!([{"n": 1}, 3, null, true, false, 200, "42", "back", 42]);
        assert_eq!(value(name, &finished.outcome), expected, "{name}");
        let job = finished.effects.as_slice().iter().find_map(|effect| match effect {
            Effect::Enqueue(job) => Some(job),
            _ => None,
        });
        let job = job.unwrap_or_else(|| panic!("{name}: {:?}", finished.effects));
        assert_eq!((job.queue.as_str(), job.job_type.as_str()), ("mail", "send"), "{name}");
        let told: Value = serde_json::from_slice(&job.payload).unwrap();
        assert_eq!((told, job.content_type.as_str()), (json!({"to": "ada"}), "application/json"), "{name}");
        assert_eq!(job.metadata, [("by".to_owned(), "test".to_owned())], "{name}");
        let stored = finished.effects.as_slice().iter().filter(|effect| matches!(effect, Effect::State { .. })).count();
        assert_eq!(stored, 2, "{name}: {:?}", finished.effects);
        let received = server.received();
        let [.., got, sent] = received.as_slice() else { panic!("{name}: {received:?}") };
        assert_eq!((got.line.as_str(), sent.line.as_str()), ("GET /rate?key=1 HTTP/1.1", "PUT / HTTP/1.1"), "{name}");
        assert_eq!(
            (sent.header("x-way"), sent.header("content-type")),
            (Some("there"), Some("application/json")),
            "{name}"
        );
        assert_eq!(serde_json::from_slice::<Value>(&sent.body).unwrap(), json!({"a": 1}), "{name}");
    }
}

#[test]
fn a_script_has_the_permissions_of_its_own_manifest_and_is_told_what_is_refused() {
    let server = Server::answering("HTTP/1.1 200 OK\r\n\r\n");
    let get = |name: &str| {
        if name == "rhai" { "1;\nhttp::get(args + \"/x?key=1\")" } else { "1;\nhttp.get(args + '/x?key=1')" }
    };
    let other = "[permissions]\nhttp = ['127.0.0.1:1']\nstate = ['rates:ro']\n";
    for (name, interpreter) in &interpreters() {
        let run = |text: &str| published(name, interpreter, other, text, &json!(server.url()));
        let finished = run(get(name));
        let said = failure(name, finished.outcome);
        let place = format!("GET {}/x: HTTP-request-denied (the job's log says what would allow it)", server.url());
        assert!(said.contains("line 2: ") && said.contains(&place), "{name}: {said}");
        assert!(finished.usage.log_tail.contains("add \"127.0.0.1:"), "{name}: {}", finished.usage.log_tail);
        let said = failure(name, run("state(\"orders\")").outcome);
        assert!(said.contains("state orders: ") && said.contains("denied"), "{name}: {said}");
        let said = failure(name, run("state(\"rates\").set(\"a\", 1)").outcome);
        assert!(said.contains("state rates, key a: ") && said.contains("denied"), "{name}: {said}");
        let said = failure(name, run("enqueue(\"mail\", \"t\", 1)").outcome);
        assert!(said.contains("enqueue into mail: ") && said.contains("enqueue"), "{name}: {said}");
        let said = failure(
            name,
            run(if *name == "rhai" { "http::get(\"ftp://a/b\")" } else { "http.get(\"ftp://a/b\")" }).outcome,
        );
        assert!(said.contains("GET ftp://a/b: `ftp` is not http or https"), "{name}: {said}");
    }
    assert!(server.received().is_empty());
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
