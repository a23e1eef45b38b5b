//! What a Rust jumpscript imports.
