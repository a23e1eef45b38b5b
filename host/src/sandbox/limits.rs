//! What one instance may take, and the typed errors that stop it.
//!
//! Invariant: all memories of an instance together stay under the limit; the first growth over it stops the guest at
//! once, with an error that carries the limit, instead of an allocator's guess about what went wrong.

use wasmtime::ResourceLimiter;

use super::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// The guest asked for more memory than it may have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it asked for {wanted} bytes of memory, {limit} are allowed")]
pub(super) struct MemoryLimit {
    pub(super) limit: usize,
    pub(super) wanted: usize,
}

/// The guest asked for a larger table than it may have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a table of {wanted} elements, at most {TABLE_ELEMENTS_MAX} are allowed")]
pub(super) struct TableLimit {
    wanted: usize,
}

/// A command wrote more to stdout than a result may have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the result on stdout has more than {limit} bytes, the most that is allowed")]
pub(super) struct ResultLimit {
    pub(super) limit: usize,
}

/// The guest called the host more often than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it called the host more than {limit} times, the most that is allowed for one attempt; do more in each call")]
pub(super) struct HostCallLimit {
    pub(super) limit: u64,
}

/// Watches one instance.
#[derive(Debug)]
pub(super) struct Limits {
    memory_bytes_max: usize,
    memory_bytes: usize,
    memory_bytes_peak: usize,
    host_calls_max: u64,
    host_calls: u64,
}

impl Limits {
    pub(super) const fn new(memory_bytes_max: usize, host_calls_max: u64) -> Self {
        Self { memory_bytes_max, memory_bytes: 0, memory_bytes_peak: 0, host_calls_max, host_calls: 0 }
    }

    /// Counts a call of the host. Nothing stops here: a look-up in a linker has no error to give.
    pub(super) const fn count_host_call(&mut self) {
        self.host_calls += 1;
    }

    /// Whether the guest may go on; asked at every tick.
    pub(super) fn check_host_calls(&self) -> Result<(), HostCallLimit> {
        if self.host_calls > self.host_calls_max { Err(HostCallLimit { limit: self.host_calls_max }) } else { Ok(()) }
    }

    /// Most linear memory held at once.
    pub(super) const fn memory_bytes_peak(&self) -> usize {
        self.memory_bytes_peak
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_bytes_max {
            return Err(MemoryLimit { limit: self.memory_bytes_max, wanted }.into());
        }
        self.memory_bytes = wanted;
        self.memory_bytes_peak = self.memory_bytes_peak.max(wanted);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The module's own maximum, or the slot: the guest is told -1 by the instruction, and nothing was added.
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX { Err(TableLimit { wanted: desired }.into()) } else { Ok(true) }
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize + 1
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_count_together() {
        let mut limits = Limits::new(100, 0);
        assert!(limits.memory_growing(0, 60, None).unwrap());
        assert!(limits.memory_growing(0, 40, None).unwrap());
        let error = limits.memory_growing(60, 61, None).unwrap_err();
        assert_eq!(error.downcast_ref::<MemoryLimit>().unwrap().limit, 100);
        assert_eq!(limits.memory_bytes_peak(), 100);
    }
}
