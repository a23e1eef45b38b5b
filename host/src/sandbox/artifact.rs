//! Native code: made by the compiler, kept on disk with a seal, loaded only when the seal is ours.
//!
//! Invariant: bytes reach [`load`] only from our own compiler, or from a file whose seal (HMAC-SHA256 under a random
//! key that never leaves a directory of this user) covers the digest of the Wasm, the fingerprint of the engine, the
//! label and every byte. Loading other native code would be running it. Anything wrong with a file makes it absent.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::error::Error;
use super::script::{Code, Label, Shape};
use crate::clock::Timestamp;
use crate::jumpscript::Digest;

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;
const SEAL_BYTES: usize = 32;
/// Native code is a few times larger than the 64 MiB of its Wasm; a larger file is not ours.
const ARTIFACT_BYTES_MAX: u64 = 1 << 30;
/// All artifacts of a directory; at a start those that were not used for longest are removed.
pub const DIRECTORY_BYTES_MAX: u64 = 4 << 30;
/// A draft that is older was left by a crash.
const DRAFT_AGE_MAX: Duration = Duration::from_secs(3600);

/// Loads native code into the engine.
#[expect(unsafe_code, reason = "the one place where native code is loaded; see the invariant above")]
pub(super) fn load(engine: &Engine, shape: Shape, native: &[u8]) -> Result<Code, Error> {
    let loaded = match shape {
        Shape::Component | Shape::Command => {
            // SAFETY: the bytes come from our own compiler, or bear our seal (see the invariant of this module).
            unsafe { Component::deserialize(engine, native) }.map(Code::Component)
        }
        // SAFETY: as above.
        Shape::Core => unsafe { Module::deserialize(engine, native) }.map(Code::Module),
    };
    // The code is ours, so what is left to complain about is its size: more instances or memories than a slot holds.
    loaded.map_err(|error| {
        Error::refused(
            format!("it does not fit a sandbox: {}", error.root_cause()),
            "split it, or build it with fewer instances, tables and memories",
        )
    })
}

/// A number that changes whenever native code of one engine does not run in another.
pub(super) fn fingerprint(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// The artifacts of one directory.
pub(super) struct Artifacts {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
    fingerprint: u64,
}

impl Artifacts {
    /// Opens the directory, and makes it and its key when they are absent.
    pub(super) fn open(directory: &Path, fingerprint: u64) -> Result<Self, Error> {
        let shown = directory.display();
        let failed = |error: io::Error| {
            Error::host(format!("the directory of artifacts `{shown}` cannot be used: {error}"), "name another one")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let about = fs::metadata(directory).map_err(failed)?;
        let us = rustix::process::geteuid().as_raw();
        if about.uid() != us {
            return Err(Error::host(
                format!("the directory of artifacts `{shown}` belongs to user {}, not to user {us}", about.uid()),
                "name a directory of the user that runs the host: whoever writes there could run native code in it",
            ));
        }
        if about.mode() & 0o077 != 0 {
            return Err(Error::host(
                format!("the directory of artifacts `{shown}` is open to others (mode {:o})", about.mode() & 0o777),
                format!("close it: chmod 700 {shown}"),
            ));
        }
        prune(directory, DIRECTORY_BYTES_MAX).map_err(failed)?;
        let key = read_or_make_key(&directory.join(KEY_FILE)).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), key, fingerprint })
    }

    /// The same directory for another engine.
    pub(super) fn of_engine(&self, fingerprint: u64) -> Self {
        Self { directory: self.directory.clone(), key: self.key, fingerprint }
    }

    /// The native code of a digest. Whatever is wrong with the file, it is as if it were absent.
    pub(super) fn read(&self, digest: &Digest) -> Option<(Label, Vec<u8>)> {
        let file = File::open(self.path(digest)).ok()?;
        let mut sealed = Vec::new();
        (&file).take(ARTIFACT_BYTES_MAX).read_to_end(&mut sealed).ok()?;
        let (seal, rest) = sealed.split_at_checked(SEAL_BYTES)?;
        let mut mac = self.mac(digest);
        mac.update(rest);
        // Constant time; and nothing of the file is believed before it.
        mac.verify_slice(seal).ok()?;
        // For `prune`, which removes what was used least; where it cannot be noted, the age of the file decides.
        let _ = file.set_modified(UNIX_EPOCH + Duration::from_millis(Timestamp::now().millis().unsigned_abs()));
        let (label, native) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'\n')?)?;
        Some((serde_json::from_slice(label).ok()?, native.get(1..)?.to_vec()))
    }

    /// Keeps native code. The file appears whole or not at all.
    pub(super) fn write(&self, digest: &Digest, label: &Label, native: &[u8]) -> io::Result<()> {
        // JSON has no line feed outside a string, and escapes it inside.
        let mut head = serde_json::to_vec(label)?;
        head.push(b'\n');
        let mut mac = self.mac(digest);
        mac.update(&head);
        mac.update(native);
        let path = self.path(digest);
        let draft = draft(&path);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&mac.finalize().into_bytes())?;
            file.write_all(&head)?;
            file.write_all(native)?;
            fs::rename(&draft, &path)
        })();
        if written.is_err() {
            // Already failing: a draft that cannot be removed either is the next start's clutter, not an error.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{digest}-{:016x}.artifact", self.fingerprint))
    }

    fn mac(&self, digest: &Digest) -> Hmac<Sha256> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(digest.to_string().as_bytes());
        mac.update(&self.fingerprint.to_be_bytes());
        mac
    }
}

/// A name beside a file that nobody else uses.
fn draft(path: &Path) -> PathBuf {
    path.with_extension(format!("{}-{:x}.draft", std::process::id(), getrandom::u64().unwrap_or(0)))
}

/// Removes what a crash left half-written, then the artifacts that were not used for longest, until the rest fits.
fn prune(directory: &Path, bytes_max: u64) -> io::Result<()> {
    let mut artifacts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // Another host of this user may prune too: a file that is gone is no error.
        let Ok(about) = fs::metadata(&path) else { continue };
        let used = about.modified()?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("draft") if used.elapsed().is_ok_and(|age| age > DRAFT_AGE_MAX) => drop(fs::remove_file(&path)),
            Some("artifact") => artifacts.push((used, about.len(), path)),
            _ => {}
        }
    }
    artifacts.sort();
    let mut bytes: u64 = artifacts.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, size, path) in artifacts {
        if bytes <= bytes_max {
            break;
        }
        drop(fs::remove_file(&path));
        bytes -= size;
    }
    Ok(())
}

/// The key of the seals: 32 random bytes in a file of mode 0600. A key that others could read is replaced, which makes
/// every artifact absent.
fn read_or_make_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if let Some(key) = read_key(path) {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let draft = draft(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&key)?;
    // What is there is no key. Two hosts may start at once: the first link wins, the other reads its key.
    let _ = fs::remove_file(path);
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    read_key(path).ok_or_else(|| io::Error::other("the key file cannot be read back"))
}

fn read_key(path: &Path) -> Option<[u8; KEY_BYTES]> {
    let mut file = File::open(path).ok()?;
    let about = file.metadata().ok()?;
    if about.mode() & 0o077 != 0 || about.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn label() -> Label {
        let manifest = crate::jumpscript::Manifest { types: vec!["a\nb".to_owned()], ..Default::default() };
        Label { shape: Shape::Command, manifest }
    }

    #[test]
    fn a_flipped_byte_anywhere_makes_an_artifact_absent() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let artifacts = Artifacts::open(directory.path(), 7).unwrap();
        let digest = Digest::of(b"wasm");
        artifacts.write(&digest, &label(), b"native").unwrap();
        assert_eq!(artifacts.read(&digest), Some((label(), b"native".to_vec())));
        let path = artifacts.path(&digest);
        let good = fs::read(&path).unwrap();
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(artifacts.read(&digest), None, "byte {n}");
        }
        fs::write(&path, &good).unwrap();
        assert!(artifacts.read(&digest).is_some());
        assert_eq!(artifacts.read(&Digest::of(b"other")), None);
        assert!(Artifacts::open(directory.path(), 8).unwrap().read(&digest).is_none(), "another engine");
        fs::remove_file(directory.path().join(KEY_FILE)).unwrap();
        assert!(Artifacts::open(directory.path(), 7).unwrap().read(&digest).is_none(), "another key");
    }

    #[test]
    fn an_artifact_under_another_digest_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let artifacts = Artifacts::open(directory.path(), 7).unwrap();
        let (good, other) = (Digest::of(b"good"), Digest::of(b"other"));
        artifacts.write(&good, &label(), b"native").unwrap();
        fs::copy(artifacts.path(&good), artifacts.path(&other)).unwrap();
        assert_eq!(artifacts.read(&other), None);
    }

    #[test]
    fn the_artifacts_that_were_not_used_for_longest_go_first() {
        let directory = tempfile::tempdir().unwrap();
        for (name, age) in [("old", 300), ("new", 100), ("middle", 200)] {
            let file = File::create(directory.path().join(name).with_extension("artifact")).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000 - age)).unwrap();
        }
        let draft = File::create(directory.path().join("crashed.draft")).unwrap();
        draft.set_modified(UNIX_EPOCH).unwrap();
        fs::write(directory.path().join(KEY_FILE), "key").unwrap();
        prune(directory.path(), 250).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [KEY_FILE, "middle.artifact", "new.artifact"]);
    }

    #[test]
    fn a_key_that_others_could_read_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = directory.path().join(KEY_FILE);
        fs::write(&path, [7; KEY_BYTES]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let key = read_or_make_key(&path).unwrap();
        assert_ne!(key, [7; KEY_BYTES]);
        assert_eq!(read_or_make_key(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = Artifacts::open(directory.path(), 7).err().unwrap();
        assert!(error.to_string().contains("mode 755"), "{error}");
        assert!(error.hint().unwrap().contains("chmod 700"));
    }
}
