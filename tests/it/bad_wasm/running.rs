//! Code that does harm while it runs: W26 to W31, W48 to W54.

use std::time::Duration;

use wasmhost::job::JobState;
use wasmhost::jumpscript::Kind;

use super::{Stage, is_dead, is_done, wat};
use crate::support::guests;
use crate::support::redis::wait_until;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// A command with a memory of one page.
fn command(body: &str) -> Vec<u8> {
    wat(&format!(r#"(module (memory (export "memory") 1) (func (export "_start") {body}))"#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w26_a_start_function_without_end() {
    let stage = Stage::new().await;
    let wasm = wat(r#"(module (func $init (loop $l br $l)) (start $init) (func (export "_start")))"#);
    let error = is_dead(&stage.run(&wasm, "", SHORT).await, "timed_out");
    assert!(error.contains("stopped after 300ms"), "{error}");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w27_a_start_function_that_traps() {
    let stage = Stage::new().await;
    let wasm = wat(r#"(module (func $init unreachable) (start $init) (func (export "_start")))"#);
    let error = is_dead(&stage.run(&wasm, "", LONG).await, "trapped");
    assert!(error.contains("unreachable"), "{error}");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w28_loops_that_call_nothing_leave_no_descriptor_behind() {
    let stage = Stage::new().await;
    let job_type = stage.plant(&guests::wasm("die"), Kind::Component).await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", stage.host.pid())).unwrap().count();
    let run_all = async || {
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(stage.submit(&job_type, "loop", Duration::from_millis(50)).await);
        }
        for id in &ids {
            let error = is_dead(&stage.end(id).await, "timed_out");
            assert!(error.contains("at run"), "the loop's function is named: {error}");
        }
    };
    run_all().await;
    let before = descriptors();
    for _ in 0..4 {
        run_all().await;
    }
    // Eighty more attempts, and no more than the few connections that a host opens and closes for itself.
    let after = descriptors();
    assert!(after <= before + 8, "{before}, then {after}");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w29_a_loop_of_short_host_calls() {
    let stage = Stage::new().await;
    let wasm = wat(r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") (loop $l (drop (call $now (i32.const 1) (i64.const 0) (i32.const 8))) br $l)))"#);
    is_dead(&stage.run(&wasm, "", SHORT).await, "timed_out");
    // With more time it is stopped by the number of its calls.
    let error = is_dead(&stage.run(&wasm, "", LONG).await, "trapped");
    assert!(error.contains("called the host more than 10000000 times"), "{error}");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w30_recursion_to_the_end_of_the_stack() {
    let stage = Stage::new().await;
    let error = is_dead(&stage.run(&guests::wasm("die"), "recursion", LONG).await, "trapped");
    assert!(error.contains("ran out of stack") && error.contains("dive"), "{error}");
    let native = wat(r#"(module (func $deep (param i32) (result i32) local.get 0 call $deep i32.const 1 i32.add)
        (func (export "_start") i32.const 0 call $deep drop))"#);
    let error = is_dead(&stage.run(&native, "", LONG).await, "trapped");
    assert!(error.contains("ran out of stack: `deep`"), "{error}");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w31_memory_in_one_step_and_in_many() {
    let stage = Stage::new().await;
    let at_once = command("(drop (memory.grow (i32.const 65535)))");
    let in_steps = command("(loop $l (drop (memory.grow (i32.const 1))) (br $l))");
    for wasm in [at_once, in_steps] {
        let error = is_dead(&stage.run(&wasm, "", LONG).await, "out_of_memory");
        assert!(error.contains("64 MiB"), "{error}");
    }
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w48_an_hour_of_sleep_is_cancelled() {
    let stage = Stage::new().await;
    let job_type = stage.plant(&guests::wasm("wait"), Kind::Component).await;
    let id = stage.submit(&job_type, "", Duration::from_secs(7_200)).await;
    wait_until("it runs", LONG, async || {
        let record = stage.store.job(&id).await.unwrap().unwrap();
        (record.state() == Some(JobState::Inflight)).then_some(())
    })
    .await;
    stage.cli(&["jobs", "cancel", &id.to_string()]).ok();
    assert_eq!(stage.end(&id).await.state(), Some(JobState::Cancelled));
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w50_each_trap_has_its_reason() {
    let stage = Stage::new().await;
    for (body, reason) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const 70000)))", "out of bounds memory access"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "invalid conversion"),
    ] {
        let error = is_dead(&stage.run(&command(body), "", LONG).await, "trapped");
        assert!(error.contains(reason), "{error}");
    }
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w51_an_exit_code() {
    let stage = Stage::new().await;
    let error = is_dead(&stage.run(&guests::wasm("command-preview1"), "exit 3", LONG).await, "failed");
    assert!(error.contains("exit code 3"), "{error}");
    let error = is_dead(&stage.run(&guests::wasm("die"), "exit", LONG).await, "failed");
    assert!(error.contains("it called exit(1)"), "{error}");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w52_five_hundred_jobs_of_64_mib_at_once() {
    let stage = Stage::new().await;
    // Of its 64 MiB each writes 16, and holds them for 5 ms.
    let wasm = wat(r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1024)
        (func (export "_start")
            (memory.fill (i32.const 4096) (i32.const 1) (i32.const 16777216))
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const 5000000))
            (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#);
    let job_type = stage.plant(&wasm, Kind::Command).await;
    let mut ids = Vec::new();
    for _ in 0..500 {
        ids.push(stage.submit(&job_type, "", LONG).await);
    }
    for id in &ids {
        is_done(&stage.end(id).await);
    }
    // Eight run at once, the others wait in Redis: the host never had the memory of more.
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.host.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    let peak_mib = peak.trim().parse::<u64>().unwrap() / 1024;
    assert!(peak_mib < 8 * 64 + 256, "{peak_mib} MiB");
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w53_what_an_earlier_instance_left() {
    let stage = Stage::new().await;
    let job_type = stage.plant(&guests::wasm("end"), Kind::Component).await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(stage.submit(&job_type, "residue", LONG).await);
    }
    for id in &ids {
        assert_eq!(is_done(&stage.end(id).await), "0", "a count that a job before it would have raised");
    }
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w54_environment_arguments_and_files() {
    let stage = Stage::new().await;
    let end = guests::wasm("end");
    assert_eq!(is_done(&stage.run(&end, "environment", LONG).await), "0 0");
    assert_eq!(is_done(&stage.run(&end, "files", LONG).await), "true true");
    let text = is_done(&stage.run(&guests::wasm("command-preview1"), "environment", LONG).await);
    assert!(text.lines().all(|line| line.starts_with("JOB_")), "{text}");
    stage.ends_well().await;
}
