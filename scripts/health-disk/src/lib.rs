//! Whether the disks of a node are full.
//!
//! The result is a list of JSON objects `{category, message, state, uid}` with the states `OK`, `WARNING` and `ERROR`: what
//! JumpScale's health scripts return. File systems that nothing can be written to have the state `SKIPPED`.
//!
//! Configuration, all optional: `disk.warning_percent` (90) and `disk.error_percent` (95) of space or inodes used, and
//! `disk.mounts`, a list with commas of the mount points that count (all).

use serde::Serialize;
use wasmhost_guest::facts::{self, Disk};
use wasmhost_guest::{Job, JobError, Raw, config};

const CATEGORY: &str = "Disks";
const WARNING_PERCENT: f64 = 90.0;
const ERROR_PERCENT: f64 = 95.0;

/// What is said about one disk.
#[derive(Debug, PartialEq, Serialize)]
struct Message {
    category: &'static str,
    message: String,
    state: &'static str,
    uid: String,
}

#[wasmhost_guest::job]
fn run(_: Job<Raw>) -> Result<Vec<Message>, JobError> {
    let warning = config::parsed("disk.warning_percent")?.unwrap_or(WARNING_PERCENT);
    let error = config::parsed("disk.error_percent")?.unwrap_or(ERROR_PERCENT);
    let mounts = config::get("disk.mounts")?;
    let mounts: Option<Vec<&str>> = mounts.as_ref().map(|text| text.split(',').map(str::trim).collect());
    let disks = facts::disks()?;
    let counts = |mount: &str| mounts.as_ref().is_none_or(|mounts| mounts.contains(&mount));
    let mut messages: Vec<Message> =
        disks.iter().filter(|disk| counts(&disk.mount)).map(|disk| message(disk, warning, error)).collect();
    for mount in mounts.iter().flatten().filter(|mount| !disks.iter().any(|disk| disk.mount == **mount)) {
        let message = format!("nothing on a disk is mounted at {mount}");
        messages.push(Message { category: CATEGORY, message, state: "ERROR", uid: uid(mount) });
    }
    Ok(messages)
}

fn uid(mount: &str) -> String {
    format!("disk:{mount}")
}

fn message(disk: &Disk, warning: f64, error: f64) -> Message {
    let (space, inodes) = (disk.used_percent(), disk.used_inodes_percent());
    let worst = space.max(inodes);
    let state = if disk.is_read_only {
        "SKIPPED"
    } else if worst >= error {
        "ERROR"
    } else if worst >= warning {
        "WARNING"
    } else {
        "OK"
    };
    let gib = disk.available_bytes >> 30;
    let message = format!(
        "{} ({}): {space:.1}% used, {gib} GiB free, {inodes:.1}% of inodes used, limits {warning}% and {error}%",
        disk.mount, disk.device
    );
    Message { category: CATEGORY, message, state, uid: uid(&disk.mount) }
}

#[cfg(test)]
mod tests {
    use wasmhost_guest::facts::Facts;

    use super::*;

    fn disk(mount: &str, available_bytes: u64) -> Disk {
        Disk { mount: mount.to_owned(), total_bytes: 100, available_bytes, ..Disk::default() }
    }

    fn states() -> Vec<(String, &'static str)> {
        run(Job::test(Raw::default())).unwrap().into_iter().map(|said| (said.uid, said.state)).collect()
    }

    fn expected(states: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
        states.iter().map(|(uid, state)| ((*uid).to_owned(), *state)).collect()
    }

    #[test]
    fn a_disk_is_judged_by_its_fullest_part() {
        let full_of_files = Disk { total_inodes: 100, available_inodes: 4, ..disk("/files", 90) };
        let image = Disk { is_read_only: true, ..disk("/image", 0) };
        config::clear();
        facts::set(Facts {
            disks: vec![disk("/", 11), disk("/a", 10), disk("/b", 5), full_of_files, image],
            ..Facts::default()
        });
        let all = [
            ("disk:/", "OK"),
            ("disk:/a", "WARNING"),
            ("disk:/b", "ERROR"),
            ("disk:/files", "ERROR"),
            ("disk:/image", "SKIPPED"),
        ];
        assert_eq!(states(), expected(&all));
    }

    #[test]
    fn limits_and_disks_are_taken_from_the_configuration() {
        config::clear();
        facts::set(Facts { disks: vec![disk("/", 60), disk("/a", 60)], ..Facts::default() });
        config::set("disk.warning_percent", "40");
        config::set("disk.mounts", "/a, /gone");
        assert_eq!(states(), expected(&[("disk:/a", "WARNING"), ("disk:/gone", "ERROR")]));
        config::set("disk.error_percent", "many");
        assert!(run(Job::test(Raw::default())).unwrap_err().message().contains("`disk.error_percent`"));
    }
}
