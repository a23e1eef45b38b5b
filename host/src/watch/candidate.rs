//! Reads a settled Wasm file and the manifest beside it.
//!
//! Invariant: what is returned was read from one file that did not change meanwhile, and its sections end where the
//! file ends: a file that is still being copied never passes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::index::Stamp;
use crate::jumpscript::{LANGUAGES, Language, MANIFEST_BYTES_MAX, MANIFEST_FILE, SOURCE_BYTES_MAX, WASM_BYTES_MAX};
use crate::ports::Candidate;
use crate::signatures::{SIGNATURE_BYTES_MAX, SIGNATURE_SUFFIX};

/// How many folders above a Wasm file may have the manifest of the build that made it.
const BUILD_DEPTH_MAX: usize = 4;

/// Why a file is not a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It changed while it was read, or it ends in the middle: worth another look when it has settled.
    Unfinished(String),
    /// It cannot become a jumpscript as it is.
    Refused(String),
}

impl ReadError {
    /// The text for people.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Unfinished(text) | Self::Refused(text) => text,
        }
    }
}

/// Reads the Wasm file or the script at `path` and its manifest. Blocking.
///
/// # Errors
/// See [`ReadError`]; every text names the file.
pub fn read_candidate(path: &Path) -> Result<Candidate, ReadError> {
    if Language::of(path).is_some() {
        return read_text(path);
    }
    let shown = path.display();
    let wasm = read_unchanged(path, WASM_BYTES_MAX)?;
    check_magic(&wasm).map_err(|text| match text {
        Fault::Short(text) => ReadError::Unfinished(format!("`{shown}` {text}")),
        Fault::Foreign(text) => ReadError::Refused(format!("`{shown}` {text}")),
    })?;
    if !ends_at_a_section(&wasm) {
        return Err(ReadError::Unfinished(format!("`{shown}` ends in the middle of a section: it is truncated")));
    }
    with_manifest(path, wasm)
}

/// Reads a script's text. One that is empty is not written yet.
fn read_text(path: &Path) -> Result<Candidate, ReadError> {
    let text = read_unchanged(path, SOURCE_BYTES_MAX)?;
    if text.is_empty() {
        return Err(ReadError::Unfinished(format!("`{}` is empty", path.display())));
    }
    with_manifest(path, text)
}

fn with_manifest(path: &Path, wasm: Vec<u8>) -> Result<Candidate, ReadError> {
    let manifest = match manifest_beside(path) {
        None => None,
        Some(beside) => {
            let bytes = read_unchanged(&beside, MANIFEST_BYTES_MAX)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| ReadError::Refused(format!("the manifest `{}` is not UTF-8", beside.display())))?;
            Some(text)
        }
    };
    let default_name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let signature = match signature_beside(path) {
        None => None,
        Some(beside) => {
            let bytes = read_unchanged(&beside, SIGNATURE_BYTES_MAX)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| ReadError::Refused(format!("the signature `{}` is not UTF-8", beside.display())))?;
            Some(text)
        }
    };
    Ok(Candidate { file, wasm, manifest, default_name, signature })
}

/// The manifest that belongs to the file at `path`: `NAME.toml` beside it; for a Wasm file else `jumpscript.toml` in the
/// same folder when no other Wasm file lies there, else that of the project whose build makes the file.
#[must_use]
pub fn manifest_beside(path: &Path) -> Option<PathBuf> {
    let own = path.with_extension("toml");
    if own.is_file() {
        return Some(own);
    }
    // A text has a manifest of its own or none.
    if Language::of(path).is_some() {
        return None;
    }
    let shared = path.with_file_name(MANIFEST_FILE);
    if shared.is_file() && wasm_files_beside(path).as_slice() == [path] {
        return Some(shared);
    }
    manifest_of_build(path)
}

/// The manifest in a folder above whose `build.output` is this very file.
fn manifest_of_build(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    path.ancestors().skip(2).take(BUILD_DEPTH_MAX).find_map(|folder| {
        let manifest = folder.join(MANIFEST_FILE);
        let read: toml::Table = toml::from_str(&fs::read_to_string(&manifest).ok()?).ok()?;
        let output = read.get("build")?.get("output")?.as_str()?.to_owned();
        (fs::canonicalize(folder.join(output)).ok()? == path).then_some(manifest)
    })
}

/// The signature that belongs to the Wasm file at `path`: `NAME.wasm.sig` beside it.
#[must_use]
pub fn signature_beside(path: &Path) -> Option<PathBuf> {
    let beside = with_suffix(path, SIGNATURE_SUFFIX);
    beside.is_file().then_some(beside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// The Wasm file that the signature at `path` belongs to, when there is one.
#[must_use]
pub fn wasm_of_signature(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(SIGNATURE_SUFFIX)?;
    let wasm = path.with_file_name(name);
    let is_code = wasm.extension() == Some(OsStr::new("wasm")) || Language::of(&wasm).is_some();
    (is_code && wasm.is_file()).then_some(wasm)
}

/// The Wasm file or script that the manifest at `path` belongs to, when there is one.
#[must_use]
pub fn wasm_of_manifest(path: &Path) -> Option<PathBuf> {
    if path.file_name() == Some(OsStr::new(MANIFEST_FILE)) {
        let files = wasm_files_beside(path);
        return match files.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        };
    }
    let endings = LANGUAGES.iter().map(|language| language.extension);
    std::iter::once("wasm").chain(endings).map(|ending| path.with_extension(ending)).find(|file| file.is_file())
}

fn wasm_files_beside(path: &Path) -> Vec<PathBuf> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| path.with_file_name(entry.file_name()))
        .filter(|file| file.extension() == Some(OsStr::new("wasm")) && file.is_file())
        .collect()
}

/// The whole content of a regular file that is the same before and after.
fn read_unchanged(path: &Path, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let shown = path.display();
    let fault = |error: std::io::Error| {
        let text = format!("`{shown}` cannot be read: {error}");
        // It was there a moment ago: somebody is moving files about.
        if error.kind() == std::io::ErrorKind::NotFound {
            ReadError::Unfinished(text)
        } else {
            ReadError::Refused(text)
        }
    };
    // Before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(fault)?.is_file() {
        return Err(ReadError::Refused(format!("`{shown}` is not a regular file")));
    }
    let mut file = File::open(path).map_err(fault)?;
    let before = Stamp::of(&file.metadata().map_err(fault)?);
    if before.size > bytes_max as u64 {
        return Err(ReadError::Refused(format!(
            "`{shown}` has {} bytes, at most {bytes_max} are allowed",
            before.size
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.size).unwrap_or_default());
    // The limit holds for what is read too: the file may grow meanwhile.
    file.by_ref().take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(fault)?;
    let after = Stamp::of(&file.metadata().map_err(fault)?);
    if before != after || bytes.len() as u64 != after.size {
        return Err(ReadError::Unfinished(format!("`{shown}` changed while it was read")));
    }
    Ok(bytes)
}

enum Fault {
    Short(String),
    Foreign(String),
}

/// Refuses by the first bytes what can never be run, native code before anything else.
fn check_magic(bytes: &[u8]) -> Result<(), Fault> {
    if bytes.starts_with(b"\x7fELF") {
        let text = "is precompiled native code (.cwasm), which is never accepted; publish the .wasm it was made from";
        return Err(Fault::Foreign(text.to_owned()));
    }
    if bytes.len() < 8 && b"\0asm".starts_with(&bytes[..bytes.len().min(4)]) {
        return Err(Fault::Short(format!("has {} bytes, too few for a Wasm file", bytes.len())));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(Fault::Foreign("is not a Wasm file (it does not begin with `\\0asm`)".to_owned()));
    }
    Ok(())
}

/// Whether the sections fill the file exactly. Modules and components frame their sections alike: one byte of kind, a
/// LEB128 size, the content.
fn ends_at_a_section(bytes: &[u8]) -> bool {
    let mut at = 8;
    while at < bytes.len() {
        at += 1;
        let mut size: u64 = 0;
        let mut shift = 0;
        loop {
            let Some(&byte) = bytes.get(at) else { return false };
            at += 1;
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                // Not a size at all; the validator has the better words for it.
                return true;
            }
        }
        at = usize::try_from(size).ok().and_then(|size| at.checked_add(size)).unwrap_or(usize::MAX);
    }
    at == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

    fn module() -> Vec<u8> {
        // Two custom sections: "a" with 1 byte, "b" with 3.
        [EMPTY, b"\0\x03\x01a!", b"\0\x05\x01b123"].concat()
    }

    #[test]
    fn every_cut_inside_a_section_is_seen() {
        let whole = module();
        let borders = [8, 13, 20];
        for n in 8..=whole.len() {
            assert_eq!(ends_at_a_section(&whole[..n]), borders.contains(&n), "{n} bytes");
        }
    }

    #[test]
    fn native_code_is_refused_and_a_short_file_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wasm");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_candidate(&path)
        };
        assert!(matches!(read(b"\x7fELF\x02\x01\x01"), Err(ReadError::Refused(text)) if text.contains(".cwasm")));
        assert!(matches!(read(b"(module)"), Err(ReadError::Refused(text)) if text.contains("not a Wasm file")));
        for n in 0..8 {
            assert!(matches!(read(&EMPTY[..n]), Err(ReadError::Unfinished(_))), "{n} bytes");
        }
        assert_eq!(read(EMPTY).unwrap().default_name, "x");
    }

    #[test]
    fn what_a_build_makes_has_the_manifest_of_its_project() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("out/release")).unwrap();
        for file in ["out/release/a.wasm", "out/release/b.wasm"] {
            fs::write(root.join(file), EMPTY).unwrap();
        }
        fs::write(root.join("jumpscript.toml"), "[build]\ncommand = 'x'\noutput = 'out/release/a.wasm'\n").unwrap();
        assert_eq!(manifest_beside(&root.join("out/release/a.wasm")), Some(root.join("jumpscript.toml")));
        assert_eq!(manifest_beside(&root.join("out/release/b.wasm")), None, "another file of the same folder");
    }

    #[test]
    fn a_manifest_belongs_to_the_file_of_its_name_or_to_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.wasm"), EMPTY).unwrap();
        fs::write(at("jumpscript.toml"), "name = 'shared'").unwrap();
        assert_eq!(manifest_beside(&at("a.wasm")), Some(at("jumpscript.toml")));
        assert_eq!(wasm_of_manifest(&at("jumpscript.toml")), Some(at("a.wasm")));
        fs::write(at("b.wasm"), EMPTY).unwrap();
        fs::write(at("b.toml"), "name = 'own'").unwrap();
        assert_eq!(manifest_beside(&at("a.wasm")), None, "two files share the folder");
        assert_eq!(manifest_beside(&at("b.wasm")), Some(at("b.toml")));
        assert_eq!(wasm_of_manifest(&at("jumpscript.toml")), None);
        assert_eq!(read_candidate(&at("b.wasm")).unwrap().manifest.as_deref(), Some("name = 'own'"));
    }
}
