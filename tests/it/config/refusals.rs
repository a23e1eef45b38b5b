//! What is refused, with key, value and rule.

use super::{Config, environment, load_file, silent};

/// Loads a file that must be refused; the error and its hint as a person sees them.
fn refused(text: &str) -> String {
    let error = match load_file(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error,
    };
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

fn refuses(text: &str, parts: &[&str]) {
    let message = refused(text);
    for part in parts {
        assert!(message.contains(part), "`{text}` answered without `{part}`: {message}");
    }
}

#[test]
fn a_syntax_error_shows_its_line() {
    refuses("prefix = 'a'\nlease = = 3\n", &["wasmhost.toml", "line 2", "lease = = 3"]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    refuses("laese = '30s'", &["unknown config key `laese`", "did you mean `lease`?"]);
    refuses("[retry]\nbsae = '1s'", &["unknown config key `retry.bsae`", "did you mean `retry.base`?"]);
    refuses("url = 'redis://h'", &["did you mean `redis.url`?"]);
    refuses("[rediss]\nurl = 'redis://h'", &["unknown config key `rediss`", "did you mean"]);
    refuses("zzzzzzzzzz = 1", &["docs/configuration.md"]);
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_key_and_value() {
    refuses("lease = 30", &["config key `lease` is `30`", "\"30s\""]);
    refuses("concurrency = 'many'", &["config key `concurrency` is `many`", "whole number"]);
    refuses("concurrency = -1", &["`concurrency` is `-1`"]);
    refuses("roles = 'x'\nprefix = 3", &["config key `prefix` is `3`", "string"]);
    refuses("redis = 'redis://h'", &["config key `redis`", "must be a table `[redis]`"]);
    refuses("queues = 3", &["config key `queues` is `3`", "table"]);
    refuses("log.format = 'xml'", &["`xml`", "auto, text, json"]);
    refuses("redis.embedded = 'perhaps'", &["true or false"]);
}

#[test]
fn durations_are_neither_negative_nor_zero_nor_huge_where_that_makes_no_sense() {
    refuses("lease = '200ms'", &["config key `lease` is `200ms`, must be between 500ms and 1h"]);
    refuses("lease = '0s'", &["`lease`", "500ms"]);
    refuses("lease = '-3s'", &["`lease` is `-3s`", "must not be negative"]);
    refuses("lease = '300000h'", &["`lease`", "1h"]);
    refuses("lease = '99999999999999999999h'", &["`lease`"]);
    refuses("lease = '30'", &["`lease` is `30`", "unit"]);
    refuses("grace = '2h'", &["`grace` is `2h`"]);
    refuses("retry.base = '0s'", &["`retry.base`"]);
    refuses("[retry]\nbase = '10s'\ncap = '5s'", &["`retry.base` is `10s`", "`retry.cap`, which is 5s"]);
    refuses("limits.done_ttl = '0s'", &["`limits.done_ttl`"]);
}

#[test]
fn strict_queues_have_no_weights() {
    refuses("strict = true\nqueues = { mail = 3 }", &["`strict` is `true`", "queue `mail` has the weight 3"]);
    let config = load_file("strict = true\nqueues = ['urgent', 'mail']").unwrap();
    assert!(config.is_strict);
    assert_eq!(config.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["urgent", "mail"]);
}

#[test]
fn a_lease_shorter_than_two_heartbeats_is_refused() {
    refuses("lease = '10s'\nheartbeat = '6s'", &["`heartbeat` is `6s`", "half of `lease`, which is 10s"]);
    assert!(load_file("lease = '10s'\nheartbeat = '5s'").is_ok());
}

#[test]
fn a_prefix_that_could_leave_its_place_is_refused() {
    for bad in ["", "a:*", "a*", "a b", "a\\u0007b", "a[b]", "{a", "a}b{c", "{a}{b}", "{}", "a:b", "a\\u202eb"] {
        refuses(&format!("prefix = \"{bad}\""), &["config key `prefix` is `"]);
    }
    refuses(&format!("prefix = '{}'", "x".repeat(101)), &["101 bytes"]);
    for good in ["wasmhost", "{wasmhost}", "lab-{grid}.1", "größe"] {
        assert_eq!(load_file(&format!("prefix = '{good}'")).unwrap().prefix, good);
    }
}

#[test]
fn a_queue_that_could_meet_another_key_or_has_no_share_is_refused() {
    refuses("queues = { 'default:ready' = 1 }", &["`default:ready`", "must not contain `:`"]);
    refuses("queues = { mail = 0 }", &["`mail`", "1 to 100"]);
    refuses("queues = { mail = 101 }", &["`mail`", "1 to 100"]);
    refuses("queues = ['a', 'a']", &["names `a` twice"]);
    refuses("queues = []", &["1 to 100 queues"]);
    let mut sources = silent();
    sources.environment.insert("WASMHOST_QUEUES".to_owned(), "mail=lots".to_owned());
    let message = Config::load(&sources).unwrap_err().to_string();
    assert!(message.contains("environment variable `WASMHOST_QUEUES`") && message.contains("`lots`"), "{message}");
}

#[test]
fn a_bad_value_is_named_as_the_person_gave_it() {
    let by_variable = Config::load(&environment(&[("WASMHOST_LEASE", "soon")])).unwrap_err().to_string();
    assert!(by_variable.starts_with("environment variable `WASMHOST_LEASE` is `soon`, "), "{by_variable}");
    let mut sources = silent();
    sources.flags.lease = Some(std::time::Duration::from_millis(1));
    let by_flag = Config::load(&sources).unwrap_err().to_string();
    assert!(by_flag.starts_with("flag `--lease` is `1ms`, "), "{by_flag}");
}

#[test]
fn a_pool_smaller_than_the_concurrency_is_refused() {
    refuses("concurrency = 10\nsandbox.pool = 5", &["`sandbox.pool` is `5`", "`concurrency` (10)"]);
}

#[test]
fn a_misspelt_variable_is_noted_and_those_of_kubernetes_are_not() {
    let pairs = [("WASMHOST_LAESE", "1s"), ("WASMHOST_SERVICE_HOST", "10.0.0.1"), ("WASMHOST_PORT_6379_TCP", "x")];
    let config = Config::load(&environment(&pairs)).unwrap();
    assert_eq!(config.notes.len(), 1, "{:?}", config.notes);
    assert!(config.notes[0].contains("`WASMHOST_LAESE`") && config.notes[0].contains("`WASMHOST_LEASE`"));
}

#[test]
fn control_characters_of_a_bad_value_are_escaped() {
    assert!(!refused("node = \"a\\u001b[2Jb\"").contains('\u{1b}'));
    assert!(!refused("\"a\\u001b[2Jb\" = 1").contains('\u{1b}'));
}

#[test]
fn a_pool_is_neither_empty_nor_a_flood() {
    refuses("redis.pool = 0", &["config key `redis.pool` is `0`, must be between 1 and 16"]);
    refuses("redis.pool = 17", &["`redis.pool` is `17`"]);
}

#[test]
fn a_url_of_several_servers_is_refused_with_the_forms_there_are() {
    refuses("redis.url = 'redis://a:1,b:2'", &["must name one host", "redis+cluster://", "redis+sentinel://"]);
    refuses("redis.url = 'redis+sentinel://a:1'", &["HOST:PORT/SERVICE"]);
    refuses("redis.url = 'redis+cluster://a:1/2'", &["a Cluster has only one"]);
    refuses("redis.url = 'rediss://u:s3cret@a/#insecure'", &["redis.ca_file", "rediss://***@a"]);
}
