//! What a guest says is heard at once, and bounded.

use std::sync::Arc;
use std::time::Duration;

use wasmhost::job::RESULT_BYTES_MAX;
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, LOG_BYTES_MAX, LOG_LINES_MAX, TAIL_BYTES_MAX};

use super::{Heard, done, load, run, run_call, trapped};
use crate::support::guests;

fn hear(payload: &str) -> (wasmhost::sandbox::Finished, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let call = Call { sink: heard.clone(), timeout: Duration::from_secs(60), ..Call::new(payload) };
    (run_call(&load(&guests::wasm("say")), call), heard)
}

#[test]
fn log_lines_keep_their_level_and_output_becomes_lines() {
    let (finished, heard) = hear("levels 0");
    let expected = [
        "debug||a decision",
        "warn|disk|nearly full",
        "info|stdout|on stdout",
        "info|stderr|on stderr, without a line end",
    ];
    assert_eq!(*heard.lines.lock().unwrap(), expected);
    let tail = "debug a decision\nwarn disk: nearly full\non stdout\non stderr, without a line end";
    assert_eq!((finished.usage.log_tail.as_str(), finished.usage.is_log_cut), (tail, false));
}

#[test]
fn progress_is_heard_and_never_above_a_hundred() {
    let (_, heard) = hear("progress 3");
    let percents: Vec<u8> = heard.progress.lock().unwrap().iter().map(|(percent, _)| *percent).collect();
    assert_eq!(percents, [0, 50, 100, 100]);
}

#[test]
fn too_many_lines_are_dropped_with_a_flag_and_the_job_goes_on() {
    let (finished, heard) = hear("lines 5000");
    assert_eq!(done(&finished), "said");
    assert!(finished.usage.is_log_cut);
    assert_eq!(heard.lines.lock().unwrap().len(), LOG_LINES_MAX as usize);
    assert!(finished.usage.log_tail.ends_with("line 4999\n"), "the end is kept");
}

#[test]
fn a_flood_on_stderr_is_cut_and_the_panic_behind_it_is_still_told() {
    let (finished, heard) = hear("flood 2000");
    let (message, _) = trapped(&finished);
    assert!(message.ends_with("after the flood"), "{message}");
    assert!(finished.usage.is_log_cut && finished.usage.log_tail.len() <= TAIL_BYTES_MAX);
    let bytes: usize = heard.lines.lock().unwrap().iter().map(String::len).sum();
    assert!(bytes <= LOG_BYTES_MAX + 64 * LOG_LINES_MAX as usize, "{bytes}");
}

#[test]
fn a_result_over_the_limit_is_refused_with_both_numbers() {
    assert_eq!(done(&run("say", &format!("result {RESULT_BYTES_MAX}"))).len(), RESULT_BYTES_MAX);
    let (message, _) = trapped(&run("say", &format!("result {}", RESULT_BYTES_MAX + 1)));
    assert!(message.contains("1048577") && message.contains("1048576"), "{message}");
}

#[test]
fn a_huge_result_is_stopped_before_it_is_copied() {
    let (message, _) = trapped(&run("say", "result 40000000"));
    assert!(message.contains("16 MiB to the host in one call"), "{message}");
}

#[test]
fn a_commands_output_over_the_limit_is_an_error() {
    for guest in ["command", "command-preview1"] {
        assert_eq!(done(&run(guest, &format!("result {RESULT_BYTES_MAX}"))).len(), RESULT_BYTES_MAX);
        let (message, _) = trapped(&run(guest, &format!("result {}", RESULT_BYTES_MAX + 1)));
        assert!(message.contains("more than 1048576 bytes"), "{message}");
    }
}

#[test]
fn bytes_that_could_harm_a_terminal_arrive_as_they_are_for_the_screen_to_escape() {
    let (finished, heard) = hear("hidden 0");
    assert!(matches!(finished.outcome, Outcome::Done { .. }));
    assert_eq!(*heard.lines.lock().unwrap(), ["info|stderr|\u{1b}[31mred\u{202e}"]);
}
