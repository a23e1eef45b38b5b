//! The integration tests: one binary, real parts.

mod engine;
mod support;
