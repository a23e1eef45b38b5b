//! What the tests share: a real Redis, real guests, the built program.
#![allow(unreachable_pub, reason = "the support module is a small library inside the one test binary")]
#![allow(dead_code, reason = "a helper may wait for its second user")]

pub mod certificates;
pub mod client;
pub mod dice;
pub mod docs;
pub mod foreign;
pub mod guests;
pub mod http;
pub mod program;
pub mod proxy;
pub mod redis;
pub mod sections;
