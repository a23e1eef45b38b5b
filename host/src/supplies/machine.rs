//! Asks the machine: disks, memory, load, processes, time since its start. What `/proc` says, and the kernel of file systems.
//!
//! Invariant: every answer is bounded, and nothing here waits for another machine: network file systems are not asked.

use std::collections::HashMap;
use std::path::Path;

use crate::facts::{DISKS_MAX, Disk, Load, MemoryUse, PROCESS_NAME_BYTES_MAX};

/// Most processes that are looked at.
const PROCESSES_MAX: usize = 100_000;
/// File systems without a device that lie on a disk all the same.
const OF_DISKS: [&str; 3] = ["overlay", "zfs", "btrfs"];

/// The file systems that lie on disks of this machine, each once, sorted by where they are mounted.
pub(super) fn disks() -> Result<Vec<Disk>, String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("the file systems of the machine cannot be listed: {error}"))?;
    let mut disks = mounted(&mounts);
    disks.retain_mut(|disk| {
        // One that is gone meanwhile, or that the host may not look at.
        let Ok(stat) = rustix::fs::statvfs(disk.mount.as_str()) else { return false };
        disk.total_bytes = stat.f_blocks.saturating_mul(stat.f_frsize);
        disk.available_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        (disk.total_inodes, disk.available_inodes) = (stat.f_files, stat.f_favail);
        disk.is_read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        disk.total_bytes > 0
    });
    disks.truncate(DISKS_MAX);
    Ok(disks)
}

/// What the kernel says is mounted, as far as it lies on a disk: of each device the shortest place.
fn mounted(text: &str) -> Vec<Disk> {
    let mut found: HashMap<&str, Disk> = HashMap::new();
    for line in text.lines() {
        let Some((place, file_system)) = line.split_once(" - ") else { continue };
        let mut place = place.split(' ').skip(2);
        let (Some(number), Some(_root), Some(mount)) = (place.next(), place.next(), place.next()) else { continue };
        let mut file_system = file_system.split(' ');
        let (Some(kind), Some(device)) = (file_system.next(), file_system.next()) else { continue };
        if !device.starts_with('/') && !OF_DISKS.contains(&kind) || device.starts_with("//") || kind.starts_with("fuse")
        {
            continue;
        }
        let disk =
            Disk { mount: unescaped(mount), device: unescaped(device), kind: kind.to_owned(), ..Disk::default() };
        let known = found.entry(number).or_insert_with(|| disk.clone());
        if disk.mount.len() < known.mount.len() {
            *known = disk;
        }
    }
    let mut disks: Vec<Disk> = found.into_values().collect();
    disks.sort_by(|a, b| a.mount.cmp(&b.mount));
    disks
}

/// A path as it is: the kernel writes spaces and the like as `\040`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let code = others.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[3..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The memory of the machine.
pub(super) fn memory() -> Result<MemoryUse, String> {
    let text = std::fs::read_to_string("/proc/meminfo")
        .map_err(|error| format!("the memory of the machine cannot be read: {error}"))?;
    let field = |name: &str| meminfo(&text, name).unwrap_or(0);
    let available = field("MemAvailable");
    Ok(MemoryUse {
        total: field("MemTotal"),
        available: control_group_available().map_or(available, |group| group.min(available)),
        swap_total: field("SwapTotal"),
        swap_free: field("SwapFree"),
    })
}

/// A field of `/proc/meminfo` in bytes.
#[must_use]
pub fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

/// What the control group of this process may still use; files that can be dropped at once count as free.
#[must_use]
pub fn control_group_available() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let names = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
                list if list.split(',').any(|name| name == "memory") => {
                    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                }
                _ => return None,
            };
            group_available(names, path)
        })
        .min()
}

fn group_available((root, limit, usage, inactive): (&str, &str, &str, &str), path: &str) -> Option<u64> {
    // Inside a container the group's own folder is the root of what it sees.
    let base =
        [format!("{root}{path}"), root.to_owned()].into_iter().find(|base| Path::new(base).join(limit).exists())?;
    // `max` (version 2) is no number: no limit.
    let limit = read_number(&format!("{base}/{limit}"))?;
    let used = read_number(&format!("{base}/{usage}"))?;
    let stat = std::fs::read_to_string(format!("{base}/memory.stat")).unwrap_or_default();
    let inactive = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(inactive)))
}

/// The number that a file of the kernel holds.
#[must_use]
pub fn read_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// How busy the machine is.
pub(super) fn load() -> Result<Load, String> {
    let text = std::fs::read_to_string("/proc/loadavg").map_err(|error| error.to_string());
    let averages = text.and_then(|text| averages(&text).ok_or_else(|| "/proc/loadavg has another form".to_owned()));
    let [one, five, fifteen] = averages.map_err(|why| format!("the load of the machine cannot be read: {why}"))?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    Ok(Load { one, five, fifteen, cores })
}

fn averages(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// How long the machine has been running, in seconds.
pub(super) fn uptime() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/uptime").map_err(|error| error.to_string());
    let seconds = text.and_then(|text| {
        let whole = text.split(['.', ' ']).next().unwrap_or_default();
        whole.parse().map_err(|_| "/proc/uptime has another form".to_owned())
    });
    seconds.map_err(|why| format!("the time since the start of the machine cannot be read: {why}"))
}

/// How many processes there are of each name, which the kernel cuts to [`PROCESS_NAME_BYTES_MAX`] bytes.
pub(super) fn processes() -> Result<HashMap<Vec<u8>, u32>, String> {
    let folder = std::fs::read_dir("/proc")
        .map_err(|error| format!("the processes of the machine cannot be counted: {error}"))?;
    let mut counted: HashMap<Vec<u8>, u32> = HashMap::new();
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    for entry in folder.flatten().filter(|entry| is_process(&entry.file_name())).take(PROCESSES_MAX) {
        // One that has ended meanwhile is none.
        let Ok(mut name) = std::fs::read(entry.path().join("comm")) else { continue };
        name.truncate(name.trim_ascii_end().len());
        *counted.entry(name).or_default() += 1;
    }
    Ok(counted)
}

/// How many of the counted processes have a name.
pub(super) fn count_of(counted: &HashMap<Vec<u8>, u32>, name: &str) -> u32 {
    let name = &name.as_bytes()[..name.len().min(PROCESS_NAME_BYTES_MAX)];
    counted.get(name).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_a_disk_is_told_once_and_nothing_else() {
        let text = "21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                    22 21 254:1 /x /bind\\040mount rw - ext4 /dev/vda1 rw\n\
                    23 21 0:5 / /proc rw - proc proc rw\n\
                    24 21 0:6 / /run rw shared:2 - tmpfs tmpfs rw\n\
                    25 21 0:7 / /net rw - nfs4 server:/export rw\n\
                    26 21 0:8 / /win rw - cifs //server/share rw\n\
                    27 21 254:17 / /srv/my\\040data rw master:3 shared:4 - xfs /dev/vdb1 rw\n\
                    28 21 0:9 / /fuse rw - fuse.sshfs /dev/fuse rw\n\
                    29 21 0:10 / /pool rw - zfs pool/data rw\nodd line\n";
        let disks: Vec<_> = mounted(text).into_iter().map(|disk| (disk.mount, disk.device, disk.kind)).collect();
        let disk = |mount: &str, device: &str, kind: &str| (mount.to_owned(), device.to_owned(), kind.to_owned());
        let expected = [
            disk("/", "/dev/vda1", "ext4"),
            disk("/pool", "pool/data", "zfs"),
            disk("/srv/my data", "/dev/vdb1", "xfs"),
        ];
        assert_eq!(disks, expected);
    }

    #[test]
    fn this_machine_answers() {
        let memory = memory().unwrap();
        assert!(memory.total >= memory.available && memory.available > 0, "{memory:?}");
        assert!(load().unwrap().cores >= 1 && uptime().unwrap() > 0);
        assert!(disks().unwrap().iter().all(|disk| disk.total_bytes >= disk.available_bytes));
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(count_of(&processes().unwrap(), own.trim_end()) >= 1, "{own}");
        assert_eq!(averages("0.50 1.25 2.00 1/100 99\n"), Some([0.5, 1.25, 2.0]));
        assert_eq!(averages("nothing"), None);
    }
}
