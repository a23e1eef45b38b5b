//! The integration tests: one binary, real parts.

mod config;
mod dev;
mod embedded;
mod engine;
mod scripts_folder;
mod support;
mod watch;
