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

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhost::jumpscript::{Digest, Manifest};
use wasmhost::languages::{Language, NewProject, search_path};
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, FirstTier, Options, Sandbox};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceTable, ResourceType};
use wasmtime::{Config, Engine, Module, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

mod contract {
    wasmtime::component::bindgen!({
        path: "../guest-sdk/wit",
        world: "jumpscript",
        exports: { default: async },
    });
}

/// Rounds that all take in turn; the first one warms caches and pools, and does not count.
const ROUNDS: usize = 20;
/// Time that one of them gets in a round.
const ROUND_TIME: Duration = Duration::from_millis(60);
/// Jobs of one of them in a round, at most.
const JOBS: usize = 500;
/// What every job is given, and answers.
const PAYLOAD: &[u8] = br#"{"n":1}"#;

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

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// One thing that is measured.
struct Variant {
    key: String,
    what: String,
    run: Box<dyn FnMut() -> Job>,
    micros: Vec<f64>,
}

impl Variant {
    fn new<F: Future<Output = ()> + 'static>(key: &str, what: &str, mut run: impl FnMut() -> F + 'static) -> Self {
        let run = Box::new(move || -> Job { Box::pin(run()) });
        Self { key: key.to_owned(), what: what.to_owned(), run, micros: Vec::new() }
    }

    async fn round(&mut self, is_counted: bool) {
        let begin = Instant::now();
        for _ in 0..JOBS {
            let job = (self.run)();
            let start = Instant::now();
            job.await;
            if is_counted {
                self.micros.push(start.elapsed().as_secs_f64() * 1e6);
            }
            if begin.elapsed() > ROUND_TIME {
                break;
            }
        }
    }

    fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "thousands of samples")]
        let index = (sorted.len() as f64 * share) as usize;
        sorted[index.min(sorted.len() - 1)]
    }
}

fn main() {
    // `cargo test --benches` runs it too, to see that it still works.
    let rounds = if std::env::args().any(|arg| arg == "--test") { 1 } else { ROUNDS };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut variants = variants();
    runtime.block_on(async {
        for round in 0..=rounds {
            for variant in &mut variants {
                variant.round(round > 0).await;
            }
        }
    });
    let mut figures = serde_json::Map::new();
    println!("{:<52} {:>10} {:>10}", "a fresh instance per job", "p50 µs", "p99 µs");
    for variant in &variants {
        let (p50, p99) = (variant.percentile(0.5), variant.percentile(0.99));
        println!("{:<52} {p50:>10.1} {p99:>10.1}", variant.what);
        figures.insert(format!("{}_p50_us", variant.key), rounded(p50));
        figures.insert(format!("{}_p99_us", variant.key), rounded(p99));
    }
    if rounds == ROUNDS {
        let folder = guests::root().join("target/bench");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("languages.json"), serde_json::to_string_pretty(&figures).unwrap() + "\n").unwrap();
        println!("\nwritten to target/bench/languages.json");
    }
}

fn rounded(figure: f64) -> serde_json::Value {
    ((figure * 100.0).round() / 100.0).into()
}

fn variants() -> Vec<Variant> {
    // Every file on its optimised code, as it runs after its first seconds.
    let first_tier = FirstTier { from_bytes: usize::MAX, is_optimised: true };
    let sandbox = Sandbox::new(Options { pool_size: 100, first_tier, ..Options::default() }).unwrap();
    let mut variants = Vec::new();
    let mut add = |key: &str, what: &str, wasm: &[u8]| {
        variants.push(ours(key, what, &sandbox, wasm));
        variants.push(plain(&format!("{key}_default"), "  with wasmtime's default settings", wasm));
    };
    add("rust", "Rust component", &guests::wasm("echo"));
    add("command", "Rust command (WASI preview 1)", &guests::wasm("command-preview1"));
    for (language, file, body) in ECHO {
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

/// The product's own way.
fn ours(key: &str, what: &str, sandbox: &Sandbox, wasm: &[u8]) -> Variant {
    let script = sandbox.load(Digest::of(wasm), wasm).unwrap();
    let sandbox = sandbox.clone();
    Variant::new(key, what, move || {
        let (sandbox, script) = (sandbox.clone(), Arc::clone(&script));
        async move {
            let finished = sandbox.run(&script, Call::new(PAYLOAD)).await;
            assert!(matches!(&finished.outcome, Outcome::Done { .. }), "{finished:?}");
        }
    })
}

/// A fresh instance with the settings that nobody chose.
fn plain(key: &str, what: &str, wasm: &[u8]) -> Variant {
    let engine = Engine::new(&Config::new()).unwrap();
    if wasm[4] == 1 { plain_command(key, what, &engine, wasm) } else { plain_component(key, what, &engine, wasm) }
}

/// The store of a plain embedder.
struct Plain {
    context: WasiCtx,
    resources: ResourceTable,
}

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.context, table: &mut self.resources }
    }
}

fn plain_component(key: &str, what: &str, engine: &Engine, wasm: &[u8]) -> Variant {
    use contract::wasmhost::jumpscript::types::Job;

    let component = Component::from_binary(engine, wasm).unwrap();
    let mut linker = Linker::<Plain>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    trap_what_is_not_wasi(&mut linker, &component, engine);
    let pre = Arc::new(contract::JumpscriptPre::new(linker.instantiate_pre(&component).unwrap()).unwrap());
    let engine = engine.clone();
    Variant::new(key, what, move || {
        let (engine, pre) = (engine.clone(), Arc::clone(&pre));
        async move {
            let state = Plain { context: WasiCtxBuilder::new().build(), resources: ResourceTable::new() };
            let mut store = Store::new(&engine, state);
            let instance = pre.instantiate_async(&mut store).await.unwrap();
            let job = Job {
                id: String::new(),
                queue: String::new(),
                job_type: String::new(),
                node: String::new(),
                attempt: 1,
                max_attempts: 1,
                deadline_ms: 0,
                enqueued_at_ms: 0,
                content_type: String::new(),
                payload: PAYLOAD.to_vec(),
                metadata: Vec::new(),
            };
            assert_eq!(instance.call_run(&mut store, &job).await.unwrap().unwrap(), PAYLOAD);
        }
    })
}

/// What a plain embedder does not have: none of the guests calls it.
fn trap_what_is_not_wasi(linker: &mut Linker<Plain>, component: &Component, engine: &Engine) {
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else { continue };
        if !["wasmhost:", "wasi:keyvalue/", "wasi:logging/"].iter().any(|ours| name.starts_with(ours)) {
            continue;
        }
        let mut ours = linker.instance(name).unwrap();
        for (name, export) in instance.exports(engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) => {
                    ours.func_new(name, |_, _, _, _| wasmtime::bail!("no guest calls this")).unwrap();
                }
                ComponentItem::Resource(_) => {
                    ours.resource(name, ResourceType::host::<()>(), |_, _| Ok(())).unwrap();
                }
                _ => {}
            }
        }
    }
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
