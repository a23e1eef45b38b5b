//! The `wasmhost` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmhost::cli::main()
}
