//! Finds projects and builds them: by the command of their manifest, or as Rust with the user's own cargo.
//!
//! Next: `languages` for the tools of a build command, `command` for how it is run.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use super::command;
use crate::jumpscript::{Build, MANIFEST_FILE, Manifest};
use crate::watch::IGNORED_FOLDERS;

/// What a jumpscript written in Rust is compiled for.
pub(super) const TARGET: &str = "wasm32-wasip2";
/// The profile that projects are built with for their authors. A profile of its own leaves what `cargo build --release` makes alone.
const PROFILE: &str = "wasmhost-dev";
/// As `release` in everything but what backtraces need to name source lines.
const PROFILE_SETTINGS: [&str; 3] = ["inherits=\"release\"", "debug=\"line-tables-only\"", "strip=\"none\""];
/// How deep below the folder a project may lie.
const DEPTH_MAX: usize = 4;
/// How much of a failed build's output is kept, from its beginning: the first error is the one that matters.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// A folder with a `Cargo.toml`, or with a `jumpscript.toml` that says how it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The name in its manifest; of a package in Rust the package's, or the folder's for a workspace.
    pub name: String,
    /// The folder.
    pub root: PathBuf,
    /// What makes its Wasm files.
    pub(super) how: How,
}

/// Whom a project is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Its author: what is in the file names source lines. Rust only; the commands of other languages are their own.
    Author,
    /// The nodes: as `cargo build --release` has it.
    Nodes,
}

/// What makes the Wasm files of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// cargo, which also says what it made.
    Cargo,
    /// The command of the manifest.
    Command(Build),
    /// A manifest with a build command that cannot be read, and why.
    Broken(String),
}

impl Project {
    /// The project whose folder this is; `None` when it is a folder like any other.
    pub(super) fn at(folder: &Path) -> Option<Self> {
        let root = folder.to_path_buf();
        if let Ok(text) = std::fs::read_to_string(folder.join(MANIFEST_FILE))
            && has_build(&text)
        {
            let (name, how) = match Manifest::parse(&text) {
                Ok(Manifest { name, build: Some(build), .. }) => (name, How::Command(build)),
                Ok(Manifest { name, .. }) => (name, How::Cargo),
                Err(text) => (None, How::Broken(format!("{}: {text}", folder.join(MANIFEST_FILE).display()))),
            };
            return Some(Self { name: name.unwrap_or_else(|| folder_name(folder)), root, how });
        }
        let is_rust = folder.join("Cargo.toml").is_file();
        let name = || package_name(folder).unwrap_or_else(|| folder_name(folder));
        is_rust.then(|| Self { name: name(), root, how: How::Cargo })
    }

    /// Whether a change of this file can change what is built. Build output and lock files, which builds write, cannot.
    pub(super) fn is_source(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(&self.root) else { return false };
        let How::Command(build) = &self.how else {
            return inside.file_name().is_some_and(|name| name != "Cargo.lock");
        };
        let output = Path::new(&build.output);
        let is_output = match output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => inside.starts_with(folder),
            // Compilers write beside the file, too: `x.wasm.o`, `.x.wasm.part`.
            _ => inside.to_string_lossy().contains(build.output.as_str()),
        };
        let is_watched = build.watch.is_empty()
            || inside == Path::new(MANIFEST_FILE)
            || build.watch.iter().any(|watched| inside.starts_with(watched));
        is_watched && !is_output
    }
}

/// Whether a manifest has the table `[build]`, also one that does not parse as a whole.
fn has_build(manifest: &str) -> bool {
    manifest.lines().any(|line| line.split('#').next().unwrap_or_default().trim() == "[build]")
}

/// A Wasm file that a build made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The package's name for a library, the program's for a program.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The folder of the package's `Cargo.toml`.
    pub folder: PathBuf,
}

/// The topmost projects at and below `folder`.
#[must_use]
pub fn find_projects(folder: &Path) -> Vec<Project> {
    let mut found = Vec::new();
    let mut waiting = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = waiting.pop() {
        if let Some(project) = Project::at(&folder) {
            found.push(project);
            continue;
        }
        if depth == DEPTH_MAX {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_ignored = name.to_str().is_none_or(|n| n.starts_with('.') || IGNORED_FOLDERS.contains(&n));
            if !is_ignored && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push((folder.join(name), depth + 1));
            }
        }
    }
    found.sort_by(|a, b| a.root.cmp(&b.root));
    found
}

fn folder_name(folder: &Path) -> String {
    let absolute = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    absolute.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The name in the `Cargo.toml` of `folder`; `None` for a workspace or an unreadable file.
fn package_name(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = toml::from_str(&text).ok()?;
    Some(manifest.get("package")?.get("name")?.as_str()?.to_owned())
}

/// Runs the compiler. Dropping the future ends it.
///
/// # Errors
/// The compiler's own words, or why it could not be run.
pub async fn build(project: &Project, whom: For) -> Result<Vec<Artifact>, String> {
    match &project.how {
        How::Cargo => by_cargo(project, whom).await,
        How::Command(build) => {
            let path = command::run(&project.root, build).await?;
            Ok(vec![Artifact { name: project.name.clone(), path, folder: project.root.clone() }])
        }
        How::Broken(text) => Err(text.clone()),
    }
}

async fn by_cargo(project: &Project, whom: For) -> Result<Vec<Artifact>, String> {
    let (profile, settings) = match whom {
        For::Author => (PROFILE, &PROFILE_SETTINGS[..]),
        For::Nodes => ("release", &[][..]),
    };
    let mut command = Command::new("cargo");
    command.args(["build", "--profile", profile, "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    for setting in settings {
        command.args(["--config", &format!("profile.{profile}.{setting}")]);
    }
    // The project's own toolchain file and cargo configuration count, not those of the host's build.
    command.current_dir(&project.root).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| {
        format!("cannot run `cargo`: {error}\nhint: install Rust, then `rustup target add {TARGET}`")
    })?;
    if !output.status.success() {
        let mut text = beginning(&output.stderr);
        if text.contains("target may not be installed") {
            text.push_str(&format!("\nhint: rustup target add {TARGET}"));
        }
        return Err(text);
    }
    let root = std::fs::canonicalize(&project.root).unwrap_or_else(|_| project.root.clone());
    let artifacts = artifacts(&String::from_utf8_lossy(&output.stdout), &root);
    if artifacts.is_empty() {
        return Err(format!(
            "project `{}` builds no Wasm file\nhint: put `crate-type = [\"cdylib\"]` into the [lib] section of its \
             Cargo.toml, or give it a program",
            project.name
        ));
    }
    Ok(artifacts)
}

/// The beginning of what a compiler said.
pub(super) fn beginning(said: &[u8]) -> String {
    String::from_utf8_lossy(&said[..said.len().min(OUTPUT_BYTES_MAX)]).trim_end().to_owned()
}

/// One line of cargo's report.
#[derive(Deserialize)]
struct Line {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The Wasm files of packages below `root` in cargo's report.
fn artifacts(report: &str, root: &Path) -> Vec<Artifact> {
    let lines = report.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut found = Vec::new();
    for line in lines.filter(|line| line.reason == "compiler-artifact") {
        let (Some(manifest), Some(target)) = (line.manifest_path, line.target) else { continue };
        let Some(folder) = manifest.parent().filter(|folder| folder.starts_with(root)) else { continue };
        let is_program = target.kind.iter().any(|kind| kind == "bin");
        for path in line.filenames.into_iter().filter(|path| path.extension().is_some_and(|e| e == "wasm")) {
            let package = if is_program { None } else { package_name(folder) };
            let name = package.unwrap_or_else(|| target.name.clone());
            found.push(Artifact { name, path, folder: folder.to_path_buf() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_manifest_is_the_project() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("hello/Cargo.toml", "[package]\nname = 'hello-there'\n");
        put("hello/inner/Cargo.toml", "[package]\nname = 'inner'\n");
        put("space/Cargo.toml", "[workspace]\nmembers = []\n");
        put("target/x/Cargo.toml", "[package]\nname = 'product'\n");
        put("py/jumpscript.toml", "name = 'snake'\n[build]\ncommand = 'x'\noutput = 'build/x.wasm'\n");
        put("py/vendor/Cargo.toml", "[package]\nname = 'vendored'\n");
        put("described/jumpscript.toml", "name = 'no-project'\n");
        put("torn/jumpscript.toml", "[build] # soon\ncommand = 7\n");
        let found = find_projects(folder.path());
        let names: Vec<&str> = found.iter().map(|project| project.name.as_str()).collect();
        assert_eq!(names, ["hello-there", "snake", "space", "torn"]);
        assert!(matches!(&found[3].how, How::Broken(text) if text.contains("command")), "{:?}", found[3]);
    }

    #[test]
    fn what_a_build_writes_is_no_source() {
        let project = |output: &str, watch: &[&str]| {
            let watch = watch.iter().map(|&path| path.to_owned()).collect();
            let how = How::Command(Build { command: "x".to_owned(), output: output.to_owned(), watch });
            Project { name: "p".to_owned(), root: PathBuf::from("/p"), how }
        };
        let counts = |project: &Project, path: &str| project.is_source(&Path::new("/p").join(path));
        let plain = project("out/p.wasm", &[]);
        assert!(counts(&plain, "app.py") && counts(&plain, "jumpscript.toml"));
        assert!(!counts(&plain, "out/p.wasm") && !counts(&plain, "out/p.wasm.o"));
        let beside = project("p.wasm", &[]);
        assert!(counts(&beside, "main.c") && !counts(&beside, "p.wasm") && !counts(&beside, ".p.wasm.part"));
        let narrow = project("out/p.wasm", &["src"]);
        assert!(counts(&narrow, "src/app.js") && counts(&narrow, "jumpscript.toml") && !counts(&narrow, "notes.md"));
        assert!(!plain.is_source(Path::new("/elsewhere/app.py")));
    }

    #[test]
    fn the_report_names_the_wasm_files_of_the_project_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("Cargo.toml"), "[package]\nname = 'text-stats'\n").unwrap();
        let line = |manifest: &Path, kind: &str, name: &str, file: &str| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"manifest_path\":{manifest:?},\"target\":{{\"name\":{name:?},\
                 \"kind\":[{kind:?}]}},\"filenames\":[{file:?}]}}"
            )
        };
        let own = root.join("Cargo.toml");
        let report = [
            line(Path::new("/elsewhere/Cargo.toml"), "cdylib", "dependency", "/t/dependency.wasm"),
            line(&own, "cdylib", "text_stats", "/t/text_stats.wasm"),
            line(&own, "bin", "tool", "/t/tool.wasm"),
            line(&own, "lib", "text_stats", "/t/libtext_stats.rlib"),
            "not json".to_owned(),
        ]
        .join("\n");
        let found = artifacts(&report, root);
        let names: Vec<&str> = found.iter().map(|artifact| artifact.name.as_str()).collect();
        assert_eq!(names, ["text-stats", "tool"]);
    }
}
