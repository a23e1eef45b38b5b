//! The development loop: build, publish, say so.
//!
//! A folder with a `Cargo.toml`, or with a `jumpscript.toml` that has a `[build]` table, is a project: it is built for
//! Wasm when one of its files changes. Other `.wasm` files are published as they are. Unlike a scripts folder, this loop
//! always publishes, whatever version is live.
//!
//! Invariant: a build that fails and a file that is refused leave the live code as it is. What happens is told as
//! [`Event`]s; nothing is printed here.
//!
//! Next: `build` for the compiler, `watch` for when a file counts as settled.

mod build;
mod command;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;

pub use self::build::{Artifact, For, Project, build, find_projects};
use crate::jumpscript::{Digest, MANIFEST_FILE, ScriptName};
use crate::ports::{Candidate, PublishError, PublishRule, Publisher};
use crate::watch::{Candidates, ChangeKind, Found, Options, Watcher, read_candidate};

/// Time before a publish is tried again when Redis was away.
pub const RETRY: Duration = Duration::from_millis(500);

/// What happened, for the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The loop stands.
    Watching {
        /// The folder.
        folder: PathBuf,
        /// The projects found in it.
        projects: Vec<String>,
    },
    /// A build began.
    Building {
        /// The project.
        project: String,
    },
    /// A build failed; the code published before stays live.
    BuildFailed {
        /// The project.
        project: String,
        /// The compiler's own words.
        text: String,
        /// How long it took.
        took: Duration,
    },
    /// New code is live.
    Reloaded {
        /// Its name.
        name: ScriptName,
        /// Its digest.
        digest: Digest,
        /// Time from the settled file or the finished build to the publish.
        took: Duration,
        /// Time of the build, for a project.
        build: Option<Duration>,
    },
    /// The file or the build is byte for byte what is live.
    Unchanged {
        /// Its name.
        name: ScriptName,
        /// Its digest.
        digest: Digest,
    },
    /// A file cannot be published; the code published before stays live.
    Refused {
        /// The file.
        file: PathBuf,
        /// Why, and what to do.
        text: String,
    },
    /// Redis is away; the publish is tried again.
    Waiting {
        /// Why.
        text: String,
    },
    /// A file is gone; its jumpscript stays published.
    Removed {
        /// Where it was.
        file: PathBuf,
    },
    /// Something a person should know about the watch.
    Note {
        /// What.
        text: String,
    },
}

/// What the loop needs.
pub struct Params {
    /// The folder with projects and `.wasm` files.
    pub folder: PathBuf,
    /// Who publishes.
    pub publisher: Arc<dyn Publisher>,
    /// Told about everything; the loop waits for a slow listener and ends without one.
    pub events: mpsc::Sender<Event>,
}

/// The development loop; see the module's head.
pub struct Dev {
    params: Params,
    candidates: Candidates,
    sources: Watcher,
    projects: Vec<Project>,
    /// Roots of the projects to build.
    dirty: BTreeSet<PathBuf>,
    notes_told: usize,
}

impl Dev {
    /// Finds the projects and starts to watch; nothing is built before [`Dev::run`].
    ///
    /// # Errors
    /// A text that names the folder or the file at fault.
    pub fn new(mut params: Params) -> Result<Self, String> {
        // The watch tells absolute paths, and a change must be found in its project.
        params.folder = std::path::absolute(&params.folder)
            .map_err(|error| format!("the folder `{}` cannot be found: {error}", params.folder.display()))?;
        let folder = std::slice::from_ref(&params.folder);
        let candidates = Candidates::new(folder, Options::default())?;
        let sources = Watcher::new(folder, Options::default())?;
        Ok(Self { params, candidates, sources, projects: Vec::new(), dirty: BTreeSet::new(), notes_told: 0 })
    }

    /// Builds and publishes until `shutdown` becomes true; a build under way is ended.
    pub async fn run(mut self, mut shutdown: channel::Receiver<bool>) {
        tokio::select! {
            // An error means that the sender is gone, which is a shutdown too.
            _ = shutdown.wait_for(|is_down| *is_down) => {}
            _ = self.follow() => {}
        }
    }

    /// `None` when nobody listens any more, or the watch ended.
    async fn follow(&mut self) -> Option<()> {
        self.find_projects().await;
        let projects = self.projects.iter().map(|project| project.name.clone()).collect();
        self.tell(Event::Watching { folder: self.params.folder.clone(), projects }).await?;
        loop {
            while let Some(root) = self.dirty.pop_first() {
                if let Some(project) = self.projects.iter().find(|project| project.root == root).cloned() {
                    self.build(&project).await?;
                }
            }
            tokio::select! {
                found = self.candidates.next() => self.take(found?).await?,
                changes = self.sources.next() => {
                    let changed = changes?.into_iter().filter(|change| change.kind != ChangeKind::Present);
                    self.mark_dirty(changed.map(|change| change.path).collect()).await;
                }
            }
            let notes = self.candidates.notes();
            for text in notes.into_iter().skip(self.notes_told) {
                self.notes_told += 1;
                self.tell(Event::Note { text }).await?;
            }
        }
    }

    async fn tell(&self, event: Event) -> Option<()> {
        self.params.events.send(event).await.ok()
    }

    /// Looks for projects; new ones are to be built.
    async fn find_projects(&mut self) {
        let folder = self.params.folder.clone();
        let found = tokio::task::spawn_blocking(move || build::find_projects(&folder)).await.unwrap_or_default();
        for project in &found {
            if !self.projects.contains(project) {
                self.dirty.insert(project.root.clone());
            }
        }
        self.projects = found;
    }

    async fn mark_dirty(&mut self, changed: Vec<PathBuf>) {
        let makes_project = |path: &PathBuf| path.file_name().is_some_and(|n| n == "Cargo.toml" || n == MANIFEST_FILE);
        if changed.iter().any(makes_project) {
            self.find_projects().await;
        }
        for path in changed {
            if let Some(project) = self.project_of(&path).filter(|project| project.is_source(&path)) {
                let root = project.root.clone();
                self.dirty.insert(root);
            }
        }
    }

    fn project_of(&self, path: &Path) -> Option<&Project> {
        self.projects.iter().find(|project| path.starts_with(&project.root))
    }

    async fn take(&mut self, found: Found) -> Option<()> {
        match found {
            // A Wasm file inside a project is the project's own affair.
            Found::Candidate { path, .. } | Found::Faulty { path, .. } | Found::Removed { path }
                if self.project_of(&path).is_some() =>
            {
                Some(())
            }
            Found::Candidate { path, candidate, .. } => self.publish(&path, candidate, None).await.map(|_| ()),
            Found::Faulty { path, text } => self.tell(Event::Refused { file: path, text }).await,
            Found::Removed { path } => self.tell(Event::Removed { file: path }).await,
        }
    }

    async fn build(&mut self, project: &Project) -> Option<()> {
        self.tell(Event::Building { project: project.name.clone() }).await?;
        let start = Instant::now();
        let built = build(project, For::Author).await;
        let took = start.elapsed();
        let artifacts = match built {
            Ok(artifacts) => artifacts,
            Err(text) => {
                return self.tell(Event::BuildFailed { project: project.name.clone(), text, took }).await;
            }
        };
        for artifact in artifacts {
            match read_artifact(&artifact).await {
                Ok(candidate) => self.publish(&artifact.path, candidate, Some(took)).await?,
                Err(text) => self.tell(Event::Refused { file: artifact.path, text }).await?,
            }
        }
        Some(())
    }

    async fn publish(&self, path: &Path, candidate: Candidate, build: Option<Duration>) -> Option<()> {
        let start = Instant::now();
        loop {
            match self.params.publisher.publish(candidate.clone(), PublishRule::Always).await {
                Ok(published) => {
                    let (name, digest) = (published.name, published.digest);
                    let event = if published.is_new {
                        Event::Reloaded { name, digest, took: start.elapsed(), build }
                    } else {
                        Event::Unchanged { name, digest }
                    };
                    return self.tell(event).await;
                }
                Err(PublishError::Refused(text)) => {
                    return self.tell(Event::Refused { file: path.to_path_buf(), text }).await;
                }
                Err(PublishError::Unavailable(text)) => {
                    self.tell(Event::Waiting { text }).await?;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Builds the project whose folder this is for the nodes, once, and gives its Wasm files; `None` when it is no project's.
///
/// # Errors
/// The compiler's own words, the tool that is missing, or why the file cannot be read.
pub async fn build_folder(folder: &Path) -> Option<Result<Vec<(PathBuf, Candidate)>, String>> {
    let project = Project::at(folder)?;
    let building = async {
        let mut built = Vec::new();
        for artifact in build(&project, For::Nodes).await? {
            let candidate = read_artifact(&artifact).await?;
            built.push((artifact.path, candidate));
        }
        Ok(built)
    };
    Some(building.await)
}

/// A built file under its project's name, with the manifest beside the project's `Cargo.toml`.
///
/// # Errors
/// A text that names the file at fault.
pub async fn read_artifact(artifact: &Artifact) -> Result<Candidate, String> {
    let artifact = artifact.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut candidate = read_candidate(&artifact.path).map_err(|error| error.text().to_owned())?;
        candidate.default_name = artifact.name;
        let manifest = artifact.folder.join(MANIFEST_FILE);
        if manifest.is_file() {
            let text = std::fs::read_to_string(&manifest)
                .map_err(|error| format!("the manifest `{}` cannot be read: {error}", manifest.display()))?;
            candidate.manifest = Some(text);
        }
        Ok(candidate)
    });
    reading.await.map_err(|error| format!("reading it failed: {error}"))?
}
