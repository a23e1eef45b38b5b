//! The integration tests: one binary, real parts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers say what went wrong by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test prints what it skips")]

mod bad_scripts;
mod bad_wasm;
mod bridge;
mod cases;
mod cli;
mod config;
mod dev;
mod embedded;
mod engine;
mod examples;
mod hot_reload;
mod http;
mod languages;
mod main_job;
mod node;
mod operate;
mod permissions;
mod producers;
mod readme;
mod replay;
mod sandbox;
mod scripts_folder;
mod servers;
mod signatures;
mod sources;
mod state;
mod steering;
mod support;
mod tidy;
mod torture;
mod wake;
mod watch;
mod worker;
