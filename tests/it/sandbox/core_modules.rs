//! Modules written by hand: what no compiler would make.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::Error;

use super::{run_text, sandbox, trapped};

const LONG: Duration = Duration::from_secs(20);

fn start(body: &str) -> String {
    format!(r#"(module (memory (export "memory") 1) (func (export "_start") {body}))"#)
}

#[test]
fn each_trap_has_its_reason() {
    for (body, reason) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const 70000)))", "out of bounds memory access"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "invalid conversion"),
    ] {
        let (message, _) = trapped(&run_text(&start(body), LONG));
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn recursion_without_a_frame_in_memory_runs_out_of_the_native_stack() {
    let (message, backtrace) = trapped(&run_text(
        r#"(module (func $deep (param i32) (result i32) local.get 0 i32.const 1 i32.add call $deep i32.const 1 i32.add)
            (func (export "_start") i32.const 0 call $deep drop))"#,
        LONG,
    ));
    assert!(message.contains("ran out of stack: `deep`"), "{message}");
    assert!(backtrace.contains("deep"), "{backtrace}");
}

#[test]
fn a_start_function_that_loops_or_traps_ends_like_any_other() {
    let module = |body: &str| format!(r#"(module (func $init {body}) (start $init) (func (export "_start")))"#);
    let begin = Instant::now();
    let finished = run_text(&module("(loop $l br $l)"), Duration::from_millis(150));
    assert!(matches!(finished.outcome, Outcome::TimedOut { .. }), "{finished:?}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    let (message, _) = trapped(&run_text(&module("unreachable"), LONG));
    assert!(message.contains("unreachable"), "{message}");
}

#[test]
fn memory_is_limited_at_the_start_and_in_one_step() {
    let wide = r#"(module (memory (export "memory") 2048) (func (export "_start")))"#;
    assert!(matches!(run_text(wide, LONG).outcome, Outcome::OutOfMemory { limit, .. } if limit == 64 << 20));
    let finished = run_text(&start("(drop (memory.grow (i32.const 65000)))"), LONG);
    assert!(matches!(finished.outcome, Outcome::OutOfMemory { .. }), "{finished:?}");
    let several = r#"(module (memory (export "memory") 600) (memory 600) (func (export "_start")))"#;
    assert!(matches!(run_text(several, LONG).outcome, Outcome::OutOfMemory { .. }), "all memories count together");
}

#[test]
fn a_table_is_limited() {
    let wat = r#"(module (table $t 1 funcref)
        (func (export "_start") (drop (table.grow $t (ref.null func) (i32.const 1000000)))))"#;
    let (message, _) = trapped(&run_text(wat, LONG));
    assert!(message.contains("table") && message.contains("10000"), "{message}");
}

#[test]
fn a_loop_of_short_host_calls_is_stopped_too() {
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") (loop $l (drop (call $now (i32.const 1) (i64.const 0) (i32.const 8))) br $l)))"#;
    let finished = run_text(wat, Duration::from_millis(150));
    assert!(matches!(finished.outcome, Outcome::TimedOut { .. }), "{finished:?}");
}

#[test]
fn a_module_with_too_many_memories_is_refused() {
    let mut wat = String::from("(module (memory (export \"memory\") 1) ");
    for _ in 0..64 {
        let _ = write!(wat, "(memory 1)");
    }
    wat.push_str("(func (export \"_start\")))");
    let wasm = wat::parse_str(&wat).unwrap();
    let error = sandbox().load(Digest::of(&wasm), &wasm).err().expect("it is refused");
    assert!(matches!(error, Error::Refused { .. }) && error.hint().is_some(), "{error:?}");
}

#[test]
fn an_import_with_another_signature_is_refused_by_name() {
    let wat = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i64)))
        (memory (export "memory") 1) (func (export "_start")))"#;
    let wasm = wat::parse_str(wat).unwrap();
    let error = sandbox().load(Digest::of(&wasm), &wasm).err().expect("it is refused");
    assert!(error.to_string().contains("proc_exit"), "{error}");
}
