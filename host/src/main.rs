//! The `wasmhost` program.

fn main() {}
