//! The queue engine against a real Redis, by operation.
#![allow(unreachable_pub, reason = "the modules share helpers inside the one test binary")]

mod server_checks;
