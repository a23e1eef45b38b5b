//! What a person sees: exit codes, errors that name the thing and the remedy, results on stdout only.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use crate::support::guests;
use crate::support::program::{Host, Invocation, program};
use crate::support::redis::RedisServer;

fn fails(code: i32, arguments: &[&str]) -> String {
    Invocation::new(arguments.iter().copied()).run().fails(code)
}

#[test]
fn an_unknown_command_or_flag_is_refused_with_the_nearest_one() {
    assert!(fails(2, &["submti"]).contains("submit"));
    assert!(fails(2, &["submit", "--tpye", "x"]).contains("--type"));
    assert!(fails(2, &["jobs", "ls", "--state", "readdy"]).contains("ready"));
}

#[test]
fn a_missing_argument_is_named() {
    assert!(fails(2, &["submit"]).contains("--type"));
    assert!(fails(2, &["exec"]).contains("<FILE>"));
    assert!(fails(2, &["publish"]).contains("<FILE|DIR>"));
}

#[test]
fn two_flags_that_exclude_each_other_are_refused() {
    assert!(fails(2, &["submit", "--type", "x", "--delay", "1s", "--run-at", "1800000000"]).contains("--run-at"));
    assert!(fails(2, &["run", "--embedded", "--redis", "redis://127.0.0.1:1"]).contains("--redis"));
}

#[test]
fn values_that_make_no_sense_are_refused_with_the_rule() {
    assert!(fails(2, &["submit", "--type", "x", "--delay", "soon"]).contains("500ms"));
    assert!(fails(2, &["jobs", "ls", "--limit", "0"]).contains("1..=1000"));
    assert!(fails(2, &["submit", "--type", "a:b"]).contains("must not contain `:`"));
    assert!(fails(2, &["submit", "--type", "x", "--queue", ""]).contains("must not be empty"));
    assert!(fails(2, &["submit", "--type", "x", "--max-attempts", "0"]).contains("between 1 and"));
    assert!(fails(2, &["submit", "--type", "x", "--pin", "abc"]).contains("64 hexadecimal digits"));
}

#[test]
fn names_times_and_counts_out_of_range_are_refused_before_redis_is_asked() {
    let long = "x".repeat(201);
    let keyed = |key| fails(2, &["submit", "--type", "x", "--redis", "redis://127.0.0.1:1", "--idempotency-key", key]);
    assert!(keyed("").contains("must not be empty"));
    assert!(keyed("a:b").contains("must not contain `:`"));
    assert!(keyed(&long).contains("201 bytes"));
    let with = |flag: &str, value: &str| {
        let flag = format!("{flag}={value}");
        fails(2, &["submit", "--type", "x", "--redis", "redis://127.0.0.1:1", &flag])
    };
    assert!(with("--queue", "a\u{1b}[2J").contains("must not contain the character"));
    assert!(with("--queue", &long).contains("201 bytes"));
    assert!(with("--delay", "-5s").contains("negative"));
    assert!(with("--delay", "2000000h").contains("100 years"));
    assert!(with("--run-at", "-1").contains("is not a time"));
    assert!(with("--run-at", "1900-01-01T00:00:00Z").contains("1970"));
    assert!(with("--run-at", "99999999999999999999").contains("is not a time"));
    assert!(with("--timeout", "0s").contains("more than 0"));
    assert!(with("--timeout", "25h").contains("at most 24h"));
    assert!(with("--max-attempts", "-1").contains("-1"));
    assert!(with("--max-attempts", "4294967296").contains("4294967296"));
    assert!(fails(2, &["run", "--lease=-1s"]).contains("-1s"));
    assert!(fails(2, &["run", "--concurrency=-1"]).contains("-1"));
}

#[test]
fn a_payload_over_the_limit_is_refused_with_its_size() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8 * 1024 * 1024 + 1).unwrap();
    let payload = format!("@{}", file.path().display());
    let said = fails(2, &["submit", "--type", "x", "--redis", "redis://127.0.0.1:1", "--payload", &payload]);
    assert!(said.contains("8388609 bytes") && said.contains("8388608"), "{said}");
}

#[test]
fn redis_away_is_75_and_names_the_address_and_the_way_out() {
    // A port that was free a moment ago: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("redis://127.0.0.1:{port}");
    for arguments in [vec!["jobs", "ls"], vec!["submit", "--type", "x"], vec!["scripts", "ls"], vec!["run"]] {
        let said = Invocation::new(arguments.into_iter().chain(["--redis", &url])).run().fails(75);
        assert!(said.contains(&port.to_string()) && said.contains("hint: "), "{said}");
    }
}

#[test]
fn a_url_that_is_none_and_a_wrong_scheme_are_refused() {
    assert!(fails(2, &["jobs", "ls", "--redis", "::::"]).contains("`::::`"));
    assert!(fails(2, &["jobs", "ls", "--redis", "http://127.0.0.1:1"]).contains("redis://"));
}

#[test]
fn a_wrong_password_is_refused_and_never_shown() {
    let redis = RedisServer::start_with(&["--requirepass", "right-one"]);
    let url = format!("redis://:wrong-one@127.0.0.1:{}", redis.port());
    let said = fails(2, &["jobs", "ls", "--redis", &url]);
    assert!(!said.contains("wrong-one") && said.contains("password"), "{said}");
}

#[test]
fn an_http_server_is_not_taken_for_a_redis() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let _sent = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let said = fails(2, &["jobs", "ls", "--redis", &url]);
    assert!(said.contains("not a Redis"), "{said}");
}

#[test]
fn a_server_that_may_drop_jobs_is_refused() {
    let redis = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let said = fails(2, &["run", "--redis", redis.url()]);
    assert!(said.contains("allkeys-lru") && said.contains("noeviction"), "{said}");
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let mut child =
        program().args(["--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn exec_runs_a_file_without_redis_and_reports_what_it_used() {
    let echo = guests::path("echo");
    let echo = echo.to_str().unwrap();
    let ended = Invocation::new(["exec", echo, "--payload", "hello"]).run();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "hello\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("peak memory"), "{}", ended.stderr);
    let json = Invocation::new(["exec", echo, "--payload", "[1]", "--output", "json"]).run().ok();
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["outcome"], &report["result"][0]), (&"done".into(), &1.into()), "{json}");
    assert_eq!(report["result_bytes"], 3, "{json}");
    let wasm = std::fs::metadata(echo).unwrap().len();
    assert_eq!(report["wasm_bytes"], wasm, "{json}");
    assert!(report["native_bytes"].as_u64() > Some(wasm), "{json}");
}

#[test]
fn exec_counts_what_a_script_asks_the_host_for() {
    let say = guests::path("say");
    let said = |payload: &str| {
        let ended = Invocation::new(["exec", say.to_str().unwrap(), "--payload", payload]).run();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stderr
    };
    let counts = |report: &str, count: &str| report.lines().any(|line| line.trim_start() == count);
    let levels = said("levels");
    assert!(counts(&levels, "2  wasi:logging/logging log"), "{levels}");
    assert!(levels.contains("wasi:io/streams output-stream.write"), "{levels}");
    let progress = said("progress 3");
    assert!(counts(&progress, "4  wasmhost:jumpscript/progress report"), "{progress}");
    let command = guests::path("command-preview1");
    let ended = Invocation::new(["exec", command.to_str().unwrap(), "--payload", "x", "--output", "json"]).run();
    let report: serde_json::Value = serde_json::from_str(&ended.ok()).unwrap();
    assert!(report["host_calls"]["wasi_snapshot_preview1 fd_write"].as_u64() > Some(0), "{report}");
}

#[test]
fn exec_of_a_folder_a_fifo_or_nothing_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("pipe.wasm");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(fails(2, &["exec", folder.path().to_str().unwrap()]).contains("is a directory"));
    assert!(fails(2, &["exec", fifo.to_str().unwrap()]).contains("is a FIFO, not a regular file"));
    let socket = folder.path().join("socket.wasm");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(fails(2, &["exec", socket.to_str().unwrap()]).contains("is a socket"));
    assert!(fails(2, &["exec", "/dev/zero"]).contains("is a device"));
    let link = folder.path().join("link.wasm");
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    assert!(fails(2, &["exec", link.to_str().unwrap()]).contains("is a FIFO"), "what a link leads to counts");
    assert!(fails(2, &["exec", "/no/such/file.wasm"]).contains("No such file"));
}

#[test]
fn what_is_no_jumpscript_is_refused_with_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let echo = guests::wasm("echo");
    for (file, part) in [
        (write("empty.wasm", b""), "empty"),
        (write("text.wasm", b"(module)"), "text"),
        (write("elf.wasm", b"\x7fELF\x02\x01\x01"), "native"),
        (write("prose.wasm", b"hello there"), "not"),
        (write("half.wasm", &echo[..echo.len() / 2]), ""),
    ] {
        let said = fails(1, &["inspect", &file]);
        assert!(said.contains("error: ") && said.to_lowercase().contains(part), "{file}: {said}");
    }
}

#[test]
fn inspect_names_kind_imports_and_exports() {
    let echo = guests::path("echo");
    let shown = Invocation::new(["inspect", echo.to_str().unwrap()]).run().ok();
    assert!(shown.contains("component") && shown.contains("run"), "{shown}");
}

#[test]
fn a_job_that_is_not_there_and_a_script_that_is_not_published_are_named() {
    let redis = RedisServer::shared();
    let prefix = redis.options().prefix;
    let on = |arguments: &[&str]| Invocation::new(arguments.iter().copied()).on(redis.url(), &prefix).run();
    assert!(on(&["jobs", "show", "nope"]).fails(1).contains("`nope`"));
    assert!(on(&["scripts", "show", "nope"]).fails(1).contains("`wasmhost/nope`"));
}

#[test]
fn escape_codes_in_a_payload_never_reach_the_terminal_raw() {
    let redis = RedisServer::shared();
    let prefix = redis.options().prefix;
    let on = |arguments: &[&str]| Invocation::new(arguments.iter().copied()).on(redis.url(), &prefix).run();
    let id = on(&["submit", "--type", "x", "--payload", "a\u{1b}[2Jb\u{202e}c"]).ok();
    let shown = on(&["jobs", "show", id.trim()]).ok();
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}') && shown.contains("\\u{1b}"), "{shown}");
}

#[test]
fn a_closed_stdin_and_a_poor_terminal_change_nothing() {
    let echo = guests::path("echo");
    let echo = echo.to_str().unwrap();
    for (name, value) in [("LANG", "C"), ("TERM", "dumb"), ("NO_COLOR", "1"), ("COLUMNS", "1")] {
        let said = Invocation::new(["exec", echo, "--payload", "-"]).env(name, value).run();
        assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{name}: {}", said.stderr);
        let refused = Invocation::new(["submti"]).env(name, value).run().fails(2);
        assert!(!refused.contains('\u{1b}'), "{name}: colours on a pipe: {refused}");
    }
}

/// Ctrl-C while a command waits: it ends by the signal, and the job goes on.
#[test]
fn an_interrupted_wait_leaves_the_job_in_its_queue() {
    let redis = RedisServer::shared();
    let prefix = redis.options().prefix;
    let on = |arguments: &[&str]| Invocation::new(arguments.iter().copied()).on(redis.url(), &prefix).run();
    let mut command = program();
    command.args(["submit", "--type", "x", "--wait", "--redis", redis.url(), "--prefix", &prefix]);
    let mut waiting = Host::spawn(command);
    let ids = || {
        let listed: serde_json::Value = serde_json::from_str(&on(&["jobs", "ls", "--output", "json"]).ok()).unwrap();
        listed["jobs"].as_array().map_or(0, Vec::len)
    };
    while ids() == 0 {}
    waiting.signal("INT");
    assert_ne!(waiting.wait(), 0);
    assert_eq!(ids(), 1);
}

#[test]
fn an_interrupted_host_stops_cleanly_and_takes_its_private_redis_with_it() {
    let data = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["run", "--embedded", "--data"]).arg(data.path());
    let mut host = Host::spawn(command);
    host.wait_for_line("host ready");
    let address: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.path().join("redis/address.json")).unwrap()).unwrap();
    host.signal("INT");
    assert_eq!(host.wait(), 0, "{}", host.said());
    let socket = address["socket"].as_str().unwrap();
    assert!(std::os::unix::net::UnixStream::connect(socket).is_err(), "the private redis is gone");
}

#[test]
fn a_host_without_a_redis_program_says_how_to_get_one() {
    let data = tempfile::tempdir().unwrap();
    let nowhere = data.path().to_str().unwrap();
    let said = Invocation::new(["run", "--embedded", "--data", nowhere]).env("PATH", nowhere).run().fails(1);
    assert!(said.contains("redis-server") && said.contains("hint: "), "{said}");
}

#[test]
fn an_unknown_key_of_the_configuration_file_is_refused_with_the_nearest_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[retry]\nbaes = '1s'\n").unwrap();
    let said = fails(2, &["run", "--config", file.path().to_str().unwrap()]);
    assert!(said.contains("retry.baes") && said.contains("retry.base"), "{said}");
}

#[test]
fn queues_and_jobs_are_steered_from_the_shell() {
    let server = RedisServer::shared();
    let prefix = crate::support::redis::random_prefix();
    let run = |words: &[&str]| {
        let all = ["--redis", server.url(), "--prefix", &prefix, "--output", "json"];
        Invocation::new(words.iter().copied().chain(all)).run()
    };
    let json = |words: &[&str]| -> serde_json::Value { serde_json::from_str(&run(words).ok()).unwrap() };
    let submitted = json(&["submit", "--type", "x", "--priority", "7", "--limit-key", "k"]);
    let id = submitted["id"].as_str().unwrap().to_owned();
    let set =
        json(&["queues", "set", "default", "--concurrency", "3", "--key-rate", "10/m", "--on-full", "drop-oldest"]);
    assert_eq!(set["settings"]["key_rate"], "10/1m");
    assert!(json(&["queues", "pause", "default"])["settings"]["paused_since"].is_string());
    let shown = json(&["queues", "show", "default"]);
    assert_eq!((&shown["ready"], &shown["settings"]["concurrency"]), (&1.into(), &3.into()));
    assert!(json(&["queues", "resume", "default"])["settings"]["paused_since"].is_null());
    assert!(json(&["queues", "set", "default", "--concurrency", "none"])["settings"]["concurrency"].is_null());
    assert_eq!(json(&["jobs", "ls", "--state", "ready"])["jobs"][0]["id"], id.as_str());
    assert!(run(&["jobs", "retry", &id]).fails(1).contains("is not dead: it is `ready`"));
    assert_eq!(json(&["jobs", "cancel", &id])["did"], "cancelled");
    assert!(run(&["jobs", "cancel", &id]).fails(1).contains("has ended already: it is `cancelled`"));
    assert_eq!(json(&["jobs", "ls", "--state", "cancelled"])["jobs"][0]["id"], id.as_str());
    assert!(run(&["queues", "show", "other"]).fails(1).contains("there is no queue `other`"));
    assert!(run(&["queues", "set", "default"]).fails(2).contains("--concurrency"));
    assert!(run(&["queues", "set", "default", "--concurrency", "0"]).fails(2).contains("between 1 and"));
    assert!(run(&["queues", "set", "a:b", "--concurrency", "1"]).fails(2).contains("must not contain `:`"));
}
