//! Scripts as jumpscripts of kind `source`: published as text, run by the interpreter that the record names.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use wasmhost::jumpscript::Kind;
use wasmhost::store::Store;

use crate::support::guests;
use crate::support::program::{Ended, Host, Invocation};
use crate::support::redis::{RedisServer, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// A Redis under its own prefix, and a folder with the interpreter of Rhai.
struct World {
    store: Store,
    url: String,
    prefix: String,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let redis = RedisServer::shared();
        let (store, prefix) = redis.store().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(guests::path("rhai"), folder.path().join("rhai.wasm")).unwrap();
        Self { store, url: redis.url().to_owned(), prefix, folder }
    }

    fn put(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        let beside = path.with_extension("part");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let data = self.folder.path().join("data");
        let arguments = arguments.iter().copied().chain(["--data", data.to_str().unwrap()]);
        Invocation::new(arguments).on(&self.url, &self.prefix).run()
    }

    fn submit(&self, job_type: &str, payload: &Value) -> Ended {
        self.run(&["submit", "--type", job_type, "--payload", &payload.to_string(), "--max-attempts", "1", "--wait"])
    }
}

#[tokio::test]
async fn a_text_is_published_edited_and_runs_with_the_payload_as_its_arguments() {
    let world = World::new().await;
    let folder = world.folder.path().to_str().unwrap();
    world.put("twice.rhai", "// /// jumpscript\n// types = [\"double\"]\n// ///\nargs.n * 2");
    world.run(&["publish", folder]).ok();
    let record = world.store.script(&"twice".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((record.kind, record.interpreter.as_deref()), (Kind::Source, Some("wasmhost/rhai")));
    assert_eq!(record.manifest.types, ["double"]);
    assert!(world.run(&["scripts", "show", "twice"]).ok().contains("wasmhost/rhai"));

    let _host = Host::start(&world.url, &world.prefix, &[]);
    assert_eq!(world.submit("double", &json!({"n": 21})).ok(), "42\n");
    let file = world.put("twice.rhai", "if args.n < 0 {\n  throw \"negative\";\n}\nargs.n * 20");
    world.run(&["publish", &file]).ok();
    assert_eq!(world.submit("twice", &json!({"n": 2})).ok(), "40\n");
    let said = world.submit("twice", &json!({"n": -1})).fails(1);
    assert!(said.contains("twice.rhai line 2: negative"), "{said}");
}

#[tokio::test]
async fn a_text_that_its_interpreter_cannot_read_leaves_the_old_one_live() {
    let world = World::new().await;
    let interpreter = world.folder.path().join("rhai.wasm");
    let good = world.put("sum.rhai", "1 + 1");
    world.run(&["publish", interpreter.to_str().unwrap(), &good]).ok();
    let live = world.store.route("sum").await.unwrap();
    let bad = world.put("sum.rhai", "let a = 1;\nlet = 2;");
    let said = world.run(&["publish", &bad]).fails(2);
    assert!(said.contains("sum.rhai line 2: "), "{said}");
    assert_eq!(world.store.route("sum").await.unwrap(), live);
}

#[tokio::test]
async fn a_folder_publishes_a_text_beside_its_interpreter_and_again_when_it_changes() {
    let world = World::new().await;
    world.put("seven.rhai", "7");
    let folder = world.folder.path().join("scripts");
    std::fs::create_dir_all(folder.join("deeper")).unwrap();
    for name in ["rhai.wasm", "seven.rhai"] {
        std::fs::rename(world.folder.path().join(name), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("deeper/helper.rhai"), "1").unwrap();
    std::fs::write(folder.join("deeper/marked.rhai"), "// /// jumpscript\n// ///\n2").unwrap();
    let _host = Host::start(&world.url, &world.prefix, &["--scripts", folder.to_str().unwrap()]);
    let live = |name: &'static str| {
        let store = world.store.clone();
        async move { store.route(name).await.ok().flatten() }
    };
    let first = wait_until("the text is live", LIMIT, || live("seven")).await;
    wait_until("a text with a manifest is live", LIMIT, || live("marked")).await;
    assert_eq!(live("helper").await, None, "deeper down a text without a manifest is none of ours");
    assert_eq!(world.submit("seven", &json!(null)).ok(), "7\n");
    std::fs::write(folder.join("seven.rhai"), "70 + 7").unwrap();
    wait_until("the edited text is live", LIMIT, || async { live("seven").await.filter(|digest| *digest != first) })
        .await;
    assert_eq!(world.submit("seven", &json!(null)).ok(), "77\n");
}

#[tokio::test]
async fn a_new_interpreter_runs_the_texts_that_are_there() {
    let world = World::new().await;
    let text = world.put("one.rhai", "1");
    let interpreter = world.folder.path().join("rhai.wasm");
    world.run(&["publish", interpreter.to_str().unwrap(), &text]).ok();
    let _host = Host::start(&world.url, &world.prefix, &[]);
    assert_eq!(world.submit("one", &json!(null)).ok(), "1\n");
    // Another component under the interpreter's name: it echoes the payload.
    let manifest = world.folder.path().join("rhai.toml");
    std::fs::write(manifest, "organization = 'wasmhost'\nname = 'rhai'\n").unwrap();
    std::fs::copy(guests::path("echo"), &interpreter).unwrap();
    world.run(&["publish", interpreter.to_str().unwrap()]).ok();
    wait_until("the new interpreter runs the text", LIMIT, || async {
        (world.submit("one", &json!("new")).stdout.trim() == "\"new\"").then_some(())
    })
    .await;
}

#[test]
fn exec_and_inspect_know_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sum.rhai");
    std::fs::write(&file, "print(\"adding\");\nargs[0] + args[1]").unwrap();
    let (file, rhai) = (file.to_str().unwrap(), guests::path("rhai"));
    let exec = |payload: &str| {
        Invocation::new(["exec", file, "--interpreter", rhai.to_str().unwrap(), "--payload", payload]).run()
    };
    let ended = exec("[20, 22]");
    assert!(ended.stderr.contains("adding"), "{}", ended.stderr);
    assert_eq!(ended.ok(), "42\n");
    let said = exec("[1]").fails(1);
    assert!(said.contains("sum.rhai line 2: "), "{said}");
    let shown = Invocation::new(["inspect", file]).run().ok();
    assert!(shown.contains("source") && shown.contains("wasmhost/rhai"), "{shown}");
    assert!(Path::new(file).is_file());
}
