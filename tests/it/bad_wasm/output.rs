//! Code that says too much, or what nobody should hear: W38 to W45.

use std::time::Duration;

use wasmhost::jumpscript::embed_manifest;
use wasmhost::store::JobRecord;

use super::{Stage, is_dead, is_done, is_visible, wat};
use crate::support::guests;
use crate::support::http::Server;

const LONG: Duration = Duration::from_secs(60);

/// A command that writes `bytes` bytes so often to a descriptor.
fn flood(descriptor: u32, bytes: u32, times: u32) -> Vec<u8> {
    wat(&format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (func (export "_start") (local $n i32)
            (memory.fill (i32.const 0) (i32.const 120) (i32.const 131072))
            (i32.store (i32.const 0) (i32.const 1024))
            (i32.store (i32.const 4) (i32.const {bytes}))
            (loop $next
                (drop (call $write (i32.const {descriptor}) (i32.const 0) (i32.const 1) (i32.const 8)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $n) (i32.const {times}))))))"#
    ))
}

/// The bytes of a job's log, and whether its record says that the log was cut.
fn log(record: &JobRecord) -> usize {
    record.field("log").or_else(|| record.field("log_tail")).map_or(0, <[u8]>::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w38_thirty_two_thousand_headers() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let stage = Stage::with(&["--allow-http", "127.0.0.1:*"]).await;
    let fetch = embed_manifest(&guests::wasm("fetch"), "[permissions]\nhttp = [\"*\"]\n");
    let record = stage.run(&fetch, &format!("headers {} 32769", server.url()), LONG).await;
    let error = is_dead(&record, "trapped");
    assert!(error.contains("stopped by the host"), "{error}");
    assert!(server.received().is_empty());
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w40_a_gibibyte_on_stdout_and_on_stderr() {
    let stage = Stage::new().await;
    // The stdout of a command is its result, the rest is log.
    let error = is_dead(&stage.run(&flood(1, 65_536, 16_384), "", LONG).await, "trapped");
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    let record = stage.run(&flood(2, 65_536, 16_384), "", LONG).await;
    is_done(&record);
    assert!(log(&record) <= 64 * 1024, "{}", log(&record));
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w41_ten_million_bytes_one_by_one() {
    let stage = Stage::new().await;
    let error = is_dead(&stage.run(&flood(1, 1, 10_000_000), "", LONG).await, "trapped");
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    let record = stage.run(&flood(2, 1, 10_000_000), "", Duration::from_secs(2)).await;
    if record.text("error_kind").is_some() {
        is_dead(&record, "timed_out");
    }
    assert!(log(&record) <= 64 * 1024, "{}", log(&record));
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w42_what_a_terminal_would_act_on() {
    let stage = Stage::new().await;
    let evil = r"\1b[2J\1b]0;title\07\1b]8;;http://x\1b\\ \e2\80\ae \ff\fe \c3\28 \0d\08\9b";
    let wasm = |descriptor: u32| {
        wat(&format!(
            r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\2a\00\00\00")
            (data (i32.const 16) "{evil}")
            (func (export "_start")
                (drop (call $write (i32.const {descriptor}) (i32.const 0) (i32.const 1) (i32.const 8)))
                (if (i32.eq (i32.const {descriptor}) (i32.const 2)) (then unreachable))))"#
        ))
    };
    for descriptor in [1, 2] {
        let job_type = stage.plant(&wasm(descriptor), wasmhost::jumpscript::Kind::Command).await;
        let id = stage.submit(&job_type, "", LONG).await;
        stage.end(&id).await;
        let file = stage.folder.path().join(format!("evil{descriptor}.wasm"));
        std::fs::write(&file, wasm(descriptor)).unwrap();
        let id = id.to_string();
        for words in [
            &["jobs", "show", &id][..],
            &["jobs", "logs", &id],
            &["dlq", "show", &id],
            &["exec", file.to_str().unwrap()],
        ] {
            for output in ["text", "json"] {
                let shown = stage.cli(&[words, &["--output", output]].concat());
                is_visible(&shown.stderr);
                // What `exec` prints in text is the result itself, byte for byte, for a pipe.
                if words[0] != "exec" || output == "json" {
                    is_visible(&shown.stdout);
                }
            }
        }
    }
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w43_a_flood_on_stderr_with_a_trap_behind_it() {
    let stage = Stage::new().await;
    let error = is_dead(&stage.run(&guests::wasm("say"), "flood 300", LONG).await, "trapped");
    assert!(error.contains("after the flood"), "{error}");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w44_a_list_of_a_gibibyte_and_a_text_of_four() {
    let stage = Stage::new().await;
    let error = is_dead(&stage.run(&guests::wasm("lie"), "long list", LONG).await, "trapped");
    assert!(error.contains("stopped by the host"), "{error}");
    // The allocator of Rust stands in the way of 2^32-1 bytes; an import can be called with them.
    let wasm = wat(r#"(component
        (import "wasi:logging/logging@0.1.0-draft" (instance $logging
            (type $words (enum "trace" "debug" "info" "warn" "error" "critical"))
            (export "level" (type $level (eq $words)))
            (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
        (core module $page (memory (export "memory") 1))
        (core instance $memory (instantiate $page))
        (core func $log (canon lower (func $logging "log") (memory (core memory $memory "memory"))))
        (core module $code
            (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
            (func (export "run") (result i32)
                (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const -1))
                (i32.const 0)))
        (core instance $host (export "log" (func $log)))
        (core instance $it (instantiate $code (with "host" (instance $host))))
        (func $run (result (result)) (canon lift (core func $it "run")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#);
    let error = is_dead(&stage.run(&wasm, "", LONG).await, "trapped");
    assert!(error.contains("stopped by the host"), "{error}");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w45_a_text_that_is_no_utf_8() {
    let stage = Stage::new().await;
    // A byte that begins nothing, and half of a pair of UTF-16.
    for word in ["bad text", "half a pair"] {
        let error = is_dead(&stage.run(&guests::wasm("lie"), word, LONG).await, "trapped");
        assert!(error.contains("utf-8"), "{word}: {error}");
    }
    stage.ends_well().await;
}
