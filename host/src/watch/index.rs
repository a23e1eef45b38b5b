//! What lies in the watched folders: one scan, with links followed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{FOLDERS_MAX, Options};

/// What tells one content of a path from another. The change time is part of it, so that a copy that keeps the
/// modification time, and a permission that was given back, are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: (i64, i64),
    pub(super) changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What lies at `path` when it is a regular file, links followed. Pipes and devices are nothing: reading one
    /// could block for ever.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        metadata.is_file().then(|| Self::of(&metadata))
    }

    /// The same file with more bytes.
    pub(super) fn has_grown_since(&self, before: &Self) -> bool {
        (self.device, self.inode) == (before.device, before.inode) && self.size > before.size
    }
}

/// Device and inode: the identity of a folder.
pub(super) type FolderId = (u64, u64);

/// The identity of the folder at `path`, links followed.
pub(super) fn folder_id(path: &Path) -> Option<FolderId> {
    let metadata = fs::metadata(path).ok()?;
    metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
}

/// Which names count.
#[derive(Debug)]
pub(super) struct Filter {
    extensions: Vec<String>,
    ignored_folders: Vec<String>,
}

impl Filter {
    pub(super) fn new(options: &Options) -> Self {
        Self { extensions: options.extensions.clone(), ignored_folders: options.ignored_folders.clone() }
    }

    /// Whether a file of this name is reported.
    pub(super) fn is_wanted(&self, path: &Path) -> bool {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
        if is_scratch(name) {
            return false;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        self.extensions.is_empty() || self.extensions.iter().any(|wanted| wanted == extension)
    }

    /// Whether a folder of this name is looked into.
    pub(super) fn is_entered(&self, path: &Path) -> bool {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
        !name.starts_with('.') && !self.ignored_folders.iter().any(|ignored| ignored == name)
    }

    /// Whether no folder between `root` and `path` is ignored.
    pub(super) fn is_reachable(&self, root: &Path, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(root) else { return false };
        let mut folder = root.to_path_buf();
        let Some(parent) = rest.parent() else { return true };
        parent.components().all(|part| {
            folder.push(part);
            self.is_entered(&folder)
        })
    }
}

/// Names that editors and copying tools use for files that are not finished: hidden files, backups, vim's swap and
/// probe files, emacs's locks, and the endings of partial copies.
fn is_scratch(name: &str) -> bool {
    let endings =
        ["~", ".swp", ".swx", ".tmp", ".temp", ".part", ".partial", ".crdownload", "___jb_tmp___", "___jb_old___"];
    name.starts_with('.')
        || name.starts_with('#')
        || name == "4913"
        || endings.iter().any(|ending| name.ends_with(ending))
}

/// The result of a scan.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) files: BTreeMap<PathBuf, Stamp>,
    pub(super) folders: BTreeSet<PathBuf>,
    /// Whether a link was met: what it points to may change without a notification.
    pub(super) has_links: bool,
    /// Whether there were more than [`FOLDERS_MAX`] folders.
    pub(super) is_cut: bool,
}

impl Scan {
    /// Adds what lies at `root`. `enter` is called with each folder before it is read, so that a notification can be
    /// asked for first and nothing falls between the two.
    pub(super) fn add(&mut self, root: &Path, filter: &Filter, enter: &mut dyn FnMut(&Path)) {
        self.has_links |= root.is_symlink();
        if let Some(stamp) = Stamp::at(root) {
            self.files.insert(root.to_path_buf(), stamp);
            return;
        }
        let mut seen: HashSet<FolderId> = HashSet::new();
        let mut waiting = vec![root.to_path_buf()];
        while let Some(folder) = waiting.pop() {
            let Some(id) = folder_id(&folder) else { continue };
            // A link to a folder above would lead round in a circle.
            if !seen.insert(id) {
                continue;
            }
            if seen.len() > FOLDERS_MAX {
                self.is_cut = true;
                return;
            }
            enter(&folder);
            self.folders.insert(folder.clone());
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_dir() && filter.is_entered(&path) => waiting.push(path),
                    Ok(metadata) if metadata.is_file() && filter.is_wanted(&path) => {
                        self.files.insert(path, Stamp::of(&metadata));
                    }
                    // A link to nothing may get its target later.
                    Err(_) if is_link && filter.is_wanted(&path) => {}
                    _ => continue,
                }
                self.has_links |= is_link;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(extensions: &[&str]) -> Filter {
        let extensions = extensions.iter().map(|&extension| extension.to_owned()).collect();
        Filter::new(&Options { extensions, ..Options::default() })
    }

    #[test]
    fn scratch_files_of_editors_are_not_wanted() {
        let all = filter(&[]);
        for name in [".hello.wasm.swp", "hello.wasm~", "#hello.rs#", "4913", "hello.wasm.part", ".hidden"] {
            assert!(!all.is_wanted(Path::new(name)), "{name}");
        }
        assert!(all.is_wanted(Path::new("src/lib.rs")));
        assert!(filter(&["wasm"]).is_wanted(Path::new("hello.wasm")));
        assert!(!filter(&["wasm"]).is_wanted(Path::new("hello.cwasm")));
    }

    #[test]
    fn nothing_below_an_ignored_folder_is_reachable() {
        let filter = filter(&[]);
        let root = Path::new("/project/target");
        assert!(filter.is_reachable(root, Path::new("/project/target/src/lib.rs")), "the root's own path counts not");
        for path in ["target/x", "a/target/b/x", ".git/x", "node_modules/x"] {
            assert!(!filter.is_reachable(root, &root.join(path)), "{path}");
        }
    }

    #[test]
    fn a_scan_follows_links_and_survives_circles() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/x.wasm"), "x").unwrap();
        std::os::unix::fs::symlink(root, root.join("a/b/up")).unwrap();
        std::os::unix::fs::symlink(root.join("a/b/x.wasm"), root.join("y.wasm")).unwrap();
        let mut scan = Scan::default();
        scan.add(root, &filter(&["wasm"]), &mut |_| {});
        let names: Vec<_> = scan.files.keys().map(|path| path.strip_prefix(root).unwrap().to_path_buf()).collect();
        assert_eq!(names, [Path::new("a/b/x.wasm"), Path::new("y.wasm")]);
        assert!(scan.has_links);
    }
}
