//! The compiler in a child process: what it makes runs, and what it cannot make in its bounds is refused.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wasmhost::jumpscript::Digest;
use wasmhost::sandbox::{Call, CompileLimits, Compiler, Error, Options, Sandbox};

use super::{block_on, done};
use crate::support::guests;

fn with_compiler(program: PathBuf, compile_limits: CompileLimits) -> Sandbox {
    let compiler = Compiler::Child { program };
    Sandbox::new(Options { pool_size: 4, compiler, compile_limits, ..Options::default() }).unwrap()
}

fn wasmhost() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_wasmhost"))
}

/// A valid module that keeps a compiler busy.
fn heavy(functions: usize) -> Vec<u8> {
    let mut wat = String::from("(module (memory (export \"memory\") 1)");
    for n in 0..functions {
        let _ = write!(wat, "(func (param i64 i64) (result i64) local.get 0");
        for step in 0..40 {
            let _ = write!(wat, " local.get 1 i64.const {} i64.mul i64.xor i64.const {step} i64.rotl", n * 40 + step);
        }
        wat.push(')');
    }
    wat.push_str("(func (export \"_start\")))");
    wat::parse_str(&wat).unwrap()
}

fn refusal(sandbox: &Sandbox, wasm: &[u8]) -> Error {
    sandbox.load(Digest::of(wasm), wasm).err().expect("it is refused")
}

#[test]
fn what_a_child_compiles_runs_here() {
    let sandbox = with_compiler(wasmhost(), CompileLimits::default());
    for guest in ["echo", "command", "command-preview1"] {
        let wasm = guests::wasm(guest);
        let script = sandbox.load(Digest::of(&wasm), &wasm).unwrap();
        assert_eq!(done(&block_on(sandbox.run(&script, Call::new("hello there")))), "hello there");
    }
}

#[test]
fn a_compiler_that_takes_too_long_is_killed() {
    let limits = CompileLimits { wall: Duration::from_millis(50), ..CompileLimits::default() };
    let begin = Instant::now();
    let error = refusal(&with_compiler(wasmhost(), limits), &heavy(20_000));
    assert!(error.to_string().contains("took longer"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_compiler_that_computes_too_much_is_stopped() {
    let limits = CompileLimits { cpu: Duration::from_secs(1), ..CompileLimits::default() };
    let error = refusal(&with_compiler(wasmhost(), limits), &heavy(30_000));
    assert!(error.to_string().contains("1 s of CPU time"), "{error}");
    assert!(error.is_permanent());
}

#[test]
fn a_compiler_that_needs_too_much_memory_is_refused_with_the_limit() {
    let limits = CompileLimits { memory_bytes_max: 48 << 20, ..CompileLimits::default() };
    let error = refusal(&with_compiler(wasmhost(), limits), &heavy(20_000));
    assert!(error.to_string().contains("48 MiB"), "{error}");
}

#[test]
fn a_compiler_that_dies_or_talks_nonsense_is_the_hosts_fault() {
    let directory = tempfile::tempdir().unwrap();
    let wasm = wat::parse_str("(module (func (export \"_start\")))").unwrap();
    for (body, text) in [("echo wrong version >&2; exit 2", "wrong version"), ("exit 0", "without an answer")] {
        let program = directory.path().join("compiler");
        fs::write(&program, format!("#!/bin/sh\ncat >/dev/null\n{body}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let error = refusal(&with_compiler(program, CompileLimits::default()), &wasm);
        assert!(error.to_string().contains(text) && !error.is_permanent(), "{error}");
    }
    let error = refusal(&with_compiler(directory.path().join("absent"), CompileLimits::default()), &wasm);
    assert!(error.to_string().contains("does not start"), "{error}");
}
