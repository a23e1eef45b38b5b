//! The Wasm files and scripts of a folder as candidates, one after the other, each read whole when it has settled.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::{ChangeKind, Options, ReadError, SETTLE, Watcher, read_candidate, wasm_of_manifest, wasm_of_signature};
use crate::jumpscript::{LANGUAGES, Language};
use crate::ports::{Candidate, PublishRule};

/// What became of a file.
#[derive(Clone, Debug)]
pub enum Found {
    /// A whole Wasm file.
    Candidate {
        /// The file.
        path: PathBuf,
        /// What was read of it.
        candidate: Candidate,
        /// [`PublishRule::AbsentOrNewer`] when it lay there at the start, [`PublishRule::Always`] when it changed.
        rule: PublishRule,
    },
    /// A file that cannot become a jumpscript as it is.
    Faulty {
        /// The file.
        path: PathBuf,
        /// Why, for people.
        text: String,
    },
    /// A file that is gone.
    Removed {
        /// Where it was.
        path: PathBuf,
    },
}

/// A file that is to be read.
#[derive(Debug)]
struct Due {
    at: Instant,
    rule: PublishRule,
    /// It ended in the middle at the last look; a second look that finds the same is final.
    was_unfinished: bool,
}

/// A stream of candidates below one or more paths.
#[derive(Debug)]
pub struct Candidates {
    /// The watched paths, absolute.
    roots: Vec<PathBuf>,
    watcher: Watcher,
    due: BTreeMap<PathBuf, Due>,
    removed: Vec<PathBuf>,
}

impl Candidates {
    /// Starts to watch for `.wasm` files, scripts, their manifests and their signatures.
    ///
    /// # Errors
    /// As [`Watcher::new`].
    pub fn new(paths: &[PathBuf], options: Options) -> Result<Self, String> {
        let endings = LANGUAGES.iter().map(|language| language.extension);
        let extensions = ["wasm", "toml", "sig"].into_iter().chain(endings).map(str::to_owned).collect();
        let watcher = Watcher::new(paths, Options { extensions, ..options })?;
        let roots = paths.iter().filter_map(|path| std::path::absolute(path).ok()).collect();
        Ok(Self { roots, watcher, due: BTreeMap::new(), removed: Vec::new() })
    }

    /// What a person should know about the watch.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.watcher.notes()
    }

    /// Asks for `path` once more, after `delay`: Redis was away, or lost everything.
    pub fn again(&mut self, path: &Path, rule: PublishRule, delay: Duration) {
        self.ask(path.to_path_buf(), rule, Instant::now() + delay);
    }

    fn ask(&mut self, path: PathBuf, rule: PublishRule, at: Instant) {
        let due = self.due.entry(path).or_insert(Due { at, rule, was_unfinished: false });
        due.at = due.at.min(at);
        // A change outranks "it lay there": otherwise a restore could swallow a new version.
        if rule == PublishRule::Always {
            due.rule = rule;
        }
    }

    /// The next file; `None` when the watch has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Found> {
        loop {
            if let Some(path) = self.removed.pop() {
                return Some(Found::Removed { path });
            }
            let first = self.due.iter().min_by_key(|(_, due)| due.at).map(|(path, due)| (path.clone(), due.at));
            if let Some((path, at)) = &first
                && *at <= Instant::now()
            {
                if let Some(found) = self.read(path.clone()).await {
                    return Some(found);
                }
                continue;
            }
            // Far away when nothing is due.
            let at = first.map_or_else(|| Instant::now() + Duration::from_secs(3600), |(_, at)| at);
            tokio::select! {
                changes = self.watcher.next() => self.take(changes?),
                () = tokio::time::sleep_until(at) => {}
            }
        }
    }

    fn take(&mut self, changes: Vec<super::Change>) {
        for change in changes {
            let is_manifest = ["toml", "sig"].iter().any(|ending| change.path.extension() == Some(OsStr::new(ending)));
            let rule =
                if change.kind == ChangeKind::Present { PublishRule::AbsentOrNewer } else { PublishRule::Always };
            match (is_manifest, change.kind) {
                (false, ChangeKind::Removed) => {
                    self.due.remove(&change.path);
                    self.removed.push(change.path);
                }
                (false, _) => self.ask(change.path, rule, Instant::now()),
                // Its Wasm file is listed itself.
                (true, ChangeKind::Present) => {}
                (true, _) => {
                    if let Some(wasm) = wasm_of_signature(&change.path).or_else(|| wasm_of_manifest(&change.path)) {
                        self.ask(wasm, rule, Instant::now());
                    }
                }
            }
        }
    }

    /// Whether a file is to be looked at: deeper in a folder a script is a jumpscript only when it has a manifest, because
    /// other programs' files lie there, too.
    fn is_wanted(&self, path: &Path, read: &Result<Candidate, ReadError>) -> bool {
        let Some(language) = Language::of(path) else { return true };
        let is_near = self.roots.iter().any(|root| path == root || path.parent() == Some(root));
        is_near
            || read.as_ref().is_ok_and(|candidate| {
                let text = std::str::from_utf8(&candidate.wasm).unwrap_or_default();
                candidate.manifest.is_some() || language.manifest_in(text).is_some()
            })
    }

    /// Reads a due file. It stays due until it has been read, so that nothing is lost when the caller gives up.
    async fn read(&mut self, path: PathBuf) -> Option<Found> {
        let read = tokio::task::spawn_blocking({
            let path = path.clone();
            move || read_candidate(&path)
        });
        let read = read.await.unwrap_or_else(|error| Err(ReadError::Refused(format!("reading it failed: {error}"))));
        let due = self.due.remove(&path)?;
        if !self.is_wanted(&path, &read) {
            return None;
        }
        match read {
            Ok(candidate) => Some(Found::Candidate { path, candidate, rule: due.rule }),
            Err(ReadError::Unfinished(_)) if !due.was_unfinished => {
                let again = Due { at: Instant::now() + SETTLE, was_unfinished: true, ..due };
                self.due.insert(path, again);
                None
            }
            // It is gone; the watch says so itself.
            Err(_) if !path.exists() => None,
            Err(error) => Some(Found::Faulty { path, text: error.text().to_owned() }),
        }
    }
}
