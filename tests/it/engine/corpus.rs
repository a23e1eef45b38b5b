//! The corpus of bad records against the built program: it stays up, says no raw control character, and every good
//! job between them is done.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use wasmhost::job::{JobId, JobState};

use crate::support::guests;
use crate::support::program::{Host, Invocation};
use crate::support::redis::{RedisServer, keys_under, wait_until};

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Its row is in the DLQ, with a reason that names this.
    Dead(&'static str),
    /// Its id is in the `aside` list.
    Aside,
    /// It is done.
    Done,
}

/// Fields of a hash; a field given twice takes the later value, an empty list makes no hash.
type Fields = Vec<(&'static [u8], Vec<u8>)>;

/// A sound record with one field more, or another value for one.
fn with(name: &'static str, value: impl Into<Vec<u8>>) -> Fields {
    let sound: [(&[u8], &[u8]); 4] = [(b"type", b"echo"), (b"queue", b"q"), (b"payload", b"{}"), (b"status", b"ready")];
    let mut fields: Fields = sound.iter().map(|(name, value)| (*name, value.to_vec())).collect();
    fields.push((name.as_bytes(), value.into()));
    fields
}

/// A sound record without a field.
fn without(name: &str) -> Fields {
    let mut fields = with("type", "echo");
    fields.retain(|(field, _)| *field != name.as_bytes());
    fields
}

/// Every record that a foreign producer may leave in `ready`, by its id.
fn corpus() -> Vec<(Vec<u8>, Fields, Fate)> {
    use Fate::{Aside, Dead, Done};
    let case = |id: &str, fields: Fields, fate: Fate| (id.as_bytes().to_vec(), fields, fate);
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    vec![
        case("ghost", vec![], Aside),
        case("no type", without("type"), Dead("`type`")),
        case("no payload", without("payload"), Done),
        case("no queue", without("queue"), Dead("`queue`")),
        case("attempts -1", with("attempts", "-1"), Dead("`attempts`")),
        case("attempts 2^63", with("attempts", "9223372036854775808"), Dead("`attempts`")),
        case("attempts NaN", with("attempts", "NaN"), Dead("`attempts`")),
        case("max 0", with("max_attempts", "0"), Done),
        case("max 2^31", with("max_attempts", "2147483648"), Done),
        case("timeout -5", with("timeout_nano", "-5"), Dead("`timeout_nano`")),
        case("timeout 0", with("timeout_nano", "0"), Done),
        case("timeout max", with("timeout_nano", "9223372036854775807"), Done),
        case("run at inf", with("run_at_nano", "inf"), Dead("`run_at_nano`")),
        case("status done", with("status", "done"), Aside),
        case("status banana", with("status", "banana"), Aside),
        case("status \u{1b}[31m", with("status", "\u{1b}[31m\u{7}"), Aside),
        case("type \u{1b}[2J\u{202e}", with("type", "\u{1b}[2J\u{202e}\nnone"), Dead("type")),
        case("", vec![], Aside),
        case("a:queue:b:ready", with("attempts", "0"), Done),
        case("nul \0 feed \n esc \u{1b}]0;x\u{7}", with("attempts", "0"), Done),
        (b"\xff\xfe\x00".to_vec(), with("attempts", "0"), Done),
        case("not text", with("payload", *b"\xc3\x28\xff\x00"), Done),
        case("deep", with("payload", deep), Done),
        case("twins", with("payload", r#"{"a":1,"a":2}"#), Done),
        case("numbers", with("payload", "[1e400,9223372036854775808]"), Done),
        case("no name", with("", "x"), Done),
        (b"long ".repeat(210_000), vec![], Aside),
    ]
}

async fn put(raw: &mut MultiplexedConnection, prefix: &str, id: &[u8], fields: &Fields) {
    if !fields.is_empty() {
        let mut set = redis::cmd("HSET");
        set.arg([format!("{prefix}:job:").as_bytes(), id].concat());
        for (name, value) in fields {
            set.arg(*name).arg(value.as_slice());
        }
        set.query_async::<()>(raw).await.unwrap();
    }
    let mut push = redis::cmd("RPUSH");
    push.arg(format!("{prefix}:queue:q:ready")).arg(id).query_async::<()>(raw).await.unwrap();
}

#[tokio::test]
async fn a_host_outlives_every_bad_record_and_runs_the_good_ones() {
    let server = RedisServer::shared();
    let (store, prefix) = server.store().await;
    let echo = guests::path("echo");
    Invocation::new(["publish", echo.to_str().unwrap()]).on(server.url(), &prefix).run().ok();
    let mut raw = server.raw().await;
    let mut host = Host::start(server.url(), &prefix, &["--queue", "q", "--log", "debug"]);

    let cases = corpus();
    for (n, (id, fields, _)) in cases.iter().enumerate() {
        put(&mut raw, &prefix, format!("good{n}").as_bytes(), &with("payload", n.to_string())).await;
        put(&mut raw, &prefix, id, fields).await;
    }
    put(&mut raw, &prefix, b"twice", &with("attempts", "0")).await;
    put(&mut raw, &prefix, b"twice", &vec![]).await;
    put(&mut raw, &prefix, b"last", &with("attempts", "0")).await;

    for id in (0..cases.len()).map(|n| format!("good{n}")).chain(["twice".to_owned(), "last".to_owned()]) {
        let record = store.wait_final(&JobId::from(id.as_str()), Duration::from_secs(30)).await.unwrap();
        assert_eq!(record.unwrap().state(), Some(JobState::Done), "{id}: {}", host.said());
    }
    let mut aside: Vec<Vec<u8>> = Vec::new();
    for (id, _, fate) in &cases {
        let shown = JobId::from_bytes(id);
        match fate {
            Fate::Aside => aside.push(id[..id.len().min(1024)].to_vec()),
            Fate::Done | Fate::Dead(_) => {
                let record = store.wait_final(&shown, Duration::from_secs(30)).await.unwrap().unwrap();
                let reason = record.text("dlq_reason").unwrap_or_default();
                match fate {
                    Fate::Dead(word) => assert!(reason.contains(word), "`{shown}`: {reason}"),
                    _ => assert_eq!(record.state(), Some(JobState::Done), "`{shown}`: {reason}"),
                }
            }
        }
    }
    let list = format!("{prefix}:queue:q:aside");
    let reader = raw.clone();
    let found = wait_until("what cannot run is set aside", Duration::from_secs(10), async || {
        let mut command = redis::cmd("LRANGE");
        let found: Vec<Vec<u8>> = command.arg(&list).arg(0).arg(-1).query_async(&mut reader.clone()).await.unwrap();
        (found.len() > aside.len()).then_some(found)
    })
    .await;
    for id in &aside {
        let end = [b"\n".as_slice(), id].concat();
        assert!(found.iter().any(|entry| entry.ends_with(&end)), "`{}` is set aside", JobId::from_bytes(id));
    }

    // What people see has no raw control character, and deep JSON does not end the program that shows it.
    for arguments in [vec!["jobs", "ls"], vec!["jobs", "show", "deep"], vec!["jobs", "show", "not text"]] {
        for output in ["text", "json"] {
            let words = arguments.iter().copied().chain(["--output", output]);
            let shown = Invocation::new(words).on(server.url(), &prefix).run().ok();
            let raw = shown.chars().find(|c| c.is_control() && !"\n\t".contains(*c));
            assert_eq!(raw, None, "{arguments:?} {output}");
        }
    }
    let said = host.said();
    assert!(!said.contains("panicked"), "{said}");
    let hidden = said.lines().find(|line| line.chars().any(|c| c.is_control() && c != '\t' || c == '\u{202e}'));
    assert_eq!(hidden, None, "the log");
    assert_eq!(host.stop(), 0);
    for key in keys_under(&mut raw, &prefix).await {
        assert!(wasmhost::store::keys::find(&prefix, &prefix, &key).is_some(), "key `{key}` is not in the table");
    }
}
