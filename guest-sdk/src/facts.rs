//! What the node says about itself: disks, memory, load, processes, time since its start, health.
//!
//! ```
//! use wasmhost_guest::{Job, JobError, facts};
//!
//! fn run(_: Job<()>) -> Result<Vec<String>, JobError> {
//!     let full = facts::disks()?.into_iter().filter(|disk| disk.used_percent() >= 90.0);
//!     Ok(full.map(|disk| disk.mount).collect())
//! }
//! # use wasmhost_guest::facts::{Disk, Facts};
//! # let disk = Disk { mount: "/".to_owned(), total_bytes: 100, available_bytes: 5, ..Disk::default() };
//! # facts::set(Facts { disks: vec![disk], ..Facts::default() });
//! # assert_eq!(run(Job::test(())).unwrap(), ["/"]);
//! ```
//!
//! The manifest requests the areas, each by the name of its function:
//!
//! ```toml
//! [permissions]
//! facts = ["disks", "load"]
//! ```
//!
//! On another target than Wasm the facts lie in the memory of the thread: a test of a job function gives them with [`set`].

use std::fmt;

/// Why there is no answer, in the host's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The area is not permitted; the text names the permission.
    Denied(String),
    /// The node cannot say; trying again may help.
    Unreadable(String),
    /// More was asked for than one call may ask.
    Limit(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Denied(text) | Self::Unreadable(text) | Self::Limit(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Error {}

/// A file system that lies on a disk of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// The device, such as `/dev/vda1`.
    pub device: String,
    /// The file system, such as `ext4`.
    pub kind: String,
    /// Its size.
    pub total_bytes: u64,
    /// What a program without privileges can still write.
    pub available_bytes: u64,
    /// Files that it can have; 0 when it has no such limit.
    pub total_inodes: u64,
    /// Files that can still be made.
    pub available_inodes: u64,
    /// Whether nothing can be written.
    pub is_read_only: bool,
}

impl Disk {
    /// How much of it is used or kept for privileged programs, in percent.
    #[must_use]
    pub fn used_percent(&self) -> f64 {
        percent(self.total_bytes, self.available_bytes)
    }

    /// How many of the files that it can have there are, in percent; 0 when it has no such limit.
    #[must_use]
    pub fn used_inodes_percent(&self) -> f64 {
        percent(self.total_inodes, self.available_inodes)
    }
}

/// How much of a total is not available.
fn percent(total: u64, available: u64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let tenths = u128::from(total.saturating_sub(available)) * 1000 / u128::from(total);
    f64::from(u32::try_from(tenths).unwrap_or(1000)) / 10.0
}

/// The memory of the machine, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// All of it.
    pub total_bytes: u64,
    /// What programs can still have without swapping.
    pub available_bytes: u64,
    /// Swap space.
    pub swap_total_bytes: u64,
    /// Swap space that is free.
    pub swap_free_bytes: u64,
}

/// How busy the machine is: processes that run or wait for a disk, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadAverage {
    /// Over the last minute.
    pub one: f64,
    /// Over five minutes.
    pub five: f64,
    /// Over fifteen minutes.
    pub fifteen: f64,
    /// Cores that the host may use.
    pub cores: u32,
}

/// A component of the health hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Its name, such as `disks`.
    pub name: String,
    /// Its last status.
    pub is_well: bool,
    /// When it was checked, in milliseconds since the Unix epoch; 0 when nobody says.
    pub checked_at_ms: u64,
}

/// The file systems on disks of the machine, sorted by where they are mounted.
///
/// # Errors
/// See [`Error`]; so with all that follow.
pub fn disks() -> Result<Vec<Disk>, Error> {
    inner::disks()
}

/// Its memory.
///
/// # Errors
/// See [`Error`].
pub fn memory() -> Result<MemoryUse, Error> {
    inner::memory()
}

/// How busy it is.
///
/// # Errors
/// See [`Error`].
pub fn load() -> Result<LoadAverage, Error> {
    inner::load()
}

/// How many processes there are of each of at most 100 names, in their order. The kernel keeps 15 bytes of a name.
///
/// # Errors
/// See [`Error`].
pub fn processes(names: &[&str]) -> Result<Vec<u32>, Error> {
    inner::processes(names)
}

/// Seconds since its start.
///
/// # Errors
/// See [`Error`].
pub fn uptime() -> Result<u64, Error> {
    inner::uptime()
}

/// The components of the health hashes.
///
/// # Errors
/// See [`Error`].
pub fn health() -> Result<Vec<Component>, Error> {
    inner::health()
}

/// What a test has the node say.
#[cfg(not(target_family = "wasm"))]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// For [`disks`].
    pub disks: Vec<Disk>,
    /// For [`memory`].
    pub memory: MemoryUse,
    /// For [`load`].
    pub load: LoadAverage,
    /// For [`processes`]: one name for each process.
    pub processes: Vec<String>,
    /// For [`uptime`].
    pub uptime: u64,
    /// For [`health`].
    pub health: Vec<Component>,
}

/// Has the node say this to the job functions that this thread tests.
#[cfg(not(target_family = "wasm"))]
pub fn set(facts: Facts) {
    inner::FACTS.set(facts);
}

#[cfg(target_family = "wasm")]
mod inner {
    use super::{Component, Disk, Error, LoadAverage, MemoryUse};
    use crate::contract::wasmhost::jumpscript::facts;

    fn explained(error: facts::FactsError) -> Error {
        match error {
            facts::FactsError::Denied(text) => Error::Denied(text),
            facts::FactsError::Unreadable(text) => Error::Unreadable(text),
            facts::FactsError::Limit(text) => Error::Limit(text),
        }
    }

    pub(super) fn disks() -> Result<Vec<Disk>, Error> {
        let disk = |disk: facts::Disk| Disk {
            mount: disk.mount,
            device: disk.device,
            kind: disk.kind,
            total_bytes: disk.total_bytes,
            available_bytes: disk.available_bytes,
            total_inodes: disk.total_inodes,
            available_inodes: disk.available_inodes,
            is_read_only: disk.is_read_only,
        };
        Ok(facts::disks().map_err(explained)?.into_iter().map(disk).collect())
    }

    pub(super) fn memory() -> Result<MemoryUse, Error> {
        let memory = facts::memory().map_err(explained)?;
        Ok(MemoryUse {
            total_bytes: memory.total_bytes,
            available_bytes: memory.available_bytes,
            swap_total_bytes: memory.swap_total_bytes,
            swap_free_bytes: memory.swap_free_bytes,
        })
    }

    pub(super) fn load() -> Result<LoadAverage, Error> {
        let load = facts::load().map_err(explained)?;
        Ok(LoadAverage { one: load.one, five: load.five, fifteen: load.fifteen, cores: load.cores })
    }

    pub(super) fn processes(names: &[&str]) -> Result<Vec<u32>, Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        facts::processes(&names).map_err(explained)
    }

    pub(super) fn uptime() -> Result<u64, Error> {
        facts::uptime().map_err(explained)
    }

    pub(super) fn health() -> Result<Vec<Component>, Error> {
        let component = |one: facts::Component| Component {
            name: one.name,
            is_well: one.is_well,
            checked_at_ms: one.checked_at_ms,
        };
        Ok(facts::health().map_err(explained)?.into_iter().map(component).collect())
    }
}

#[cfg(not(target_family = "wasm"))]
#[expect(clippy::unnecessary_wraps, reason = "a host may refuse; memory does not")]
mod inner {
    use std::cell::RefCell;

    use super::{Component, Disk, Error, Facts, LoadAverage, MemoryUse};

    thread_local! {
        pub(super) static FACTS: RefCell<Facts> = RefCell::default();
    }

    fn told<T>(of: impl FnOnce(&Facts) -> T) -> Result<T, Error> {
        Ok(FACTS.with_borrow(of))
    }

    pub(super) fn disks() -> Result<Vec<Disk>, Error> {
        told(|facts| facts.disks.clone())
    }

    pub(super) fn memory() -> Result<MemoryUse, Error> {
        told(|facts| facts.memory)
    }

    pub(super) fn load() -> Result<LoadAverage, Error> {
        told(|facts| facts.load)
    }

    pub(super) fn processes(names: &[&str]) -> Result<Vec<u32>, Error> {
        let count = |name: &&str, facts: &Facts| facts.processes.iter().filter(|one| one.as_str() == *name).count();
        told(|facts| names.iter().map(|name| u32::try_from(count(name, facts)).unwrap_or(u32::MAX)).collect())
    }

    pub(super) fn uptime() -> Result<u64, Error> {
        told(|facts| facts.uptime)
    }

    pub(super) fn health() -> Result<Vec<Component>, Error> {
        told(|facts| facts.health.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_what_the_node_is_like() {
        assert_eq!(disks(), Ok(Vec::new()));
        set(Facts { uptime: 7, processes: vec!["redis-server".to_owned(); 2], ..Facts::default() });
        assert_eq!((uptime(), processes(&["sh", "redis-server"])), (Ok(7), Ok(vec![0, 2])));
        assert_eq!(
            (memory(), load(), health()),
            (Ok(MemoryUse::default()), Ok(LoadAverage::default()), Ok(Vec::new()))
        );
    }

    #[test]
    fn shares_are_told_in_tenths_of_a_percent() {
        let disk = |total_bytes, available_bytes| Disk { total_bytes, available_bytes, ..Disk::default() };
        assert!((disk(1000, 1).used_percent() - 99.9).abs() < 0.01);
        assert!(disk(0, 0).used_percent() < 0.01 && disk(u64::MAX, 0).used_percent() > 99.9);
        assert!(disk(1, 1).used_inodes_percent() < 0.01);
    }
}
