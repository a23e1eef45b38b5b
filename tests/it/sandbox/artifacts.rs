//! Native code on disk: used when it is ours, ignored when it is not.

use std::fs;
use std::path::{Path, PathBuf};

use wasmhost::jumpscript::{Digest, Manifest};
use wasmhost::sandbox::{Call, Options, Sandbox};

use super::{block_on, done};
use crate::support::guests;

fn open(directory: &Path) -> Sandbox {
    let artifacts = Some(directory.join("artifacts"));
    Sandbox::new(Options { pool_size: 4, artifacts, ..Options::default() }).unwrap()
}

fn artifact(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory.join("artifacts")).unwrap().map(|entry| entry.unwrap().path());
    let mut artifacts: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "artifact")).collect();
    assert_eq!(artifacts.len(), 1);
    artifacts.remove(0)
}

#[test]
fn a_second_start_needs_neither_the_compiler_nor_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let wasm = guests::wasm("hello");
    let digest = Digest::of(&wasm);
    assert!(open(directory.path()).load_artifact(&digest).is_none());
    open(directory.path()).load(digest, &wasm).unwrap();
    let sandbox = open(directory.path());
    let script = sandbox.load_artifact(&digest).expect("it is on disk");
    assert_eq!(script.manifest().types, ["hello"], "the manifest lies beside the code");
    assert!(done(&block_on(sandbox.run(&script, Call::new(r#"{"name":"Ada"}"#)))).contains("Hello, Ada!"));
    let plain = guests::wasm("die");
    assert_eq!(*sandbox.load(Digest::of(&plain), &plain).unwrap().manifest(), Manifest::default());
}

#[test]
fn a_flipped_byte_makes_the_artifact_absent_and_the_code_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let wasm = guests::wasm("echo");
    let digest = Digest::of(&wasm);
    open(directory.path()).load(digest, &wasm).unwrap();
    let path = artifact(directory.path());
    let good = fs::read(&path).unwrap();
    for n in 0..200 {
        let mut bad = good.clone();
        let at = n * (good.len() - 1) / 199;
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        assert!(open_cheap(directory.path()).load_artifact(&digest).is_none(), "byte {at}");
    }
    for cut in [0, 1, 31, 32, 33, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..cut]).unwrap();
        assert!(open_cheap(directory.path()).load_artifact(&digest).is_none(), "cut at {cut}");
    }
    let sandbox = open(directory.path());
    let script = sandbox.load(digest, &wasm).unwrap();
    assert_eq!(done(&block_on(sandbox.run(&script, Call::new("x")))), "x");
    assert_eq!(fs::read(&path).unwrap().len(), good.len(), "it was written again");
}

/// A sandbox of one instance, for tests that only look at the disk.
fn open_cheap(directory: &Path) -> Sandbox {
    let artifacts = Some(directory.join("artifacts"));
    Sandbox::new(Options { pool_size: 1, artifacts, ..Options::default() }).unwrap()
}

#[test]
fn a_directory_that_is_not_ours_alone_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let artifacts = Some(directory.path().to_owned());
    let error = Sandbox::new(Options { pool_size: 1, artifacts, ..Options::default() }).err().expect("it is refused");
    assert!(error.to_string().contains("open to others") && !error.is_permanent(), "{error}");
}
