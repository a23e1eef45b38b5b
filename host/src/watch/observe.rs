//! The loop of a watch: notifications and scans in, settled changes out. Runs on its own thread, because looking at
//! files blocks.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::index::{Filter, FolderId, Scan, Stamp, folder_id};
use super::settle::{Hint, Settling};
use super::{Change, ChangeKind, FOLDERS_MAX, Options, POLL};
use crate::clock::Timestamp;

/// How often the watched paths themselves are looked at: a folder that was deleted and made again sends nothing.
const ROOT_CHECK: Duration = Duration::from_millis(500);
/// Longest sleep of the loop; it also bounds how long an abandoned watch lives.
const NAP_MAX: Duration = Duration::from_millis(500);

/// What reaches the loop.
#[derive(Debug)]
pub(super) enum Signal {
    /// A notification.
    Seen(notify::Result<notify::Event>),
    /// The watch is over.
    Stop,
}

/// The state of the loop.
pub(super) struct Observer {
    roots: Vec<PathBuf>,
    filter: Filter,
    settle: Duration,
    /// `None` while polling.
    notifier: Option<RecommendedWatcher>,
    poll: Duration,
    /// Folders with a notification, and which folder it was when it was asked for.
    watched: HashMap<PathBuf, FolderId>,
    settling: Settling,
    /// What was last reported of each file that exists.
    reported: BTreeMap<PathBuf, Stamp>,
    /// What lay there when the watch began and has not been reported yet.
    initial: BTreeMap<PathBuf, Stamp>,
    is_started: bool,
    has_links: bool,
    /// Set where a notification was lost.
    is_scan_due: Arc<AtomicBool>,
    outbox: mpsc::Sender<Vec<Change>>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Observer {
    pub(super) fn new(
        roots: Vec<PathBuf>,
        options: Options,
        signals: SyncSender<Signal>,
        outbox: mpsc::Sender<Vec<Change>>,
        notes: Arc<Mutex<Vec<String>>>,
    ) -> Self {
        let is_scan_due = Arc::new(AtomicBool::new(true));
        let mut observer = Self {
            roots,
            filter: Filter::new(&options),
            settle: options.settle,
            notifier: None,
            poll: options.poll.unwrap_or(POLL),
            watched: HashMap::new(),
            settling: Settling::new(options.debounce, options.settle),
            reported: BTreeMap::new(),
            initial: BTreeMap::new(),
            is_started: false,
            has_links: false,
            is_scan_due: Arc::clone(&is_scan_due),
            outbox,
            notes,
        };
        if options.poll.is_none() {
            let handler = move |seen| {
                if signals.try_send(Signal::Seen(seen)).is_err() {
                    is_scan_due.store(true, Ordering::Relaxed);
                }
            };
            match RecommendedWatcher::new(handler, notify::Config::default()) {
                Ok(notifier) => observer.notifier = Some(notifier),
                Err(error) => observer.fall_back(&error),
            }
        }
        observer
    }

    /// Runs until the watch is over or its last reader has gone.
    pub(super) fn run(mut self, inbox: &Receiver<Signal>) {
        self.scan();
        let mut next_look = Instant::now() + self.rhythm();
        loop {
            let mut due = next_look;
            if let Some(settled) = self.settling.due() {
                due = due.min(settled);
            }
            match inbox.recv_timeout(due.saturating_duration_since(Instant::now()).min(NAP_MAX)) {
                Ok(Signal::Seen(seen)) => {
                    self.take_notice(seen);
                    // A burst is handled at once, so that its scans are one scan.
                    while let Ok(signal) = inbox.try_recv() {
                        match signal {
                            Signal::Seen(seen) => self.take_notice(seen),
                            Signal::Stop => return,
                        }
                    }
                }
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= next_look {
                self.look();
                next_look = Instant::now() + self.rhythm();
            }
            if self.is_scan_due.swap(false, Ordering::Relaxed) {
                self.scan();
            }
            if !self.report() || self.outbox.is_closed() {
                return;
            }
        }
    }

    fn rhythm(&self) -> Duration {
        if self.notifier.is_some() { ROOT_CHECK } else { self.poll }
    }

    fn note(&self, text: String) {
        tracing::warn!(note = text, "file watch degraded");
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Goes on by scanning. Two limits of the kernel lead here, and file systems without notifications.
    fn fall_back(&mut self, error: &notify::Error) {
        let advice = match &error.kind {
            notify::ErrorKind::MaxFilesWatch => "; raise fs.inotify.max_user_watches",
            // EMFILE: this user has as many watchers as allowed.
            notify::ErrorKind::Io(error) if error.raw_os_error() == Some(24) => "; raise fs.inotify.max_user_instances",
            _ => "",
        };
        self.notifier = None;
        self.watched.clear();
        self.is_scan_due.store(true, Ordering::Relaxed);
        self.note(format!(
            "file notifications are not available ({error}), scanning every {:?} instead{advice}",
            self.poll
        ));
    }

    fn take_notice(&mut self, seen: notify::Result<notify::Event>) {
        let event = match seen {
            Ok(event) if !event.need_rescan() => event,
            // Notifications were lost.
            _ => return self.is_scan_due.store(true, Ordering::Relaxed),
        };
        let hint = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Hint::Closed,
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Hint::Renamed,
            // The same event again, as a pair; the single ones came first.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            _ => Hint::Written,
        };
        for path in event.paths {
            if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From))) {
                // The watch of a folder that went is gone with it. One that is made again under the name may be given
                // the same inode and look like the old one, so it is asked for anew whatever the scan finds.
                if self.watched.remove(&path).is_some() {
                    self.is_scan_due.store(true, Ordering::Relaxed);
                }
            }
            let is_reachable = self.roots.iter().any(|root| self.filter.is_reachable(root, &path));
            if !is_reachable {
                continue;
            }
            if self.watched.contains_key(&path) || (self.filter.is_entered(&path) && path.is_dir()) {
                self.is_scan_due.store(true, Ordering::Relaxed);
            } else if self.filter.is_wanted(&path) && self.is_below_a_root(&path) {
                let stamp = Stamp::at(&path);
                self.settling.hint(path, hint, stamp, Instant::now());
            }
        }
    }

    /// A root that is a file is watched through its folder, whose other files do not count.
    fn is_below_a_root(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path == root || (path.starts_with(root) && self.watched.contains_key(root)))
            || self.notifier.is_none()
    }

    /// Looks at what sends no notification: the roots themselves, and the targets of links.
    fn look(&mut self) {
        let is_stale = self.notifier.is_none()
            || self.has_links
            || self.roots.iter().any(|root| {
                let id = folder_id(root);
                id.as_ref() != self.watched.get(root) && (id.is_some() || self.watched.contains_key(root))
            });
        if is_stale {
            self.is_scan_due.store(true, Ordering::Relaxed);
        }
    }

    /// Compares everything that lies there with what was reported.
    fn scan(&mut self) {
        self.is_scan_due.store(false, Ordering::Relaxed);
        let mut scan = Scan::default();
        for root in self.roots.clone() {
            if !root.is_dir()
                && let Some(parent) = root.parent()
            {
                self.ask_for_notifications(if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
            }
            let mut entered = Vec::new();
            // The filter is lent to the scan while the notifier is asked, so it steps out of `self` for a moment.
            let filter = std::mem::replace(&mut self.filter, Filter::new(&Options::default()));
            scan.add(&root, &filter, &mut |folder| {
                self.ask_for_notifications(folder);
                entered.push(folder.to_path_buf());
            });
            self.filter = filter;
        }
        self.watched
            .retain(|folder, _| scan.folders.contains(folder) || !self.roots.iter().any(|r| folder.starts_with(r)));
        if scan.is_cut {
            self.note(format!("more than {FOLDERS_MAX} folders to watch; those beyond are not seen"));
        }
        self.has_links = scan.has_links;
        let now = Instant::now();
        let gone: Vec<PathBuf> = self.reported.keys().filter(|path| !scan.files.contains_key(*path)).cloned().collect();
        for path in gone {
            self.settling.found(path, None, now);
        }
        for (path, stamp) in scan.files {
            if !self.is_started {
                self.initial.insert(path.clone(), stamp);
            }
            if self.reported.get(&path) != Some(&stamp) {
                let since = if self.is_started { now } else { self.last_written(&stamp, now) };
                self.settling.found(path, Some(stamp), since);
            }
        }
    }

    /// When a file that lay there at the start was last written: an old one has settled already.
    fn last_written(&self, stamp: &Stamp, now: Instant) -> Instant {
        let (seconds, nanos) = stamp.modified.max(stamp.changed);
        let written = Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos));
        let age = Timestamp::now().since(written).min(self.settle);
        now.checked_sub(age).unwrap_or(now)
    }

    fn ask_for_notifications(&mut self, folder: &Path) {
        let (Some(notifier), Some(id)) = (&mut self.notifier, folder_id(folder)) else { return };
        if self.watched.get(folder) == Some(&id) {
            return;
        }
        if self.watched.remove(folder).is_some() {
            // The folder of that name was another one; the kernel has dropped its watch, or watches it elsewhere.
            let _ = notifier.unwatch(folder);
        }
        match notifier.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(folder.to_path_buf(), id);
            }
            // It went away meanwhile; the scan will see that too.
            Err(error) if folder_id(folder).is_none() => tracing::debug!(%error, "folder vanished"),
            Err(error) => self.fall_back(&error),
        }
    }

    /// Hands out what has settled; `false` when nobody listens any more.
    fn report(&mut self) -> bool {
        let mut changes = Vec::new();
        for (path, stamp) in self.settling.take(Instant::now(), Stamp::at) {
            let initial = self.initial.remove(&path);
            let before = match stamp {
                Some(stamp) => self.reported.insert(path.clone(), stamp),
                None => self.reported.remove(&path),
            };
            let kind = match (before, stamp) {
                (None, Some(stamp)) if initial == Some(stamp) => ChangeKind::Present,
                (before, Some(stamp)) if before != Some(stamp) => ChangeKind::Changed,
                (Some(_), None) => ChangeKind::Removed,
                _ => continue,
            };
            changes.push(Change { path, kind });
        }
        // The first batch is sent even when empty: it says that the watch stands.
        if changes.is_empty() && self.is_started {
            return true;
        }
        if !self.is_started && !self.initial.is_empty() && changes.is_empty() {
            return true;
        }
        self.is_started = true;
        self.outbox.blocking_send(changes).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_of_the_kernel_leads_to_scans_and_a_note_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let (signals, inbox) = std::sync::mpsc::sync_channel(16);
        let (outbox, mut changes) = mpsc::channel(16);
        let notes = Arc::new(Mutex::new(Vec::new()));
        let options = Options { extensions: vec!["wasm".to_owned()], ..Options::default() };
        let roots = [folder.path().to_path_buf()];
        let mut observer = Observer::new(roots.to_vec(), options, signals.clone(), outbox, Arc::clone(&notes));
        observer.poll = Duration::from_millis(20);
        observer.fall_back(&notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        let thread = std::thread::spawn(move || observer.run(&inbox));
        assert_eq!(changes.recv().await, Some(Vec::new()), "the watch stands");
        let path = folder.path().join("a.wasm");
        std::fs::write(&path, "a").unwrap();
        assert_eq!(changes.recv().await, Some(vec![Change { path, kind: ChangeKind::Changed }]));
        let note = notes.lock().unwrap().join("\n");
        assert!(note.contains("scanning every 20ms") && note.contains("max_user_watches"), "{note}");
        signals.send(Signal::Stop).unwrap();
        thread.join().unwrap();
    }
}
