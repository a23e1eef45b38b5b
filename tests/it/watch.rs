//! Settled file changes, seen through the real file system.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wasmhost::watch::{Change, ChangeKind, Options, Watcher};

const LIMIT: Duration = Duration::from_secs(20);

/// A watched folder, and what was reported of it.
struct Watched {
    folder: tempfile::TempDir,
    watcher: Watcher,
    seen: Vec<Change>,
}

impl Watched {
    /// Watches a folder that `prepare` has filled, and reads the first batch.
    async fn new(options: Options, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let watcher = Watcher::new(&[folder.path().to_path_buf()], options).unwrap();
        let mut watched = Self { folder, watcher, seen: Vec::new() };
        watched.read().await;
        watched
    }

    async fn wasm() -> Self {
        Self::new(wasm_only(), |_| {}).await
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    async fn read(&mut self) {
        let batch = tokio::time::timeout(LIMIT, self.watcher.next()).await;
        self.seen.extend(batch.expect("a change is reported in time").expect("the watch goes on"));
    }

    /// Reads until `path` was reported as `kind`.
    async fn wait_for(&mut self, path: &str, kind: ChangeKind) {
        let wanted = Change { path: self.at(path), kind };
        while !self.seen.contains(&wanted) {
            self.read().await;
        }
    }

    /// Makes a last file and waits for it: whatever else was to be reported has been reported then.
    async fn settle(&mut self) -> Vec<Change> {
        fs::write(self.at("last.wasm"), "last").unwrap();
        self.wait_for("last.wasm", ChangeKind::Changed).await;
        self.seen.retain(|change| !change.path.ends_with("last.wasm"));
        std::mem::take(&mut self.seen)
    }

    fn changed(&self, path: &str) -> Change {
        Change { path: self.at(path), kind: ChangeKind::Changed }
    }
}

fn wasm_only() -> Options {
    Options { extensions: vec!["wasm".to_owned()], ..Options::default() }
}

/// The same folder, from where this process stands.
fn relative(folder: &Path) -> PathBuf {
    let up = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect::<PathBuf>();
    up.join(folder.strip_prefix("/").unwrap())
}

#[tokio::test]
async fn a_folder_named_by_a_relative_path_is_watched_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new(&[relative(folder.path())], wasm_only()).unwrap();
    let _present = tokio::time::timeout(LIMIT, watcher.next()).await.expect("the first batch");
    fs::write(folder.path().join("a.wasm"), "a").unwrap();
    let batch = tokio::time::timeout(LIMIT, watcher.next()).await.expect("in time").expect("the watch goes on");
    assert!(batch[0].path.is_absolute() && batch[0].path.ends_with("a.wasm"), "{batch:?}");
    assert_eq!(batch[0].kind, ChangeKind::Changed);
}

#[tokio::test]
async fn what_lies_there_at_the_start_is_listed_as_present() {
    let watched = Watched::new(wasm_only(), |folder| {
        fs::write(folder.join("a.wasm"), "a").unwrap();
        fs::create_dir(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/b.wasm"), "b").unwrap();
        fs::write(folder.join("c.txt"), "c").unwrap();
    })
    .await;
    let present = |path: &str| Change { path: watched.at(path), kind: ChangeKind::Present };
    assert_eq!(watched.seen, [present("a.wasm"), present("sub/b.wasm")]);
}

#[tokio::test]
async fn a_file_written_in_ten_steps_is_reported_once_and_whole() {
    let mut watched = Watched::wasm().await;
    let path = watched.at("slow.wasm");
    let writer = tokio::task::spawn_blocking(move || {
        let mut file = fs::File::create(&path).unwrap();
        for step in 0..10 {
            write!(file, "{step}").unwrap();
            file.flush().unwrap();
            pause(Duration::from_millis(100));
        }
    });
    watched.wait_for("slow.wasm", ChangeKind::Changed).await;
    assert_eq!(fs::read_to_string(watched.at("slow.wasm")).unwrap(), "0123456789");
    writer.await.unwrap();
    watched.settle().await;
    assert!(watched.seen.is_empty());
}

/// The writer's own rhythm is what is tested here, so this is a wait by the clock.
#[expect(clippy::disallowed_methods, reason = "a slow writer is slow by the clock")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[tokio::test]
async fn a_file_renamed_over_another_is_reported_within_the_settle_time() {
    let mut watched = Watched::new(wasm_only(), |folder| fs::write(folder.join("a.wasm"), "old").unwrap()).await;
    fs::write(watched.at(".a.wasm.tmp"), "new").unwrap();
    fs::rename(watched.at(".a.wasm.tmp"), watched.at("a.wasm")).unwrap();
    let start = Instant::now();
    watched.wait_for("a.wasm", ChangeKind::Changed).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn editors_that_write_beside_and_rename_cause_one_report_of_the_file() {
    let mut watched = Watched::new(Options::default(), |folder| fs::write(folder.join("a.rs"), "old").unwrap()).await;
    watched.seen.clear();
    // Vim: probe, swap, backup by rename, write anew, remove the backup.
    fs::write(watched.at("4913"), "").unwrap();
    fs::remove_file(watched.at("4913")).unwrap();
    fs::write(watched.at(".a.rs.swp"), "swap").unwrap();
    fs::rename(watched.at("a.rs"), watched.at("a.rs~")).unwrap();
    fs::write(watched.at("a.rs"), "new").unwrap();
    fs::remove_file(watched.at("a.rs~")).unwrap();
    fs::remove_file(watched.at(".a.rs.swp")).unwrap();
    watched.wait_for("a.rs", ChangeKind::Changed).await;
    assert_eq!(watched.settle().await, [watched.changed("a.rs")]);
}

#[tokio::test]
async fn a_deleted_file_is_reported_as_removed() {
    let mut watched = Watched::new(wasm_only(), |folder| fs::write(folder.join("a.wasm"), "a").unwrap()).await;
    fs::remove_file(watched.at("a.wasm")).unwrap();
    watched.wait_for("a.wasm", ChangeKind::Removed).await;
}

#[tokio::test]
async fn a_folder_that_was_deleted_and_made_again_is_watched_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("scripts");
    for below in ["", "sub"] {
        fs::create_dir_all(root.join("sub")).unwrap();
        let mut watcher = Watcher::new(std::slice::from_ref(&root), wasm_only()).unwrap();
        let _first = watcher.next().await;
        for round in 0..3 {
            let gone = root.join(below);
            fs::remove_dir_all(&gone).unwrap();
            fs::create_dir_all(&gone).unwrap();
            let file = gone.join(format!("{round}.wasm"));
            fs::write(&file, "x").unwrap();
            let mut seen = Vec::new();
            while !seen.contains(&Change { path: file.clone(), kind: ChangeKind::Changed }) {
                seen.extend(tokio::time::timeout(LIMIT, watcher.next()).await.expect("in time").unwrap());
            }
        }
        fs::remove_dir_all(&root).unwrap();
    }
}

#[tokio::test]
async fn a_new_folder_with_files_is_looked_into() {
    let mut watched = Watched::wasm().await;
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("new/deep")).unwrap();
    fs::write(outside.path().join("new/deep/a.wasm"), "a").unwrap();
    fs::rename(outside.path().join("new"), watched.at("new")).unwrap_or_else(|_| {
        // The two folders may be on two file systems.
        fs::create_dir_all(watched.at("new/deep")).unwrap();
        fs::write(watched.at("new/deep/a.wasm"), "a").unwrap();
    });
    watched.wait_for("new/deep/a.wasm", ChangeKind::Changed).await;
    fs::write(watched.at("new/deep/b.wasm"), "b").unwrap();
    watched.wait_for("new/deep/b.wasm", ChangeKind::Changed).await;
}

#[tokio::test]
async fn a_link_is_reported_when_its_target_changes() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target.wasm");
    fs::write(&target, "old").unwrap();
    let mut watched = Watched::new(wasm_only(), |folder| symlink(&target, folder.join("link.wasm")).unwrap()).await;
    fs::write(&target, "newer").unwrap();
    watched.wait_for("link.wasm", ChangeKind::Changed).await;
}

/// As a mounted configuration map does: the files are links through a link that is exchanged as a whole.
#[tokio::test]
async fn files_behind_an_exchanged_folder_link_are_reported() {
    let mut watched = Watched::new(wasm_only(), |folder| {
        for (version, text) in [("..1", "old"), ("..2", "newer")] {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("a.wasm"), text).unwrap();
        }
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/a.wasm", folder.join("a.wasm")).unwrap();
    })
    .await;
    symlink("..2", watched.at("..data_tmp")).unwrap();
    fs::rename(watched.at("..data_tmp"), watched.at("..data")).unwrap();
    watched.wait_for("a.wasm", ChangeKind::Changed).await;
    assert!(watched.seen.iter().all(|change| change.path.ends_with("a.wasm")), "{:?}", watched.seen);
}

#[tokio::test]
async fn a_thousand_files_at_once_are_all_reported() {
    let mut watched = Watched::wasm().await;
    let names: BTreeSet<PathBuf> = (0..1000).map(|n| watched.at(&format!("{n}.wasm"))).collect();
    for name in &names {
        fs::write(name, "x").unwrap();
    }
    let mut missing = names;
    while !missing.is_empty() {
        watched.read().await;
        for change in watched.seen.drain(..) {
            missing.remove(&change.path);
        }
    }
}

#[tokio::test]
async fn nothing_below_ignored_folders_is_reported() {
    let mut watched = Watched::new(wasm_only(), |folder| {
        for ignored in ["target", ".git", "node_modules"] {
            fs::create_dir(folder.join(ignored)).unwrap();
        }
    })
    .await;
    for ignored in ["target", ".git", "node_modules", "dist"] {
        fs::create_dir_all(watched.at(ignored).join("deep")).unwrap();
        fs::write(watched.at(ignored).join("a.wasm"), "a").unwrap();
        fs::write(watched.at(ignored).join("deep/a.wasm"), "a").unwrap();
    }
    assert_eq!(watched.settle().await, []);
}

#[tokio::test]
async fn a_copy_that_keeps_the_modification_time_is_a_change() {
    let mut watched = Watched::new(wasm_only(), |folder| fs::write(folder.join("a.wasm"), "old").unwrap()).await;
    let path = watched.at("a.wasm");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "new").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    watched.wait_for("a.wasm", ChangeKind::Changed).await;
}

#[tokio::test]
async fn polling_reports_the_same() {
    let options = Options { poll: Some(Duration::from_millis(50)), ..wasm_only() };
    let mut watched = Watched::new(options, |folder| fs::write(folder.join("a.wasm"), "a").unwrap()).await;
    fs::write(watched.at("b.wasm"), "b").unwrap();
    watched.wait_for("b.wasm", ChangeKind::Changed).await;
    fs::create_dir(watched.at("sub")).unwrap();
    fs::write(watched.at("sub/c.wasm"), "c").unwrap();
    watched.wait_for("sub/c.wasm", ChangeKind::Changed).await;
    fs::remove_file(watched.at("a.wasm")).unwrap();
    watched.wait_for("a.wasm", ChangeKind::Removed).await;
}

#[tokio::test]
async fn one_file_can_be_watched_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.wasm");
    fs::write(&path, "old").unwrap();
    let mut watcher = Watcher::new(std::slice::from_ref(&path), wasm_only()).unwrap();
    assert_eq!(watcher.next().await.unwrap(), [Change { path: path.clone(), kind: ChangeKind::Present }]);
    fs::write(folder.path().join("other.wasm"), "x").unwrap();
    fs::write(folder.path().join("new"), "newer").unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    let batch = tokio::time::timeout(LIMIT, watcher.next()).await.unwrap().unwrap();
    assert_eq!(batch, [Change { path, kind: ChangeKind::Changed }]);
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_refused_by_name() {
    let error = Watcher::new(&["/does/not/exist".into()], Options::default()).unwrap_err();
    assert!(error.contains("`/does/not/exist`"), "{error}");
}
