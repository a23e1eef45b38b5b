//! Every way to end without dying, what a job can see, and what is left of it.

use std::time::Duration;

use wasmhost::jumpscript::{Digest, Kind};
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, Options, Sandbox};

use super::{block_on, done, load, run, run_call, sandbox};
use crate::support::guests;

#[test]
fn each_error_kind_arrives_with_its_words() {
    assert_eq!(run("end", "failed").outcome, Outcome::Failed { message: "no luck".to_owned() });
    assert_eq!(run("end", "reject").outcome, Outcome::Rejected { reason: "makes no sense".to_owned() });
    assert_eq!(run("end", "retry").outcome, Outcome::Retry { after: None, reason: "busy".to_owned() });
    let after = Some(Duration::from_millis(1_500));
    assert_eq!(run("end", "later").outcome, Outcome::Retry { after, reason: "busy".to_owned() });
}

#[test]
fn the_question_mark_fails_with_the_errors_text() {
    let outcome = run("end", "question").outcome;
    assert_eq!(outcome, Outcome::Failed { message: "invalid digit found in string".to_owned() });
}

#[test]
fn an_undecodable_payload_is_rejected_in_serdes_words() {
    let outcome = run("hello", r#"{"name": 7}"#).outcome;
    let Outcome::Rejected { reason } = &outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("invalid type: integer `7`, expected a string at line 1 column 10"), "{reason}");
}

#[test]
fn the_job_record_arrives_whole() {
    let call = Call {
        id: "job-1".to_owned(),
        queue: "mail".to_owned(),
        job_type: "send".to_owned(),
        node: "node-a".to_owned(),
        attempt: 2,
        max_attempts: 5,
        deadline_ms: 1_800_000_000_000,
        enqueued_at_ms: 1_700_000_000_000,
        content_type: "text/plain".to_owned(),
        metadata: vec![("trace".to_owned(), "7f".to_owned())],
        ..Call::new("record")
    };
    let text = done(&run_call(&load(&guests::wasm("end")), call));
    for part in ["job-1", "mail", "send", "node-a", "attempt: 2", "max_attempts: 5", "1800000000000", "1700000000000"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(text.contains(r#"metadata: [("trace", "7f")]"#) && text.contains("text/plain"), "{text}");
}

#[test]
fn nothing_of_one_job_is_seen_by_the_next() {
    let script = load(&guests::wasm("end"));
    for _ in 0..200 {
        assert_eq!(done(&run_call(&script, Call::new("residue"))), "0");
    }
    let random: std::collections::HashSet<String> =
        (0..20).map(|_| done(&run_call(&script, Call::new("random")))).collect();
    assert_eq!(random.len(), 20, "each instance has its own random seed");
}

#[test]
fn a_component_sees_no_environment_no_arguments_and_no_files() {
    assert_eq!(done(&run("end", "environment")), "0 0");
    assert_eq!(done(&run("end", "files")), "true true");
}

#[test]
fn the_shipped_jumpscripts_do_what_they_say() {
    assert_eq!(done(&run("echo", "any\nbytes")), "any\nbytes");
    let stats = done(&run("text-stats", r#"{"path":"a.txt","text":"one two two\n"}"#));
    assert!(stats.starts_with(r#"{"path":"a.txt","bytes":12,"lines":1,"words":3,"sha256":""#), "{stats}");
    assert!(stats.ends_with(r#""top":[["two",2],["one",1]]}"#), "{stats}");
}

#[test]
fn commands_of_both_previews_take_stdin_and_answer_on_stdout() {
    for guest in ["command", "command-preview1"] {
        assert_eq!(done(&run(guest, "hello there")), "hello there");
        assert_eq!(load(&guests::wasm(guest)).kind(), Kind::Command);
        assert_eq!(done(&run(guest, "exit 0")), "");
        assert_eq!(run(guest, "exit 3").usage.log_tail, "leaving with 3\n");
        let panic = run(guest, "panic").outcome;
        assert!(panic.error_text().contains("the spring broke"), "{panic:?}");
    }
}

#[test]
fn the_exit_code_of_a_command_says_failed_or_retry() {
    let failed = |code: u8, said: u8| Outcome::Failed {
        message: format!("exit code {code}; stderr ends with: leaving with {said}"),
    };
    assert_eq!(run("command-preview1", "exit 3").outcome, failed(3, 3));
    let retry = run("command-preview1", "exit 75").outcome;
    assert!(matches!(&retry, Outcome::Retry { after: None, reason } if reason.contains("75")), "{retry:?}");
    let retry = run("command", "code 75").outcome;
    assert!(matches!(&retry, Outcome::Retry { after: None, reason } if reason.contains("75")), "{retry:?}");
    assert_eq!(run("command", "code 3").outcome, failed(3, 3));
    assert_eq!(done(&run("command", "code 0")), "so far", "what is left in a buffer is not lost");
    // Libraries of WASI 0.2 pass on success or failure only, not the code.
    assert_eq!(run("command", "exit 75").outcome, failed(1, 75));
}

#[test]
fn a_command_finds_its_job_in_the_environment_and_nothing_else() {
    for guest in ["command", "command-preview1"] {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let metadata = vec![pair("a", "one"), pair("b", "\"two\""), pair("a", "three")];
        let call = Call { id: "job-1".to_owned(), attempt: 2, max_attempts: 5, metadata, ..Call::new("environment") };
        let text = done(&run_call(&load(&guests::wasm(guest)), call));
        assert!(text.contains("JOB_ID=job-1\n") && text.contains("JOB_ATTEMPT=2\n"), "{text}");
        assert!(text.contains("JOB_METADATA={\"a\":\"three\",\"b\":\"\\\"two\\\"\"}\n"), "{text}");
        assert!(text.lines().all(|line| line.starts_with("JOB_")), "{text}");
    }
}

#[test]
fn the_manifest_travels_inside_the_file() {
    let script = load(&guests::wasm("hello"));
    assert_eq!(script.manifest().types, ["hello"]);
    assert_eq!(script.manifest().timeout.as_deref(), Some("5s"));
    let inspection = Sandbox::inspect(&guests::wasm("hello")).unwrap();
    assert_eq!(inspection.manifest.unwrap().name.as_deref(), Some("hello"));
    assert!(inspection.imports.iter().any(|import| import.name == "wasi:logging/logging@0.1.0-draft"));
}

#[test]
fn every_guest_passes_inspection_and_ends_in_the_cache() {
    for name in guests::names() {
        let wasm = guests::wasm(name);
        let inspection = Sandbox::inspect(&wasm).unwrap_or_else(|error| panic!("{name}: {error}"));
        load(&wasm);
        let cached = sandbox().cached(&inspection.digest).expect("it was loaded");
        assert_eq!(cached.kind(), inspection.kind, "{name}");
    }
}

#[test]
fn more_jobs_than_the_pool_has_instances_wait_for_their_turn() {
    let sandbox = Sandbox::new(Options { pool_size: 2, ..Options::default() }).unwrap();
    let wasm = guests::wasm("end");
    let script = sandbox.load(Digest::of(&wasm), &wasm).unwrap();
    let finished = block_on(futures_util::future::join_all((0..20).map(|_| sandbox.run(&script, Call::new("nap")))));
    assert!(finished.iter().all(|finished| done(finished).is_empty()));
}

#[test]
fn the_self_check_measures_a_job() {
    let time = block_on(sandbox().self_check()).unwrap();
    assert!(time > Duration::ZERO && time < Duration::from_millis(50), "{time:?}");
}

#[test]
fn strict_hardening_runs_jobs_too() {
    let options = Options { pool_size: 2, hardening: wasmhost::sandbox::Hardening::Strict, ..Options::default() };
    let sandbox = Sandbox::new(options).unwrap();
    let wasm = guests::wasm("echo");
    let script = sandbox.load(Digest::of(&wasm), &wasm).unwrap();
    assert_eq!(done(&block_on(sandbox.run(&script, Call::new("x")))), "x");
}
