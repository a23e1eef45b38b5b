//! The rules of single values. Each answers the end of a sentence: `must be …`.

use std::time::Duration;

use super::value::{Queue, Value, WEIGHT_MAX};
use super::{PREFIX_BYTES_MAX, QUEUES_MAX, TYPES_MAX};
use crate::job::{check_name, visible};
use crate::permissions::{HTTP_PATTERNS_MAX, HttpPattern};
use crate::protocol::Protocol;

pub(super) fn between(value: &Duration, least: Duration, most: Duration) -> Result<(), String> {
    if (least..=most).contains(value) {
        return Ok(());
    }
    Err(format!("must be between {} and {}", least.show(), most.show()))
}

pub(super) fn within(value: &u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(value) { Ok(()) } else { Err(format!("must be between {least} and {most}")) }
}

pub(super) fn mebibytes(n: u64) -> usize {
    to_usize(n.saturating_mul(1024 * 1024))
}

pub(super) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

pub(super) fn check_key_part(text: &str) -> Result<(), String> {
    if text.len() > PREFIX_BYTES_MAX {
        return Err(format!("has {} bytes, at most {PREFIX_BYTES_MAX} are allowed", text.len()));
    }
    let is_bad = |c: &char| c.is_whitespace() || c.is_control() || "*?[]\\".contains(*c);
    match text.chars().find(is_bad) {
        Some(c) => Err(format!("must not contain `{}`", c.escape_debug())),
        None if visible(text) != text => Err("must not contain invisible characters".to_owned()),
        None => Ok(()),
    }
}

pub(super) fn check_node_prefix(prefix: &str) -> Result<(), String> {
    if prefix.is_empty() { Ok(()) } else { check_prefix(prefix) }
}

pub(super) fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if prefix.contains(':') {
        return Err("must not contain `:`, which separates the parts of a key".to_owned());
    }
    check_key_part(prefix)?;
    let tag = prefix.find('{').zip(prefix.find('}'));
    let n_braces = prefix.matches(['{', '}']).count();
    match (n_braces, tag) {
        (0, _) => Ok(()),
        (2, Some((open, close))) if close > open + 1 => Ok(()),
        _ => Err("may contain one hash tag such as `{wasmhost}`, and no other braces".to_owned()),
    }
}

pub(super) fn check_queues(queues: &[Queue]) -> Result<(), String> {
    if queues.is_empty() || queues.len() > QUEUES_MAX {
        return Err(format!("must name 1 to {QUEUES_MAX} queues"));
    }
    for (n, queue) in queues.iter().enumerate() {
        check_name("queue", &queue.name).map_err(|rule| format!("but {rule}"))?;
        within(&u64::from(queue.weight), 1, u64::from(WEIGHT_MAX))
            .map_err(|rule| format!("but the weight of `{}` {rule}", queue.name))?;
        if queues[..n].iter().any(|other| other.name == queue.name) {
            return Err(format!("but names `{}` twice", queue.name));
        }
    }
    Ok(())
}

pub(super) fn check_node(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
        return Err("must have 1 to 64 letters, digits, `-`, `_` or `.`".to_owned());
    }
    Ok(())
}

pub(super) fn check_roles(roles: &[String]) -> Result<(), String> {
    if roles.len() > 100 {
        return Err(format!("names {} roles, at most 100 are allowed", roles.len()));
    }
    roles.iter().try_for_each(|role| check_name("role", role).map_err(|rule| format!("but {rule}")))
}

pub(super) fn check_protocols(protocols: &[Protocol]) -> Result<(), String> {
    let twice = protocols.iter().enumerate().find(|(n, protocol)| protocols[..*n].contains(protocol));
    twice.map_or(Ok(()), |(_, protocol)| Err(format!("but names `{protocol}` twice")))
}

pub(super) fn check_types(protocol: Protocol, types: &[String]) -> Result<(), String> {
    if types.is_empty() || types.len() > TYPES_MAX {
        return Err(format!("must name 1 to {TYPES_MAX} types"));
    }
    for (n, name) in types.iter().enumerate() {
        check_name("type", name).map_err(|rule| format!("but {rule}"))?;
        check_name("queue", &protocol.queue(name)).map_err(|rule| format!("but {rule}"))?;
        if types[..n].contains(name) {
            return Err(format!("but names `{}` twice", visible(name)));
        }
    }
    Ok(())
}

pub(super) fn check_allow_http(patterns: &[HttpPattern]) -> Result<(), String> {
    if patterns.len() > HTTP_PATTERNS_MAX {
        return Err(format!("names {} hosts, at most {HTTP_PATTERNS_MAX} are allowed", patterns.len()));
    }
    Ok(())
}

pub(super) fn check_log_level(level: &str) -> Result<(), String> {
    level.parse::<tracing_subscriber::filter::Targets>().map(|_| ()).map_err(|_| {
        "must be one of error, warn, info, debug, trace, off, or directives such as `info,wasmhost=debug`".to_owned()
    })
}
