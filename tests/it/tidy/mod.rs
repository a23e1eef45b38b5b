//! The rules of the house, held by tests: layers, one outside package in one folder, where Redis keys are spelt, and
//! what people read. Each rule is also shown to bite, on a snippet that breaks it.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use source::{literals, mentions, paths_into_crate, without_comments, without_tests};

/// Longest Rust file of the host in lines. To be lowered, not raised.
const FILE_LINES_MAX: usize = 700;
/// Longest function of the host in lines.
const FUNCTION_LINES_MAX: usize = 100;

/// Outside packages that one folder alone may name, and what they are called in code.
const ONE_FOLDER: [(&str, &[&str]); 19] = [
    ("ring", &["signatures"]),
    ("redis", &["store"]),
    ("wasmtime", &["sandbox"]),
    ("wasmtime_wasi", &["sandbox"]),
    ("wasmtime_wasi_http", &["sandbox"]),
    // The client there, the server here.
    ("hyper", &["sandbox", "http"]),
    ("hyper_util", &["http"]),
    ("tokio_rustls", &["sandbox"]),
    ("notify", &["watch"]),
    ("include_dir", &["languages"]),
    ("clap", &["cli"]),
    ("comfy_table", &["cli"]),
    ("anyhow", &["cli", "host.rs"]),
    ("regex", &["cli"]),
    ("similar", &["cli"]),
    ("toml_edit", &["cli"]),
    ("terminal_size", &["cli"]),
    ("zeroize", &["secret"]),
    ("base64", &["job", "signatures"]),
];

/// Parts of Redis keys. A text without spaces that has one of them is a key.
const KEY_PARTS: [&str; 12] = [
    "workers:",
    ":job:",
    ":queue:",
    ":idem:",
    "healthcheck:",
    "eco:",
    "queues:",
    "logs:incr",
    "hero:job",
    "runs:work",
    ":ready",
    ":inflight",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A text file of the repository: its path below the root, and its content.
struct Text {
    path: String,
    text: String,
}

/// Every text file of the repository that is not a product.
fn texts() -> Vec<Text> {
    let mut texts = Vec::new();
    let mut waiting = vec![root()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | ".git" | "node_modules") {
                    waiting.push(path);
                }
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                // In a second worktree `.git` is a file with a path of its machine.
                if path != ".git" {
                    texts.push(Text { path, text });
                }
            }
        }
    }
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    texts
}

/// The host's own Rust files, by their path below `host/src`.
fn host_files() -> Vec<Text> {
    let own = |text: Text| {
        let path = text.path.strip_prefix("host/src/")?.to_owned();
        path.ends_with(".rs").then_some(Text { path, ..text })
    };
    texts().into_iter().filter_map(own).collect()
}

/// Applies a rule to every file and shows all that break it at once.
fn hold(files: &[Text], rule: impl Fn(&str, &str) -> Vec<String>) {
    let broken: Vec<String> = files
        .iter()
        .flat_map(|file| rule(&file.path, &file.text).into_iter().map(move |why| format!("{}: {why}", file.path)))
        .collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// The top-level module of a file below `host/src`.
fn module(path: &str) -> &str {
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

// === Layers ===

/// Module to layer, as `lib.rs` lists them under `// Layer N:`.
fn layers(lib: &str) -> BTreeMap<String, u32> {
    let mut layers = BTreeMap::new();
    let mut layer = None;
    for line in lib.lines() {
        if let Some(rest) = line.strip_prefix("// Layer ") {
            layer = rest.split(':').next().and_then(|number| number.parse().ok());
        } else if let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            layers.insert(name.to_owned(), layer.expect("a module stands under its layer"));
        }
    }
    layers
}

fn layer_rule(layers: &BTreeMap<String, u32>, path: &str, text: &str) -> Vec<String> {
    let own = module(path);
    let Some(own_layer) = layers.get(own) else { return vec![format!("module `{own}` is in no layer of lib.rs")] };
    let imports: BTreeSet<String> = paths_into_crate(&without_comments(text)).into_iter().collect();
    imports
        .iter()
        .filter(|import| *import != own)
        .filter_map(|import| match layers.get(import) {
            Some(layer) if layer < own_layer => None,
            // The words of layer 0 are made of each other.
            Some(0) if *own_layer == 0 => None,
            Some(layer) => Some(format!("`{own}` (layer {own_layer}) imports `{import}` (layer {layer})")),
            None => Some(format!("`{own}` imports `{import}`, which lib.rs does not list")),
        })
        .collect()
}

#[test]
fn a_module_imports_only_from_lower_layers() {
    let files = host_files();
    let lib = files.iter().find(|file| file.path == "lib.rs").unwrap();
    let layers = layers(&lib.text);
    assert!(layers.len() > 10, "{layers:?}");
    let files: Vec<Text> =
        files.into_iter().filter(|file| !matches!(file.path.as_str(), "lib.rs" | "main.rs")).collect();
    hold(&files, |path, text| layer_rule(&layers, path, text));
}

#[test]
fn an_import_from_a_higher_layer_or_a_sibling_is_seen() {
    let lib = "// Layer 0: words\npub mod job;\n// Layer 1: adapters\npub mod store;\npub mod sandbox;\n// Layer 3: x\npub mod worker;\n";
    let layers = layers(lib);
    let broken = |path: &str, text: &str| layer_rule(&layers, path, text).len();
    assert_eq!(broken("worker/mod.rs", "use crate::{job::JobId, store::{self, Store}};"), 0);
    assert_eq!(broken("job.rs", "use crate::store::Store;"), 1);
    assert_eq!(broken("sandbox/run.rs", "fn f() { crate::store::now() }"), 1, "a sibling");
    assert_eq!(broken("store/mod.rs", "use crate::{\n    job,\n    worker::Worker,\n};"), 1);
    assert_eq!(broken("store/mod.rs", "// use crate::worker::Worker;\nuse crate::store::keys;"), 0);
    assert_eq!(broken("nowhere.rs", ""), 1);
}

// === One outside package, one folder ===

fn package_rule(path: &str, text: &str) -> Vec<String> {
    let code = without_comments(text);
    ONE_FOLDER
        .iter()
        .filter(|(_, folders)| !folders.iter().any(|folder| path == *folder || module(path) == *folder))
        .filter(|(package, _)| mentions(&code, &format!("{package}::")) || mentions(&code, &format!("use {package};")))
        .map(|(package, folders)| format!("names the package `{package}`, which belongs to {folders:?}"))
        .collect()
}

#[test]
fn an_outside_package_is_named_in_one_folder() {
    hold(&host_files(), package_rule);
}

#[test]
fn a_package_outside_its_folder_is_seen() {
    assert_eq!(package_rule("worker/mod.rs", "use redis::Client;").len(), 1);
    assert_eq!(package_rule("worker/mod.rs", "fn f() -> wasmtime::Engine {}").len(), 1);
    assert_eq!(package_rule("store/mod.rs", "use redis::Client;").len(), 0);
    assert_eq!(package_rule("config/mod.rs", "use super::redis::Url; // redis::Client").len(), 0);
    assert_eq!(package_rule("node/mod.rs", "use clap::Args;").len(), 1);
}

// === Redis keys ===

fn key_rule(path: &str, text: &str) -> Vec<String> {
    if path == "store/keys.rs" || module(path) == "protocol" {
        return Vec::new();
    }
    let code = without_tests(text);
    let mut broken: Vec<String> = literals(code)
        .into_iter()
        .filter(|literal| !literal.contains(|c: char| c.is_whitespace() || c == '`'))
        .filter(|literal| KEY_PARTS.iter().any(|part| literal.contains(part)))
        .map(|literal| format!("spells the Redis key \"{literal}\"; keys are spelt in store/keys.rs"))
        .collect();
    if path != "effects.rs" && mentions(&without_comments(code), "Key::spelt") {
        broken.push("calls Key::spelt, which is for store/keys.rs and protocol/".to_owned());
    }
    broken
}

#[test]
fn redis_keys_are_spelt_in_one_place() {
    hold(&host_files(), key_rule);
}

#[test]
fn a_key_spelt_elsewhere_is_seen() {
    assert_eq!(key_rule("worker/mod.rs", r#"let key = format!("{prefix}:job:{id}");"#).len(), 1);
    assert_eq!(key_rule("node/mod.rs", r#"hset("workers:watchdog", 1)"#).len(), 1);
    assert_eq!(key_rule("node/mod.rs", r#"Err("nothing in `workers:watchdog` yet")"#).len(), 0, "a text for people");
    assert_eq!(key_rule("store/keys.rs", r#"format!("{prefix}:job:{id}")"#).len(), 0);
    assert_eq!(key_rule("worker/mod.rs", "Effect::Delete { key: Key::spelt(\"k\") }").len(), 1);
    assert_eq!(key_rule("job.rs", "#[cfg(test)]\nmod tests { fn f() { x(\"a:queue:b\") } }").len(), 0);
}

// === Words ===

/// Words that mean "not finished", put together here so that this file does not have them.
fn unfinished_words() -> [String; 6] {
    [("to", "do!("), ("unimple", "mented!("), ("db", "g!("), ("FIX", "ME"), ("TO", "DO"), ("XX", "X")]
        .map(|(a, b)| format!("{a}{b}"))
}

fn word_rule(path: &str, text: &str) -> Vec<String> {
    let is_code = [".rs", ".lua", ".sh", ".toml", ".md", ".wit", ".c"].iter().any(|ending| path.ends_with(ending));
    if !is_code && !path.starts_with(".ci/") && path != "Makefile" {
        return Vec::new();
    }
    unfinished_words().iter().filter(|word| mentions(text, word)).map(|word| format!("has the word `{word}`")).collect()
}

#[test]
fn nothing_is_marked_as_unfinished() {
    hold(&texts(), word_rule);
}

#[test]
fn an_unfinished_place_is_seen() {
    for word in unfinished_words() {
        assert_eq!(word_rule("host/src/x.rs", &format!("fn f() {{ {word} }}")).len(), 1, "{word}");
    }
}

/// Places of one machine, and of package registries: neither means anything to a reader elsewhere.
fn place_rule(path: &str, text: &str) -> Vec<String> {
    // A lock file names its registry by design.
    if path == "Cargo.lock" || path.ends_with("/Cargo.lock") {
        return Vec::new();
    }
    let places =
        [("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/"), ("../sha", "red"), ("crates", ".io"), ("py", "pi.org")];
    places
        .map(|(a, b)| format!("{a}{b}"))
        .iter()
        .filter(|place| text.contains(place.as_str()))
        .map(|place| format!("names the place `{place}`"))
        .collect()
}

#[test]
fn no_file_names_a_place_outside_the_repository() {
    hold(&texts(), place_rule);
}

#[test]
fn a_place_outside_the_repository_is_seen() {
    assert_eq!(place_rule("x.rs", &format!("include_str!(\"..{}\")", "/../sha".to_owned() + "red/x")).len(), 1);
    assert_eq!(place_rule("x.md", &format!("see {}me/someone/notes", "/ho")).len(), 1);
}

// === Sizes and heads ===

fn head_rule(_path: &str, text: &str) -> Vec<String> {
    if text.starts_with("//! ") { Vec::new() } else { vec!["does not begin with what it is for (`//! `)".to_owned()] }
}

#[test]
fn every_module_begins_with_what_it_is_for() {
    hold(&host_files(), head_rule);
    assert_eq!(head_rule("x.rs", "use std::fmt;").len(), 1);
}

fn size_rule(_path: &str, text: &str) -> Vec<String> {
    let n = text.lines().count();
    let mut broken = Vec::new();
    if n > FILE_LINES_MAX {
        broken.push(format!("has {n} lines, at most {FILE_LINES_MAX} are allowed"));
    }
    for (name, n) in source::function_lines(text) {
        if n > FUNCTION_LINES_MAX {
            broken.push(format!("`{name}` has {n} lines, at most {FUNCTION_LINES_MAX} are allowed"));
        }
    }
    broken
}

#[test]
fn files_and_functions_stay_readable() {
    hold(&host_files(), size_rule);
}

#[test]
fn a_long_file_and_a_long_function_are_seen() {
    assert_eq!(size_rule("x.rs", &"\n".repeat(FILE_LINES_MAX + 1)).len(), 1);
    let body = "    1;\n".repeat(FUNCTION_LINES_MAX);
    assert_eq!(size_rule("x.rs", &format!("fn long() {{\n{body}}}\n")).len(), 1);
}

/// A Lua file opens with comments. A transition (it takes KEYS) says KEYS, ARGV and Returns there.
fn lua_rule(_path: &str, text: &str) -> Vec<String> {
    let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("--")).collect();
    if head.is_empty() {
        return vec!["does not begin with what it does".to_owned()];
    }
    let says = |word: &str| head.iter().any(|line| line.trim_start_matches("-- ").starts_with(word));
    let code = &text[head.iter().map(|line| line.len() + 1).sum::<usize>().min(text.len())..];
    let needed = [("KEYS[", "KEYS"), ("ARGV[", "ARGV")];
    let mut broken: Vec<String> = needed
        .iter()
        .filter(|(used, word)| code.contains(used) && !says(word))
        .map(|(_, word)| format!("uses {word} and does not say in its head what they are"))
        .collect();
    // A file that others are joined with returns nothing at its outer level.
    if code.lines().any(|line| line.starts_with("return ")) && !says("Returns") {
        broken.push("does not say in its head what it returns".to_owned());
    }
    broken
}

#[test]
fn every_lua_file_says_what_it_takes_and_returns() {
    let files: Vec<Text> = texts().into_iter().filter(|text| text.path.ends_with(".lua")).collect();
    hold(&files, lua_rule);
}

#[test]
fn a_lua_file_without_its_head_is_seen() {
    assert_eq!(lua_rule("x.lua", "return 1").len(), 1);
    assert_eq!(lua_rule("x.lua", "-- Does it.\nreturn KEYS[1]").len(), 2);
    assert_eq!(lua_rule("x.lua", "-- Does it.\n--\n-- KEYS  1 job\n-- Returns  1\n\nreturn KEYS[1]").len(), 0);
}

// === What people read ===

/// The commands of the first column of README's table: "| `wasmhost jobs ls` | ...".
fn readme_commands(readme: &str) -> BTreeSet<String> {
    readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `wasmhost "))
        .filter_map(|line| line.split('`').next())
        .map(|command| {
            command
                .split_whitespace()
                .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

/// The visible commands that do something, as the program's own help lists them.
fn help_commands() -> BTreeSet<String> {
    fn collect(into: &mut BTreeSet<String>, before: &str, command: &clap::Command) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let name = format!("{before} {}", sub.get_name()).trim().to_owned();
            if sub.has_subcommands() {
                collect(into, &name, sub);
            } else {
                into.insert(name);
            }
        }
    }
    let mut commands = BTreeSet::new();
    collect(&mut commands, "", &wasmhost::cli::command());
    commands
}

#[test]
fn the_readme_lists_the_commands_that_the_program_has() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert_eq!(readme_commands(&readme), help_commands());
}

#[test]
fn the_page_on_commands_is_what_their_help_says() {
    crate::support::docs::assert_document("cli.md", &wasmhost::cli::reference_markdown());
}

#[test]
fn a_missing_command_in_the_readme_is_seen() {
    let commands = readme_commands("| `wasmhost run` | x |\n| `wasmhost jobs show ID` | x |\n| `other` | x |\n");
    assert_eq!(commands, BTreeSet::from(["run".to_owned(), "jobs show".to_owned()]));
}

#[test]
fn every_task_of_the_makefile_has_a_line_of_help() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let tasks: Vec<&str> = makefile
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(": ") || line.ends_with(':'))
        .filter(|line| !line.starts_with("unexport") && !line.starts_with('.'))
        .collect();
    assert!(tasks.len() >= 7, "{tasks:?}");
    assert!(tasks.iter().all(|task| task.contains(" ## ")), "{tasks:?}");
}

#[test]
fn the_map_names_every_module() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let lib = std::fs::read_to_string(root().join("host/src/lib.rs")).unwrap();
    let missing: Vec<String> = layers(&lib).into_keys().filter(|name| !map.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

#[test]
fn every_example_is_in_the_index() {
    let Ok(entries) = std::fs::read_dir(root().join("examples")) else { return };
    let index = std::fs::read_to_string(root().join("examples/README.md")).unwrap();
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(index.contains(&format!("({name}/")), "examples/README.md does not link {name}");
    }
}

/// Tests that a document names as `module::file::function`, with the file each must be in.
fn named_tests(text: &str) -> Vec<(String, String)> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains("::") && word.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c)))
        .filter_map(|word| word.rsplit_once("::"))
        .map(|(module, function)| (format!("tests/it/{}", module.replace("::", "/")), function.to_owned()))
        .collect()
}

fn named_test_rule(files: &BTreeMap<String, String>, text: &str) -> Vec<String> {
    named_tests(text)
        .into_iter()
        .filter(|(file, function)| {
            let found = [format!("{file}.rs"), format!("{file}/mod.rs")].iter().find_map(|path| files.get(path));
            !found.is_some_and(|text| text.contains(&format!("fn {function}()")))
        })
        .map(|(file, function)| format!("names the test `{function}`, which is not in {file}.rs"))
        .collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let (documents, code): (Vec<Text>, Vec<Text>) = texts()
        .into_iter()
        .filter(|text| text.path.starts_with("docs/") || text.path.starts_with("tests/it/"))
        .partition(|text| text.path.starts_with("docs/"));
    let files = code.into_iter().map(|file| (file.path, file.text)).collect();
    hold(&documents, |_, text| named_test_rule(&files, text));
}

#[test]
fn a_test_that_is_named_and_missing_is_seen() {
    let files = BTreeMap::from([("tests/it/engine/ack.rs".to_owned(), "async fn a_fact() {".to_owned())]);
    assert_eq!(named_test_rule(&files, "see `engine::ack::a_fact`"), Vec::<String>::new());
    assert_eq!(named_test_rule(&files, "see `engine::ack::a_fac` and `engine::fail::a_fact`").len(), 2);
}

/// The 27 cases that TaskHarbor's drivers share, each with a test of ours.
#[test]
fn the_conformance_cases_are_all_there() {
    let text = std::fs::read_to_string(root().join("docs/protocols/taskharbor.md")).unwrap();
    for n in 1..=27 {
        let row = text.lines().find(|line| line.starts_with(&format!("| {n} | ")));
        let tests = row.map(named_tests).unwrap_or_default();
        assert_eq!(tests.len(), 1, "case {n}: {row:?}");
    }
}
