//! From a folder to its files of cases, and from a file of cases to the code that it tests.

use std::path::{Path, PathBuf};

use super::super::local::{Code, Local};
use super::super::profile::rounded;
use super::super::{Failure, print};
use crate::dev::{self, Project};
use crate::job::visible;
use crate::jumpscript::Language;
use crate::ports::Candidate;
use crate::watch::{IGNORED_FOLDERS, read_candidate};

/// The folder of the files of cases, beside a project's manifest or a Wasm file.
const FOLDER: &str = "tests";
/// How deep below the folder that was named files of cases are found.
const DEPTH_MAX: usize = 4;

/// A file of cases and the folder of the jumpscript that it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) file: PathBuf,
    owner: PathBuf,
}

/// The files of cases at and below a folder, or the one that is named itself.
pub(super) fn find(path: &Path) -> Result<Vec<Found>, Failure> {
    let shown = visible(&path.display().to_string());
    let meta = std::fs::metadata(path).map_err(|error| Failure::usage(format!("cannot read `{shown}`: {error}")))?;
    if meta.is_file() {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_inside = folder.file_name().is_some_and(|name| name == FOLDER);
        let owner = if is_inside { folder.join("..") } else { folder.to_owned() };
        return Ok(vec![Found { file: path.to_owned(), owner }]);
    }
    let mut found = Vec::new();
    look_into(path, 0, &mut found);
    found.sort_by(|a, b| a.file.cmp(&b.file));
    if found.is_empty() {
        return Err(Failure::usage(format!("there are no cases below `{shown}`: no file `{FOLDER}/NAME.toml`"))
            .hint("docs/testing.md shows what a case looks like; `--update` fills in what is expected"));
    }
    Ok(found)
}

fn look_into(folder: &Path, depth: usize, found: &mut Vec<Found>) {
    // A folder that cannot be read has no cases that could be run.
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let is_inside = folder.file_name().is_some_and(|name| name == FOLDER);
        if path.is_dir() && depth < DEPTH_MAX && !IGNORED_FOLDERS.contains(&name) {
            look_into(&path, depth + 1, found);
        } else if is_inside && name.ends_with(".toml") && path.is_file() {
            let owner = folder.parent().map_or_else(|| folder.join(".."), Path::to_owned);
            found.push(Found { file: path, owner });
        }
    }
}

/// A jumpscript of an owner, by name. It is loaded when the first cases are about it.
struct Subject {
    name: String,
    is_wasm: bool,
    state: State,
}

enum State {
    Read(Box<Candidate>),
    Loaded(Code),
}

/// Builds and loads what files of cases are about, each once.
pub(super) struct Subjects {
    projects: Vec<Project>,
    /// What was made for each owner.
    made: Vec<(PathBuf, Vec<Subject>)>,
    /// Tested instead of whatever else there is.
    instead: Option<PathBuf>,
    /// Runs scripts instead of what ships with the program.
    interpreter: Option<PathBuf>,
}

impl Subjects {
    pub(super) fn new(path: &Path, instead: Option<PathBuf>, interpreter: Option<PathBuf>) -> Self {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = if folder.file_name().is_some_and(|name| name == FOLDER) { &folder.join("..") } else { folder };
        Self { projects: dev::find_projects(folder), made: Vec::new(), instead, interpreter }
    }

    /// The name and the code that a file of cases is about; `script` is what it says itself.
    pub(super) async fn of(
        &mut self,
        local: &Local,
        found: &Found,
        script: Option<&str>,
    ) -> Result<(&str, &Code), Failure> {
        if !self.made.iter().any(|(owner, _)| *owner == found.owner) {
            let subjects = self.make(&found.owner).await?;
            self.made.push((found.owner.clone(), subjects));
        }
        let (_, subjects) = self.made.iter_mut().find(|(owner, _)| *owner == found.owner).ok_or_else(gone)?;
        let n = meant(subjects, &found.file, script, self.instead.is_some())?;
        let subject = subjects.get_mut(n).ok_or_else(gone)?;
        if let State::Read(candidate) = &subject.state {
            let code = local.load_candidate(candidate.as_ref().clone(), self.interpreter.as_deref())?;
            subject.state = State::Loaded(code);
        }
        match &subject.state {
            State::Loaded(code) => Ok((&subject.name, code)),
            State::Read(_) => Err(gone()),
        }
    }

    async fn make(&self, owner: &Path) -> Result<Vec<Subject>, Failure> {
        let candidates = if let Some(file) = &self.instead {
            vec![read(file)?]
        } else if let Some(project) = self.project_of(owner) {
            build(project, owner).await?
        } else {
            files(owner)?
        };
        let subject = |candidate: Candidate| Subject {
            name: candidate.default_name.clone(),
            is_wasm: Language::of(Path::new(&candidate.file)).is_none(),
            state: State::Read(Box::new(candidate)),
        };
        Ok(candidates.into_iter().map(subject).collect())
    }

    fn project_of(&self, owner: &Path) -> Option<&Project> {
        let owner = std::fs::canonicalize(owner).ok()?;
        self.projects
            .iter()
            .find(|project| std::fs::canonicalize(&project.root).is_ok_and(|root| owner.starts_with(root)))
    }
}

fn gone() -> Failure {
    Failure::new("the code is gone; this is a bug, please report it")
}

/// Which of several a file of cases is about: what it says, else the only one, else the one that is called like the file,
/// else the only Wasm file.
fn meant(subjects: &[Subject], file: &Path, script: Option<&str>, is_given: bool) -> Result<usize, Failure> {
    let names = || subjects.iter().map(|subject| format!("`{}`", subject.name)).collect::<Vec<_>>().join(", ");
    let shown = visible(&file.display().to_string());
    let place = |name: &str| subjects.iter().position(|subject| subject.name == name);
    if subjects.len() == 1 && (is_given || script.is_none()) {
        return Ok(0);
    }
    if let Some(script) = script {
        let short = script.rsplit('/').next().unwrap_or(script);
        return place(script).or_else(|| place(short)).ok_or_else(|| {
            Failure::usage(format!("`{shown}` is about `{}`, but there is {}", visible(script), names()))
        });
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut wasm = subjects.iter().enumerate().filter(|(_, subject)| subject.is_wasm).map(|(n, _)| n);
    let only = wasm.next().filter(|_| wasm.next().is_none());
    place(&stem).or(only).ok_or_else(|| {
        Failure::usage(format!("`{shown}` does not say which it is about: {}", names()))
            .hint("write `script = \"NAME\"` at its top, or call the file like the script: `tests/NAME.toml`")
    })
}

/// What a project builds for a folder: that of the folder's own package, else everything.
async fn build(project: &Project, owner: &Path) -> Result<Vec<Candidate>, Failure> {
    let name = visible(&project.name);
    print::note(&format!("building {name}"));
    let start = std::time::Instant::now();
    let artifacts = dev::build(project, dev::For::Author).await.map_err(|text| {
        print::note(&text);
        Failure::new(format!("`{name}` does not build, so nothing was tested"))
    })?;
    print::note(&format!("built {name} in {}", rounded(start.elapsed())));
    let owner = std::fs::canonicalize(owner).unwrap_or_else(|_| owner.to_owned());
    let own: Vec<_> = artifacts
        .iter()
        .filter(|artifact| std::fs::canonicalize(&artifact.folder).is_ok_and(|folder| folder == owner))
        .collect();
    let meant = if own.is_empty() { artifacts.iter().collect() } else { own };
    let mut candidates = Vec::new();
    for artifact in meant {
        candidates.push(dev::read_artifact(artifact).await.map_err(Failure::new)?);
    }
    Ok(candidates)
}

/// The Wasm files and scripts that lie in a folder.
fn files(folder: &Path) -> Result<Vec<Candidate>, Failure> {
    let shown = visible(&folder.display().to_string());
    let entries =
        std::fs::read_dir(folder).map_err(|error| Failure::usage(format!("cannot read `{shown}`: {error}")))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_wasm = |path: &Path| path.extension().is_some_and(|extension| extension == "wasm");
    files.retain(|path| !is_hidden(path) && (is_wasm(path) || Language::of(path).is_some()));
    files.sort();
    if files.is_empty() {
        return Err(Failure::usage(format!(
            "there is nothing to test in `{shown}`: no project, no Wasm file, no script"
        ))
        .hint("build it first, or name the file: --wasm FILE"));
    }
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Result<Candidate, Failure> {
    // Special files are refused here; what the reader of candidates would say is for files that are watched.
    super::super::exec::check_regular(file)?;
    let shown = visible(&file.display().to_string());
    read_candidate(file).map_err(|error| Failure::usage(format!("`{shown}`: {}", error.text())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_cases_belong_to_the_folder_around_them() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        put("tests/a.toml");
        put("tests/helper.rs");
        put("one/tests/b.toml");
        put("one/tests/data/c.json");
        put("target/tests/d.toml");
        put("one/Cargo.toml");
        let found = find(folder.path()).unwrap();
        let owners: Vec<_> = found.iter().map(|found| found.owner.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(owners, [Path::new("one"), Path::new("")]);
        let one = find(&folder.path().join("one/tests/b.toml")).unwrap();
        assert!(one[0].owner.ends_with("one/tests/.."));
        assert!(find(&folder.path().join("one/tests/data")).is_err(), "there are no cases");
    }
}
