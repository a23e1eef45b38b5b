//! Grants: bound to a digest, live at once, and worthless anywhere else.

use redis::AsyncCommands as _;

use super::{World, command};
use crate::support::program::Host;

/// A host with a variable that a jumpscript may ask for.
fn host(world: &World, config: &str) -> Host {
    let config = world.config(&format!("concurrency = 2\n{config}"));
    world.host(&["--config", &config])
}

/// The host's own environment has it in every test: the path of programs.
const VARIABLE: &str = "PATH";

fn path() -> String {
    std::env::var(VARIABLE).unwrap()
}

#[test]
fn a_grant_counts_at_once_and_its_end_at_the_next_attempt() {
    let world = World::new();
    let file = world.file("ask", "env = ['PATH']");
    let file = file.to_str().unwrap();
    let _host = host(&world, "");
    // A grant can be made before the file is published.
    world.cli(&["grants", "allow", file, "--requested"]).run().ok();
    world.cli(&["publish", file]).run().ok();
    assert_eq!(world.ask("ask", "env PATH").ok().trim(), path());
    for _ in 0..3 {
        world.cli(&["grants", "revoke", "ask"]).run().ok();
        let said = world.ask("ask", "env PATH").fails(1);
        assert!(said.contains("requests env `PATH`, which nobody has granted"), "{said}");
        world.paste(command(&said)).ok();
        assert_eq!(world.ask("ask", "env PATH").ok().trim(), path());
    }
    assert!(world.cli(&["grants", "revoke", "ask", "--env", "OTHER"]).run().ok().contains("PATH"));
    assert_eq!(world.ask("ask", "environment").ok().trim(), "PATH", "nothing but what was granted");
}

#[test]
fn who_granted_what_and_when_is_recorded() {
    let world = World::new();
    world.publish("ask", "").ok();
    let granted = world.cli(&["grants", "allow", "ask", "--state", "orders:ro", "--enqueue", "mail-*"]).run();
    assert!(granted.stderr.contains("does not request state `orders:ro`, enqueue `mail-*`"), "{}", granted.stderr);
    let listed = world.cli(&["grants", "ls", "--output", "json"]).run().ok();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "wasmhost/ask");
    assert_eq!(listed[0]["digest"], world.digest("ask").to_string());
    assert_eq!(listed[0]["permissions"]["state"][0], "orders:ro");
    assert!(!listed[0]["by"].as_str().unwrap().is_empty() && listed[0]["at"].as_i64().unwrap() > 1_700_000_000);
    let audit = world.cli(&["audit", "ls"]).run().ok();
    assert!(audit.contains("granted") && audit.contains("orders:ro"), "{audit}");
    let said = world.cli(&["grants", "revoke", "nobody/there"]).run().fails(1);
    assert!(said.contains("neither a published jumpscript nor a file"), "{said}");
    world.cli(&["grants", "revoke", "ask"]).run().ok();
    let said = world.cli(&["grants", "revoke", "ask"]).run().fails(1);
    assert!(said.contains("nothing is granted"), "{said}");
}

#[tokio::test]
async fn a_grant_for_another_digest_does_nothing() {
    let world = World::new();
    world.file("ask", "env = ['HOME']");
    let other = world.digest("ask");
    world.cli(&["grants", "allow", &other.to_string(), "--env", "*"]).run().ok();
    world.publish("ask", "env = ['PATH']").fails(2);
    // The text of a true grant under a digest that it is not for.
    let mut raw = world.redis.raw().await;
    let key = format!("{}:grants", world.prefix);
    let text: String = raw.hget(&key, other.to_string()).await.unwrap();
    let () = raw.hset(&key, world.digest("ask").to_string(), text).await.unwrap();
    world.publish("ask", "env = ['PATH']").fails(2);
    let listed = world.cli(&["grants", "ls"]).run();
    assert!(listed.stderr.contains("grants nothing"), "{}", listed.stderr);
}

#[tokio::test]
async fn a_record_of_another_program_gets_what_everybody_gets() {
    let world = World::new();
    world.file("ask", "env = ['PATH']");
    let wasm = std::fs::read(world.folder.path().join("ask.wasm")).unwrap();
    let digest = world.digest("ask").to_string();
    let record = format!(
        "{{\"id\":7,\"organization\":\"wasmhost\",\"name\":\"ask\",\"kind\":\"component\",\"digest\":\"{digest}\",\"size\":1}}"
    );
    let mut raw = world.redis.raw().await;
    let key = |name: &str| format!("{}:workers:jumpscripts:{name}", world.prefix);
    let () = raw.hset(key("wasm"), &digest, wasm).await.unwrap();
    let () = raw.hset(key("name"), "wasmhost__ask", record).await.unwrap();
    let trusted = "[permissions.'wasmhost/ask']\nenv = ['PATH']\n[permissions.'wasmhost/*']\nenv = ['PATH']\n";
    let mut first = host(&world, trusted);
    first.wait_for_line("record of another program adopted");
    let said = world.ask("ask", "env PATH").fails(1);
    assert!(said.contains("which nobody has granted"), "{said}");
    assert_eq!(first.stop(), 0);
    let second = host(&world, "[permissions.'*']\nenv = ['PATH']\n");
    assert_eq!(world.ask("ask", "env PATH").ok().trim(), path());
    assert_eq!(second.stop(), 0);
    // Published by wasmhost, the very same code has the name's own table.
    let config = world.config(trusted);
    let file = world.folder.path().join("ask.wasm");
    world.cli(&["publish", file.to_str().unwrap(), "--config", &config]).run().ok();
    let _third = host(&world, trusted);
    assert_eq!(world.ask("ask", "env PATH").ok().trim(), path());
}

#[test]
fn what_was_granted_to_one_jumpscript_reaches_no_other() {
    let world = World::new();
    let _host = host(&world, "");
    let file = world.file("ask", "env = ['PATH']\nfiles = ['/etc']");
    world.cli(&["grants", "allow", file.to_str().unwrap(), "--requested"]).run().ok();
    world.publish("ask", "env = ['PATH']\nfiles = ['/etc']").ok();
    world.publish("plain", "").ok();
    for _ in 0..3 {
        assert_eq!(world.ask("ask", "environment").ok().trim(), "PATH");
        assert_eq!(world.ask("plain", "environment").ok().trim(), "");
        assert_eq!(world.ask("plain", "env PATH").ok().trim(), "nothing");
        assert!(world.ask("plain", "read /etc/passwd").ok().contains("error"));
    }
}

#[test]
fn inspect_and_scripts_show_name_who_allows_what() {
    let world = World::new();
    let file = world.file("ask", "env = ['PATH']\nstate = ['orders']\nenqueue = ['mail']");
    let file = file.to_str().unwrap();
    world.cli(&["grants", "allow", file, "--env", "PATH"]).run().ok();
    let config = world.config("[permissions.'wasmhost/ask']\nstate = ['orders']\n");
    let said = world.cli(&["inspect", file, "--config", &config]).run().ok();
    for line in ["env       PATH  (granted)", "orders  (allowed by the configuration)", "mail  (NOT GRANTED)"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    world.cli(&["grants", "allow", file, "--enqueue", "mail"]).run().ok();
    world.cli(&["publish", file, "--config", &config]).run().ok();
    let said = world.cli(&["scripts", "show", "ask"]).run().ok();
    assert!(said.contains("mail  (granted)") && said.contains("orders  (NOT GRANTED)"), "{said}");
}
