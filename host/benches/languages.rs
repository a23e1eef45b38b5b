//! What a fresh sandbox per job costs in every language: `make bench-languages`.
//!
//! Each guest is the template of its language with a body that answers with its payload. It is built here, and run by
//! our engine, and with wasmtime's default settings in the fewest lines that an embedder would write. Beside them: what
//! starting a process costs, which is what a job is elsewhere. All take turns in short rounds, so that a noisy neighbour
//! meets all of them. Prints a table, and writes the figures to `target/bench/languages.json`; a language whose tools
//! are not in `target/tools` is skipped.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark is a program of its own")]
#![allow(clippy::print_stdout, reason = "its table is its result")]

#[path = "../../tests/it/support/guests.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which use more of it")]
mod guests;

mod turns;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use wasmhost::jumpscript::{Digest, Manifest};
use wasmhost::languages::{Language, NewProject, search_path};
use wasmhost::sandbox::{FirstTier, Options, Sandbox};
use wasmtime::{Config, Engine, Module, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

use turns::{PAYLOAD, ROUNDS, Variant, take_turns};

/// The file of a template that is its program, and a program that answers with its payload.
const ECHO: [(Language, &str, &str); 5] = [
    (
        Language::JavaScript,
        "src/app.js",
        "import { job } from \"./wasmhost.js\";\nexport const run = job(({ payload }) => payload);\n",
    ),
    (Language::Python, "app.py", "import wasmhost\n\nWitWorld = wasmhost.world(lambda job: job.payload)\n"),
    (
        Language::Go,
        "main.go",
        "package main\n\nimport (\n\t\"io\"\n\t\"os\"\n)\n\nfunc main() { io.Copy(os.Stdout, os.Stdin) }\n",
    ),
    (
        Language::C,
        "src/main.c",
        "#include <unistd.h>\n\nint main(void) {\n    static char text[4096];\n    ssize_t n;\n    \
         while ((n = read(0, text, sizeof text)) > 0) write(1, text, n);\n    return 0;\n}\n",
    ),
    (Language::AssemblyScript, "assembly/index.ts", "import { input, output } from \"./wasi\";\n\noutput(input());\n"),
];

fn main() {
    // `cargo test --benches` runs it too, to see that it still works.
    let rounds = if std::env::args().any(|arg| arg == "--test") { 1 } else { ROUNDS };
    // `cargo bench --bench languages -- python` runs one variant, for a profiler.
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut variants = variants(only.as_deref());
    runtime.block_on(take_turns(&mut variants, rounds));
    let mut figures = serde_json::Map::new();
    println!("{:<52} {:>10} {:>10}", "a fresh instance per job", "p50 µs", "p99 µs");
    for variant in &variants {
        let (p50, p99) = variant.tell(&mut figures);
        println!("{:<52} {p50:>10.1} {p99:>10.1}", variant.what);
    }
    if rounds == ROUNDS && only.is_none() {
        turns::write(&figures, "languages.json");
    }
}

fn variants(only: Option<&str>) -> Vec<Variant> {
    let is_wanted = |key: &str| only.is_none_or(|only| only == key);
    // Every file on its optimised code, as it runs after its first seconds.
    let first_tier = FirstTier { from_bytes: usize::MAX, is_optimised: true };
    let sandbox = Sandbox::new(Options { pool_size: 100, first_tier, ..Options::default() }).unwrap();
    let mut variants = Vec::new();
    let mut add = |key: &str, what: &str, wasm: &[u8]| {
        let script = sandbox.load(Digest::of(wasm), wasm).unwrap();
        variants.push(Variant::ours(key, what, &sandbox, &script));
        if only.is_none() {
            variants.push(plain(&format!("{key}_default"), "  with wasmtime's default settings", wasm));
        }
    };
    for (key, what, guest) in
        [("rust", "Rust component", "echo"), ("command", "Rust command (WASI preview 1)", "command-preview1")]
    {
        if is_wanted(key) {
            add(key, what, &guests::wasm(guest));
        }
    }
    for (language, file, body) in ECHO.into_iter().filter(|(language, ..)| is_wanted(language.as_str())) {
        match build(language, file, body) {
            Some(wasm) => add(language.as_str(), language.name(), &wasm),
            None => println!("skipped {language}: its tools are not in target/tools; run `make setup`"),
        }
    }
    for (key, what, program, arguments) in [
        ("spawn_true", "starting the process `true`", "true", &[][..]),
        ("spawn_node", "starting `node -e 0`", "node", &["-e", "0"]),
        ("spawn_python", "starting `python3 -c pass`", "python3", &["-c", "pass"]),
    ] {
        if !is_wanted(key) {
            continue;
        }
        if spawn(program, arguments).is_ok() {
            variants.push(Variant::new(key, what, move || async move { spawn(program, arguments).unwrap() }));
        } else {
            println!("skipped {what}: there is no {program}");
        }
    }
    variants
}

/// A project of a template with another body; `None` without the tools of its language.
fn build(language: Language, file: &str, body: &str) -> Option<Vec<u8>> {
    let tools = guests::root().join("target/tools").canonicalize().ok()?;
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("echo");
    let (name, organization) = ("echo".to_owned(), "bench".to_owned());
    NewProject { language, folder: folder.clone(), name, organization }.write().unwrap();
    fs::write(folder.join(file), body).unwrap();
    let manifest = fs::read_to_string(folder.join("jumpscript.toml")).unwrap();
    let build = Manifest::parse(&manifest).unwrap().build.unwrap();
    fs::create_dir(folder.join("build")).unwrap();
    let path = format!("{}:{}", tools.join("bin").display(), search_path(&folder).to_string_lossy());
    let built = Command::new("sh")
        .args(["-c", &build.command])
        .current_dir(&folder)
        .env("PATH", path)
        .env("GOCACHE", tools.join("go-cache"))
        .env("ZIG_GLOBAL_CACHE_DIR", tools.join("zig-cache"))
        .output()
        .unwrap();
    if built.status.code() == Some(127) {
        return None;
    }
    assert!(built.status.success(), "{language}: {}", String::from_utf8_lossy(&built.stderr));
    Some(fs::read(folder.join(build.output)).unwrap())
}

fn spawn(program: &str, arguments: &[&str]) -> std::io::Result<()> {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).current_dir(Path::new("/")).status()?;
    assert!(status.success(), "{program}: {status}");
    Ok(())
}

/// A fresh instance with the settings that nobody chose.
fn plain(key: &str, what: &str, wasm: &[u8]) -> Variant {
    let engine = Engine::new(&Config::new()).unwrap();
    if wasm[4] == 1 { plain_command(key, what, &engine, wasm) } else { Variant::plain(key, what, &engine, wasm) }
}

fn plain_command(key: &str, what: &str, engine: &Engine, wasm: &[u8]) -> Variant {
    let module = Module::from_binary(engine, wasm).unwrap();
    let mut linker = wasmtime::Linker::<WasiP1Ctx>::new(engine);
    p1::add_to_linker_async(&mut linker, |state| state).unwrap();
    let pre = Arc::new(linker.instantiate_pre(&module).unwrap());
    let engine = engine.clone();
    Variant::new(key, what, move || {
        let (engine, pre) = (engine.clone(), Arc::clone(&pre));
        async move {
            let output = MemoryOutputPipe::new(4096);
            let mut context = WasiCtxBuilder::new();
            let state = context.stdin(MemoryInputPipe::new(PAYLOAD)).stdout(output.clone()).build_p1();
            let mut store = Store::new(&engine, state);
            let instance = pre.instantiate_async(&mut store).await.unwrap();
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
            // Some end by calling `exit(0)`, which is an error to the engine.
            let _ = start.call_async(&mut store, ()).await;
            assert!(!output.contents().is_empty(), "the command answers");
        }
    })
}
