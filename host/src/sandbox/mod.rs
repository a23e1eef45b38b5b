//! The Wasm engine: compiles jumpscripts, and runs each job in a fresh instance under hard limits.
