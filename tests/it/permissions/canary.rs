//! A secret with an unmistakable value, and everything that is told of an attempt that has read it.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use redis::AsyncCommands as _;
use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::permissions::{Granted, Permissions};
use wasmhost::ports::{JobSink, Level};
use wasmhost::sandbox::{Call, Finished, Options, Sandbox};
use wasmhost::secret::SecretValue;
use wasmhost::supplies::Supplies;

use super::World;
use crate::http::address;
use crate::support::guests;
use crate::support::program::{Host, Invocation};
use crate::support::redis::keys_under;

/// Every value that lies in a key, whatever its type.
async fn contents(raw: &mut redis::aio::MultiplexedConnection, key: &str) -> Vec<u8> {
    let kind: String = redis::cmd("TYPE").arg(key).query_async(raw).await.unwrap();
    let found: redis::RedisResult<redis::Value> = match kind.as_str() {
        "string" => raw.get(key).await,
        "hash" => raw.hgetall(key).await,
        "list" => raw.lrange(key, 0, -1).await,
        "set" => raw.smembers(key).await,
        "zset" => raw.zrange_withscores(key, 0, -1).await,
        "stream" => redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(raw).await,
        "none" => return Vec::new(),
        other => panic!("key {key} is a {other}"),
    };
    let mut bytes = key.as_bytes().to_vec();
    flatten(&found.unwrap(), &mut bytes);
    bytes
}

fn flatten(value: &redis::Value, into: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => into.extend(bytes),
        redis::Value::SimpleString(text) => into.extend(text.as_bytes()),
        redis::Value::Array(values) | redis::Value::Set(values) => values.iter().for_each(|value| flatten(value, into)),
        redis::Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            flatten(key, into);
            flatten(value, into);
        }),
        other => into.extend(format!("{other:?}").as_bytes()),
    }
}

fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{path}: {said}");
    said
}

/// A value that stands nowhere else, of two lines.
fn canary() -> (String, Vec<String>) {
    let random = || wasmhost::store::new_token()[..24].to_owned();
    let lines = vec![format!("canary\"{}", random()), format!("second-{}", random())];
    (lines.join("\n"), lines)
}

#[tokio::test]
async fn a_secret_is_found_nowhere_but_in_the_guest() {
    let world = World::new();
    let (secret, lines) = canary();
    let folder = world.folder.path().join("mounted");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("key"), &secret).unwrap();
    let config = world.config(&format!(
        "concurrency = 2\nsecrets_dir = '{}'\n[log]\nlevel = 'trace'\n[health]\ninterval = '100ms'\n\
         [permissions.'*']\nsecrets = ['key']\n",
        folder.display()
    ));
    let file = world.file("ask", "secrets = ['key']");
    let file = file.to_str().unwrap();
    world.cli(&["publish", file, "--config", &config]).run().ok();
    let mut command = world.cli(&["run", "--config", &config, "--http", "127.0.0.1:0"]).into_command();
    command.args(["--data"]).arg(world.folder.path().join("data"));
    let mut host = Host::spawn(command);
    host.wait_for_line("host ready");
    let http = address(&mut host);
    let length = world.ask("ask", "secret key").ok();
    assert_eq!(length.trim(), secret.len().to_string(), "the guest has the whole of it");
    let told = RefCell::new(String::new());
    let tell = |text: &str| told.borrow_mut().push_str(text);
    let hear = |words: &[&str]| {
        let ended = world.cli(words).run();
        tell(&ended.stdout);
        tell(&ended.stderr);
        ended.stdout
    };
    let with_config = ["--config", config.as_str()];
    for word in ["say", "fail", "reject", "retry", "trap", "flood"] {
        let payload = format!("{word} key");
        let submit = ["submit", "--type", "ask", "--payload", &payload, "--max-attempts", "1", "--output", "json"];
        let submitted: serde_json::Value = serde_json::from_str(&hear(&submit)).unwrap();
        let id = submitted["id"].as_str().or_else(|| submitted[0]["id"].as_str()).unwrap().to_owned();
        hear(&["jobs", "wait", &id]);
        for verb in ["show", "logs", "replay"] {
            for output in ["text", "json"] {
                hear(&[&["jobs", verb, &id, "--output", output][..], &with_config].concat());
            }
        }
        for output in ["text", "json"] {
            hear(&[&["exec", file, "--payload", &payload, "--output", output][..], &with_config].concat());
        }
        tell(&get(http, &format!("/v1/jobs/{id}")));
        tell(&get(http, "/metrics"));
    }
    for words in [
        &["inspect", file][..],
        &["inspect", file, "--output", "json"],
        &["scripts", "show", "ask"],
        &["scripts", "show", "ask", "--output", "json"],
        &["dlq", "ls", "--output", "json"],
        &["jobs", "ls", "--output", "json"],
        &["audit", "ls"],
        &["doctor"],
    ] {
        hear(&[words, &with_config].concat());
    }
    let told = told.take();
    let mut raw = world.redis.raw().await;
    let mut stored = Vec::new();
    for key in keys_under(&mut raw, &world.prefix).await {
        stored.extend(contents(&mut raw, &key).await);
    }
    host.signal("TERM");
    assert_eq!(host.wait(), 0);
    let stored = String::from_utf8_lossy(&stored).into_owned();
    for (place, text) in [("redis", &stored), ("commands", &told), ("the host", &host.said())] {
        assert!(text.contains("***"), "{place}: it was said, and hidden");
        for line in &lines {
            assert!(!text.contains(line.as_str()), "{place} has {line}");
            // Not even most of it.
            assert!(!text.contains(&line[line.len() - 16..]), "{place} has the end of {line}");
            assert!(!text.contains(&line[7..23]), "{place} has the middle of {line}");
        }
    }
}

/// The lines that are heard.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl JobSink for Heard {
    fn log(&self, _: Level, context: &str, message: &str) {
        self.0.lock().unwrap().push(format!("{context}|{message}"));
    }

    fn progress(&self, _: u8, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

fn run(payload: &str, secret: &[u8]) -> Finished {
    run_heard(payload, secret, Arc::new(Heard::default()))
}

/// Runs the guest with a secret in a folder of its own.
fn run_heard(payload: &str, secret: &[u8], sink: Arc<Heard>) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), secret).unwrap();
    let told = wasmhost::config::Supplies { secrets_dir: Some(folder.path().to_owned()), ..Default::default() };
    let request: Permissions = toml::from_str("secrets = ['key']").unwrap();
    let granted = Granted::of(&request, &request).unwrap();
    let sandbox = Sandbox::new(Options { pool_size: 1, ..Options::default() }).unwrap();
    let wasm = guests::wasm("ask");
    let script = sandbox.load(Digest::of(&wasm), &wasm).unwrap();
    let call =
        Call { granted: granted.into(), supply: Some(Arc::new(Supplies::new(told))), sink, ..Call::new(payload) };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(sandbox.run(&script, call))
}

/// Letters and digits in an order that does not come back, the same at each run.
fn text_without_pattern(length: usize) -> String {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from_digit((state >> 16) % 36, 36)
    };
    (0..length).filter_map(|_| next()).collect()
}

#[test]
fn cuts_of_the_log_leave_no_part_of_a_secret() {
    // Some lengths meet the cuts in one place, some in another.
    for length in [5, 37, 255, 256, 257, 700] {
        let secret = text_without_pattern(length);
        let heard = Arc::new(Heard::default());
        let finished = run_heard("flood key", secret.as_bytes(), heard.clone());
        assert!(matches!(finished.outcome, Outcome::Trapped { .. }), "{finished:?}");
        assert!(finished.usage.log_tail.starts_with("***"), "{length}: {}", finished.usage.log_tail);
        let lines = std::mem::take(&mut *heard.0.lock().unwrap());
        assert!(lines.len() > 1, "{length}: one line is cut into several");
        for text in lines.iter().chain([&finished.usage.log_tail, &finished.outcome.error_text()]) {
            let rest = text.replace("***", "");
            assert!(!rest.contains(&secret[..4]) && !rest.contains(&secret[length - 4..]), "{length}: {rest}");
        }
    }
}

#[test]
fn a_value_in_an_error_of_an_author_is_hidden_and_the_rest_is_told() {
    let finished = run("fail key", b"hunter22");
    assert_eq!(finished.outcome, Outcome::Failed { message: "cannot log in with ***".to_owned() });
    assert_eq!(format!("{:?}", SecretValue::new(b"hunter22".to_vec())), "***");
    let finished = run("say key", b"hunter22");
    assert!(finished.usage.log_tail.contains("***: the secret is ***!"), "{}", finished.usage.log_tail);
    assert!(finished.usage.log_tail.contains("*** on stderr"), "{}", finished.usage.log_tail);
}

#[test]
fn exec_says_what_is_missing_and_where_it_would_come_from() {
    let world = World::new();
    let file = world.file("ask", "secrets = ['key']");
    let run = || Invocation::new(["exec", file.to_str().unwrap(), "--allow-requested", "--payload", "secret key"]);
    let said = run().run().fails(1);
    assert!(said.contains("there is no secret `key`") && said.contains("key = { env = \"VARIABLE\" }"), "{said}");
    let given = run().env("WASMHOST_SECRETS", "{ key = { env = 'A_KEY' } }").env("A_KEY", "hunter22");
    assert_eq!(given.run().ok().trim(), "8");
}
