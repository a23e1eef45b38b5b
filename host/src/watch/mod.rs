//! Files that changed and have settled: the adapter of the file system's notifications.
//!
//! A notification is only a hint to look: what is reported comes from comparing what lies there (device, inode, size,
//! times) with what lay there at the last report. So lost notifications, renamed folders, links and file systems
//! without notifications all end in the same place, a scan.
//!
//! Invariant: a file is reported only when it exists whole as far as the file system can tell: after a rename or a
//! close that stayed quiet for the debounce time, or unchanged for the settle time. Nothing below an ignored folder is
//! reported.
//!
//! Next: `settle` for the rule, `observe` for the loop, `candidates` for the Wasm files of a folder.

mod candidate;
mod candidates;
mod index;
mod observe;
mod settle;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::time::Duration;

use tokio::sync::mpsc;

pub use candidate::{
    ReadError, manifest_beside, read_candidate, signature_beside, wasm_of_manifest, wasm_of_signature,
};
pub use candidates::{Candidates, Found};

/// Quiet time after a close or a rename before a file is reported.
pub const DEBOUNCE: Duration = Duration::from_millis(80);
/// A file that was neither closed nor renamed is reported when it has not changed for this long.
pub const SETTLE: Duration = Duration::from_millis(300);
/// Time between two scans where notifications cannot be had.
pub const POLL: Duration = Duration::from_millis(500);
/// Folders that are never looked into: version control, dependencies, build output. Hidden folders come on top.
pub const IGNORED_FOLDERS: [&str; 6] = ["target", "node_modules", "dist", "build", "__pycache__", "venv"];
/// Most folders below one watched path; what lies beyond is not seen, and a note says so.
pub const FOLDERS_MAX: usize = 10_000;

/// What to watch for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only files with these endings (without the dot); empty: every file that is not an editor's scratch file.
    pub extensions: Vec<String>,
    /// Names of folders that are not looked into, beside hidden ones.
    pub ignored_folders: Vec<String>,
    /// Quiet time after a close or a rename.
    pub debounce: Duration,
    /// Quiet time of a file that was neither closed nor renamed.
    pub settle: Duration,
    /// Scan in this rhythm instead of asking for notifications.
    pub poll: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            extensions: Vec::new(),
            ignored_folders: IGNORED_FOLDERS.map(str::to_owned).to_vec(),
            debounce: DEBOUNCE,
            settle: SETTLE,
            poll: None,
        }
    }
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It lay there when the watch began, and has not changed since.
    Present,
    /// It is new or different.
    Changed,
    /// It is gone.
    Removed,
}

/// One settled change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file, as an absolute path below the watched one.
    pub path: PathBuf,
    /// What happened.
    pub kind: ChangeKind,
}

/// Watches files and folders until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    changes: mpsc::Receiver<Vec<Change>>,
    signals: std_mpsc::SyncSender<observe::Signal>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Watcher {
    /// Starts to watch. Folders are watched with everything below them. The first batch of changes lists what lies
    /// there already, as [`ChangeKind::Present`].
    ///
    /// # Errors
    /// A text that names the path when one does not exist or cannot be read.
    pub fn new(paths: &[PathBuf], options: Options) -> Result<Self, String> {
        for path in paths {
            std::fs::metadata(path).map_err(|error| format!("cannot watch `{}`: {error}", path.display()))?;
        }
        // Notifications name absolute paths, whatever was asked for; they must meet those of the scans.
        let paths: Vec<PathBuf> = paths.iter().map(std::path::absolute).collect::<Result<_, _>>().map_err(no_here)?;
        // Room for a burst; what does not fit sets a flag that means "scan everything".
        let (signals, inbox) = std_mpsc::sync_channel(4096);
        let (outbox, changes) = mpsc::channel(16);
        let notes = Arc::new(Mutex::new(Vec::new()));
        let observer = observe::Observer::new(paths, options, signals.clone(), outbox, Arc::clone(&notes));
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || observer.run(&inbox))
            .map_err(|error| format!("cannot start the thread that watches files: {error}"))?;
        Ok(Self { changes, signals, notes })
    }

    /// The next batch of settled changes, sorted by path; empty batches do not occur except for the first, which
    /// says that everything present was listed. `None` when the watch has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<Change>> {
        self.changes.recv().await
    }

    /// What a person should know about this watch, for example that it has to poll. Grows while it runs.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The text when a relative path cannot be made absolute.
fn no_here(error: std::io::Error) -> String {
    format!("the current folder cannot be told: {error}; name an absolute path")
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // A full channel is no loss: the thread also ends when its next report finds nobody.
        let _ = self.signals.try_send(observe::Signal::Stop);
    }
}
