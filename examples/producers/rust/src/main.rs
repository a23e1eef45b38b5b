//! A producer in Rust. Usage: `producer QUEUE TYPE PAYLOAD [OPTION=VALUE]...`

use std::env;

use anyhow::Context as _;
use redis::{Connection, Script};

/// Enqueues one job; returns its id and whether it is new.
fn enqueue(
    server: &mut Connection,
    prefix: &str,
    [queue, job_type, payload]: [&str; 3],
    options: &[(&str, &str)],
) -> redis::RedisResult<(String, bool)> {
    let script = Script::new(include_str!("../../enqueue.lua"));
    let mut call = script.key(prefix);
    call.arg(1).arg(1).arg(uuid::Uuid::new_v4().to_string()).arg(queue).arg(job_type).arg(payload).arg(options.len());
    for (name, value) in options {
        call.arg(*name).arg(*value);
    }
    call.invoke(server)
}

#[expect(clippy::print_stdout, reason = "the id is the result of this program")]
fn main() -> anyhow::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [queue, job_type, payload, pairs @ ..] = words.as_slice() else {
        anyhow::bail!("usage: producer QUEUE TYPE PAYLOAD [OPTION=VALUE]...");
    };
    let options: Option<Vec<_>> = pairs.iter().map(|pair| pair.split_once('=')).collect();
    let options = options.context("an option is OPTION=VALUE")?;
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let prefix = env::var("WASMHOST_PREFIX").unwrap_or_else(|_| "wasmhost".to_owned());
    let mut server = redis::Client::open(url)?.get_connection()?;
    let (id, _) = enqueue(&mut server, &prefix, [queue, job_type, payload], &options)?;
    println!("{id}");
    Ok(())
}
