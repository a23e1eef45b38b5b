//! What one attempt on this machine used, for its author: as text on stderr, or as JSON.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::failure::FAILED;
use super::local::{Code, Ran};
use super::{Output, effects, print};
use crate::clock::format_duration;
use crate::job::visible_lines;
use crate::outcome::Outcome;
use crate::views;

/// An attempt and what it used, as JSON.
#[derive(Serialize)]
pub(super) struct Profile<'a> {
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    /// The wait that the guest asked for before it runs again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    wall_us: u64,
    cpu_us: u64,
    memory_bytes_peak: u64,
    memory_bytes_max: usize,
    wasm_bytes: usize,
    native_bytes: usize,
    ready_us: u64,
    result_bytes: usize,
    log_lines: u64,
    is_log_cut: bool,
    /// By interface and function.
    host_calls: BTreeMap<&'a str, u64>,
    log: &'a str,
    /// What would commit with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    effects: Vec<effects::Told>,
}

impl<'a> Profile<'a> {
    /// The profile of an attempt.
    pub(super) fn of(code: &Code, ran: &'a Ran) -> Self {
        let (outcome, usage) = (&ran.finished.outcome, &ran.finished.usage);
        let result = result_of(outcome);
        Self {
            outcome: outcome.kind(),
            result: result.map(views::json_or_text),
            error: outcome.error_text(),
            retry_after_ms: retry_after(outcome).map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            wall_us: usage.wall_us,
            cpu_us: usage.cpu_us,
            memory_bytes_peak: usage.memory_bytes_peak,
            memory_bytes_max: ran.memory_bytes_max,
            wasm_bytes: code.wasm_bytes,
            native_bytes: code.script.native_bytes(),
            ready_us: u64::try_from(code.ready_in.as_micros()).unwrap_or(u64::MAX),
            result_bytes: result.map_or(0, <[u8]>::len),
            log_lines: ran.log_lines,
            is_log_cut: usage.is_log_cut,
            host_calls: ran.calls.iter().collect(),
            log: &usage.log_tail,
            effects: effects::told(outcome, &ran.finished.effects),
        }
    }

    /// The lines for people.
    fn lines(&self) -> Vec<String> {
        let micros = |us| rounded(Duration::from_micros(us));
        let again = self.retry_after_ms.map_or_else(String::new, |after| {
            format!(" (again after {})", format_duration(Duration::from_millis(after)))
        });
        let cut = if self.is_log_cut { ", cut" } else { "" };
        let mut lines = vec![
            format!(
                "{}{again} in {}, {} computing, peak memory {} of {}",
                self.outcome,
                micros(self.wall_us),
                micros(self.cpu_us),
                kib(self.memory_bytes_peak),
                kib(self.memory_bytes_max as u64)
            ),
            format!(
                "  code        {} of Wasm, {} native, ready in {}",
                kib(self.wasm_bytes as u64),
                kib(self.native_bytes as u64),
                micros(self.ready_us)
            ),
            format!("  result      {} bytes", self.result_bytes),
            format!("  log         {} lines{cut}", self.log_lines),
            format!("  host calls  {}", self.host_calls.values().sum::<u64>()),
        ];
        lines.extend(self.effects.iter().map(effects::Told::line));
        lines.extend(self.host_calls.iter().map(|(name, n)| format!("  {n:>10}  {name}")));
        lines
    }
}

/// Prints the result to stdout and everything else to stderr, or both as one document of JSON. The code says whether
/// the attempt is done.
pub(super) fn report(output: Output, code: &Code, ran: &Ran) -> ExitCode {
    let profile = Profile::of(code, ran);
    let result = result_of(&ran.finished.outcome);
    if output == Output::Json {
        print::json(&profile);
    } else {
        if let Some(result) = result {
            print::bytes(result);
            if !result.is_empty() && !result.ends_with(b"\n") {
                print::bytes(b"\n");
            }
        }
        profile.lines().iter().for_each(|line| print::note(line));
        if result.is_none() {
            print::note(&format!("error: {}", visible_lines(&profile.error)));
        }
    }
    exit_code(ran)
}

/// 0 when the attempt is done, else 1.
pub(super) fn exit_code(ran: &Ran) -> ExitCode {
    ExitCode::from(if result_of(&ran.finished.outcome).is_some() { 0 } else { FAILED })
}

fn result_of(outcome: &Outcome) -> Option<&[u8]> {
    if let Outcome::Done { result } = outcome { Some(result) } else { None }
}

fn retry_after(outcome: &Outcome) -> Option<Duration> {
    if let Outcome::Retry { after, .. } = outcome { *after } else { None }
}

/// Bytes in KiB, rounded up; whole MiB as such.
pub(super) fn kib(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes >= MIB && bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{} KiB", bytes.div_ceil(1024))
    }
}

/// A time with two or three digits: `41 ms`, `1.9 s`.
pub(super) fn rounded(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        format!("{} µs", time.as_micros())
    } else if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
