//! Files that can never run: W13 to W25, W32.

use std::time::Duration;

use wasmhost::job::JobState;
use wasmhost::jumpscript::{Digest, Kind};
use wasmhost::sandbox::{Call, Error, Options, Sandbox};

use super::{PATIENCE, Stage, is_dead, is_done, says, wat};
use crate::support::guests;
use crate::support::sections::body_of;

/// Played at length by `make torture`.
fn is_at_length() -> bool {
    std::env::var_os("BAD_WASM_AT_LENGTH").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w13_an_empty_file() {
    let stage = Stage::new().await;
    stage.refuses(b"", &["the file is empty"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w14_only_the_magic() {
    let stage = Stage::new().await;
    stage.refuses(b"\0asm", &["cut off after 4 bytes"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w15_a_wrong_version_word() {
    let stage = Stage::new().await;
    let mut wasm = guests::wasm("echo");
    wasm[4..8].copy_from_slice(&[9, 0, 7, 0]);
    stage.refuses(&wasm, &["unknown Wasm version"]).await;
    stage.ends_well().await;
}

/// How much of a file is needed: custom sections at its end may be missing, and what is left is whole.
fn needed(wasm: &[u8]) -> usize {
    let (mut at, mut needed) = (8, 8);
    while at < wasm.len() {
        let is_custom = wasm[at] == 0;
        at = body_of(wasm, at).end;
        if !is_custom {
            needed = at;
        }
    }
    needed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w16_every_prefix_of_a_component() {
    let stage = Stage::new().await;
    let wasm = guests::wasm("echo");
    let needed = needed(&wasm);
    let step = if is_at_length() { 1 } else { 211 };
    for cut in (0..needed).step_by(step) {
        let error = Sandbox::inspect(&wasm[..cut]).expect_err("a part is not the whole");
        assert!(matches!(&error, Error::Refused { hint, .. } if !hint.is_empty()), "{cut}: {error}");
    }
    for cut in [9, needed / 3, needed / 2, needed - 1] {
        stage.refuses(&wasm[..cut], &["truncated or corrupt"]).await;
    }
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w17_flipped_bytes() {
    let stage = Stage::new().await;
    let wasm = guests::wasm("echo");
    let flips = if is_at_length() { 10_000 } else { 400 };
    let (mut refused, mut accepted) = (0, Vec::new());
    for n in 0..flips {
        let mut bad = wasm.clone();
        bad[n * wasm.len() / flips] ^= 0xff;
        match Sandbox::inspect(&bad) {
            Ok(_) => accepted.push(bad),
            Err(Error::Refused { hint, .. }) => {
                assert!(!hint.is_empty(), "byte {n}");
                refused += 1;
            }
            Err(other) => panic!("byte {n}: {other}"),
        }
    }
    assert!(refused > 0 && !accepted.is_empty());
    // What is accepted is another program: it runs like one, or its compiler refuses it.
    let sandbox = Sandbox::new(Options { pool_size: 4, ..Options::default() }).unwrap();
    let share = if is_at_length() { 1 } else { 20 };
    for bad in accepted.iter().step_by(share) {
        let digest = Digest::of(bad);
        match sandbox.load(digest, bad) {
            Ok(script) => {
                let call = Call { timeout: Duration::from_millis(100), ..Call::new("x") };
                // Whatever it ends with, it ends.
                let _finished = sandbox.run(&script, call).await;
                sandbox.forget(&digest);
            }
            Err(error) => assert!(error.is_permanent(), "{error}"),
        }
    }
    for bad in accepted.iter().step_by(accepted.len().div_ceil(8)) {
        let record = stage.run(bad, "x", Duration::from_millis(500)).await;
        assert!(record.state().is_some_and(JobState::is_final), "{record:?}");
    }
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w18_native_code_in_redis() {
    let stage = Stage::new().await;
    let elf = [b"\x7fELF\x02\x01\x01\0".as_slice(), &guests::wasm("echo")].concat();
    stage.refuses(&elf, &["native code"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w19_native_code_with_another_name_in_the_scripts_folder() {
    let scripts = tempfile::tempdir().unwrap();
    let mut stage = Stage::with(&["--scripts", scripts.path().to_str().unwrap()]).await;
    let file = scripts.path().join("native.wasm");
    std::fs::write(&file, b"\x7fELF\x02\x01\x01\0 renamed").unwrap();
    let line = says(&mut stage.host, &file, "refused").await;
    assert!(line.contains("native code"), "{line}");
    assert_eq!(stage.store.route("native").await.unwrap(), None);
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w20_text_instead_of_wasm() {
    let stage = Stage::new().await;
    stage.refuses(b"(module)", &["WebAssembly text"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w21_a_module_for_a_component_and_a_component_for_a_module() {
    let stage = Stage::new().await;
    stage.refuses(&wat(r#"(module (func (export "run")))"#), &["not a command", "_start"]).await;
    // A record that says what the file is not: what the file is counts.
    for (kind, guest) in [(Kind::Component, "command-preview1"), (Kind::Command, "echo")] {
        let job_type = stage.plant(&guests::wasm(guest), kind).await;
        let id = stage.submit(&job_type, "either way", Duration::from_secs(5)).await;
        assert_eq!(is_done(&stage.end(&id).await), "either way", "{guest}");
    }
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w22_a_component_without_run() {
    let stage = Stage::new().await;
    stage.refuses(&wat("(component)"), &["no export `run`", "it exports nothing"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w23_run_with_another_type() {
    let stage = Stage::new().await;
    let run = |export: &str| {
        wat(&format!(
            r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f"))) (type $t u8) {export})"#
        ))
    };
    let words = ["the export `run` has the signature `func()`", "expected `func(record{id: string"];
    stage.refuses(&run(r#"(export "run" (func $f))"#), &words).await;
    stage.refuses(&run(r#"(export "run" (type $t))"#), &["the export `run` is not a function"]).await;
    let start = wat(r#"(module (func (export "_start") (param i32)))"#);
    stage.refuses(&start, &["`_start`", "without parameters"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w24_an_import_that_is_not_granted() {
    let stage = Stage::new().await;
    let blobs = wat(r#"(component (import "wasi:blobstore/blobstore@0.2.0" (instance)))"#);
    stage.refuses(&blobs, &["`wasi:blobstore/blobstore@0.2.0`", "not granted"]).await;
    let unknown = wat(r#"(component (import "acme:db/query@1.0.0" (instance)))"#);
    stage.refuses(&unknown, &["`acme:db/query@1.0.0`", "does not know"]).await;
    let core = wat(r#"(module (import "env" "system" (func (param i32))) (func (export "_start")))"#);
    stage.refuses(&core, &["`env.system`"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w25_an_import_of_an_unknown_version() {
    let stage = Stage::new().await;
    let component = wat(r#"(component (import "wasi:cli/stdin@0.3.0" (instance)))"#);
    stage.refuses(&component, &["`wasi:cli/stdin@0.3.0`", "this host has version 0.2"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w32_sixty_four_memories() {
    let stage = Stage::new().await;
    let module = wat(&format!("(module {} (func (export \"_start\")))", "(memory 1)".repeat(64)));
    stage.refuses(&module, &["64 memories, at most 4"]).await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w34_a_hundred_thousand_functions_and_a_million_locals() {
    let stage = Stage::new().await;
    let locals = wat(&format!("(module (func (export \"_start\") {}))", "(local i64)".repeat(1_000_000)));
    stage.refuses(&locals, &["truncated or corrupt", "locals"]).await;
    // Within the compiler's bounds: it is made in a child process while the others go on, and runs.
    let functions = wat(&format!("(module {} (func (export \"_start\")))", "(func)".repeat(100_000)));
    let job_type = stage.plant(&functions, Kind::Command).await;
    let id = stage.submit(&job_type, "", PATIENCE).await;
    let record = stage.end(&id).await;
    match record.state() {
        Some(JobState::Done) => {}
        _ => assert!(is_dead(&record, "rejected").contains("the compiler"), "{record:?}"),
    }
    stage.ends_well().await;
}
