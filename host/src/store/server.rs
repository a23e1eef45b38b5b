//! Whether a server is fit for jobs.
//!
//! Invariant: what endangers jobs is refused with the remedy; what only weakens the promise becomes a note.

use std::sync::Arc;

use redis::Value;

use super::Error;
use super::keys::Keys;
use super::link::Link;

/// The version of the layout in `keys::TABLE`. A host refuses a newer one; a change that an older host cannot live
/// with raises it.
pub(super) const LAYOUT: u32 = 1;

/// Checks the server and the prefix; answers what an operator should know.
pub(super) async fn check(link: &Arc<Link>, keys: &Keys) -> Result<Vec<String>, Error> {
    let info = text(link, "a greeting", redis::cmd("INFO").arg("server")).await?;
    let version = info_value(&info, "redis_version").ok_or_else(|| Error::NotRedis {
        address: link.address().to_owned(),
        reason: "it answers INFO, but names no redis_version".to_owned(),
    })?;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 2) {
        return Err(Error::TooOld { address: link.address().to_owned(), version });
    }
    let memory = text(link, "its memory policy", redis::cmd("INFO").arg("memory")).await?;
    let persistence = text(link, "its persistence", redis::cmd("INFO").arg("persistence")).await?;
    let mut notes = Vec::new();
    match info_value(&memory, "maxmemory_policy").as_deref() {
        Some(policy) if policy.starts_with("allkeys-") => {
            return Err(Error::Evicts { address: link.address().to_owned(), policy: policy.to_owned() });
        }
        Some(policy) if policy.starts_with("volatile-") => notes.push(format!(
            "maxmemory-policy is `{policy}`: when memory is full, results and done rows may go before their time; \
             `noeviction` is recommended"
        )),
        _ => {}
    }
    let has_aof = info_value(&persistence, "aof_enabled").as_deref() == Some("1");
    if !has_aof {
        let saves = match link.command("its save points", redis::cmd("CONFIG").arg("GET").arg("save")).await {
            Ok(Value::Array(pair)) => !matches!(pair.get(1), Some(Value::BulkString(text)) if text.is_empty()),
            // Managed servers forbid CONFIG; then nobody knows, and silence would be a promise.
            _ => false,
        };
        notes.push(if saves {
            "append-only file is off: when the server dies, jobs accepted since the last snapshot are lost; \
             `redis-cli config set appendonly yes` bounds that to about a second"
                .to_owned()
        } else {
            "no persistence: when the server dies, all jobs are lost; `redis-cli config set appendonly yes` bounds that \
             to about a second"
                .to_owned()
        });
    }
    check_layout(link, keys).await?;
    Ok(notes)
}

/// Refuses a prefix that a newer wasmhost laid out; marks a new one.
async fn check_layout(link: &Arc<Link>, keys: &Keys) -> Result<(), Error> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("HSETNX").arg(keys.meta()).arg("layout").arg(LAYOUT);
    pipeline.cmd("HGET").arg(keys.meta()).arg("layout");
    let answers = match link.pipeline("the layout's version", &pipeline).await {
        // A full server still runs what is in it: it must be possible to drain.
        Err(Error::Full { .. }) => return Ok(()),
        other => other?,
    };
    let found = match answers.last() {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    match found {
        Some(found) if found > LAYOUT => Err(Error::NewerLayout {
            address: link.address().to_owned(),
            prefix: keys.prefix().to_owned(),
            found,
            known: LAYOUT,
        }),
        _ => Ok(()),
    }
}

async fn text(link: &Arc<Link>, what: &'static str, command: &mut redis::Cmd) -> Result<String, Error> {
    match link.command(what, command).await? {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
        other => Err(Error::NotRedis {
            address: link.address().to_owned(),
            reason: format!("it answers INFO with {other:?}"),
        }),
    }
}

fn info_value(info: &str, name: &str) -> Option<String> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}
