//! The scripts folder: what is published, when, and what is not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use wasmhost::jumpscript::{Digest, Manifest, ScriptName, parse_version};
use wasmhost::ports::{BoxFuture, Candidate, PublishError, PublishRule, Published, Publisher};
use wasmhost::scripts_folder::{Params, Restore, ScriptsFolder, State};
use wasmhost::watch::Options;

use crate::support::redis::wait_until;

const LIMIT: Duration = Duration::from_secs(20);
const HEAD: &[u8] = b"\0asm\x01\0\0\0";

/// A valid file whose one custom section holds `text`.
pub(crate) fn wasm(text: &str) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    let mut section = vec![1, b't'];
    section.extend(text.as_bytes());
    bytes.push(0);
    // Two bytes of LEB128 are enough for these tests.
    bytes.push((section.len() & 0x7f) as u8 | 0x80);
    bytes.push((section.len() >> 7) as u8);
    bytes.extend(section);
    bytes
}

/// A publisher that follows the rules and remembers every call. A file whose text has `broken-code` in it is refused.
#[derive(Default)]
pub(crate) struct Recorder {
    live: Mutex<BTreeMap<ScriptName, (Digest, String)>>,
    /// What was published, in order.
    calls: Mutex<Vec<(ScriptName, Vec<u8>)>>,
    is_away: Mutex<bool>,
}

impl Recorder {
    pub(crate) fn calls(&self) -> Vec<(String, Vec<u8>)> {
        self.calls.lock().unwrap().iter().map(|(name, wasm)| (name.to_string(), wasm.clone())).collect()
    }

    fn live(&self, name: &str) -> Option<Digest> {
        self.live.lock().unwrap().get(&name.parse().unwrap()).map(|(digest, _)| *digest)
    }

    fn set(&self, name: &str, wasm: &[u8], version: &str) {
        self.live.lock().unwrap().insert(name.parse().unwrap(), (Digest::of(wasm), version.to_owned()));
    }

    fn flush(&self) {
        self.live.lock().unwrap().clear();
    }

    fn publish_now(&self, candidate: &Candidate, rule: PublishRule) -> Result<Published, PublishError> {
        let refused = |text: String| PublishError::Refused(format!("`{}`: {text}", candidate.file));
        if *self.is_away.lock().unwrap() {
            return Err(PublishError::Unavailable("cannot reach Redis".to_owned()));
        }
        if candidate.wasm.windows(11).any(|window| window == b"broken-code") {
            return Err(refused("it is broken".to_owned()));
        }
        let manifest =
            candidate.manifest.as_deref().map_or(Ok(Manifest::default()), Manifest::parse).map_err(refused)?;
        let organization = manifest.organization.unwrap_or_else(|| "wasmhost".to_owned());
        let name = manifest.name.unwrap_or_else(|| candidate.default_name.clone());
        let name = ScriptName::new(&organization, &name).map_err(refused)?;
        let version = manifest.version.unwrap_or_default();
        let digest = Digest::of(&candidate.wasm);
        let mut live = self.live.lock().unwrap();
        if let Some((before, old)) = live.get(&name) {
            let number = |text: &str| parse_version(if text.is_empty() { "0" } else { text }).unwrap();
            let is_kept = rule == PublishRule::AbsentOrNewer && number(&version) <= number(old);
            if *before == digest || is_kept {
                return Ok(Published {
                    name,
                    digest: *before,
                    version: old.clone(),
                    is_new: false,
                    is_live: *before == digest,
                });
            }
        }
        live.insert(name.clone(), (digest, version.clone()));
        self.calls.lock().unwrap().push((name.clone(), candidate.wasm.clone()));
        Ok(Published { name, digest, version, is_new: true, is_live: true })
    }
}

impl Publisher for Recorder {
    fn publish(&self, candidate: Candidate, rule: PublishRule) -> BoxFuture<'_, Result<Published, PublishError>> {
        Box::pin(async move { self.publish_now(&candidate, rule) })
    }
}

/// A running service on a temporary folder.
struct Folder {
    dir: tempfile::TempDir,
    publisher: Arc<Recorder>,
    states: watch::Receiver<State>,
    restore: Restore,
    shutdown: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Folder {
    fn start(publisher: Recorder, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let publisher = Arc::new(publisher);
        let (told, states) = watch::channel(State::default());
        let service = ScriptsFolder::new(Params {
            folder: dir.path().to_path_buf(),
            publisher: publisher.clone(),
            on_state: Arc::new(move |state: &State| {
                told.send_replace(state.clone());
            }),
            options: Options::default(),
        })
        .unwrap();
        let restore = service.restorer();
        let (shutdown, is_down) = watch::channel(false);
        let task = tokio::spawn(service.run(is_down));
        Self { dir, publisher, states, restore, shutdown, task }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn until_live(&self, name: &str, wasm: &[u8]) {
        let wanted = Some(Digest::of(wasm));
        wait_until(&format!("{name} is live"), LIMIT, || async { (self.publisher.live(name) == wanted).then_some(()) })
            .await;
    }

    async fn until_state(&mut self, what: &str, is_so: impl FnMut(&State) -> bool) -> State {
        let state = tokio::time::timeout(LIMIT, self.states.wait_for(is_so)).await;
        state.unwrap_or_else(|_| panic!("waited for: {what}")).unwrap().clone()
    }

    async fn until_fault(&mut self, name: &str, part: &str) {
        let path = self.at(name);
        self.until_state(&format!("a fault of {name} with `{part}`"), |state| {
            state.faults.get(&path).is_some_and(|text| text.contains(part))
        })
        .await;
    }

    async fn until_healthy(&mut self) {
        self.until_state("no fault", |state| state.faults.is_empty()).await;
    }
}

#[tokio::test]
async fn a_dropped_file_is_published_under_its_stem() {
    let folder = Folder::start(Recorder::default(), |_| {});
    let code = wasm("one");
    fs::write(folder.at("hello.wasm"), &code).unwrap();
    folder.until_live("hello", &code).await;
    assert_eq!(folder.publisher.calls(), [("wasmhost/hello".to_owned(), code)]);
}

#[tokio::test]
async fn a_file_half_written_in_ten_steps_is_never_published() {
    for is_closed_between in [false, true] {
        let mut folder = Folder::start(Recorder::default(), |_| {});
        let code = wasm(&"x".repeat(1000));
        let (path, bytes) = (folder.at("slow.wasm"), code.clone());
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let mut file = None;
        for piece in bytes.chunks(bytes.len() / 10 + 1) {
            ticks.tick().await;
            let mut open =
                file.take().unwrap_or_else(|| fs::File::options().create(true).append(true).open(&path).unwrap());
            open.write_all(piece).unwrap();
            if !is_closed_between {
                file = Some(open);
            }
        }
        drop(file);
        folder.until_live("slow", &code).await;
        assert_eq!(folder.publisher.calls(), [("wasmhost/slow".to_owned(), code)], "{is_closed_between}");
        folder.until_healthy().await;
    }
}

#[tokio::test]
async fn a_truncated_file_is_a_fault_until_it_is_whole() {
    let mut folder = Folder::start(Recorder::default(), |_| {});
    let code = wasm("whole");
    fs::write(folder.at("cut.wasm"), &code[..code.len() - 2]).unwrap();
    folder.until_fault("cut.wasm", "truncated").await;
    assert!(folder.publisher.calls().is_empty());
    fs::write(folder.at("cut.wasm"), &code).unwrap();
    folder.until_live("cut", &code).await;
    folder.until_healthy().await;
}

#[tokio::test]
async fn a_broken_new_version_keeps_the_old_one_and_shows() {
    let mut folder = Folder::start(Recorder::default(), |_| {});
    let code = wasm("good");
    fs::write(folder.at("a.wasm"), &code).unwrap();
    folder.until_live("a", &code).await;
    fs::write(folder.at("a.wasm"), wasm("broken-code")).unwrap();
    folder.until_fault("a.wasm", "it is broken").await;
    assert_eq!(folder.publisher.live("a"), Some(Digest::of(&code)));
    fs::write(folder.at("a.wasm"), &code).unwrap();
    folder.until_healthy().await;
    assert_eq!(folder.publisher.calls().len(), 1, "the old code was never gone");
}

#[tokio::test]
async fn a_file_renamed_over_another_is_published() {
    let folder = Folder::start(Recorder::default(), |dir| fs::write(dir.join("a.wasm"), wasm("old")).unwrap());
    folder.until_live("a", &wasm("old")).await;
    fs::write(folder.at("a.wasm.tmp"), wasm("new")).unwrap();
    fs::rename(folder.at("a.wasm.tmp"), folder.at("a.wasm")).unwrap();
    folder.until_live("a", &wasm("new")).await;
}

#[tokio::test]
async fn deleting_a_file_does_not_unpublish_it() {
    let mut folder = Folder::start(Recorder::default(), |dir| fs::write(dir.join("a.wasm"), wasm("a")).unwrap());
    let name: ScriptName = "a".parse().unwrap();
    folder.until_state("a is live", |state| state.live.contains_key(&name)).await;
    fs::remove_file(folder.at("a.wasm")).unwrap();
    let state = folder.until_state("the file is forgotten", |state| !state.live.contains_key(&name)).await;
    assert!(state.faults.is_empty());
    assert_eq!(folder.publisher.live("a"), Some(Digest::of(&wasm("a"))));
}

#[tokio::test]
async fn at_the_start_only_absent_and_higher_versions_are_published() {
    let publisher = Recorder::default();
    publisher.set("same", &wasm("other"), "");
    publisher.set("higher", &wasm("1.9"), "1.9.0");
    publisher.set("lower", &wasm("2.0"), "2.0.0");
    let mut folder = Folder::start(publisher, |dir| {
        for (name, version) in [("same", ""), ("higher", "1.10.0"), ("lower", "1.0.0"), ("absent", "")] {
            fs::write(dir.join(format!("{name}.wasm")), wasm(name)).unwrap();
            if !version.is_empty() {
                fs::write(dir.join(format!("{name}.toml")), format!("version = '{version}'")).unwrap();
            }
        }
    });
    let state = folder.until_state("all four are known", |state| state.live.len() == 4).await;
    let mut published: Vec<String> = folder.publisher.calls().into_iter().map(|(name, _)| name).collect();
    published.sort();
    assert_eq!(published, ["wasmhost/absent", "wasmhost/higher"]);
    assert_eq!(state.live[&"lower".parse::<ScriptName>().unwrap()], Digest::of(&wasm("2.0")), "says what is live");
    // A change is published whatever is live.
    fs::write(folder.at("lower.wasm"), wasm("changed")).unwrap();
    folder.until_live("lower", &wasm("changed")).await;
}

#[tokio::test]
async fn a_changed_manifest_publishes_its_file() {
    let folder = Folder::start(Recorder::default(), |dir| fs::write(dir.join("a.wasm"), wasm("a")).unwrap());
    folder.until_live("a", &wasm("a")).await;
    fs::write(folder.at("jumpscript.toml"), "organization = 'acme'\nname = 'b'").unwrap();
    folder.until_live("acme/b", &wasm("a")).await;
}

#[tokio::test]
async fn what_was_lost_is_restored_within_two_seconds() {
    let folder = Folder::start(Recorder::default(), |dir| {
        for n in 0..20 {
            fs::write(dir.join(format!("s{n}.wasm")), wasm(&n.to_string())).unwrap();
        }
    });
    folder.until_live("s19", &wasm("19")).await;
    wait_until("all are live", LIMIT, || async { (folder.publisher.calls().len() == 20).then_some(()) }).await;
    folder.publisher.flush();
    folder.restore.restore();
    wait_until("all are restored", Duration::from_secs(2), || async {
        (folder.publisher.calls().len() == 40).then_some(())
    })
    .await;
}

#[tokio::test]
async fn files_wait_while_redis_is_away() {
    let mut folder = Folder::start(Recorder::default(), |_| {});
    *folder.publisher.is_away.lock().unwrap() = true;
    fs::write(folder.at("a.wasm"), wasm("a")).unwrap();
    let state = folder.until_state("it waits", |state| state.waiting.is_some()).await;
    assert!(state.faults.is_empty(), "the file is not at fault");
    *folder.publisher.is_away.lock().unwrap() = false;
    folder.until_live("a", &wasm("a")).await;
    folder.until_state("it waits no more", |state| state.waiting.is_none()).await;
}

#[tokio::test]
async fn native_code_and_other_files_are_refused_by_name() {
    let mut folder = Folder::start(Recorder::default(), |_| {});
    fs::write(folder.at("native.wasm"), b"\x7fELF\x02\x01\x01\0 native").unwrap();
    folder.until_fault("native.wasm", ".cwasm").await;
    fs::write(folder.at("text.wasm"), "(module)").unwrap();
    folder.until_fault("text.wasm", "not a Wasm file").await;
    fs::write(folder.at("empty.wasm"), "").unwrap();
    folder.until_fault("empty.wasm", "0 bytes").await;
    fs::write(folder.at("real.cwasm"), b"\x7fELF").unwrap();
    fs::write(folder.at("ok.wasm"), wasm("ok")).unwrap();
    folder.until_live("ok", &wasm("ok")).await;
    assert_eq!(folder.publisher.calls().len(), 1);
    for name in ["native.wasm", "text.wasm", "empty.wasm"] {
        fs::remove_file(folder.at(name)).unwrap();
    }
    folder.until_healthy().await;
}

#[tokio::test]
async fn two_files_of_one_name_are_a_fault_until_one_goes() {
    let mut folder = Folder::start(Recorder::default(), |dir| {
        fs::write(dir.join("a.wasm"), wasm("first")).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
    });
    folder.until_live("a", &wasm("first")).await;
    fs::write(folder.at("sub/a.wasm"), wasm("second")).unwrap();
    folder.until_fault("sub/a.wasm", "both are jumpscript `wasmhost/a`").await;
    fs::remove_file(folder.at("a.wasm")).unwrap();
    folder.until_healthy().await;
    assert_eq!(folder.publisher.live("a"), Some(Digest::of(&wasm("second"))));
}

#[tokio::test]
async fn a_thousand_files_at_once_are_all_published() {
    let folder = Folder::start(Recorder::default(), |_| {});
    for n in 0..1000 {
        fs::write(folder.at(&format!("s{n}.wasm")), wasm(&n.to_string())).unwrap();
    }
    wait_until("all are published", LIMIT, || async { (folder.publisher.calls().len() == 1000).then_some(()) }).await;
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_a_fault_until_it_may() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut folder = Folder::start(Recorder::default(), |_| {});
    let path = folder.at("a.wasm");
    fs::write(&path, wasm("a")).unwrap();
    folder.until_live("a", &wasm("a")).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        eprintln!("skipped: this user may read every file");
        return;
    }
    folder.until_fault("a.wasm", "ermission denied").await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    folder.until_healthy().await;
}

#[tokio::test]
async fn a_shutdown_ends_the_service_at_once() {
    let folder = Folder::start(Recorder::default(), |_| {});
    folder.shutdown.send_replace(true);
    tokio::time::timeout(Duration::from_secs(2), folder.task).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_refused_by_name() {
    let params = Params {
        folder: "/does/not/exist".into(),
        publisher: Arc::new(Recorder::default()),
        on_state: Arc::new(|_| {}),
        options: Options::default(),
    };
    let error = ScriptsFolder::new(params).err().expect("refused");
    assert!(error.contains("`/does/not/exist`"), "{error}");
}
