//! What the benchmarks of the sandbox share: variants that take turns, our own way to run a job, and that of a plain
//! embedder, in the fewest lines, without limits and log.

use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhost::outcome::Outcome;
use wasmhost::sandbox::{Call, Sandbox, Script};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceTable, ResourceType};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::guests;

mod contract {
    wasmtime::component::bindgen!({
        path: "../guest-sdk/wit",
        world: "jumpscript",
        exports: { default: async },
    });
}

pub(crate) use contract::JumpscriptPre;

/// Rounds that all take in turn.
pub(crate) const ROUNDS: usize = 20;
/// Time that one of them gets in a round.
const ROUND_TIME: Duration = Duration::from_millis(60);
/// Jobs of one of them in a round, at most.
const JOBS: usize = 500;
/// What every job is given, and answers.
pub(crate) const PAYLOAD: &[u8] = br#"{"n":1}"#;

type Figures = serde_json::Map<String, serde_json::Value>;
type Run = Pin<Box<dyn Future<Output = ()>>>;

/// One thing that is measured.
pub(crate) struct Variant {
    pub(crate) key: String,
    pub(crate) what: String,
    run: Box<dyn FnMut() -> Run>,
    micros: Vec<f64>,
}

impl Variant {
    pub(crate) fn new<F: Future<Output = ()> + 'static>(
        key: &str,
        what: &str,
        mut run: impl FnMut() -> F + 'static,
    ) -> Self {
        let run = Box::new(move || -> Run { Box::pin(run()) });
        Self { key: key.to_owned(), what: what.to_owned(), run, micros: Vec::with_capacity(ROUNDS * JOBS) }
    }

    /// Our own way.
    pub(crate) fn ours(key: &str, what: &str, sandbox: &Sandbox, script: &Arc<Script>) -> Self {
        let (sandbox, script) = (sandbox.clone(), Arc::clone(script));
        Self::new(key, what, move || {
            let (sandbox, script) = (sandbox.clone(), Arc::clone(&script));
            async move {
                let finished = sandbox.run(&script, Call::new(PAYLOAD)).await;
                assert!(matches!(&finished.outcome, Outcome::Done { .. }), "{finished:?}");
            }
        })
    }

    /// A fresh instance of a component with somebody else's settings.
    pub(crate) fn plain(key: &str, what: &str, engine: &Engine, wasm: &[u8]) -> Self {
        let (engine, pre) = (engine.clone(), Arc::new(Plain::pre(engine, wasm)));
        Self::new(key, what, move || {
            let (engine, pre) = (engine.clone(), Arc::clone(&pre));
            async move {
                let mut store = Plain::store(&engine);
                let instance = pre.instantiate_async(&mut store).await.unwrap();
                answers(&instance, &mut store).await;
            }
        })
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

    /// The median and the 99th percentile in microseconds, which are also added to the figures.
    pub(crate) fn tell(&self, figures: &mut Figures) -> (f64, f64) {
        let (p50, p99) = (self.percentile(0.5), self.percentile(0.99));
        figures.insert(format!("{}_p50_us", self.key), rounded(p50));
        figures.insert(format!("{}_p99_us", self.key), rounded(p99));
        (p50, p99)
    }
}

/// Measures all of them in turn. A round before the first one warms caches and pools, and does not count.
pub(crate) async fn take_turns(variants: &mut [Variant], rounds: usize) {
    for round in 0..=rounds {
        for variant in &mut *variants {
            variant.round(round > 0).await;
        }
    }
}

/// Writes figures to a file below `target/bench`, and says so.
pub(crate) fn write(figures: &Figures, file: &str) {
    let folder = guests::root().join("target/bench");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(file), serde_json::to_string_pretty(figures).unwrap() + "\n").unwrap();
    println!("\nwritten to target/bench/{file}");
}

pub(crate) fn rounded(figure: f64) -> serde_json::Value {
    ((figure * 100.0).round() / 100.0).into()
}

/// The store of a plain embedder.
pub(crate) struct Plain {
    context: WasiCtx,
    resources: ResourceTable,
}

impl Plain {
    pub(crate) fn store(engine: &Engine) -> Store<Self> {
        Store::new(engine, Self { context: WasiCtxBuilder::new().build(), resources: ResourceTable::new() })
    }

    /// A component with all of WASI; the rest of what it imports traps, and no guest here calls it.
    pub(crate) fn pre(engine: &Engine, wasm: &[u8]) -> JumpscriptPre<Self> {
        let component = Component::from_binary(engine, wasm).unwrap();
        let mut linker = Linker::<Self>::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        trap_what_is_not_wasi(&mut linker, &component, engine);
        JumpscriptPre::new(linker.instantiate_pre(&component).unwrap()).unwrap()
    }
}

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.context, table: &mut self.resources }
    }
}

/// Gives an instance of a plain embedder one job.
pub(crate) async fn answers(instance: &contract::Jumpscript, store: &mut Store<Plain>) {
    let job = contract::wasmhost::jumpscript::types::Job {
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
    assert_eq!(instance.call_run(store, &job).await.unwrap().unwrap(), PAYLOAD);
}

fn trap_what_is_not_wasi(linker: &mut Linker<Plain>, component: &Component, engine: &Engine) {
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else { continue };
        if !["wasmhost:", "wasi:config/", "wasi:keyvalue/", "wasi:logging/"].iter().any(|ours| name.starts_with(ours)) {
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
