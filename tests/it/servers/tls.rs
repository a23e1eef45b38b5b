//! TLS, users and databases.

use std::fs;
use std::process::Command;

use crate::servers::Way;
use crate::support::certificates::Certificates;
use crate::support::redis::{RedisServer, find_program, random_prefix};

const USER: [&str; 8] = ["--user", "worker", "on", ">s3cret", "~*", "&*", "+@all", "-config"];

#[test]
fn jobs_run_over_tls_as_an_acl_user_in_a_database_of_its_own() {
    let certificates = Certificates::make();
    let server = RedisServer::start_tls(&certificates, &[&["--tls-auth-clients", "no"], USER.as_slice()].concat());
    let dir = tempfile::tempdir().unwrap();
    let word = dir.path().join("password");
    fs::write(&word, "s3cret\n").unwrap();
    let url = format!("{}/3", server.url().replace("rediss://", "rediss://worker@"));
    let way = Way::new(&url, &random_prefix())
        .with("WASMHOST_REDIS_CA_FILE", certificates.path("ca.crt").display().to_string())
        .with("WASMHOST_REDIS_PASSWORD_FILE", word.display().to_string());
    way.publish("echo");
    let mut host = way.host(&[]);
    way.runs_a_job();
    let said = way.cli(&["doctor"]).run();
    assert!(said.stdout.contains("TLS, user `worker`, master with 0 replicas"), "{}", said.stdout);
    assert!(!said.stdout.contains("s3cret"), "{}", said.stdout);
    assert!(!host.said().contains("s3cret"));
    assert_eq!(host.stop(), 0);
    // The keys are in database 3, and nowhere else.
    let said = cli(&server, &["INFO", "keyspace"]);
    assert!(said.contains("db3:") && !said.contains("db0:"), "{said}");
}

/// redis-cli at a server's socket.
fn cli(server: &RedisServer, words: &[&str]) -> String {
    let socket = server.dir().join("redis.sock");
    let output = Command::new("redis-cli").arg("-s").arg(socket).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_server_that_is_not_whom_it_should_be_is_refused_with_the_remedy() {
    let certificates = Certificates::make();
    let server = RedisServer::start_tls(&certificates, &["--tls-auth-clients", "no"]);
    let fails = |way: &Way| way.cli(&["queues", "ls"]).run().fails(2);
    // The public authorities do not know ours.
    let way = Way::new(server.url(), "p");
    let said = fails(&way);
    assert!(said.contains("no TLS with Redis at `127.0.0.1:") && said.contains("UnknownIssuer"), "{said}");
    assert!(said.contains("redis.ca_file"), "{said}");
    // Neither does another authority.
    let other = certificates.path("stranger.crt").display().to_string();
    assert!(fails(&way.clone().with("WASMHOST_REDIS_CA_FILE", other)).contains("invalid peer certificate"));
    // The certificate has another name.
    let ours = certificates.path("ca.crt").display().to_string();
    let renamed = Way::new(&server.url().replace("127.0.0.1", "127.0.0.2"), "p");
    let away = renamed.with("WASMHOST_REDIS_CA_FILE", ours.clone()).cli(&["queues", "ls"]).run();
    assert_ne!(away.code, 0, "{}", away.stdout);
    // A server without TLS.
    let plain = RedisServer::start();
    let way = Way::new(&plain.url().replace("redis://", "rediss://"), "p").with("WASMHOST_REDIS_CA_FILE", ours);
    let said = way.with("WASMHOST_REDIS_CONNECT_TIMEOUT", "500ms").cli(&["queues", "ls"]).run().fails(75);
    assert!(said.contains("no TLS there"), "{said}");
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_it() {
    let certificates = Certificates::make();
    let server = RedisServer::start_tls(&certificates, &["--tls-auth-clients", "yes"]);
    let file = |name: &str| certificates.path(name).display().to_string();
    let way = Way::new(server.url(), &random_prefix()).with("WASMHOST_REDIS_CA_FILE", file("ca.crt"));
    // The server hangs up after the handshake; whether its reason is read before is a matter of time.
    let said = way.cli(&["queues", "ls"]).run();
    assert_ne!(said.code, 0);
    assert!(said.stderr.to_lowercase().contains("certificate"), "{}", said.stderr);
    let with = |cert: &str, key: &str| {
        way.clone().with("WASMHOST_REDIS_CERT_FILE", file(cert)).with("WASMHOST_REDIS_KEY_FILE", file(key))
    };
    with("client.crt", "client.key").cli(&["queues", "ls"]).run().ok();
    assert_ne!(with("stranger.crt", "stranger.key").cli(&["queues", "ls"]).run().code, 0);
    // A key that is not the certificate's, and a file that is no key at all.
    assert_eq!(with("client.crt", "server.key").cli(&["queues", "ls"]).run().code, 2);
    fs::write(certificates.path("odd.key"), "hello").unwrap();
    let said = with("client.crt", "odd.key").cli(&["queues", "ls"]).run().fails(2);
    assert!(said.contains("odd.key") && said.contains("PEM"), "{said}");
}

#[test]
fn sentinels_and_their_master_speak_tls() {
    let certificates = Certificates::make();
    let file = |name: &str| certificates.path(name).display().to_string();
    let (cert, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let master = RedisServer::start_tls(&certificates, &["--tls-auth-clients", "no"]);
    let program = find_program(&["redis-server", "valkey-server"]).unwrap();
    let options = [
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
        "--tls-replication",
        "yes",
    ];
    let sentinel = RedisServer::start_program(program, true, &options);
    let said = Command::new("redis-cli")
        .args(["--tls", "--cacert", &ca, "-p", &sentinel.port().to_string()])
        .args(["SENTINEL", "MONITOR", "main", "127.0.0.1", &master.port().to_string(), "1"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "OK");
    let url = format!("rediss+sentinel://127.0.0.1:{}/main/2", sentinel.port());
    let way = Way::new(&url, &random_prefix()).with("WASMHOST_REDIS_CA_FILE", ca.clone());
    way.publish("echo");
    let host = way.host(&[]);
    way.runs_a_job();
    let said = way.cli(&["doctor"]).run().stdout;
    assert!(said.contains("TLS, user `default`, master `127.0.0.1:"), "{said}");
    assert_eq!(host.stop(), 0);
    // Without TLS the Sentinel is not understood.
    let plain = Way::new(&url.replace("rediss+", "redis+"), "p").cli(&["queues", "ls"]).run();
    assert_ne!(plain.code, 0);
}

#[test]
fn files_of_tls_that_make_no_sense_are_refused_before_anything_is_asked() {
    let fails = |url: &str, name: &'static str, value: &str| {
        Way::new(url, "p").with(name, value).cli(&["queues", "ls"]).run().fails(2)
    };
    let secure = "rediss://127.0.0.1:1";
    assert!(fails("redis://127.0.0.1:1", "WASMHOST_REDIS_CA_FILE", "/etc/hostname").contains("not one of TLS"));
    assert!(fails(secure, "WASMHOST_REDIS_CA_FILE", "/no/such/file").contains("cannot be read"));
    assert!(fails(secure, "WASMHOST_REDIS_CERT_FILE", "/etc/hostname").contains("`redis.key_file` is not given"));
    assert!(fails("redis://h", "WASMHOST_REDIS_SENTINEL_PASSWORD_FILE", "/etc/hostname").contains("no Sentinels"));
    let insecure = Way::new("rediss://me:s3cret@h:1/#insecure", "p").cli(&["queues", "ls"]).run().fails(2);
    assert!(insecure.contains("redis.ca_file") && !insecure.contains("s3cret"), "{insecure}");
}

#[test]
fn a_user_is_told_what_it_may_not_and_never_its_password() {
    let server = RedisServer::start_with(&[
        "--user", "worker", "on", ">s3cret", "~*", "&*", "+@all", "--user", "reader", "on", "nopass", "~*", "&*",
        "+@read", "+info",
    ]);
    let at = |login: &str| Way::new(&server.url().replace("redis://", &format!("redis://{login}")), &random_prefix());
    let said = at("worker@").with("WASMHOST_REDIS_PASSWORD", "wr0ng").cli(&["queues", "ls"]).run().fails(2);
    assert!(said.contains("wrong password for user `worker`") && !said.contains("wr0ng"), "{said}");
    // Without a password it is still this user, not the one whom everybody may be.
    let said = at("worker@").cli(&["queues", "ls"]).run().fails(2);
    assert!(said.contains("wrong password for user `worker`"), "{said}");
    let said = at("reader@").cli(&["submit", "--type", "echo"]).run().fails(2);
    assert!(said.contains("does not let user `reader` do this (an enqueue)"), "{said}");
    assert!(said.contains("evalsha") && said.contains("examples/redis/acl"), "{said}");
}
