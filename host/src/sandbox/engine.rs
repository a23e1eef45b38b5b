//! The settings of the engine: what makes a fresh instance cheap, and what it may never do.
//!
//! Invariant: everything that changes the native code is in [`code_config`], which the compiler in a child process
//! shares; the environment changes nothing. Sizes of the pool are in [`Pool`] and change no code.
//!
//! Measured on the shipped `echo`, p50 of a fresh instance: engine defaults 48 µs, pooling with its defaults 25 µs,
//! these settings 6 µs.

use std::fs;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy, WasmBacktraceDetails,
};

use super::error::Error;
use super::options::{Hardening, Options, POOL_SIZE};

/// Most core instances in one component: `componentize-py` makes 38.
pub const CORE_INSTANCES_MAX: u32 = 64;
/// Most tables in one component.
pub const TABLES_MAX: u32 = 64;
/// Most linear memories in one component.
pub const MEMORIES_MAX: u32 = 4;
/// Most elements of one table.
pub const TABLE_ELEMENTS_MAX: usize = 10_000;
/// Frames of a guest's backtrace.
const BACKTRACE_FRAMES_MAX: usize = 24;
/// What one suspended job needs of `vm.max_map_count`: four mappings and two for its stack.
pub const MAPS_PER_INSTANCE: u64 = 6;
/// Mappings for everything else in the process.
pub const MAPS_FOR_THE_REST: u64 = 2_000;
/// Address space of one memory: at 4 GiB compiled code needs no bounds checks.
const MEMORY_RESERVATION: u64 = 4 << 30;
/// Bytes of a memory that stay mapped between jobs when the kernel tells which pages were written.
const KEEP_SCANNED: usize = 1 << 20;
/// Bytes that stay mapped when they must be wiped blindly: what a guest with a small stack has.
const KEEP_WIPED: usize = 128 << 10;
/// Bytes of a table that stay mapped, wiped as far as it was used: all there are. A component has several tiny ones, each
/// otherwise a system call, and Python's large one would be mapped anew page by page.
const KEEP_TABLE: usize = TABLE_ELEMENTS_MAX * size_of::<usize>();
/// Bytes of a native stack that are wiped in place under [`Hardening::Strict`].
const KEEP_STACK: usize = 64 << 10;

/// An engine with its pool, and what had to be said about this machine.
pub(super) struct Pool {
    pub(super) engine: Engine,
    pub(super) size: usize,
    /// Address space of one memory in bytes; the compiler must be told.
    pub(super) memory_reservation: u64,
    pub(super) notes: Vec<String>,
}

impl Pool {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        wasmtime::error::disable_backtrace();
        let mut notes = Vec::new();
        let wanted = if options.pool_size == 0 { POOL_SIZE } else { options.pool_size };
        let size = clamp_pool(wanted, max_map_count(), options.pool_size == 0, &mut notes)?;
        // Strict trusts no report about which pages were written: what stays mapped is wiped whole.
        let scan = options.hardening == Hardening::Default && may_scan_pages(&mut notes);
        let make = |reservation| {
            let mut config = code_config(reservation, options.has_source_lines, Tier::Optimised);
            if options.hardening == Hardening::Strict {
                config.async_stack_zeroing(true);
            }
            let pooling = pooling(size, reservation, scan, options.hardening);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
            Engine::new(&config)
        };
        if let Ok(engine) = make(MEMORY_RESERVATION) {
            return Ok(Self { engine, size, memory_reservation: MEMORY_RESERVATION, notes });
        }
        // A machine with little address space (a container with `ulimit -v`, 39-bit kernels): smaller slots, slower code.
        let small = options.memory_bytes_max as u64;
        let engine = make(small).map_err(|error| {
            Error::host(
                format!("the address space of this process is too small for {size} instances: {}", error.root_cause()),
                "lower `sandbox.pool`, or raise the limit of virtual memory (`ulimit -v unlimited`)",
            )
        })?;
        notes.push(format!(
            "the address space is small: each memory reserves {} MiB instead of 4 GiB, and guests check every access",
            small >> 20
        ));
        Ok(Self { engine, size, memory_reservation: small, notes })
    }
}

/// Which compiler made native code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The quick one (Winch): an eighth of the time for a large file, and code that takes about twice as long.
    First,
    /// The optimising one (Cranelift).
    Optimised,
}

/// An engine for code of the first tier. Native code of the two compilers cannot share an engine. It allocates on
/// demand: what runs here does so until its optimised code is there, and a second pool would double the address space.
pub(super) fn first_tier(options: &Options, memory_reservation: u64) -> Result<Engine, Error> {
    let mut config = code_config(memory_reservation, options.has_source_lines, Tier::First);
    if options.hardening == Hardening::Strict {
        config.async_stack_zeroing(true);
    }
    Engine::new(&config).map_err(|error| Error::host(format!("no first tier on this machine: {error:#}"), ""))
}

/// Everything that changes the native code. An artifact made by one engine with this configuration runs in another.
pub(super) fn code_config(memory_reservation: u64, has_source_lines: bool, tier: Tier) -> Config {
    let mut config = Config::new();
    let details = if has_source_lines { WasmBacktraceDetails::Enable } else { WasmBacktraceDetails::Disable };
    config.strategy(match tier {
        Tier::First => Strategy::Winch,
        Tier::Optimised => Strategy::Cranelift,
    });
    config
        // Costs a quarter of an instantiation, and only guests of WASI 0.3 need it; those are refused.
        .concurrency_support(false)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .memory_reservation(memory_reservation)
        // Never from the environment: WASMTIME_BACKTRACE_DETAILS would change the fingerprint of the artifacts.
        .wasm_backtrace_details(details)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES_MAX))
        // Proposals that no supported toolchain needs are attack surface.
        .wasm_threads(false)
        .shared_memory(false)
        .wasm_function_references(false)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .wasm_memory64(false)
        .gc_support(false);
    config
}

fn pooling(size: usize, reservation: u64, scan: bool, hardening: Hardening) -> PoolingAllocationConfig {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    // A component brings several core instances and tables. Small pools still hold one of the largest kind.
    let several = |each: u32, least: u32| size.saturating_mul(each).max(least);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(size)
        .total_core_instances(several(8, CORE_INSTANCES_MAX))
        .total_stacks(size)
        .total_memories(several(if size <= 1_000 { 4 } else { 1 }, MEMORIES_MAX))
        .total_tables(several(6, TABLES_MAX))
        .total_gc_heaps(0)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_memory_size(usize::try_from(reservation).unwrap_or(usize::MAX))
        .table_keep_resident(KEEP_TABLE)
        .linear_memory_keep_resident(if scan { KEEP_SCANNED } else { KEEP_WIPED })
        .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No });
    if hardening == Hardening::Strict {
        pool.async_stack_keep_resident(KEEP_STACK);
    }
    pool
}

/// How many instances fit `vm.max_map_count`. A pool that was asked for and does not fit even one instance is refused.
fn clamp_pool(wanted: usize, maps: u64, is_default: bool, notes: &mut Vec<String>) -> Result<usize, Error> {
    let fits = usize::try_from(maps.saturating_sub(MAPS_FOR_THE_REST) / MAPS_PER_INSTANCE).unwrap_or(usize::MAX);
    if fits == 0 {
        return Err(Error::host(
            format!("vm.max_map_count is {maps}, which leaves no room for a sandbox"),
            "raise it: sysctl -w vm.max_map_count=65530",
        ));
    }
    if wanted > fits && !is_default {
        let needed = wanted as u64 * MAPS_PER_INSTANCE + MAPS_FOR_THE_REST;
        notes.push(format!(
            "the pool has {fits} instances instead of {wanted}: vm.max_map_count is {maps}; \
             for {wanted} run `sysctl -w vm.max_map_count={needed}`"
        ));
    }
    Ok(wanted.min(fits))
}

fn max_map_count() -> u64 {
    // Where the file is missing (not Linux) there is no such limit.
    fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX)
}

/// Whether the kernel may be asked which pages of a memory were written (`PAGEMAP_SCAN`).
fn may_scan_pages(notes: &mut Vec<String>) -> bool {
    let reason = if has_swap(&fs::read_to_string("/proc/swaps").unwrap_or_default()) {
        // In wasmtime 48 a page that was swapped out can look clean (bytecodealliance/wasmtime PR 14357).
        "swap is on"
    } else if kernel_version(rustix::system::uname().release().to_str().unwrap_or_default()) < (6, 7) {
        "the kernel is older than 6.7"
    } else if !PoolingAllocationConfig::is_pagemap_scan_available() {
        "the kernel does not offer PAGEMAP_SCAN to this process"
    } else {
        return true;
    };
    notes.push(format!(
        "{reason}: memories are wiped whole instead of page by page; guests with a stack over 64 KiB start slower"
    ));
    false
}

fn has_swap(proc_swaps: &str) -> bool {
    proc_swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_does_not_fit_is_clamped_and_says_what_it_would_take() {
        let mut notes = Vec::new();
        assert_eq!(clamp_pool(20_000, 65_530, false, &mut notes), Ok(10_588));
        assert!(notes[0].contains("vm.max_map_count=122000"), "{notes:?}");
        assert_eq!(clamp_pool(100, 65_530, false, &mut notes), Ok(100));
        assert_eq!(notes.len(), 1);
        assert!(clamp_pool(1, 2_003, false, &mut notes).is_err());
    }

    #[test]
    fn strict_wipes_more_and_asks_no_kernel() {
        let settings = |scan, hardening| format!("{:?}", pooling(4, MEMORY_RESERVATION, scan, hardening));
        let (default, strict) = (settings(true, Hardening::Default), settings(false, Hardening::Strict));
        assert!(default.contains("async_stack_keep_resident: 0"), "{default}");
        assert!(strict.contains(&format!("async_stack_keep_resident: {KEEP_STACK}")), "{strict}");
        assert!(default.contains("pagemap_scan: Yes") && strict.contains("pagemap_scan: No"), "{strict}");
        // The kernel is not even asked, so nothing is said about it.
        let pool = Pool::new(&Options { pool_size: 4, hardening: Hardening::Strict, ..Options::default() }).unwrap();
        assert_eq!(pool.notes, Vec::<String>::new());
    }

    #[test]
    fn swap_and_old_kernels_are_seen() {
        assert!(!has_swap("Filename\t\t\t\tType\t\tSize\n"));
        assert!(has_swap("Filename Type Size\n/dev/sda2 partition 1000 0 -2\n"));
        assert_eq!(kernel_version("6.18.44-fc-v657"), (6, 18));
        assert!(kernel_version("5.15.0-generic") < (6, 7));
    }

    #[test]
    fn the_compilers_engine_makes_code_for_the_pools() {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let hash = |engine: &Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let compiler =
            |reservation, has_lines| Engine::new(&code_config(reservation, has_lines, Tier::Optimised)).unwrap();
        for has_source_lines in [false, true] {
            let options = Options { pool_size: 4, has_source_lines, ..Options::default() };
            let pool = Pool::new(&options).unwrap();
            let same = hash(&compiler(pool.memory_reservation, has_source_lines));
            assert_eq!(hash(&pool.engine), same);
            // Artifacts serve a host before and after its hardening was changed.
            let strict = Options { hardening: Hardening::Strict, ..options };
            assert_eq!(hash(&Pool::new(&strict).unwrap().engine), same);
            // Those without source lines are absent for an engine that reads them, and the other way round.
            assert_ne!(hash(&pool.engine), hash(&compiler(pool.memory_reservation, !has_source_lines)));
        }
    }
}
