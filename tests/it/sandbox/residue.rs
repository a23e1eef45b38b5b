//! What one job leaves behind is not there for the next: guests fill every slot of a pool, then guests look. Under
//! both kinds of hardening.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, Finished, Hardening, Options, Sandbox, Script};

use super::block_on;
use crate::support::guests;
use crate::support::program::{Host, Invocation};
use crate::support::redis::{RedisServer, random_prefix};

/// Instances of the pool.
const SLOTS: usize = 12;
/// Modules that take turns. The pool has several memories and tables for each instance, and gives a module new ones as
/// long as there are: this many fill all of them.
const MODULES: usize = 8;

/// A command that fills its memory, its table and its globals when its payload is `w`, grown beyond what stays mapped
/// between jobs. Otherwise it traps when anything of another job is there, in what it has at first and in what it grows
/// to; `first` is done before it looks. It waits 30 ms at its end, so that all slots are taken at once.
fn module(tag: usize, first: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 4)
        (table $table 600 funcref)
        (global $number (mut i64) (i64.const {tag}))
        (data (i32.const 65536) "mine")
        (elem declare func $filler)
        (func $filler)
        (func $is_writer (result i32) (local $word i32)
            (i32.store (i32.const 0) (i32.const 64))
            (i32.store (i32.const 4) (i32.const 1))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 32)))
            (local.set $word (i32.load8_u (i32.const 64)))
            (memory.fill (i32.const 0) (i32.const 0) (i32.const 128))
            (i32.eq (local.get $word) (i32.const 119)))
        (func $wait
            ;; One subscription to the monotonic clock, at 0: its kind, then 30 ms.
            (memory.fill (i32.const 0) (i32.const 0) (i32.const 64))
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const 30000000))
            (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))))
        (func $fill
            (drop (memory.grow (i32.const 36)))
            (memory.fill (i32.const 0) (i32.const 0xaa) (i32.const 2621440))
            (drop (table.grow $table (ref.func $filler) (i32.const 3000)))
            (table.fill $table (i32.const 0) (ref.func $filler) (i32.const 3600))
            (global.set $number (i64.const 0x5ec7e7)))
        (func $zero (param $at i32) (param $end i32)
            (loop $next
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))
        (func $empty (param $at i32) (param $end i32)
            (loop $next
                (if (i32.eqz (ref.is_null (table.get $table (local.get $at)))) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))
        (func $look
            {first}
            (call $zero (i32.const 0) (i32.const 65536))
            (if (i32.ne (i32.load (i32.const 65536)) (i32.const 0x656e696d)) (then unreachable))
            (call $zero (i32.const 65544) (i32.const 262144))
            (drop (memory.grow (i32.const 36)))
            (call $zero (i32.const 262144) (i32.const 2621440))
            (call $empty (i32.const 0) (i32.const 600))
            (drop (table.grow $table (ref.null func) (i32.const 3000)))
            (call $empty (i32.const 600) (i32.const 3600))
            (if (i64.ne (global.get $number) (i64.const {tag})) (then unreachable)))
        (func (export "_start")
            (if (call $is_writer) (then (call $fill)) (else (call $look)))
            (call $wait)))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a script in every slot at once.
fn everywhere(sandbox: &Sandbox, script: &Script, payload: &str) -> Vec<Finished> {
    let call = || Call { timeout: Duration::from_secs(60), ..Call::new(payload) };
    block_on(join_all((0..SLOTS).map(|_| sandbox.run(script, call()))))
}

fn fill_and_look(hardening: Hardening) {
    let sandbox = Sandbox::new(Options { pool_size: SLOTS, hardening, ..Options::default() }).unwrap();
    let load = |wasm: Vec<u8>| -> Arc<Script> { sandbox.load(Digest::of(&wasm), &wasm).unwrap() };
    let modules: Vec<Arc<Script>> = (0..MODULES).map(|tag| load(module(tag, ""))).collect();
    let strangers: Vec<Arc<Script>> = (MODULES..2 * MODULES).map(|tag| load(module(tag, ""))).collect();
    let writers = modules.iter().map(|script| (script, "w"));
    // Those that wrote look in their own slots, those that never ran get the slots of others.
    let readers = modules.iter().chain(&strangers).map(|script| (script, "r"));
    for (script, payload) in writers.clone().chain(readers.clone()).chain(writers).chain(readers.rev()) {
        for finished in everywhere(&sandbox, script, payload) {
            assert!(matches!(finished.outcome, Outcome::Done { .. }), "{hardening:?} {payload}: {finished:?}");
        }
    }
}

#[test]
fn memories_tables_and_globals_are_new_in_every_slot() {
    fill_and_look(Hardening::Default);
}

#[test]
fn they_are_new_under_strict_hardening_too() {
    fill_and_look(Hardening::Strict);
}

#[test]
fn the_guest_that_looks_traps_at_the_least_thing() {
    let sandbox = Sandbox::new(Options { pool_size: 1, ..Options::default() }).unwrap();
    for (dirt, is_clean) in [
        ("", true),
        ("(i64.store (i32.const 262136) (i64.const 1))", false),
        ("(table.set $table (i32.const 599) (ref.func $filler))", false),
        ("(global.set $number (i64.const 1))", false),
    ] {
        let wasm = module(0, dirt);
        let script = sandbox.load(Digest::of(&wasm), &wasm).unwrap();
        let outcome = block_on(sandbox.run(&script, Call::new("r"))).outcome;
        assert_eq!(matches!(outcome, Outcome::Done { .. }), is_clean, "{dirt}: {outcome:?}");
    }
}

#[test]
fn a_host_is_started_with_strict_hardening_and_a_word_it_does_not_know_is_refused() {
    let (redis, prefix) = (RedisServer::shared(), random_prefix());
    let publish = Invocation::new(["publish", guests::path("echo").to_str().unwrap()]);
    publish.on(redis.url(), &prefix).run().ok();
    let host = Host::start(redis.url(), &prefix, &["--hardening", "strict"]);
    let submit = Invocation::new(["submit", "--type", "echo", "--payload", "as ever", "--wait"]);
    assert!(submit.on(redis.url(), &prefix).run().ok().contains("as ever"));
    assert_eq!(host.stop(), 0);
    let said = Invocation::new(["run", "--hardening", "strikt"]).run().fails(2);
    assert!(said.contains("strikt") && said.contains("default, strict"), "{said}");
}
