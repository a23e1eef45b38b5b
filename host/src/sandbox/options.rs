//! What a host decides about its sandbox.

use std::path::PathBuf;
use std::time::Duration;

use super::http::HttpOptions;

/// Linear memory of one job in bytes, all its memories together, when neither host nor manifest says otherwise.
pub const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Host calls of one attempt: one to two seconds of nothing else.
pub const HOST_CALLS_MAX: u64 = 10_000_000;
/// Instances in the pool when the host names no number.
pub const POOL_SIZE: usize = 1000;

/// What a host decides about its sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instances that can live at once; 0 means [`POOL_SIZE`]. Clamped by `vm.max_map_count`.
    pub pool_size: usize,
    /// The most linear memory any job may be given, in bytes; a call can only lower it.
    pub memory_bytes_max: usize,
    /// Calls of the host that one attempt may make; beyond them it is stopped at the next tick.
    pub host_calls_max: u64,
    /// Where native code is kept between starts: a directory of this user alone (mode 0700, made when absent).
    /// `None` keeps it in memory only.
    pub artifacts: Option<PathBuf>,
    /// Who compiles.
    pub compiler: Compiler,
    /// What the compiler may use.
    pub compile_limits: CompileLimits,
    /// Which files run before their optimised code is there.
    pub first_tier: FirstTier,
    /// How much is spent on a second line of defence.
    pub hardening: Hardening,
    /// Whether backtraces name source lines where the code has debug information: for the tools of an author, since it
    /// makes native code twice as large. The environment (`WASMTIME_BACKTRACE_DETAILS`) has no say.
    pub has_source_lines: bool,
    /// Where jumpscripts may send HTTP requests: nowhere by default.
    pub http: HttpOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool_size: 0,
            memory_bytes_max: MEMORY_BYTES_MAX,
            host_calls_max: HOST_CALLS_MAX,
            artifacts: None,
            compiler: Compiler::InProcess,
            compile_limits: CompileLimits::default(),
            first_tier: FirstTier::default(),
            hardening: Hardening::Default,
            has_source_lines: false,
            http: HttpOptions::default(),
        }
    }
}

/// Which files run on code that is made quickly and runs slowly, until the optimised code is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstTier {
    /// Files of at least this many bytes; `usize::MAX` means none.
    pub from_bytes: usize,
    /// Whether the optimised code is then made in the background and takes over. A program that runs one job and ends
    /// has no use for it.
    pub is_optimised: bool,
}

impl Default for FirstTier {
    fn default() -> Self {
        Self { from_bytes: crate::config::FIRST_TIER_KIB as usize * 1024, is_optimised: true }
    }
}

/// Who turns Wasm into native code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// This process: for tests and tools that trust the file.
    InProcess,
    /// A child process under memory, CPU and wall bounds: a hostile file takes down the child only.
    Child {
        /// The program whose command `compile-artifact` calls [`super::compile_artifact`].
        program: PathBuf,
    },
}

/// What a compiler in a child process may use. Compilation is outside the engine's promise about denial of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Memory in bytes.
    pub memory_bytes_max: u64,
    /// CPU time over all its threads, rounded up to whole seconds.
    pub cpu: Duration,
    /// Wall time.
    pub wall: Duration,
}

impl Default for CompileLimits {
    /// A Python interpreter of 18 MB needs a quarter of this.
    fn default() -> Self {
        Self { memory_bytes_max: 2 * 1024 * 1024 * 1024, cpu: Duration::from_secs(120), wall: Duration::from_secs(120) }
    }
}

/// How much is spent on a second line of defence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hardening {
    /// What the engine guarantees: memories and tables are reset between jobs, page by page as the kernel reports what
    /// was written.
    #[default]
    Default,
    /// Native stacks are wiped between jobs too, and memories without asking the kernel which pages were written.
    Strict,
}
