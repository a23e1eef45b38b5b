//! How far the job has come, for people who watch it.

use std::fmt;

/// Reports `percent` (0 to 100) and a few words. Seen at once, also when the attempt fails later; never blocks.
pub fn report(percent: u8, message: impl fmt::Display) {
    emit(percent.min(100), &message.to_string());
}

#[cfg(target_family = "wasm")]
fn emit(percent: u8, message: &str) {
    crate::contract::wasmhost::jumpscript::progress::report(percent, message);
}

#[cfg(not(target_family = "wasm"))]
#[expect(clippy::print_stderr, reason = "a native test of a job function shows its progress on stderr")]
fn emit(percent: u8, message: &str) {
    crate::testing::hear_progress(percent, message);
    eprintln!("{percent} % {message}");
}
