//! Attempts on this machine that touch no queue: what `exec`, `test` and `jobs replay` have in common.
//!
//! Invariant: nothing that is run here is seen by others: no job, no lease, no effect leaves this process.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::exec::read_file;
use super::{Failure, print};
use crate::config::Config;
use crate::host::shipped_interpreter;
use crate::job::{visible, visible_lines};
use crate::jumpscript::{Digest, Language, Manifest, Source, WASM_BYTES_MAX, embed_manifest};
use crate::permissions::{Ceiling, Granted, Permissions};
use crate::ports::{Candidate, JobSink, Level, Supply};
use crate::sandbox::{Call, Compiler, Finished, FirstTier, HostCalls, Options, Sandbox, Script};
use crate::supplies::Supplies;

/// A sandbox for an author: one instance, backtraces with source lines.
pub(super) struct Local {
    sandbox: Sandbox,
    ceiling: Ceiling,
    supplies: Arc<Supplies>,
}

/// Code that is ready to run.
pub(super) struct Code {
    /// The code.
    pub(super) script: Arc<Script>,
    /// What it may do beyond computing.
    granted: Arc<Granted>,
    /// Bytes of its Wasm file.
    pub(super) wasm_bytes: usize,
    /// How long it took to get it ready: the compiler, mostly.
    pub(super) ready_in: Duration,
}

/// One attempt that has ended.
pub(super) struct Ran {
    /// How, and what it used.
    pub(super) finished: Finished,
    /// What it asked the host for.
    pub(super) calls: HostCalls,
    /// Log lines that were heard.
    pub(super) log_lines: u64,
    /// The most memory it could have had, in bytes.
    pub(super) memory_bytes_max: usize,
}

impl Local {
    /// A sandbox as the configuration says, in which no job gets more than `memory_bytes_max`.
    pub(super) fn new(config: &Config, memory_bytes_max: usize) -> Result<Self, Failure> {
        let http = crate::host::http_options(config);
        let options = Options {
            pool_size: 1,
            memory_bytes_max,
            compiler: Compiler::InProcess,
            // A run or two: whatever code is there soonest.
            first_tier: FirstTier { is_optimised: false, ..FirstTier::default() },
            has_source_lines: true,
            http,
            ..Options::default()
        };
        let supplies = Arc::new(Supplies::new(config.supplies.clone()));
        Ok(Self { sandbox: Sandbox::new(options)?, ceiling: config.ceiling.clone(), supplies })
    }

    /// Compiles a Wasm file, and gives it what the configuration allows of its requests: grants lie in Redis.
    pub(super) fn load(&self, wasm: &[u8]) -> Result<Code, Failure> {
        let start = Instant::now();
        let script = self.sandbox.load(Digest::of(wasm), wasm)?;
        let ready_in = start.elapsed();
        let granted = self.granted(&script)?;
        Ok(Code { script, granted, wasm_bytes: wasm.len(), ready_in })
    }

    /// What code may do here.
    fn granted(&self, script: &Script) -> Result<Arc<Granted>, Failure> {
        let manifest = script.manifest();
        let name = manifest.script_name("unnamed").map_err(Failure::usage)?.to_string();
        let request = &manifest.permissions;
        let mut allowed = self.ceiling.of([name.as_str()]);
        // Its state ends with it, and nobody takes its jobs: these two harm nobody.
        let harmless =
            Permissions { state: request.state.clone(), enqueue: request.enqueue.clone(), ..Permissions::default() };
        allowed.add(&harmless);
        let granted = Granted::of(request, &allowed).map_err(|missing| {
            Failure::new(format!("the jumpscript requests {}, which is not allowed here", missing.in_words()))
                .hint("code of your own: `--allow-requested`; else a table [permissions] in the file of `--config`")
        })?;
        Ok(Arc::new(granted.named(vec![name])))
    }

    /// A file with the manifest beside it: Wasm, or a script on its interpreter.
    pub(super) fn load_candidate(&self, candidate: Candidate, interpreter: Option<&Path>) -> Result<Code, Failure> {
        if let Some(language) = Language::of(Path::new(&candidate.file)) {
            return self.load_text(language, candidate, interpreter);
        }
        let Some(manifest) = &candidate.manifest else { return self.load(&candidate.wasm) };
        Manifest::parse(manifest)
            .map_err(|error| Failure::usage(format!("the manifest of `{}`: {error}", visible(&candidate.file))))?;
        self.load(&embed_manifest(&candidate.wasm, manifest))
    }

    /// The text of a script on its interpreter: the named file, else what ships beside this program.
    fn load_text(
        &self,
        language: &Language,
        candidate: Candidate,
        interpreter: Option<&Path>,
    ) -> Result<Code, Failure> {
        let name = language.interpreter;
        let path = interpreter.map(Path::to_owned).or_else(|| shipped_interpreter(name)).ok_or_else(|| {
            Failure::usage(format!("`{}` needs the interpreter `wasmhost/{name}`", candidate.file)).hint(
                "name its file with --interpreter; `make build` makes it: target/scripts/".to_owned() + name + ".wasm",
            )
        })?;
        let file = Path::new(&candidate.file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = Source::new(language, &file, candidate.wasm, candidate.manifest.as_deref())
            .map_err(|text| Failure::usage(format!("`{}`: {text}", candidate.file)))?;
        self.load_source(&source.encode(), &read_file(&path, WASM_BYTES_MAX)?)
    }

    /// The stored form of a script on its interpreter.
    pub(super) fn load_source(&self, source: &[u8], interpreter: &[u8]) -> Result<Code, Failure> {
        let code = self.load(interpreter)?;
        let script = self.sandbox.link_source(Digest::of(source), source, &code.script)?;
        let granted = self.granted(&script)?;
        Ok(Code { script, granted, wasm_bytes: source.len(), ..code })
    }

    /// Runs one attempt; `listener` hears what it says.
    pub(super) async fn run(&self, code: &Code, call: Call, listener: &Arc<Listener>) -> Ran {
        let memory_bytes_max = call.memory_bytes_max;
        let sink = Arc::clone(listener) as Arc<dyn JobSink>;
        let supply = Some(Arc::clone(&self.supplies) as Arc<dyn Supply>);
        let call = Call { sink, granted: Arc::clone(&code.granted), supply, ..call };
        let (finished, calls) = self.sandbox.run_counted(&code.script, call).await;
        Ran { finished, calls, log_lines: listener.lines.load(Ordering::Relaxed), memory_bytes_max }
    }
}

/// Hears a guest's log and progress.
#[derive(Default)]
pub(super) struct Listener {
    /// Whether it is shown as it comes.
    is_shown: bool,
    lines: AtomicU64,
    said: Mutex<Vec<String>>,
}

impl Listener {
    /// Shows everything on stderr as it comes.
    pub(super) fn shown() -> Arc<Self> {
        Arc::new(Self { is_shown: true, ..Self::default() })
    }

    /// Keeps everything for later.
    pub(super) fn quiet() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The lines that were kept.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hear(&self, line: &str) {
        let line = visible_lines(line);
        if self.is_shown {
            print::note(&line);
        } else {
            self.said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

impl JobSink for Listener {
    fn log(&self, level: Level, context: &str, message: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        let context = if context.is_empty() { String::new() } else { format!(" {context}:") };
        self.hear(&format!("[{}]{context} {message}", level.as_str()));
    }

    fn progress(&self, percent: u8, message: &str) {
        self.hear(&format!("[progress] {percent} % {message}"));
    }
}
