//! The first tier: a large file runs at once on quickly made code, and the optimised code takes over.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, Compiler, FirstTier, Options, Sandbox, Script, Tier};

use super::{block_on, done};
use crate::support::guests;

/// A sandbox that begins every file on the first tier.
fn sandbox(compiler: Compiler, artifacts: Option<&Path>, is_optimised: bool) -> Sandbox {
    let first_tier = FirstTier { from_bytes: 0, is_optimised };
    let artifacts = artifacts.map(Path::to_owned);
    Sandbox::new(Options { pool_size: 4, compiler, first_tier, artifacts, ..Options::default() }).unwrap()
}

fn first_only() -> Sandbox {
    sandbox(Compiler::InProcess, None, false)
}

fn load(sandbox: &Sandbox, wasm: &[u8]) -> Arc<Script> {
    sandbox.load(Digest::of(wasm), wasm).unwrap()
}

/// The compiler of the program, which optimises nothing before the file `go` is in the folder.
fn gated(folder: &Path) -> Compiler {
    let program = folder.join("compiler");
    let text = format!(
        "#!/bin/sh\nPATH=/usr/bin:/bin\ncd '{}'\norder=$(mktemp -p .)\ncat >\"$order\"\n\
         if head -n 1 \"$order\" | grep -q '\"optimised\"'; then\n  until [ -e go ]; do sleep 0.01; done\nfi\n\
         exec '{}' \"$@\" <\"$order\"\n",
        folder.display(),
        env!("CARGO_BIN_EXE_wasmhost")
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    Compiler::Child { program }
}

fn wait_for_optimised(sandbox: &Sandbox, digest: &Digest) -> Arc<Script> {
    let start = Instant::now();
    loop {
        let script = sandbox.cached(digest).expect("it stays in memory");
        if script.tier() == Tier::Optimised {
            return script;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the optimised code never came");
        std::thread::yield_now();
    }
}

#[test]
fn the_first_tier_answers_before_the_optimised_code_is_there_and_is_replaced_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = folder.path().join("artifacts");
    let sandbox = sandbox(gated(folder.path()), Some(&artifacts), true);
    let wasm = guests::wasm("echo");
    let first = load(&sandbox, &wasm);
    assert_eq!(first.tier(), Tier::First);
    assert_eq!(done(&block_on(sandbox.run(&first, Call::new("early")))), "early");
    // The gate is closed: what is asked for again is still the first tier.
    assert_eq!(load(&sandbox, &wasm).tier(), Tier::First);

    fs::write(folder.path().join("go"), "").unwrap();
    let optimised = wait_for_optimised(&sandbox, &Digest::of(&wasm));
    assert_eq!(done(&block_on(sandbox.run(&optimised, Call::new("late")))), "late");
    // An attempt that holds the old code still ends on it.
    assert_eq!(done(&block_on(sandbox.run(&first, Call::new("held")))), "held");
    assert_eq!(load(&sandbox, &wasm).tier(), Tier::Optimised);
}

#[test]
fn both_tiers_are_kept_on_disk_and_the_optimised_one_is_preferred() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = folder.path().join("artifacts");
    let wasm = guests::wasm("echo");
    let once = sandbox(Compiler::InProcess, Some(&artifacts), false);
    assert_eq!(load(&once, &wasm).tier(), Tier::First);
    let absent = Compiler::Child { program: folder.path().join("absent") };
    let again = sandbox(absent.clone(), Some(&artifacts), false);
    assert_eq!(load(&again, &wasm).tier(), Tier::First, "from disk, nothing could compile it");

    let optimising = sandbox(Compiler::InProcess, Some(&artifacts), true);
    load(&optimising, &wasm);
    wait_for_optimised(&optimising, &Digest::of(&wasm));
    let last = sandbox(absent, Some(&artifacts), true);
    let script = last.load_artifact(&Digest::of(&wasm)).expect("the optimised code is on disk");
    assert_eq!(script.tier(), Tier::Optimised);
}

#[test]
fn a_file_below_the_size_is_optimised_before_it_runs() {
    let wasm = guests::wasm("echo");
    let sandbox = Sandbox::new(Options { pool_size: 1, ..Options::default() }).unwrap();
    assert_eq!(load(&sandbox, &wasm).tier(), Tier::Optimised);
}

#[test]
fn what_the_quick_compiler_does_not_know_is_optimised_at_once() {
    let module = "(module (memory (export \"memory\") 1) (func $end) (func (export \"_start\") return_call $end))";
    let sandbox = first_only();
    let script = load(&sandbox, &wat::parse_str(module).unwrap());
    assert_eq!(script.tier(), Tier::Optimised);
    assert!(matches!(block_on(sandbox.run(&script, Call::new(""))).outcome, Outcome::Done { .. }));
}

#[test]
fn every_limit_holds_on_the_first_tier() {
    let sandbox = first_only();
    let script = load(&sandbox, &guests::wasm("die"));
    assert_eq!(script.tier(), Tier::First);
    let call = |word: &str| Call { timeout: Duration::from_millis(200), memory_bytes_max: 8 << 20, ..Call::new(word) };
    let run = |word: &str| block_on(sandbox.run(&script, call(word))).outcome;
    assert!(matches!(run("loop"), Outcome::TimedOut { .. }), "an endless loop");
    for word in ["memory", "memory at once"] {
        let outcome = run(word);
        assert!(matches!(outcome, Outcome::OutOfMemory { limit, .. } if limit == 8 << 20), "{outcome:?}");
    }
    let outcome = run("recursion");
    assert!(
        matches!(&outcome, Outcome::Trapped { message, .. } if message.contains("ran out of stack")),
        "{outcome:?}"
    );
    let Outcome::Trapped { message, .. } = run("panic") else { panic!("a panic traps") };
    assert!(message.ends_with("the spring broke"), "{message}");
}
