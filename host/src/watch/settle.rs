//! When a file has settled: a small table of files in motion, without a clock or a file system of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::index::Stamp;

/// What was seen of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// It is being written, or a scan found it different.
    Written,
    /// A writer closed it.
    Closed,
    /// It was moved to this name, so it is whole.
    Renamed,
}

/// One file in motion.
#[derive(Debug)]
struct Moving {
    hint: Hint,
    /// What lay there at the last look; `None` when nothing did.
    stamp: Option<Stamp>,
    /// When something was last seen to happen.
    since: Instant,
    /// Its writer closes it after every piece, so a close says nothing.
    is_appended: bool,
}

/// The files in motion.
#[derive(Debug)]
pub(super) struct Settling {
    debounce: Duration,
    settle: Duration,
    moving: HashMap<PathBuf, Moving>,
}

impl Settling {
    pub(super) fn new(debounce: Duration, settle: Duration) -> Self {
        Self { debounce, settle, moving: HashMap::new() }
    }

    /// Something was seen of `path`, where `stamp` lies now.
    pub(super) fn hint(&mut self, path: PathBuf, hint: Hint, stamp: Option<Stamp>, now: Instant) {
        match self.moving.get_mut(&path) {
            None => {
                self.moving.insert(path, Moving { hint, stamp, since: now, is_appended: false });
            }
            Some(moving) => {
                if let (Some(before), Some(after)) = (&moving.stamp, &stamp) {
                    moving.is_appended |= hint == Hint::Closed && after.has_grown_since(before);
                }
                moving.hint = hint;
                moving.stamp = stamp;
                moving.since = now;
            }
        }
    }

    /// A scan found `path` different from what was reported; a file that is in motion already keeps its own pace.
    pub(super) fn found(&mut self, path: PathBuf, stamp: Option<Stamp>, since: Instant) {
        self.moving.entry(path).or_insert(Moving { hint: Hint::Written, stamp, since, is_appended: false });
    }

    fn wait(&self, moving: &Moving) -> Duration {
        match (moving.hint, &moving.stamp) {
            (_, None) | (Hint::Renamed, _) => self.debounce,
            (Hint::Closed, _) if !moving.is_appended => self.debounce,
            _ => self.settle,
        }
    }

    /// When the next file may have settled.
    pub(super) fn due(&self) -> Option<Instant> {
        self.moving.values().map(|moving| moving.since + self.wait(moving)).min()
    }

    /// Takes out the files that have settled; `look` says what lies there now. A file that moved unseen since the
    /// last look starts its settle time again.
    pub(super) fn take(
        &mut self,
        now: Instant,
        look: impl Fn(&Path) -> Option<Stamp>,
    ) -> Vec<(PathBuf, Option<Stamp>)> {
        let due: Vec<PathBuf> = self
            .moving
            .iter()
            .filter(|(_, moving)| moving.since + self.wait(moving) <= now)
            .map(|(path, _)| path.clone())
            .collect();
        let mut settled = Vec::new();
        for path in due {
            let stamp = look(&path);
            match self.moving.get_mut(&path) {
                Some(moving) if moving.stamp != stamp => {
                    moving.hint = Hint::Written;
                    moving.stamp = stamp;
                    moving.since = now;
                }
                _ => {
                    self.moving.remove(&path);
                    settled.push((path, stamp));
                }
            }
        }
        settled.sort();
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBOUNCE: Duration = Duration::from_millis(80);
    const SETTLE: Duration = Duration::from_millis(300);

    fn stamp(size: u64) -> Option<Stamp> {
        Some(Stamp { device: 1, inode: 1, size, modified: (0, 0), changed: (0, i64::try_from(size).unwrap()) })
    }

    /// Milliseconds until `path` settles, looking every 10 ms at a file that does not change any more.
    fn settles_after(settling: &mut Settling, start: Instant, last: Option<Stamp>) -> u128 {
        let mut now = start;
        loop {
            if !settling.take(now, |_| last).is_empty() {
                return (now - start).as_millis();
            }
            now += Duration::from_millis(10);
        }
    }

    #[test]
    fn a_rename_and_a_close_settle_after_the_debounce_time() {
        for hint in [Hint::Renamed, Hint::Closed] {
            let start = Instant::now();
            let mut settling = Settling::new(DEBOUNCE, SETTLE);
            settling.hint("a".into(), hint, stamp(1), start);
            assert_eq!(settles_after(&mut settling, start, stamp(1)), 80);
        }
    }

    #[test]
    fn an_open_file_settles_when_unchanged_for_the_settle_time() {
        let start = Instant::now();
        let mut settling = Settling::new(DEBOUNCE, SETTLE);
        settling.hint("a".into(), Hint::Written, stamp(1), start);
        assert_eq!(settles_after(&mut settling, start, stamp(1)), 300);
    }

    #[test]
    fn a_change_that_no_hint_announced_starts_the_time_again() {
        let start = Instant::now();
        let mut settling = Settling::new(DEBOUNCE, SETTLE);
        settling.hint("a".into(), Hint::Closed, stamp(1), start);
        assert_eq!(settles_after(&mut settling, start, stamp(2)), 80 + 300);
    }

    #[test]
    fn a_writer_that_closes_after_every_piece_is_waited_for() {
        let start = Instant::now();
        let mut settling = Settling::new(DEBOUNCE, SETTLE);
        for n in 0..5_u32 {
            let now = start + n * Duration::from_millis(70);
            assert!(settling.take(now, |_| stamp(u64::from(n))).is_empty());
            settling.hint("a".into(), Hint::Closed, stamp(u64::from(n) + 1), now);
        }
        let last = start + 4 * Duration::from_millis(70);
        assert_eq!(settles_after(&mut settling, last, stamp(5)), 300);
    }

    #[test]
    fn a_file_that_went_and_came_back_is_one_change() {
        let start = Instant::now();
        let mut settling = Settling::new(DEBOUNCE, SETTLE);
        settling.hint("a".into(), Hint::Written, None, start);
        settling.hint("a".into(), Hint::Renamed, stamp(1), start + Duration::from_millis(5));
        let settled = settling.take(start + Duration::from_millis(85), |_| stamp(1));
        assert_eq!(settled, [("a".into(), stamp(1))]);
        assert_eq!(settling.due(), None);
    }
}
