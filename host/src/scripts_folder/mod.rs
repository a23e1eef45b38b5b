//! Publishes the Wasm files and scripts of a folder: a file that is dropped there is deployed.
//!
//! A file is published when it *changes*. What lies there when the host starts is published only when its name is
//! absent or its version higher: a node that comes back with an old folder must not roll the fleet back. Deleting a
//! file does not unpublish it: other nodes and queued jobs may still need it (`wasmhost scripts rm` does).
//!
//! Invariant: a file is validated whole before anything is published, so a half-written or broken file leaves the
//! live code as it is and shows in [`State::faults`]; every fault names its file and goes away with it.
//!
//! Next: `watch` for when a file counts as settled, `ports::Publisher` for what publishing means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch as channel};

use crate::jumpscript::{Digest, Language, ScriptName};
use crate::ports::{Candidate, PublishError, PublishRule, Publisher};
use crate::watch::{Candidates, Found, Options};

/// Time before a publish is tried again when Redis was away.
pub const RETRY: Duration = Duration::from_millis(500);

/// What the folder looks like, for the health page. Handed to [`Params::on_state`] after each change of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The jumpscripts that the folder's files stand for, with the digest that is live under each name.
    pub live: BTreeMap<ScriptName, Digest>,
    /// What is wrong, by file: health is amber while this is not empty. Code published before stays live.
    pub faults: BTreeMap<PathBuf, String>,
    /// Why files wait to be published: Redis is away.
    pub waiting: Option<String>,
    /// How the watch is degraded, for example that it has to poll.
    pub notes: Vec<String>,
}

/// What the service needs.
pub struct Params {
    /// The folder; what lies below it counts too.
    pub folder: PathBuf,
    /// Who publishes.
    pub publisher: Arc<dyn Publisher>,
    /// Told about every new state; must not block.
    pub on_state: Arc<dyn Fn(&State) + Send + Sync>,
    /// How to watch.
    pub options: Options,
}

/// Asks a running [`ScriptsFolder`] to publish what is absent: Redis lost its data.
#[derive(Clone, Debug)]
pub struct Restore(Arc<Notify>);

impl Restore {
    /// Returns at once; two calls in a row may be one.
    pub fn restore(&self) {
        self.0.notify_one();
    }
}

/// The file that stands for a name, and what is live under it.
#[derive(Debug)]
struct Owner {
    path: PathBuf,
    live: Digest,
}

/// The service; see the module's head.
pub struct ScriptsFolder {
    params: Params,
    candidates: Candidates,
    restore: Arc<Notify>,
    owners: BTreeMap<ScriptName, Owner>,
    faults: BTreeMap<PathBuf, String>,
    waiting: Option<String>,
    told: State,
}

impl ScriptsFolder {
    /// Starts to watch the folder; nothing is published before [`ScriptsFolder::run`].
    ///
    /// # Errors
    /// A text that names the folder when it does not exist, is not a folder or cannot be read.
    pub fn new(params: Params) -> Result<Self, String> {
        let folder = &params.folder;
        let metadata = std::fs::metadata(folder)
            .map_err(|error| format!("the scripts folder `{}` cannot be used: {error}", folder.display()))?;
        if !metadata.is_dir() {
            return Err(format!("the scripts folder `{}` is not a folder", folder.display()));
        }
        let candidates = Candidates::new(std::slice::from_ref(folder), params.options.clone())?;
        Ok(Self {
            params,
            candidates,
            restore: Arc::new(Notify::new()),
            owners: BTreeMap::new(),
            faults: BTreeMap::new(),
            waiting: None,
            told: State::default(),
        })
    }

    /// The handle that asks for a restore.
    #[must_use]
    pub fn restorer(&self) -> Restore {
        Restore(Arc::clone(&self.restore))
    }

    /// Publishes until `shutdown` becomes true. A publish under way is given up: it happened or it did not.
    pub async fn run(mut self, mut shutdown: channel::Receiver<bool>) {
        tokio::select! {
            // An error means that the sender is gone, which is a shutdown too.
            _ = shutdown.wait_for(|is_down| *is_down) => {}
            () = self.publish_changes() => {}
        }
    }

    async fn publish_changes(&mut self) {
        let restore = Arc::clone(&self.restore);
        loop {
            tokio::select! {
                found = self.candidates.next() => match found {
                    Some(found) => self.take(found).await,
                    None => {
                        tracing::error!(folder = %self.params.folder.display(), "file watch ended");
                        let text = "the watch of this folder ended; restart the host".to_owned();
                        self.faults.insert(self.params.folder.clone(), text);
                        self.tell();
                        return;
                    }
                },
                () = restore.notified() => {
                    for owner in self.owners.values() {
                        self.candidates.again(&owner.path, PublishRule::AbsentOrNewer, Duration::ZERO);
                    }
                }
            }
            self.tell();
        }
    }

    async fn take(&mut self, found: Found) {
        match found {
            Found::Candidate { path, candidate, rule } => self.publish(path, candidate, rule).await,
            Found::Faulty { path, text } => self.refuse(path, text),
            Found::Removed { path } => self.forget(&path),
        }
    }

    async fn publish(&mut self, path: PathBuf, candidate: Candidate, rule: PublishRule) {
        match self.params.publisher.publish(candidate, rule).await {
            Ok(published) => {
                let (file, script) = (path.display(), &published.name);
                let (live, version) = (published.digest.short(), &published.version);
                if published.is_new {
                    tracing::info!(%file, %script, digest = live, version, "jumpscript published");
                } else if published.is_live {
                    tracing::info!(%file, %script, digest = live, version, "jumpscript already live");
                } else {
                    tracing::warn!(%file, %script, digest = live, version, "other code stays live, the file is not newer");
                }
                self.waiting = None;
                self.faults.remove(&path);
                self.claim(path, published.name, published.digest);
                if published.is_new {
                    self.ask_for_texts();
                }
            }
            Err(PublishError::Refused(text)) => self.refuse(path, text),
            Err(PublishError::Unavailable(text)) => {
                if self.waiting.is_none() {
                    tracing::warn!(error = text, "jumpscript publish postponed");
                }
                self.waiting = Some(text);
                self.candidates.again(&path, rule, RETRY);
            }
        }
    }

    /// Notes that `path` stands for `name`. Two files of one name replace each other at every change, so that is a
    /// fault, although one of the two is live.
    fn claim(&mut self, path: PathBuf, name: ScriptName, live: Digest) {
        self.owners.retain(|other, owner| *other == name || owner.path != path);
        if let Some(owner) = self.owners.get(&name)
            && owner.path != path
            && owner.path.exists()
        {
            let (file, other) = (path.display(), owner.path.display());
            let text = format!(
                "`{file}` and `{other}` both are jumpscript `{name}`; rename one or give it a manifest with another name"
            );
            self.refuse(path.clone(), text);
        }
        self.owners.insert(name, Owner { path, live });
    }

    /// What was published may be the interpreter that a text has waited for.
    fn ask_for_texts(&mut self) {
        for path in self.faults.keys().filter(|path| Language::of(path).is_some()) {
            self.candidates.again(path, PublishRule::AbsentOrNewer, Duration::ZERO);
        }
    }

    fn refuse(&mut self, path: PathBuf, text: String) {
        tracing::warn!(file = %path.display(), error = text, "file refused");
        self.faults.insert(path, text);
    }

    fn forget(&mut self, path: &Path) {
        tracing::info!(file = %path.display(), "file removed, its jumpscript stays published");
        self.faults.remove(path);
        self.owners.retain(|_, owner| owner.path != path);
        // The removed file may have been the other of two with one name.
        let faulty: Vec<PathBuf> = self.faults.keys().cloned().collect();
        for path in faulty {
            self.candidates.again(&path, PublishRule::Always, Duration::ZERO);
        }
    }

    fn tell(&mut self) {
        let live = self.owners.iter().map(|(name, owner)| (name.clone(), owner.live)).collect();
        let state =
            State { live, faults: self.faults.clone(), waiting: self.waiting.clone(), notes: self.candidates.notes() };
        if state != self.told {
            (self.params.on_state)(&state);
            self.told = state;
        }
    }
}
