//! New projects: the files of a template, with its words filled in, written whole.
//!
//! The templates are folders of this package (`host/templates/LANGUAGE`). A component's project has the contract beside
//! it (`guest-sdk/wit`), one in Rust the whole SDK, so that it builds anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use super::Language;
use crate::job::visible;

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../guest-sdk");
/// What the manifests of the SDK leave to the workspace.
const WORKSPACE: &str = include_str!("../../../Cargo.toml");
/// Where a project in Rust has the SDK.
const SDK_FOLDER: &str = "wasmhost-guest";
/// Longest name in characters: what a jumpscript may be called.
const NAME_CHARS_MAX: usize = 64;

/// Words that no project in Rust can be called: those of the language, and of what it depends on.
const RUST_WORDS: &str = "abstract alloc as async await become box break const continue core crate do dyn else enum \
     extern false final fn for gen if impl in let loop macro match mod move mut override priv proc_macro pub ref return \
     self serde static std struct super test trait true try type typeof unsafe unsized use virtual wasmhost-guest \
     wasmhost-guest-macros where while yield";

/// A project that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProject {
    /// Its language.
    pub language: Language,
    /// Its folder, whose last part is its name.
    pub folder: PathBuf,
    /// What it is called: a name that [`check_name`] takes.
    pub name: String,
    /// Whose it is: an organization of a jumpscript's name.
    pub organization: String,
}

/// Checks what a project, its package and its jumpscript are to be called.
///
/// # Errors
/// A sentence with the name and the rule.
pub fn check_name(name: &str, language: Language) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !starts_well || !name.chars().all(is_plain) || name.contains("__") || name.len() > NAME_CHARS_MAX {
        let shown: String = name.chars().take(80).collect();
        return Err(format!(
            "the name `{}` must start with a letter and have at most {NAME_CHARS_MAX} letters, digits, `-` and `_`, and no `__`",
            visible(&shown)
        ));
    }
    if language == Language::Rust && RUST_WORDS.split_whitespace().any(|word| word == name) {
        return Err(format!("a package in Rust cannot be called `{name}`; take another name, such as `{name}-job`"));
    }
    Ok(())
}

impl NewProject {
    /// Writes the project: into a folder beside first, which then takes its place. Gives the number of files.
    ///
    /// # Errors
    /// A sentence with the folder or the file, and what to do.
    pub fn write(&self) -> Result<usize, String> {
        let shown = visible(&self.folder.display().to_string());
        match fs::read_dir(&self.folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(format!("the folder `{shown}` is not empty; take another name, or empty it first"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(format!("`{shown}` exists and is not a folder; take another name"));
            }
            Err(error) => return Err(format!("the folder `{shown}` cannot be read: {error}")),
        }
        let files = self.files()?;
        let whole = |what: &Path, error: &io::Error| format!("`{}` cannot be written: {error}", what.display());
        let folder = std::path::absolute(&self.folder).map_err(|error| whole(&self.folder, &error))?;
        let parent = folder.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(|error| whole(parent, &error))?;
        let part = parent.join(format!(".{}.{}.part", self.name, std::process::id()));
        let written = write_all(&part, &files).and_then(|()| {
            // A folder takes the place of an empty one, and of nothing else.
            fs::rename(&part, &folder).map_err(|error| whole(&self.folder, &error))
        });
        if written.is_err() {
            // What is left is hidden, and a second try has another name.
            let _ = fs::remove_dir_all(&part);
        }
        written.map(|()| files.len())
    }

    /// Every file of the project, by its path in it.
    ///
    /// # Errors
    /// A sentence: a template or a manifest of the SDK is not what it should be.
    pub fn files(&self) -> Result<BTreeMap<PathBuf, String>, String> {
        let folder = self.language.as_str();
        let template =
            TEMPLATES.get_dir(folder).ok_or_else(|| format!("the template `{folder}` is not in the program"))?;
        let mut files = BTreeMap::new();
        collect(template, Path::new(folder), Path::new(""), &mut files)?;
        for text in files.values_mut() {
            *text = self.filled(text);
        }
        match self.language {
            Language::Rust => {
                collect(&SDK, Path::new(""), Path::new(SDK_FOLDER), &mut files)?;
                for package in [PathBuf::from(SDK_FOLDER), Path::new(SDK_FOLDER).join("macros")] {
                    if let Some(manifest) = files.get_mut(&package.join("Cargo.toml")) {
                        *manifest = alone(manifest, WORKSPACE)?;
                    }
                }
            }
            Language::JavaScript | Language::Python => {
                let wit = SDK.get_dir("wit").ok_or("the contract is not in the program")?;
                collect(wit, Path::new("wit"), Path::new("wit"), &mut files)?;
            }
            Language::Go | Language::C | Language::AssemblyScript => {}
        }
        Ok(files)
    }

    fn filled(&self, text: &str) -> String {
        let crate_name = self.name.replace('-', "_");
        text.replace("{{name}}", &self.name)
            .replace("{{crate}}", &crate_name)
            .replace("{{organization}}", &self.organization)
            .replace("{{payload}}", self.language.payload())
    }
}

/// Adds the files below `folder`, with `strip` at the head of their paths replaced by `under`.
fn collect(folder: &Dir<'_>, strip: &Path, under: &Path, into: &mut BTreeMap<PathBuf, String>) -> Result<(), String> {
    for file in folder.files() {
        let path = file.path();
        let text = file.contents_utf8().ok_or_else(|| format!("the template file `{}` is no text", path.display()))?;
        into.insert(under.join(path.strip_prefix(strip).unwrap_or(path)), text.to_owned());
    }
    // What a tool left beside a template is no part of it.
    let mut own = folder.dirs().filter(|folder| !folder.path().ends_with("__pycache__"));
    own.try_for_each(|folder| collect(folder, strip, under, into))
}

fn write_all(folder: &Path, files: &BTreeMap<PathBuf, String>) -> Result<(), String> {
    for (path, text) in files {
        let path = folder.join(path);
        let written = match path.parent() {
            Some(parent) => fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)),
            None => fs::write(&path, text),
        };
        written.map_err(|error| format!("`{}` cannot be written: {error}", path.display()))?;
    }
    Ok(())
}

/// The manifest of a package that stood in a workspace, as one that stands alone.
fn alone(manifest: &str, workspace: &str) -> Result<String, String> {
    let read =
        |text: &str| toml::from_str::<toml::Table>(text).map_err(|error| format!("a manifest of the SDK: {error}"));
    let mut manifest = read(manifest)?;
    let workspace = read(workspace)?;
    let shared = |table: &str, key: &str| workspace.get("workspace")?.get(table)?.get(key).cloned();
    if let Some(package) = manifest.get_mut("package").and_then(toml::Value::as_table_mut) {
        for (key, value) in package.iter_mut() {
            if is_shared(value) {
                *value = shared("package", key).ok_or_else(|| format!("the workspace has no `package.{key}`"))?;
            }
        }
    }
    let own = manifest.get_mut("dependencies").and_then(toml::Value::as_table_mut);
    for (name, value) in own.into_iter().flat_map(toml::Table::iter_mut) {
        if !is_shared(value) {
            continue;
        }
        let mut found =
            shared("dependencies", name).ok_or_else(|| format!("the workspace has no dependency `{name}`"))?;
        // The folder of the SDK is the package's own folder now.
        if let Some(path) = found.get_mut("path")
            && let Some(inside) = path.as_str().and_then(|path| path.strip_prefix("guest-sdk/"))
        {
            *path = toml::Value::String(inside.to_owned());
        }
        // What the package adds to the workspace's entry, such as features.
        if let (Some(added), Some(table)) = (value.as_table(), found.as_table_mut()) {
            table.extend(added.iter().filter(|(key, _)| *key != "workspace").map(|(k, v)| (k.clone(), v.clone())));
        }
        *value = found;
    }
    manifest.remove("lints");
    toml::to_string(&manifest).map_err(|error| format!("a manifest of the SDK: {error}"))
}

/// Whether an entry says `workspace = true`.
fn is_shared(value: &toml::Value) -> bool {
    value.get("workspace").and_then(toml::Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(language: Language, folder: &Path) -> NewProject {
        let organization = "acme".to_owned();
        NewProject { language, folder: folder.to_path_buf(), name: "hello-there".to_owned(), organization }
    }

    #[test]
    fn every_template_is_filled_in_and_has_what_a_project_needs() {
        for language in Language::ALL {
            let files = project(language, Path::new("x")).files().unwrap();
            for needed in ["jumpscript.toml", "README.md", ".gitignore", "tests/cases.toml"] {
                assert!(files.contains_key(Path::new(needed)), "{language} has no {needed}");
            }
            for (path, text) in &files {
                assert!(!text.contains("{{"), "{language}: {} has an empty place", path.display());
            }
            let manifest = crate::jumpscript::Manifest::parse(&files[Path::new("jumpscript.toml")]).unwrap();
            assert_eq!(
                (manifest.name.as_deref(), manifest.organization.as_deref()),
                (Some("hello-there"), Some("acme"))
            );
            assert_eq!(manifest.build.is_some(), language != Language::Rust, "cargo itself says what it makes");
        }
    }

    #[test]
    fn a_component_has_the_contract_beside_it() {
        for (language, path) in
            [(Language::Rust, "wasmhost-guest/wit"), (Language::JavaScript, "wit"), (Language::Python, "wit")]
        {
            let files = project(language, Path::new("x")).files().unwrap();
            let contract = &files[&Path::new(path).join("jumpscript.wit")];
            assert_eq!(contract, include_str!("../../../guest-sdk/wit/jumpscript.wit"), "{language}");
        }
    }

    #[test]
    fn the_sdk_stands_alone() {
        let files = project(Language::Rust, Path::new("x")).files().unwrap();
        for package in ["wasmhost-guest", "wasmhost-guest/macros"] {
            let text = &files[&Path::new(package).join("Cargo.toml")];
            assert!(!text.contains("workspace"), "{text}");
            assert!(!text.contains("guest-sdk"), "{text}");
        }
        assert!(files[Path::new("wasmhost-guest/Cargo.toml")].contains("path = \"macros\""));
    }

    #[test]
    fn a_folder_is_written_whole_and_only_where_nothing_is() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("below/hello-there");
        assert_eq!(
            project(Language::C, &folder).write().unwrap(),
            project(Language::C, &folder).files().unwrap().len()
        );
        assert!(project(Language::C, &folder).write().unwrap_err().contains("is not empty"));
        fs::write(place.path().join("file"), "").unwrap();
        assert!(project(Language::C, &place.path().join("file")).write().unwrap_err().contains("not a folder"));
        let empty = place.path().join("empty");
        fs::create_dir(&empty).unwrap();
        project(Language::C, &empty).write().unwrap();
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    }

    #[test]
    fn names_that_some_tool_would_refuse_are_refused_first() {
        for bad in ["", "9lives", "a b", "a/b", "a__b", "-x", "ä", &"x".repeat(65)] {
            assert!(check_name(bad, Language::Go).unwrap_err().contains("must start with a letter"), "{bad}");
        }
        assert!(check_name("fn", Language::Rust).unwrap_err().contains("`fn-job`"));
        assert!(check_name("serde", Language::Rust).is_err());
        assert_eq!(check_name("fn", Language::Python), Ok(()));
        assert_eq!(check_name("Hello-2_b", Language::Rust), Ok(()));
    }
}
