//! The private Redis of a host: it comes up, keeps its data, and never outlives the host.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncBufReadExt as _;
use wasmhost::store::embedded::{self, Embedded};

use crate::support::redis::wait_until;

const LIMIT: Duration = Duration::from_secs(20);

async fn ask(url: &str, words: &[&str]) -> redis::RedisResult<String> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await
}

/// Whether nobody answers at the port any more.
async fn is_silent(port: u16) -> Option<()> {
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.err().map(|_| ())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn it_answers_on_a_private_socket_and_on_the_loopback_port() {
    let data = tempfile::tempdir().unwrap();
    let server = Embedded::start(data.path()).await.unwrap();
    let address = server.address().clone();
    assert_eq!(ask(&address.url, &["SET", "k", "v"]).await.unwrap(), "OK");
    assert_eq!(ask(&format!("redis://127.0.0.1:{}", address.port), &["GET", "k"]).await.unwrap(), "v");
    assert_eq!(mode(&address.socket), 0o700);
    assert_eq!(mode(address.socket.parent().unwrap()), 0o700);
    assert_eq!(mode(&data.path().join("redis")), 0o700);
    assert_eq!(embedded::address(data.path()), Some(address), "the other commands find it");
    server.stop().await;
    assert_eq!(embedded::address(data.path()), None, "an address that is left over is not believed");
}

#[tokio::test]
async fn its_data_survives_a_stop_and_its_port_stays() {
    let data = tempfile::tempdir().unwrap();
    let server = Embedded::start(data.path()).await.unwrap();
    let before = server.address().clone();
    ask(&before.url, &["SET", "k", "v"]).await.unwrap();
    server.stop().await;
    is_silent(before.port).await.expect("a stopped server is gone");
    let server = Embedded::start(data.path()).await.unwrap();
    assert_eq!(ask(&server.address().url, &["GET", "k"]).await.unwrap(), "v");
    assert_eq!(server.address().socket, before.socket);
    server.stop().await;
}

#[tokio::test]
async fn dropping_it_stops_the_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Embedded::start(data.path()).await.unwrap();
    let port = server.address().port;
    drop(server);
    wait_until("the server is gone", LIMIT, || is_silent(port)).await;
}

#[tokio::test]
async fn a_second_host_is_refused_and_told_who_has_the_folder() {
    let data = tempfile::tempdir().unwrap();
    let server = Embedded::start(data.path()).await.unwrap();
    let error = Embedded::start(data.path()).await.unwrap_err();
    assert!(error.contains("in use"), "{error}");
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert_eq!(ask(&server.address().url, &["PING"]).await.unwrap(), "PONG");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_is_reported_with_the_end_of_its_log() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Embedded::start(data.path()).await.unwrap();
    let url = server.address().url.clone();
    // The answer is the end of the connection.
    let _ = ask(&url, &["SHUTDOWN", "NOSAVE"]).await;
    let text = tokio::time::timeout(LIMIT, server.died()).await.expect("the end is noticed");
    assert!(text.contains("the private Redis ended"), "{text}");
    assert!(text.contains("redis.log"), "{text}");
    assert!(text.to_lowercase().contains("ready to exit"), "{text}");
}

#[tokio::test]
async fn broken_data_is_reported_with_the_servers_own_words() {
    let data = tempfile::tempdir().unwrap();
    Embedded::start(data.path()).await.unwrap().stop().await;
    let folder = data.path().join("redis/appendonlydir");
    let manifest = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "manifest"))
        .unwrap();
    std::fs::write(manifest, "this is no manifest\n").unwrap();
    let error = Embedded::start(data.path()).await.unwrap_err();
    assert!(error.contains("did not start"), "{error}");
    assert!(error.contains("manifest"), "{error}");
}

/// The method: this test binary runs itself as the host, and is killed without a chance to clean up.
#[tokio::test]
async fn a_killed_host_takes_its_server_along_and_the_next_one_starts() {
    let data = tempfile::tempdir().unwrap();
    let mut host = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::hold_a_server_for_another_test", "--nocapture"])
        .env("HOLD_A_SERVER_IN", data.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(host.stdout.take().unwrap()).lines();
    let port: u16 = loop {
        let line = lines.next_line().await.unwrap().expect("the host says its port");
        if let Some((_, port)) = line.split_once("holding ") {
            break port.trim().parse().unwrap();
        }
    };
    assert!(is_silent(port).await.is_none());
    host.start_kill().unwrap();
    host.wait().await.unwrap();
    wait_until("the server is gone", LIMIT, || is_silent(port)).await;
    let server = Embedded::start(data.path()).await.unwrap();
    assert_eq!(ask(&server.address().url, &["GET", "held"]).await.unwrap(), "yes", "what was written is there");
    server.stop().await;
}

/// The other half of the test above; alone it does nothing.
#[tokio::test]
async fn hold_a_server_for_another_test() {
    let Some(data) = std::env::var_os("HOLD_A_SERVER_IN") else { return };
    let server = Embedded::start(Path::new(&data)).await.unwrap();
    ask(&server.address().url, &["SET", "held", "yes"]).await.unwrap();
    println!("\nholding {}", server.address().port);
    std::future::pending::<()>().await;
}
