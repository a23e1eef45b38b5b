//! What a node tells jumpscripts about itself: the words for it.
//!
//! Next: `supplies/machine.rs` for how the machine is asked, `sandbox/supply.rs` for how guests ask.

/// What `[permissions] facts` can name.
pub const FACT_AREAS: [&str; 6] = ["disks", "memory", "load", "processes", "uptime", "health"];
/// Most file systems that are told.
pub const DISKS_MAX: usize = 100;
/// Most names of processes that are counted in one call.
pub const PROCESS_NAMES_MAX: usize = 100;
/// Longest name of a process in bytes: the kernel keeps no more.
pub const PROCESS_NAME_BYTES_MAX: usize = 15;
/// Most components of the health hashes that are told.
pub const COMPONENTS_MAX: usize = 1_000;

/// A file system of the machine that lies on a disk of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted; of several places the shortest.
    pub mount: String,
    /// The device, such as `/dev/vda1`, or the word of the file system.
    pub device: String,
    /// The file system, such as `ext4`.
    pub kind: String,
    /// Its size in bytes.
    pub total_bytes: u64,
    /// Bytes that a program without privileges can still write.
    pub available_bytes: u64,
    /// Files that it can have; 0 when it has no such limit.
    pub total_inodes: u64,
    /// Files that can still be made.
    pub available_inodes: u64,
    /// Whether nothing can be written.
    pub is_read_only: bool,
}

/// The memory of the machine, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// All of it.
    pub total: u64,
    /// What programs can still have without swapping; that of the host's control group when it is less.
    pub available: u64,
    /// Swap space.
    pub swap_total: u64,
    /// Swap space that is free.
    pub swap_free: u64,
}

/// How busy the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Processes that run or wait for a disk, over the last minute.
    pub one: f64,
    /// The same over five minutes.
    pub five: f64,
    /// The same over fifteen minutes.
    pub fifteen: f64,
    /// Cores that the host may use.
    pub cores: u32,
}

/// A component of the health hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Its name, such as `disks` or `redis:6379`.
    pub name: String,
    /// Its last status.
    pub is_well: bool,
    /// When it was checked, in milliseconds since the Unix epoch; 0 when nobody says.
    pub checked_at_ms: u64,
}
