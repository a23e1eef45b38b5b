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

/// Checks the server; answers what an operator should know. A server of a Cluster leads to the owner of the prefix's
/// slot, and that is the one which is checked.
pub(super) async fn check(link: &Arc<Link>) -> Result<Vec<String>, Error> {
    let is_known = link.place().is_cluster();
    let notes = look(link).await?;
    if link.place().is_cluster() && !is_known { look(link).await } else { Ok(notes) }
}

async fn look(link: &Arc<Link>) -> Result<Vec<String>, Error> {
    let about = match text(link, "INFO", &mut redis::cmd("INFO")).await {
        Err(Error::NotAllowed { user, .. }) => {
            let greeting = greeting(link).await?;
            check_kind(link, &greeting)?;
            return Ok(vec![format!(
                "user `{user}` may not ask for INFO: how this server keeps its data was not looked at"
            )]);
        }
        other => other?,
    };
    let version = info_value(&about, "redis_version").ok_or_else(|| Error::NotRedis {
        address: link.address().to_owned(),
        reason: "it answers INFO, but names no redis_version".to_owned(),
    })?;
    let mode = info_value(&about, "redis_mode").unwrap_or_default();
    check_kind(link, &Greeting { version, mode })?;
    let mut notes = Vec::new();
    match info_value(&about, "maxmemory_policy").as_deref() {
        Some(policy) if policy.starts_with("allkeys-") => {
            return Err(Error::Evicts { address: link.address().to_owned(), policy: policy.to_owned() });
        }
        Some(policy) if policy.starts_with("volatile-") => notes.push(format!(
            "maxmemory-policy is `{policy}`: when memory is full, results and done rows may go before their time; \
             `noeviction` is recommended"
        )),
        _ => {}
    }
    if info_value(&about, "aof_enabled").as_deref() != Some("1") {
        notes.push(without_aof(link).await.to_owned());
    }
    Ok(notes)
}

/// What a server without an append-only file means.
async fn without_aof(link: &Arc<Link>) -> &'static str {
    match link.command("its save points", redis::cmd("CONFIG").arg("GET").arg("save")).await {
        Ok(Value::Array(pair)) if matches!(pair.get(1), Some(Value::BulkString(text)) if text.is_empty()) => {
            "no persistence: when the server dies, all jobs are lost; `redis-cli config set appendonly yes` bounds that \
             to about a second"
        }
        Ok(_) => {
            "append-only file is off: when the server dies, jobs accepted since the last snapshot are lost; \
             `redis-cli config set appendonly yes` bounds that to about a second"
        }
        // Managed servers, and the users of our own roles, may not ask.
        Err(_) => {
            "append-only file is off, and CONFIG may not be asked for snapshots: when the server dies, jobs are lost, \
             perhaps all; `appendonly yes` bounds that to about a second"
        }
    }
}

/// What a server says of itself to everybody.
struct Greeting {
    version: String,
    mode: String,
}

/// HELLO needs no permission and, without a version of the protocol, changes nothing.
async fn greeting(link: &Arc<Link>) -> Result<Greeting, Error> {
    let answer = link.command("a greeting", &redis::cmd("HELLO")).await?;
    let Value::Array(pairs) = answer else {
        let reason = format!("it answers HELLO with {answer:?}");
        return Err(Error::NotRedis { address: link.address().to_owned(), reason });
    };
    let value = |name: &str| {
        pairs.chunks(2).find_map(|pair| match pair {
            [Value::BulkString(key), Value::BulkString(value)] if key == name.as_bytes() => {
                Some(String::from_utf8_lossy(value).into_owned())
            }
            _ => None,
        })
    };
    Ok(Greeting { version: value("version").unwrap_or_default(), mode: value("mode").unwrap_or_default() })
}

/// Refuses what is too old or no server for jobs; turns to the Cluster that the server belongs to.
fn check_kind(link: &Arc<Link>, greeting: &Greeting) -> Result<(), Error> {
    let address = link.address().to_owned();
    let mut numbers = greeting.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 2) {
        return Err(Error::TooOld { address, version: greeting.version.clone() });
    }
    match greeting.mode.as_str() {
        "sentinel" => {
            let reason = "a Sentinel answers there, which keeps no jobs; name the service that it knows".to_owned();
            Err(Error::Url { url: address, reason })
        }
        "cluster" if !link.place().is_cluster() => {
            link.place().join_cluster()?;
            link.start_anew();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses a prefix that a newer wasmhost laid out; marks a new one.
pub(super) async fn check_layout(link: &Arc<Link>, keys: &Keys) -> Result<(), Error> {
    let what = "the layout's version";
    let mut mark = redis::cmd("HSETNX");
    mark.arg(keys.meta()).arg("layout").arg(LAYOUT);
    match link.command(what, &mark).await {
        // A full server still runs what is in it: it must be possible to drain. A producer may only look.
        Ok(_) | Err(Error::Full { .. } | Error::NotAllowed { .. }) => {}
        Err(error) => return Err(error),
    }
    let found = match link.command(what, redis::cmd("HGET").arg(keys.meta()).arg("layout")).await {
        Err(Error::Full { .. }) => return Ok(()),
        other => match other? {
            Value::BulkString(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()),
            _ => None,
        },
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
