//! How soon new code is live, and what swaps, a warm start and guests without end do to a host.
//!
//! Reloading is measured from outside: a file is renamed into the scripts folder of a host of its own, and jobs are
//! submitted one after the other until one was answered by the new code. Swaps happen under a steady load, of which no
//! job may fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::drain::{Bench, median};
use super::endless::{self, Endless};
use super::machine::Busy;
use crate::cli::{Failure, print};
use crate::job::{JobState, NewJob, StoreId};
use crate::jumpscript::{Digest, embed_manifest};
use crate::sandbox::{Options, Sandbox};
use crate::store::{self, Store};

/// Where the figures go, from the workspace's root.
pub(super) const FIGURES: &str = "target/bench/reload.json";
/// Replacements of which the median counts.
const REPLACED: usize = 20;
/// Replacements under load.
const SWAPS: usize = 100;
/// Jobs a second meanwhile.
const RATE: u32 = 200;
/// Jumpscripts whose native code lies on disk at the warm start.
const CACHED: usize = 100;
/// Warm starts of which the median counts.
const STARTS: usize = 5;
/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the jobs' type and the file are called.
const NAME: &str = "reloaded";

/// What is written to [`FIGURES`]. Units are in the names.
#[derive(Debug, Serialize)]
pub(super) struct ReloadFigures {
    pub(super) rust_ms_p50: f64,
    pub(super) rust_ms_max: f64,
    /// Only with a jumpscript in JavaScript.
    pub(super) javascript_ms_p50: Option<f64>,
    pub(super) javascript_ms_max: Option<f64>,
    pub(super) swaps: usize,
    pub(super) swap_jobs: usize,
    pub(super) swap_jobs_failed: usize,
    pub(super) warm_start_ms_p50: f64,
    pub(super) warm_start_scripts: usize,
    #[serde(flatten)]
    pub(super) endless: Endless,
    pub(super) others_cores: f64,
}

impl Bench {
    /// All figures. `rust` and `javascript` are jumpscripts that answer anything; `time_outs` is how many attempts are
    /// stopped at their deadline.
    pub(super) async fn reload(
        &self,
        data: &Path,
        rust: &[u8],
        javascript: Option<&[u8]>,
        time_outs: usize,
    ) -> Result<ReloadFigures, Failure> {
        // A name of its own, whatever the manifest inside says.
        let named = |wasm: &[u8]| embed_manifest(wasm, &format!("name = '{NAME}'\n"));
        let (rust, javascript) = (named(rust), javascript.map(named));
        let (busy, redis_before) = (Busy::start(), self.store.server_cpu().await?);
        print::note(&format!("replacing a file {REPLACED} times"));
        let rust_ms = self.replacements(&data.join("rust"), "reload-rust", &rust).await?;
        let javascript_ms = match &javascript {
            Some(wasm) => Some(self.replacements(&data.join("javascript"), "reload-javascript", wasm).await?),
            None => None,
        };
        print::note(&format!("replacing it {SWAPS} times under {RATE} jobs a second"));
        let (swap_jobs, swap_jobs_failed) = self.swaps(&data.join("swaps"), &rust).await?;
        print::note(&format!("starting with {CACHED} jumpscripts on disk"));
        let warm_start_ms_p50 = warm_start(&data.join("warm"), &rust)?;
        print::note(&format!("stopping {time_outs} attempts at their deadlines"));
        let endless = endless::measure(time_outs).await?;
        let max = |ms: &[f64]| ms.iter().copied().fold(0.0, f64::max);
        Ok(ReloadFigures {
            rust_ms_p50: median(rust_ms.iter().copied()),
            rust_ms_max: max(&rust_ms),
            javascript_ms_p50: javascript_ms.as_ref().map(|ms| median(ms.iter().copied())),
            javascript_ms_max: javascript_ms.as_deref().map(max),
            swaps: SWAPS,
            swap_jobs,
            swap_jobs_failed,
            warm_start_ms_p50,
            warm_start_scripts: CACHED,
            endless,
            others_cores: busy.others_cores(self.store.server_cpu().await?.saturating_sub(redis_before)),
        })
    }

    /// Milliseconds from a rename to the first answer of the new code.
    async fn replacements(&self, data: &Path, prefix: &str, wasm: &[u8]) -> Result<Vec<f64>, Failure> {
        let mut scene = Scene::start(self, data, prefix, wasm).await?;
        let mut ms = Vec::with_capacity(REPLACED);
        for n in 0..REPLACED {
            let code = variant(wasm, &format!("{n}"));
            let new = Digest::of(&code);
            let began = scene.put(&code)?;
            while scene.answered_by(&n.to_string()).await? != Some(new) {
                if began.elapsed() > PATIENCE {
                    return Err(Failure::new(format!("replacement {n} was not live within {PATIENCE:?}")));
                }
            }
            ms.push(began.elapsed().as_secs_f64() * 1e3);
        }
        scene.host.kill().await?;
        Ok(ms)
    }

    /// Jobs that were answered while the code changed, and how many of them failed.
    async fn swaps(&self, data: &Path, wasm: &[u8]) -> Result<(usize, usize), Failure> {
        let mut scene = Scene::start(self, data, "reload-swaps", wasm).await?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (store, over) = (scene.store.clone(), Arc::clone(&is_over));
        let producer = tokio::spawn(async move {
            let (mut ids, mut pace) = (Vec::new(), tokio::time::interval(Duration::from_secs(1) / RATE));
            while !over.load(Ordering::Relaxed) {
                pace.tick().await;
                let job = NewJob::new("default", NAME, ids.len().to_string());
                ids.extend(store.enqueue(&[job]).await?.into_iter().map(|enqueued| enqueued.id));
            }
            Ok::<_, store::Error>(ids)
        });
        for n in 0..SWAPS {
            let code = variant(wasm, &format!("{n}"));
            let began = scene.put(&code)?;
            scene.wait_for(Digest::of(&code), began).await?;
        }
        is_over.store(true, Ordering::Relaxed);
        let ids = producer.await.map_err(|error| Failure::new(format!("the producer failed: {error}")))??;
        let mut failed = 0;
        for (n, id) in ids.iter().enumerate() {
            let record = scene.store.wait_final(id, PATIENCE).await?;
            let is_good = record.is_some_and(|record| {
                record.state() == Some(JobState::Done) && record.text("result") == Some(n.to_string())
            });
            failed += usize::from(!is_good);
        }
        scene.host.kill().await?;
        Ok((ids.len(), failed))
    }
}

/// A host with a scripts folder in which one file lies.
struct Scene {
    store: Store,
    host: tokio::process::Child,
    folder: std::path::PathBuf,
}

impl Scene {
    async fn start(bench: &Bench, data: &Path, prefix: &str, wasm: &[u8]) -> Result<Self, Failure> {
        let folder = data.join("scripts");
        std::fs::create_dir_all(&folder)?;
        let arguments = ["--scripts".to_owned(), folder.to_string_lossy().into_owned()];
        let (host, _) = bench.host(&data.join("host"), prefix, arguments, "host ready").await?;
        let options = store::Options {
            url: bench.url.clone(),
            prefix: prefix.to_owned(),
            node_prefix: format!("{prefix}-"),
            ..store::Options::default()
        };
        let scene = Self { store: Store::connect(StoreId::default(), &options).await?, host, folder };
        let (first, began) = (Digest::of(wasm), scene.put(wasm)?);
        scene.wait_for(first, began).await?;
        scene.answered_by("null").await?;
        Ok(scene)
    }

    /// Waits until this code is what jobs are given.
    async fn wait_for(&self, digest: Digest, began: Instant) -> Result<(), Failure> {
        while self.store.route(NAME).await? != Some(digest) {
            if began.elapsed() > PATIENCE {
                return Err(Failure::new(format!("new code was not live within {PATIENCE:?}")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Puts a file into the folder by renaming, and tells when.
    fn put(&self, code: &[u8]) -> Result<Instant, Failure> {
        let draft = self.folder.join("draft.part");
        std::fs::write(&draft, code)?;
        let began = Instant::now();
        std::fs::rename(draft, self.folder.join(format!("{NAME}.wasm")))?;
        Ok(began)
    }

    /// Has a job answered, and tells by which code.
    async fn answered_by(&self, payload: &str) -> Result<Option<Digest>, Failure> {
        let job = NewJob::new("default", NAME, payload);
        let enqueued = self.store.enqueue(&[job]).await?.into_iter().next();
        let id = enqueued.ok_or_else(|| Failure::new("a job was not taken"))?.id;
        let record = self.store.wait_final(&id, PATIENCE).await?;
        let record = record.ok_or_else(|| Failure::new(format!("job {id} has no record")))?;
        if record.state() != Some(JobState::Done) {
            let why = record.text("last_error").unwrap_or_default();
            return Err(Failure::new(format!("job {id} is not done: {why}")));
        }
        Ok(record.digest())
    }
}

/// Code that behaves as `code` and has a digest of its own: a section without meaning at the end says `text`.
fn variant(code: &[u8], text: &str) -> Vec<u8> {
    // Text of a few digits: every length fits one byte.
    let text = &text.as_bytes()[..text.len().min(100)];
    let size = u8::try_from(text.len() + 2).unwrap_or(0);
    [code, &[0, size, 1, b'v'], text].concat()
}

/// Milliseconds from nothing to an engine with all jumpscripts in memory whose native code lies on disk.
fn warm_start(directory: &Path, wasm: &[u8]) -> Result<f64, Failure> {
    std::fs::create_dir_all(directory)?;
    let open = || Sandbox::new(Options { artifacts: Some(directory.join("artifacts")), ..Options::default() });
    let mut digests = Vec::with_capacity(CACHED);
    let cold = open()?;
    for n in 0..CACHED {
        let code = variant(wasm, &n.to_string());
        digests.push(Digest::of(&code));
        cold.load(Digest::of(&code), &code)?;
    }
    drop(cold);
    let mut ms = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let began = Instant::now();
        let sandbox = open()?;
        let loaded = digests.iter().filter(|digest| sandbox.load_artifact(digest).is_some()).count();
        ms.push(began.elapsed().as_secs_f64() * 1e3);
        if loaded != CACHED {
            return Err(Failure::new(format!("{loaded} of {CACHED} jumpscripts came from disk")));
        }
    }
    Ok(median(ms))
}
