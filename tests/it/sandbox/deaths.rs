//! Every way to die has its own outcome and a text that its author understands.

use std::time::{Duration, Instant};

use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, CancelFlag, Options, Sandbox};

use super::{block_on, done, load, run, run_call, sandbox, trapped};
use crate::support::guests;

#[test]
fn a_panic_tells_its_message_its_place_and_the_function() {
    let (message, backtrace) = trapped(&run("die", "panic"));
    assert!(message.starts_with("panicked at ") && message.contains("die.rs:"), "{message}");
    assert!(message.ends_with("the spring broke"), "{message}");
    assert!(!message.contains("RUST_BACKTRACE"), "{message}");
    assert!(backtrace.starts_with("  at run") && !backtrace.contains("panic"), "{backtrace}");
}

#[test]
fn a_division_by_zero_tells_what_it_was() {
    let (message, _) = trapped(&run("die", "divide"));
    assert!(message.contains("attempt to divide by zero"), "{message}");
}

#[test]
fn an_abort_says_that_nothing_was_said() {
    let (message, _) = trapped(&run("die", "abort"));
    assert!(message.contains("aborted without a word"), "{message}");
}

#[test]
fn exit_in_a_component_is_a_failure() {
    // WASI 0.2 knows success and failure only: the 3 is already lost in the guest's own library.
    let outcome = run("die", "exit").outcome;
    assert!(matches!(&outcome, Outcome::Failed { message } if message.contains("exit(1)")), "{outcome:?}");
}

#[test]
fn deep_recursion_names_the_function_and_the_remedy() {
    let (message, backtrace) = trapped(&run("die", "recursion"));
    assert!(message.contains("ran out of stack") && message.contains("dive"), "{message}");
    assert!(message.contains("-zstack-size"), "{message}");
    assert!(backtrace.contains("times)"), "{backtrace}");
}

#[test]
fn a_memory_bomb_ends_at_its_limit_whether_it_grows_or_jumps() {
    let script = load(&guests::wasm("die"));
    for word in ["memory", "memory at once"] {
        let finished = run_call(&script, Call { memory_bytes_max: 8 << 20, ..Call::new(word) });
        assert!(matches!(finished.outcome, Outcome::OutOfMemory { limit, .. } if limit == 8 << 20), "{finished:?}");
        assert!(finished.usage.memory_bytes_peak <= 8 << 20);
        assert!(finished.outcome.error_text().contains("8 MiB"), "{}", finished.outcome.error_text());
    }
}

#[test]
fn an_endless_loop_is_stopped_soon_after_its_time_with_its_function() {
    let script = load(&guests::wasm("die"));
    let start = Instant::now();
    let finished = run_call(&script, Call { timeout: Duration::from_millis(200), ..Call::new("loop") });
    let Outcome::TimedOut { limit, backtrace } = &finished.outcome else { panic!("{finished:?}") };
    assert_eq!(*limit, Duration::from_millis(200));
    assert!(backtrace.contains("at run"), "{backtrace}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(finished.usage.cpu_us >= 150_000, "{:?}", finished.usage);
}

#[test]
fn a_waiting_guest_is_given_up_without_using_the_cpu() {
    let script = load(&guests::wasm("end"));
    let finished = run_call(&script, Call { timeout: Duration::from_millis(100), ..Call::new("sleep") });
    assert!(matches!(&finished.outcome, Outcome::TimedOut { backtrace, .. } if backtrace.is_empty()), "{finished:?}");
    assert!(finished.usage.wall_us >= 100_000 && finished.usage.cpu_us < 90_000, "{:?}", finished.usage);
}

#[test]
fn a_cancelled_guest_ends_whether_it_computes_or_waits() {
    for (guest, word) in [("die", "loop"), ("end", "sleep")] {
        let script = load(&guests::wasm(guest));
        let cancel = CancelFlag::new();
        let call = Call { cancel: cancel.clone(), timeout: Duration::from_secs(60), ..Call::new(word) };
        let canceller = std::thread::spawn(move || cancel.cancel());
        assert_eq!(run_call(&script, call).outcome, Outcome::Cancelled, "{word}");
        canceller.join().unwrap();
    }
}

#[test]
fn a_job_that_waits_for_an_instance_can_be_cancelled() {
    let sandbox = Sandbox::new(Options { pool_size: 1, ..Options::default() }).unwrap();
    let wasm = guests::wasm("end");
    let script = sandbox.load(Digest::of(&wasm), &wasm).unwrap();
    let [holder, waiter] = [CancelFlag::new(), CancelFlag::new()];
    let call = |cancel: &CancelFlag| Call { cancel: cancel.clone(), ..Call::new("sleep") };
    block_on(async {
        let waiting = async {
            let finished = sandbox.run(&script, call(&waiter)).await;
            holder.cancel();
            finished
        };
        let cancel = async { waiter.cancel() };
        let (held, waited, ()) = tokio::join!(sandbox.run(&script, call(&holder)), waiting, cancel);
        assert_eq!((held.outcome, waited.outcome), (Outcome::Cancelled, Outcome::Cancelled));
        assert_eq!(waited.usage.wall_us, 0, "it never had an instance");
    });
}

#[test]
fn guests_that_loop_leave_their_thread_to_others() {
    let (die, end) = (load(&guests::wasm("die")), load(&guests::wasm("end")));
    let looping = || sandbox().run(&die, Call { timeout: Duration::from_millis(400), ..Call::new("loop") });
    block_on(async {
        let start = Instant::now();
        let nap = async {
            let finished = sandbox().run(&end, Call::new("nap")).await;
            (done(&finished), start.elapsed())
        };
        let (a, b, (slept, after)) = tokio::join!(looping(), looping(), nap);
        assert_eq!(slept, "");
        assert!(after < start.elapsed(), "the nap ended while the others still looped");
        assert!([a, b].iter().all(|finished| matches!(finished.outcome, Outcome::TimedOut { .. })));
    });
}

#[test]
fn a_dropped_attempt_gives_its_instance_back() {
    let script = load(&guests::wasm("end"));
    for _ in 0..3 * sandbox().pool_size() {
        let attempt =
            async { tokio::time::timeout(Duration::from_millis(1), sandbox().run(&script, Call::new("sleep"))).await };
        assert!(block_on(attempt).is_err());
    }
    assert_eq!(done(&run("end", "residue")), "0");
}
