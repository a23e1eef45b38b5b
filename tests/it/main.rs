//! The integration tests: one binary, real parts.

mod config;
mod engine;
mod support;
