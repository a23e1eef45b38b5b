//! Projects of every language: made by the built program, built by the language's own tools, run.
//!
//! A language whose tools are not in `target/tools` (see `.ci/setup`) is skipped, and says so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use wasmhost::jumpscript::{Digest, embed_manifest};

use crate::support::guests;
use crate::support::http::Server;
use crate::support::program::{Ended, Host, Invocation, program};
use crate::support::redis::{RedisServer, random_prefix};

/// Where the set-up put the tools.
fn tools() -> PathBuf {
    guests::root().join("target/tools").canonicalize().unwrap_or_default()
}

/// The search path with those tools in front.
fn path_with_tools() -> String {
    format!("{}:{}", tools().join("bin").display(), std::env::var("PATH").unwrap())
}

/// A project in a folder that goes with it.
struct Project {
    place: tempfile::TempDir,
    language: &'static str,
}

impl Project {
    /// Lets the program make a project called `hello`; `None`, with a word about it, without the tool that builds it.
    fn new(language: &'static str, tool: &str) -> Option<Self> {
        if language != "rust" && !tools().join("bin").join(tool).is_file() {
            println!("skipped {language}: there is no {tool} in target/tools; run `make setup`");
            return None;
        }
        let project = Self { place: tempfile::tempdir().unwrap(), language };
        let said = Invocation::new(["new", "hello", "--lang", language])
            .dir(project.place.path())
            .env("PATH", &path_with_tools())
            .run()
            .ok();
        assert!(said.contains("its tools are here"), "{said}");
        Some(project)
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("hello")
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.root().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Builds it as a person would, with the command of its manifest.
    fn build(&self) -> PathBuf {
        let manifest = fs::read_to_string(self.root().join("jumpscript.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        let (command, output) = match manifest.get("build") {
            Some(build) => {
                (build["command"].as_str().unwrap().to_owned(), self.root().join(build["output"].as_str().unwrap()))
            }
            None => {
                // The versions that this repository is built with lie in the package cache already.
                fs::copy(guests::root().join("Cargo.lock"), self.root().join("Cargo.lock")).unwrap();
                let output = rust_target().join("wasm32-wasip2/release/hello.wasm");
                ("cargo build --quiet --release --target wasm32-wasip2 --offline".to_owned(), output)
            }
        };
        fs::create_dir_all(self.root().join("build")).unwrap();
        let lock = File::create(guests::root().join("target/guests.lock")).unwrap();
        lock.lock().unwrap();
        let built = self.shell(&command).output().unwrap();
        let said = [built.stderr, built.stdout].map(|said| String::from_utf8_lossy(&said).into_owned()).join("\n");
        assert!(built.status.success(), "$ {command}\n{said}");
        assert!(output.is_file(), "$ {command}\nmade no {}\n{said}", output.display());
        // Under the lock: the next project in Rust is called the same.
        let wasm = self.place.path().join("built.wasm");
        fs::copy(output, &wasm).unwrap();
        drop(lock);
        Invocation::new(["test", "--wasm", wasm.to_str().unwrap()]).dir(&self.root()).run().ok();
        wasm
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(self.root()).env("PATH", path_with_tools());
        for (name, value) in caches() {
            shell.env(name, value);
        }
        shell.env("CARGO_TARGET_DIR", rust_target()).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        shell
    }
}

/// What is built of projects in Rust; their packages are the same in every run.
fn rust_target() -> PathBuf {
    guests::root().join("target/projects")
}

/// Where the compilers keep what they made before.
fn caches() -> [(&'static str, PathBuf); 3] {
    [
        ("GOCACHE", tools().join("go-cache")),
        ("ZIG_GLOBAL_CACHE_DIR", tools().join("zig-cache")),
        ("ZIG_LOCAL_CACHE_DIR", tools().join("zig-cache")),
    ]
}

fn exec(wasm: &Path, payload: &str) -> Ended {
    Invocation::new(["exec", wasm.to_str().unwrap(), "--payload", payload]).run()
}

fn error_of(wasm: &Path, payload: &str) -> (String, String) {
    let ended = Invocation::new(["exec", wasm.to_str().unwrap(), "--payload", payload, "--output", "json"]).run();
    assert_eq!(ended.code, 1, "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    (report["outcome"].as_str().unwrap().to_owned(), report["error"].as_str().unwrap_or_default().to_owned())
}

/// What every template that reads JSON does.
fn greets_in_json(project: &Project, wasm: &Path, refusal: &str) {
    let language = project.language;
    assert_eq!(exec(wasm, r#"{"name": "Ada"}"#).ok().trim_end(), r#"{"greeting":"Hello, Ada!"}"#, "{language}");
    let (outcome, error) = error_of(wasm, r#"{"name": ""}"#);
    assert_eq!(outcome, refusal, "{language}: {error}");
    assert!(error.contains("a greeting needs a name"), "{language}: {error}");
    let (outcome, error) = error_of(wasm, "{");
    assert_eq!(outcome, refusal, "{language}: {error}");
    assert!(error.contains("payload"), "{language}: {error}");
}

/// What every template that reads text does.
fn greets_in_text(project: &Project, wasm: &Path) {
    let ended = exec(wasm, "Ada");
    assert!(ended.stderr.contains("greeting Ada, attempt 1"), "{}: {}", project.language, ended.stderr);
    assert_eq!(ended.ok().trim_end(), "Hello, Ada!", "{}", project.language);
    assert_eq!(error_of(wasm, "").0, "failed", "{}", project.language);
}

#[test]
fn a_new_project_in_rust_builds_and_runs() {
    let project = Project::new("rust", "cargo").unwrap();
    let wasm = project.build();
    greets_in_json(&project, &wasm, "rejected");
    // The manifest is in the file: it needs nothing beside it.
    let said = Invocation::new(["inspect", wasm.to_str().unwrap()]).run().ok();
    assert!(said.contains("organization = \"local\""), "{said}");
    publishes_for_nodes(&project, &wasm);
}

/// `publish .` publishes what `cargo build --release` makes, not what names source lines.
fn publishes_for_nodes(project: &Project, release: &Path) {
    let redis = RedisServer::shared();
    let data = project.place.path().join("data");
    let lock = File::create(guests::root().join("target/guests.lock")).unwrap();
    lock.lock().unwrap();
    let said = Invocation::new(["publish", "."])
        .on(redis.url(), &random_prefix())
        .dir(&project.root())
        .env("CARGO_TARGET_DIR", rust_target().to_str().unwrap())
        .env("CARGO_NET_OFFLINE", "true")
        .env("WASMHOST_DATA", data.to_str().unwrap())
        .run()
        .ok();
    drop(lock);
    assert!(said.starts_with("published local/hello ") && said.contains("/wasm32-wasip2/release/"), "{said}");
    let manifest = fs::read_to_string(project.root().join("jumpscript.toml")).unwrap();
    let whole = embed_manifest(&fs::read(release).unwrap(), &manifest);
    assert!(said.contains(&Digest::of(&whole).short()), "{said}");
}

#[test]
fn a_new_project_in_javascript_builds_and_runs() {
    let Some(project) = Project::new("javascript", "componentize-qjs") else { return };
    greets_in_json(&project, &project.build(), "rejected");
    project.edit(
        "src/app.js",
        "  return {",
        r#"  if (args.name === "error") undefinedFunction();
  if (args.name === "retry") throw retry("busy", 1500);
  if (args.name === "promise") return Promise.resolve(1);
  if (args.name === "state") {
    const own = state();
    own.set("n", { seen: 1 });
    return [own.get("n"), own.get("none"), own.increment("count", 3), cancelled()];
  }
  if (args.name === "denied") state("not-mine").get("n");
  if (args.name.startsWith("http")) {
    const answer = http.post(args.name, { a: [1, "é"] }, { "x-way": "there" });
    return [answer.status, answer.isSuccess, answer.headers["x-way"], answer.text, answer.json];
  }
  if (args.name === "random") return [Math.random(), Math.random()];
  if (args.name === "text") {
    const bytes = new TextEncoder().encode("é€😀\ud800");
    console.log("said", { by: "console" }, new TextDecoder().decode(bytes));
    return bytes;
  }
  return {"#,
    );
    project.edit("src/app.js", "import { job", "import { cancelled, http, retry, state, job");
    project.edit("jumpscript.toml", "[build]", "[permissions]\nhttp = [\"127.0.0.1:*\"]\n\n[build]");
    let wasm = project.build();
    let named = |name: &str| format!("{{\"name\": \"{name}\"}}");

    let (outcome, error) = error_of(&wasm, &named("error"));
    assert_eq!(outcome, "failed");
    assert!(error.contains("undefinedFunction is not defined") && error.contains("src/app.js:10"), "{error}");
    let (outcome, error) = error_of(&wasm, &named("retry"));
    assert_eq!((outcome.as_str(), error.as_str()), ("retry", "busy"));
    assert!(error_of(&wasm, &named("promise")).1.contains("returned a promise"));
    let ended = exec(&wasm, &named("text"));
    assert!(ended.stderr.contains("said {\"by\":\"console\"} é€😀\u{fffd}"), "{}", ended.stderr);
    assert_eq!(ended.ok().trim_end(), "é€😀\u{fffd}");
    assert_eq!(exec(&wasm, &named("state")).ok().trim_end(), r#"[{"seen":1},null,3,false]"#);
    assert!(error_of(&wasm, &named("denied")).1.contains("state not-mine: access-denied (the job's log says"));
    let drawn = || exec(&wasm, &named("random")).ok();
    assert_ne!(drawn(), drawn(), "every job draws its own random numbers");
    posts_as_permitted(&project, &wasm);
}

/// The body of `if name.startswith("http")`: a request to the place that the manifest names, answered and denied.
fn posts_as_permitted(project: &Project, wasm: &Path) {
    let server = Server::answering("HTTP/1.1 201 Created\r\ncontent-length: 2\r\nx-way: back\r\n\r\n42");
    let payload = format!("{{\"name\": \"{}/rate?key=1\"}}", server.url());
    let language = project.language;
    // The manifest counts from where a build leaves the file, too.
    let built = project.root().join("build/hello.wasm");
    let exec = |file: &Path, more: &[&str]| {
        let arguments = [&["exec", file.to_str().unwrap(), "--payload", &payload], more].concat();
        Invocation::new(arguments).run()
    };
    let said = exec(&built, &["--allow-http", "127.0.0.1:*"]).ok();
    assert_eq!(said.trim_end(), r#"[201,true,"back","42",42]"#, "{language}");
    let [received] = &server.received()[..] else { panic!("{language}: one request") };
    assert_eq!((received.line.as_str(), received.header("x-way")), ("POST /rate?key=1 HTTP/1.1", Some("there")));
    assert_eq!(received.header("content-type"), Some("application/json"), "{language}");
    assert_eq!(String::from_utf8_lossy(&received.body), r#"{"a":[1,"é"]}"#, "{language}");
    // A copy elsewhere has no manifest.
    let denied = if language == "python" { exec(&built, &[]) } else { exec(wasm, &["--allow-http", "127.0.0.1:*"]) };
    let place = format!("POST {}/rate: HTTP-request-denied (the job's log says what would allow it)", server.url());
    let said = denied.fails(1);
    assert!(said.contains(&place), "{language}: {said}");
    assert_eq!(server.received().len(), 1, "{language}");
}

#[test]
fn a_new_project_in_python_builds_and_runs() {
    let Some(project) = Project::new("python", "componentize-py") else { return };
    project.edit(
        "app.py",
        "    return {",
        r#"    if name == "error":
        return {}["missing"]
    if name == "retry":
        raise wasmhost.Retry("busy", after=1.5)
    if name == "state":
        own = wasmhost.State()
        own.set("n", {"seen": 1})
        return [own.get("n"), own.get("none"), own.increment("count", 3), wasmhost.cancelled()]
    if name == "denied":
        wasmhost.State("not-mine").get("n")
    if name.startswith("http"):
        answer = wasmhost.http.post(name, {"a": [1, "é"]}, {"x-way": "there"})
        return [answer.status, answer.is_success, answer.headers["x-way"], answer.text, answer.json]
    if name == "random":
        return [random.random(), random.random()]
    if name == "socket":
        return socket.socket()
    print("said by print")
    return {"#,
    );
    project.edit("jumpscript.toml", "[build]", "[permissions]\nhttp = [\"127.0.0.1:*\"]\n\n[build]");
    project.edit("app.py", "import wasmhost\n", "import random\nimport socket\n\nimport wasmhost\n");
    let wasm = project.build();
    greets_in_json(&project, &wasm, "rejected");
    let named = |name: &str| format!("{{\"name\": \"{name}\"}}");

    let (outcome, error) = error_of(&wasm, &named("error"));
    assert_eq!(outcome, "failed");
    assert!(error.contains("KeyError: 'missing'") && error.contains("app.py\", line 18, in run"), "{error}");
    assert!(!error.contains("wasmhost.py"), "the helper is not in the way: {error}");
    let (outcome, error) = error_of(&wasm, &named("retry"));
    assert_eq!((outcome.as_str(), error.as_str()), ("retry", "busy"));
    let (outcome, error) = error_of(&wasm, &named("socket"));
    assert_eq!(outcome, "failed");
    assert!(error.contains("PermissionError"), "sockets are there and refuse every call: {error}");
    assert_eq!(exec(&wasm, &named("state")).ok().trim_end(), r#"[{"seen":1},null,3,false]"#);
    assert!(error_of(&wasm, &named("denied")).1.contains("Refused: state not-mine: access-denied (the job's"));
    posts_as_permitted(&project, &wasm);
    let ended = exec(&wasm, &named("Bob"));
    assert!(ended.stderr.contains("said by print") && ended.stderr.contains("[info] greeting Bob"), "{}", ended.stderr);
    let drawn = || exec(&wasm, &named("random")).ok();
    assert_ne!(drawn(), drawn(), "every job draws its own random numbers");
}

#[test]
fn a_new_project_in_go_builds_and_runs() {
    let Some(project) = Project::new("go", "go") else { return };
    greets_in_json(&project, &project.build(), "failed");
}

#[test]
fn a_new_project_in_c_builds_and_runs() {
    let Some(project) = Project::new("c", "zig") else { return };
    greets_in_text(&project, &project.build());
}

#[test]
fn a_new_project_in_assemblyscript_builds_and_runs() {
    let Some(project) = Project::new("assemblyscript", "asc") else { return };
    project.edit("assembly/index.ts", "output(", "if (name == \"throw\") throw new Error(\"on purpose\");\noutput(");
    let wasm = project.build();
    greets_in_text(&project, &wasm);
    let (outcome, error) = error_of(&wasm, "throw");
    assert_eq!(outcome, "failed");
    assert!(error.contains("on purpose at assembly/index.ts:12"), "{error}");
    // Larger than the first buffer, which then has to grow.
    let long = "x".repeat(100_000);
    assert_eq!(exec(&wasm, &long).ok().trim_end(), format!("Hello, {long}!"));
}

/// The commands of the README of a project, with its edit: made, built, run, changed, broken, mended.
#[test]
fn a_new_project_is_live_with_dev_and_stays_so_when_an_edit_breaks_it() {
    let Some(project) = Project::new("javascript", "componentize-qjs") else { return };
    let data = project.place.path().join("data");
    let mut dev = program();
    dev.arg("dev").current_dir(project.root()).env("PATH", path_with_tools()).env("WASMHOST_DATA", &data);
    let mut dev = Host::spawn(dev);
    dev.wait_for_line("reloaded local/hello");
    let submit = || {
        Invocation::new(["submit", "--type", "hello", "--payload", r#"{"name": "Ada"}"#, "--wait"])
            .env("WASMHOST_DATA", data.to_str().unwrap())
            .run()
            .ok()
    };
    assert!(submit().contains("Hello, Ada!"));

    project.edit("src/app.js", "Hello, ${", "Bye, ${");
    dev.wait_for_new_line("reloaded local/hello");
    assert!(submit().contains("Bye, Ada!"));

    // The same project for other hosts: built, with its manifest. A second build has other bytes: the file holds the
    // engine as it was at that moment.
    let publish = |what: &str| {
        Invocation::new(["publish", what])
            .dir(&project.root())
            .env("PATH", &path_with_tools())
            .env("WASMHOST_DATA", data.to_str().unwrap())
            .run()
            .ok()
    };
    assert!(publish(".").starts_with("published local/hello "));
    assert!(publish("build/hello.wasm").starts_with("unchanged local/hello "));

    project.edit("src/app.js", "return {", "return {{");
    let said = dev.wait_for_new_line("/src/app.js:");
    assert!(said.contains("/src/app.js:10"), "the compiler's own words: {said}");
    dev.wait_for_new_line("build of hello failed");
    assert!(submit().contains("Bye, Ada!"), "the old code stays live");

    project.edit("jumpscript.toml", "command = ", "comand = ");
    dev.wait_for_new_line("comand");
    project.edit("jumpscript.toml", "comand = ", "command = ");
    project.edit("src/app.js", "return {{", "return {");
    dev.wait_for_new_line("reloaded local/hello");
}

#[test]
fn what_is_missing_is_named_with_the_commands_that_install_it() {
    let place = tempfile::tempdir().unwrap();
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["sh", "cat", "redis-server", "valkey-server"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join(tool))
            .find(|path| path.is_file());
        if let Some(found) = found {
            std::os::unix::fs::symlink(found, bin.join(tool)).unwrap();
        }
    }
    let path = bin.to_str().unwrap();
    let expected = [
        ("rust", "rustup target add wasm32-wasip2"),
        ("javascript", "npm install"),
        ("python", ".venv/bin/pip install -r requirements.txt"),
        ("go", "https://go.dev/dl"),
        ("c", ".venv/bin/pip install ziglang=="),
        ("assemblyscript", "npm install"),
    ];
    for (language, install) in expected {
        let said =
            Invocation::new(["new", language, "--lang", language]).dir(place.path()).env("PATH", path).run().ok();
        assert!(said.contains("which is missing") && said.contains(install), "{said}");
    }
    let mut dev = program();
    dev.arg("dev")
        .current_dir(place.path().join("python"))
        .env("PATH", path)
        .env("WASMHOST_DATA", place.path().join("data"));
    let mut dev = Host::spawn(dev);
    dev.wait_for_line("`componentize-py` is missing");
    dev.wait_for_line("  python3 -m venv .venv");
    dev.wait_for_line("build of python failed");
}

#[test]
fn a_project_is_only_made_where_nothing_is_and_under_a_name_that_works() {
    let place = tempfile::tempdir().unwrap();
    let new = |arguments: &[&str]| {
        let arguments = [&["new"], arguments].concat();
        Invocation::new(arguments).dir(place.path()).run()
    };
    let said = new(&["hello", "--lang", "pyhton"]).fails(2);
    assert!(
        said.contains("did you mean `python`?") && said.contains("rust, javascript, python, go, c, assemblyscript"),
        "{said}"
    );
    assert!(new(&["hello"]).fails(2).contains("--lang"));
    assert!(new(&["9lives", "--lang", "c"]).fails(2).contains("must start with a letter"));
    assert!(new(&["fn", "--lang", "rust"]).fails(2).contains("`fn-job`"));
    assert!(new(&["hello", "--lang", "c", "--organization", "a__b"]).fails(2).contains("organization"));
    assert!(fs::read_dir(place.path()).unwrap().next().is_none(), "nothing was made");

    let report: serde_json::Value =
        serde_json::from_str(&new(&["below/hello", "--lang", "AS", "--output", "json", "--organization", "acme"]).ok())
            .unwrap();
    assert_eq!((report["language"].as_str(), report["name"].as_str()), (Some("assemblyscript"), Some("acme/hello")));
    assert!(new(&["below/hello", "--lang", "c"]).fails(2).contains("is not empty"));
    fs::write(place.path().join("file"), "").unwrap();
    assert!(new(&["file", "--lang", "c"]).fails(2).contains("is not a folder"));
}
