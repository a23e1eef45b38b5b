//! The development loop on real projects, with a real compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wasmhost::dev::{Dev, Event, Params};

use crate::scripts_folder::{Recorder, wasm};

/// A cold build on a busy machine takes a while.
const LIMIT: Duration = Duration::from_secs(120);

struct Loop {
    dir: tempfile::TempDir,
    publisher: Arc<Recorder>,
    events: mpsc::Receiver<Event>,
    shutdown: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Loop {
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let publisher = Arc::new(Recorder::default());
        let (outbox, events) = mpsc::channel(64);
        let params = Params { folder: dir.path().to_path_buf(), publisher: publisher.clone(), events: outbox };
        let (shutdown, is_down) = watch::channel(false);
        let task = tokio::spawn(Dev::new(params).unwrap().run(is_down));
        Self { dir, publisher, events, shutdown, task }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The next event that `pick` takes.
    async fn wait_for<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the loop goes on");
                if let Some(picked) = pick(&event) {
                    return picked;
                }
                seen.push(event);
            }
        };
        match tokio::time::timeout(LIMIT, waiting).await {
            Ok(picked) => picked,
            Err(_) => panic!("waited for {what}, saw {seen:#?}"),
        }
    }

    async fn reloaded(&mut self) -> (String, Option<Duration>) {
        self.wait_for("a reload", |event| match event {
            Event::Reloaded { name, build, .. } => Some((name.to_string(), *build)),
            _ => None,
        })
        .await
    }
}

/// A program without dependencies: what the compiler makes of it is a command.
pub(crate) fn project(folder: &Path, name: &str, body: &str) {
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(
        folder.join("Cargo.toml"),
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n"),
    )
    .unwrap();
    fs::write(folder.join("src/main.rs"), format!("fn main() {{ {body} }}\n")).unwrap();
}

#[tokio::test]
async fn a_project_is_built_reloaded_and_keeps_its_old_code_when_broken() {
    let mut dev = Loop::start(|dir| project(&dir.join("hello"), "hello", "println!(\"1\");"));
    let projects = dev
        .wait_for("the start", |event| match event {
            Event::Watching { projects, .. } => Some(projects.clone()),
            _ => None,
        })
        .await;
    assert_eq!(projects, ["hello"]);
    let (name, build) = dev.reloaded().await;
    assert_eq!(name, "wasmhost/hello");
    assert!(build.is_some());

    let source = dev.at("hello/src/main.rs");
    fs::write(&source, "fn main() { let x: u32 = \"text\"; }\n").unwrap();
    let text = dev
        .wait_for("a failed build", |event| match event {
            Event::BuildFailed { project, text, .. } if project == "hello" => Some(text.clone()),
            _ => None,
        })
        .await;
    assert!(text.contains("mismatched types") && text.contains("src/main.rs"), "{text}");
    assert_eq!(dev.publisher.calls().len(), 1, "the old code stays");

    fs::write(&source, "fn main() { println!(\"2\"); }\n").unwrap();
    dev.reloaded().await;
    assert_eq!(dev.publisher.calls().len(), 2);
    assert!(dev.events.try_recv().is_err(), "the build's own files cause no build");

    dev.shutdown.send_replace(true);
    tokio::time::timeout(Duration::from_secs(2), dev.task).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_wasm_file_is_published_at_every_change() {
    let mut dev = Loop::start(|dir| fs::write(dir.join("a.wasm"), wasm("one")).unwrap());
    assert_eq!(dev.reloaded().await, ("wasmhost/a".to_owned(), None));
    fs::write(dev.at("a.wasm"), wasm("two")).unwrap();
    dev.reloaded().await;
    fs::write(dev.at("a.wasm"), wasm("broken-code")).unwrap();
    let text = dev
        .wait_for("a refusal", |event| match event {
            Event::Refused { text, .. } => Some(text.clone()),
            _ => None,
        })
        .await;
    assert!(text.contains("it is broken"), "{text}");
    assert_eq!(dev.publisher.calls().len(), 2);
}

#[tokio::test]
async fn a_project_made_while_the_loop_runs_is_built() {
    let mut dev = Loop::start(|_| {});
    project(&dev.at("later"), "later", "");
    let (name, _) = dev.reloaded().await;
    assert_eq!(name, "wasmhost/later");
}

#[tokio::test]
async fn a_project_that_builds_no_wasm_file_is_told_why() {
    let mut dev = Loop::start(|dir| {
        project(&dir.join("library"), "library", "");
        fs::rename(dir.join("library/src/main.rs"), dir.join("library/src/lib.rs")).unwrap();
    });
    let text = dev
        .wait_for("a failed build", |event| match event {
            Event::BuildFailed { text, .. } => Some(text.clone()),
            _ => None,
        })
        .await;
    assert!(text.contains("cdylib"), "{text}");
}
