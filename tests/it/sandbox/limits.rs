//! Every limit of a sandbox, attacked by a guest. The numbers are written out here and every attack stays within ten
//! times its limit, so each test fails when its limit is raised tenfold: `make tenfold` shows it.

use std::sync::Arc;
use std::time::Duration;

use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, Error, Finished, Options, Sandbox, Script};

use super::{Heard, block_on, done, load, run, run_call, run_text, sandbox, trapped};
use crate::support::guests;

const LONG: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;

/// A command whose `_start` calls `random_get` of preview 1 with so many bytes, so many times.
fn random(bytes: u32, times: u64) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 12)
        (func (export "_start") (local $n i64)
            (loop $next
                (drop (call $random (i32.const 0) (i32.const {bytes})))
                (local.set $n (i64.add (local.get $n) (i64.const 1)))
                (br_if $next (i64.lt_u (local.get $n) (i64.const {times}))))))"#
    )
}

/// A component that is a command: so many pollables are made and none is dropped.
fn hoard(pollables: u32) -> String {
    format!(
        r#"(component
        (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
            (alias outer 1 $pollable (type $outer))
            (export "pollable" (type $known (eq $outer)))
            (export "subscribe-instant" (func (param "when" u64) (result (own $known))))))
        (core func $subscribe (canon lower (func $clock "subscribe-instant")))
        (core module $code
            (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
            (func (export "run") (result i32) (local $n i32)
                (loop $next
                    (drop (call $subscribe (i64.const 0)))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_if $next (i32.lt_u (local.get $n) (i32.const {pollables}))))
                (i32.const 0)))
        (core instance $host (export "subscribe" (func $subscribe)))
        (core instance $it (instantiate $code (with "host" (instance $host))))
        (func $run (result (result)) (canon lift (core func $it "run")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#
    )
}

/// A component that is a command and has so many core instances, each with `more` in its module.
fn crowd(instances: u32, more: &str) -> String {
    let mut text = format!(
        r#"(component (core module $code {more} (func (export "run") (result i32) (i32.const 0)))
        (core instance $it (instantiate $code))"#
    );
    for _ in 1..instances {
        text.push_str("(core instance (instantiate $code))");
    }
    text.push_str(
        r#"(func $run (result (result)) (canon lift (core func $it "run")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#,
    );
    text
}

fn load_in(sandbox: &Sandbox, text: &str) -> Result<Arc<Script>, Error> {
    let wasm = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    sandbox.load(Digest::of(&wasm), &wasm)
}

fn refused(text: &str) -> String {
    load_in(sandbox(), text).err().expect("it is refused").to_string()
}

fn is_done(finished: &Finished) -> bool {
    matches!(finished.outcome, Outcome::Done { .. })
}

#[test]
fn all_memories_of_a_job_together_have_64_mib() {
    let grow = |pages: u32| {
        format!(
            r#"(module (memory $a (export "memory") 1) (memory $b 1)
            (func (export "_start")
                (drop (memory.grow $a (i32.const 500)))
                (drop (memory.grow $b (i32.const {pages})))))"#
        )
    };
    assert!(is_done(&run_text(&grow(522), LONG)));
    let finished = run_text(&grow(523), LONG);
    assert!(matches!(finished.outcome, Outcome::OutOfMemory { limit, .. } if limit == 64 * MIB), "{finished:?}");
}

#[test]
fn a_table_has_at_most_10_000_elements_at_the_start_and_grown() {
    let table = |first: u32, more: u32| {
        format!(
            r#"(module (table $t {first} funcref)
            (func (export "_start") (drop (table.grow $t (ref.null func) (i32.const {more})))))"#
        )
    };
    assert!(is_done(&run_text(&table(9_999, 1), LONG)));
    let (message, _) = trapped(&run_text(&table(9_999, 2), LONG));
    assert!(message.contains("10001 elements, at most 10000"), "{message}");
    let text = refused(&table(10_001, 0));
    assert!(text.contains("10001") && text.contains("10000"), "{text}");
}

#[test]
fn a_module_has_at_most_64_tables_and_4_memories() {
    let module = |what: &str, n: usize| format!("(module {} (func (export \"_start\")))", what.repeat(n));
    for (what, most, word) in [("(table 1 funcref)", 64, "tables"), ("(memory 1)", 4, "memories")] {
        assert!(is_done(&run_text(&module(what, most), LONG)), "{most} {word}");
        let text = refused(&module(what, most + 1));
        assert!(text.contains(&format!("{} {word}, at most {most}", most + 1)), "{text}");
    }
}

#[test]
fn a_component_has_at_most_64_instances_64_tables_and_4_memories() {
    for (most, more) in [(64, ""), (64, "(table 1 funcref)"), (4, "(memory 1)")] {
        let script = load_in(sandbox(), &crowd(most, more)).unwrap();
        let finished = run_call(&script, Call::new(""));
        assert!(is_done(&finished), "{most} {more}: {finished:?}");
        let text = refused(&crowd(most + 1, more));
        assert!(text.contains("does not fit a sandbox") && text.contains(&most.to_string()), "{text}");
    }
}

#[test]
fn a_guest_holds_at_most_1_000_resources() {
    // A pollable of a clock is two of them.
    let script = load_in(sandbox(), &hoard(500)).unwrap();
    let finished = run_call(&script, Call::new(""));
    assert!(is_done(&finished), "{finished:?}");
    let script = load_in(sandbox(), &hoard(501)).unwrap();
    let (message, _) = trapped(&run_call(&script, Call::new("")));
    assert!(message.contains("it holds 1000 streams"), "{message}");
}

#[test]
fn one_call_gives_at_most_64_kib_of_random_bytes() {
    assert!(is_done(&run_text(&random(65_536, 1), LONG)));
    let (message, _) = trapped(&run_text(&random(65_537, 1), LONG));
    assert!(message.contains("65537") && message.contains("65536"), "{message}");
}

#[test]
fn calls_of_the_host_are_counted_and_an_endless_loop_of_them_ends() {
    let limited = Sandbox::new(Options { pool_size: 2, host_calls_max: 5_000, ..Options::default() }).unwrap();
    let short = |sandbox: &Sandbox, text: &str| {
        let script = load_in(sandbox, text).unwrap();
        block_on(sandbox.run(&script, Call { timeout: LONG, ..Call::new("") }))
    };
    assert!(is_done(&short(&limited, &random(8, 5_000))));
    // Far more than fit between two ticks: the attempt is stopped long before it has made them.
    let attack = random(8, 2_000_000_000);
    let (message, backtrace) = trapped(&short(&limited, &attack));
    assert!(message.contains("more than 5000 times"), "{message}");
    assert!(backtrace.contains("at "), "{backtrace}");
    assert_eq!(Options::default().host_calls_max, 10_000_000, "what a host has that names none");
}

#[test]
fn calls_of_components_are_counted_too() {
    let limited = Sandbox::new(Options { pool_size: 2, host_calls_max: 5_000, ..Options::default() }).unwrap();
    let wasm = guests::wasm("say");
    let script = limited.load(Digest::of(&wasm), &wasm).unwrap();
    let call = |payload: &str| Call { timeout: LONG, ..Call::new(payload) };
    assert!(is_done(&block_on(limited.run(&script, call("lines 1000")))));
    for flood in ["lines 2000000000", "progress 2000000000", "stderr 2000000000"] {
        let (message, _) = trapped(&block_on(limited.run(&script, call(flood))));
        assert!(message.contains("more than 5000 times"), "{flood}: {message}");
    }
}

#[test]
fn one_call_hands_at_most_16_mib_to_the_host() {
    // Under 16 MiB the limit of results is what stops it, with both numbers.
    let (message, _) = trapped(&run("say", "result 16000000"));
    assert!(message.contains("the result has 16000000 bytes"), "{message}");
    let (message, _) = trapped(&run("say", "result 17000000"));
    assert!(message.contains("more than 16 MiB to the host in one call"), "{message}");
}

#[test]
fn a_result_has_at_most_1_mib_of_a_component_and_of_a_command() {
    assert_eq!(done(&run("say", "result 1048576")).len(), MIB);
    let (message, _) = trapped(&run("say", "result 1048577"));
    assert!(message.contains("1048577 bytes, at most 1048576"), "{message}");
    for guest in ["command", "command-preview1"] {
        assert_eq!(done(&run(guest, "result 1048576")).len(), MIB);
        let (message, _) = trapped(&run(guest, "result 1048577"));
        assert!(message.contains("more than 1048576 bytes"), "{message}");
    }
}

fn hear(payload: &str) -> (Finished, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let call = Call { sink: heard.clone(), timeout: LONG, ..Call::new(payload) };
    (run_call(&load(&guests::wasm("say")), call), heard)
}

#[test]
fn a_listener_hears_1_000_lines_of_an_attempt_and_the_rest_is_cut_with_a_flag() {
    let (finished, heard) = hear("lines 1000");
    assert!(is_done(&finished) && !finished.usage.is_log_cut);
    assert_eq!(heard.lines.lock().unwrap().len(), 1_000);
    let (finished, heard) = hear("lines 1001");
    assert!(is_done(&finished) && finished.usage.is_log_cut, "{:?}", finished.outcome);
    assert_eq!(heard.lines.lock().unwrap().len(), 1_000);
}

#[test]
fn a_listener_hears_256_kib_of_output_and_the_rest_is_cut_with_a_flag() {
    // 500 lines of a kibibyte: fewer than the limit of lines, more bytes than the limit of bytes.
    let (finished, heard) = hear("stderr 500");
    assert!(is_done(&finished) && finished.usage.is_log_cut);
    let bytes: usize = heard.lines.lock().unwrap().iter().map(|line| line.len() - "info|stderr|".len()).sum();
    assert!((200 * 1024..=256 * 1024).contains(&bytes), "{bytes}");
    assert!(finished.usage.log_tail.len() <= 64 * 1024, "the end of the log is bounded too");
}

#[test]
fn a_listener_hears_10_000_progress_reports() {
    let (finished, heard) = hear("progress 10050");
    assert!(is_done(&finished));
    assert_eq!(heard.progress.lock().unwrap().len(), 10_000);
}

#[test]
fn a_file_has_at_most_64_mib() {
    // A whole guest, and a section without meaning behind it that makes the file as long as it is asked for.
    let padded = |bytes: usize| {
        let mut wasm = wat::parse_str("(module (func (export \"_start\")))").unwrap();
        let mut size = bytes - wasm.len() - 6;
        wasm.push(0);
        for n in 0..5 {
            wasm.push(u8::try_from(size & 0x7f).unwrap() | if n < 4 { 0x80 } else { 0 });
            size >>= 7;
        }
        wasm.push(0);
        wasm.resize(bytes, 0);
        wasm
    };
    let most = padded(64 * MIB);
    Sandbox::inspect(&most).unwrap();
    let error = Sandbox::inspect(&padded(64 * MIB + 1)).unwrap_err();
    assert!(error.to_string().contains("67108865 bytes, at most 67108864"), "{error}");
}

#[test]
fn a_computing_guest_gives_its_thread_away_at_every_tick_of_10_ms() {
    let script = load(&guests::wasm("die"));
    let turns = block_on(async {
        let looping = sandbox().run(&script, Call { timeout: Duration::from_secs(2), ..Call::new("loop") });
        let counting = async {
            let mut turns = 0_u32;
            loop {
                tokio::task::yield_now().await;
                turns += 1;
                if turns > 60 {
                    return turns;
                }
            }
        };
        tokio::select! {
            turns = counting => turns,
            finished = looping => panic!("it was stopped before others had 60 turns: {finished:?}"),
        }
    });
    assert_eq!(turns, 61);
}

#[test]
fn a_timeout_that_nobody_names_is_30_seconds() {
    // What is checked without waiting for it: the limit that an attempt is told when it is stopped is the one it had.
    assert_eq!(Call::new("").timeout, Duration::from_secs(30));
    let finished =
        run_call(&load(&guests::wasm("end")), Call { timeout: Duration::from_millis(60), ..Call::new("sleep") });
    assert_eq!(finished.outcome, Outcome::TimedOut { limit: Duration::from_millis(60), backtrace: String::new() });
}
