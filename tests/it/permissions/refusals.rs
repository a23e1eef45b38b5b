//! Deny by default, and what people are told.

use wasmhost::jumpscript::embed_manifest;

use super::{KINDS, World, command};
use crate::support::guests;
use crate::support::program::Invocation;

#[test]
fn what_nobody_has_granted_is_not_published_and_the_hint_grants_it() {
    for (line, flag) in KINDS {
        let world = World::new();
        let said = world.publish("ask", line).fails(2);
        let expected = format!("wasmhost grants allow {} {flag}", world.digest("ask"));
        assert_eq!(command(&said), expected, "{said}");
        assert!(!world.cli(&["scripts", "ls"]).run().ok().contains("ask"), "{line}: nothing is live");
        world.paste(command(&said)).ok();
        world.publish("ask", line).ok();
    }
}

#[test]
fn a_manifest_with_an_unknown_permission_names_the_nearest_word() {
    let world = World::new();
    for (line, nearest) in [("file = ['x']", "`files`"), ("envs = []", "`env`"), ("stat = []", "`state`")] {
        let said = world.publish("ask", line).fails(2);
        assert!(said.contains("did you mean") && said.contains(nearest), "{line}: {said}");
    }
    let said = world.publish("ask", "state = ['a:rx']").fails(2);
    assert!(said.contains("`a:rx`") && said.contains("`:ro`"), "{said}");
    let config = world.config("[permissions.'*']\nenvs = ['X']\n");
    let said = Invocation::new(["doctor", "--config", &config]).run().fails(2);
    assert!(said.contains("permissions.\"*\".envs") && said.contains("`env`"), "{said}");
}

#[test]
fn a_component_that_imports_http_is_published_when_its_manifest_says_where_it_goes() {
    let world = World::new();
    let publish = |manifest: &str| {
        let file = world.folder.path().join("fetch.wasm");
        std::fs::write(&file, embed_manifest(&guests::wasm("fetch"), manifest)).unwrap();
        world.cli(&["publish", file.to_str().unwrap()]).run()
    };
    for silent in ["", "[permissions]\nenv = []\n"] {
        let said = publish(silent).fails(2);
        assert!(said.contains("imports `wasi:http/outgoing-handler@0.2"), "{said}");
        assert!(said.contains("hint: put this under [permissions]") && said.contains("`http = []`"), "{said}");
        assert!(!world.cli(&["scripts", "ls"]).run().ok().contains("fetch"), "nothing is live");
    }
    publish("[permissions]\nhttp = []\n").ok();
    publish("[permissions]\nhttp = ['api.example.com:443']\n").ok();
    // What does not import it has nothing to say.
    world.publish("ask", "env = []").ok();
}

#[test]
fn exec_allows_what_the_configuration_allows_and_with_a_flag_what_is_requested() {
    let world = World::new();
    let file = world.file("ask", "env = ['ASKED_FOR']");
    let exec = |more: &[&str]| {
        let words = [&["exec", file.to_str().unwrap(), "--payload", "env ASKED_FOR"], more].concat();
        Invocation::new(words).env("ASKED_FOR", "an answer").run()
    };
    let said = exec(&[]).fails(1);
    assert!(said.contains("env `ASKED_FOR`") && said.contains("--allow-requested"), "{said}");
    assert_eq!(exec(&["--allow-requested"]).ok().trim(), "an answer");
    let config = world.config("[permissions.'wasmhost/ask']\nenv = ['ASKED_*']\n");
    assert_eq!(exec(&["--config", &config]).ok().trim(), "an answer");
    let config = world.config("[permissions.'other/*']\nenv = ['*']\n");
    exec(&["--config", &config]).fails(1);
}
