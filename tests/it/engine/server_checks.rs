//! What the store says about the server it is pointed at.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wasmhost::job::StoreId;
use wasmhost::store::{Error, Options, Store};

use super::{Bench, done, end, job, take_one};
use crate::support::redis::{RedisServer, random_prefix, wait_until};

async fn connect(options: &Options) -> Result<Store, Error> {
    Store::connect(StoreId(0), options).await
}

fn options(url: &str) -> Options {
    Options { url: url.to_owned(), prefix: random_prefix(), ..Options::default() }
}

/// A server that answers every request with the same bytes.
async fn parrot(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(n) = stream.read(&mut buffer).await
                    && n > 0
                {
                    // One answer per command of a pipeline, as a server would.
                    let commands = buffer[..n].iter().filter(|byte| **byte == b'*').count().max(1);
                    if stream.write_all(answer.repeat(commands).as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    format!("redis://{address}")
}

#[tokio::test]
async fn nobody_there_names_address_and_remedy() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = connect(&options(&format!("redis://:s3cret@{address}"))).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().contains(&address) && !error.to_string().contains("s3cret"), "{error}");
    assert!(error.hint().unwrap().contains("--embedded"));
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let url = |login: &str| server.url().replace("redis://", &format!("redis://{login}"));
    for (url, password) in [(url(":s3cret@"), None), (url(""), None), (url(""), Some("s3cret".to_owned()))] {
        let error = connect(&Options { password, ..options(&url) }).await.unwrap_err();
        assert!(matches!(error, Error::Login { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"));
        assert!(error.hint().unwrap().contains("--redis-password-file"));
    }
    connect(&Options { password: Some("right".to_owned()), ..options(&url(":wrong@")) }).await.unwrap();
}

#[tokio::test]
async fn a_web_server_is_not_a_redis() {
    let url = parrot("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let error = connect(&options(&url)).await.unwrap_err();
    assert!(matches!(error, Error::NotRedis { .. }), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let second = Duration::from_millis(200);
    let options =
        Options { connect_timeout: second, command_timeout: second, ..options(&format!("redis://{address}")) };
    let started = std::time::Instant::now();
    let error = connect(&options).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(3));
    drop(listener);
}

#[tokio::test]
async fn an_old_server_is_refused_with_its_version() {
    let info = "# Server\r\nredis_version:6.0.16\r\n";
    let answer: &'static str = Box::leak(format!("${}\r\n{info}\r\n", info.len()).into_boxed_str());
    let error = connect(&options(&parrot(answer).await)).await.unwrap_err();
    assert!(matches!(&error, Error::TooOld { version, .. } if version == "6.0.16"), "{error:?}");
    assert!(error.to_string().contains("6.2"));
}

#[tokio::test]
async fn eviction_of_any_key_is_refused_with_the_remedy() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let error = connect(&server.options()).await.unwrap_err();
    assert!(matches!(&error, Error::Evicts { policy, .. } if policy == "allkeys-lru"), "{error:?}");
    assert!(error.hint().unwrap().contains("noeviction"));
}

#[tokio::test]
async fn weaker_settings_are_noted() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "volatile-lru"]);
    let notes = connect(&server.options()).await.unwrap().server_notes();
    assert!(notes.iter().any(|note| note.contains("volatile-lru")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("no persistence")), "{notes:?}");
    let server = RedisServer::start_with(&["--appendonly", "yes"]);
    assert_eq!(connect(&server.options()).await.unwrap().server_notes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let mut bench = Bench::new().await;
    let options = Options { prefix: bench.prefix.clone(), ..RedisServer::shared().options() };
    let meta = format!("{}:meta", bench.prefix);
    assert_eq!(bench.raw::<String>(&["HGET", &meta, "layout"]).await, "1");
    bench.raw::<i64>(&["HSET", &meta, "layout", "2"]).await;
    let error = connect(&options).await.unwrap_err();
    assert!(matches!(error, Error::NewerLayout { found: 2, known: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_before_anything_is_tried() {
    for url in ["http://localhost", "redis://", "rediss://localhost/#insecure", "redis://h/notanumber"] {
        let error = connect(&options(url)).await.unwrap_err();
        assert!(matches!(error, Error::Url { .. }), "{url}: {error:?}");
        assert!(error.hint().is_some());
    }
    for prefix in ["", "a:b", "a*"] {
        let error = connect(&Options { prefix: prefix.to_owned(), ..Options::default() }).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{prefix}: {error:?}");
    }
}

#[tokio::test]
async fn a_socket_and_a_bare_address_are_understood() {
    let server = RedisServer::start();
    let socket = server.dir().join("redis.sock");
    for url in
        [socket.display().to_string(), format!("unix://{}", socket.display()), format!("127.0.0.1:{}", server.port())]
    {
        connect(&options(&url)).await.unwrap().ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_of_the_server_is_survived() {
    let server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut bench = Bench::on(&server).await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    server.kill();
    let error = bench.store.ping().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    server.restart();
    wait_until("the store is back", Duration::from_secs(5), async || bench.store.ping().await.ok()).await;
    assert_eq!(end(&bench.store, &reserved, done("")).await, wasmhost::store::Settled::Applied, "NOSCRIPT is survived");
    bench.raw = server.raw().await;
    bench.check().await;
}

#[tokio::test]
async fn a_killed_connection_costs_no_call() {
    let server = RedisServer::start();
    let mut bench = Bench::on(&server).await;
    for n in 0..20 {
        bench.raw::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        let jobs = [job(&n.to_string(), "q")];
        let enqueued = bench.store.enqueue(&jobs).await.unwrap();
        assert_eq!(enqueued.len(), 1);
    }
    assert_eq!(bench.store.queues().await.unwrap()[0].ready, 20);
    bench.check().await;
}

#[tokio::test]
async fn a_frozen_server_does_not_hold_a_call_for_ever() {
    let server = RedisServer::start();
    let options = Options { command_timeout: Duration::from_millis(200), ..server.options() };
    let store = connect(&options).await.unwrap();
    server.freeze();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    server.thaw();
    wait_until("the store is back", Duration::from_secs(5), async || store.ping().await.ok()).await;
}
