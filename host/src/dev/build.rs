//! Builds Rust projects for Wasm with the user's own cargo.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use crate::watch::IGNORED_FOLDERS;

/// What a jumpscript written in Rust is compiled for.
pub(super) const TARGET: &str = "wasm32-wasip2";
/// The profile that projects are built with. A profile of its own leaves what `cargo build --release` makes alone.
const PROFILE: &str = "wasmhost-dev";
/// As `release` in everything but what backtraces need to name source lines.
const PROFILE_SETTINGS: [&str; 3] = ["inherits=\"release\"", "debug=\"line-tables-only\"", "strip=\"none\""];
/// How deep below the folder a project may lie.
const DEPTH_MAX: usize = 4;
/// How much of a failed build's output is kept, from its beginning: the first error is the one that matters.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// A folder with a `Cargo.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The package's name, or the folder's for a workspace.
    pub name: String,
    /// The folder.
    pub root: PathBuf,
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
        if folder.join("Cargo.toml").is_file() {
            let name = package_name(&folder).unwrap_or_else(|| folder_name(&folder));
            found.push(Project { name, root: folder });
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
pub async fn build(project: &Project) -> Result<Vec<Artifact>, String> {
    let mut command = Command::new("cargo");
    command.args(["build", "--profile", PROFILE, "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    for setting in PROFILE_SETTINGS {
        command.args(["--config", &format!("profile.{PROFILE}.{setting}")]);
    }
    // The project's own toolchain file and cargo configuration count, not those of the host's build.
    command.current_dir(&project.root).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| {
        format!("cannot run `cargo`: {error}\nhint: install Rust, then `rustup target add {TARGET}`")
    })?;
    if !output.status.success() {
        let end = output.stderr.len().min(OUTPUT_BYTES_MAX);
        let mut text = String::from_utf8_lossy(&output.stderr[..end]).trim_end().to_owned();
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
        let names: Vec<String> = find_projects(folder.path()).into_iter().map(|project| project.name).collect();
        assert_eq!(names, ["hello-there", "space"]);
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
