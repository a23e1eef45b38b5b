//! Permissions from end to end: what a manifest requests, a node allows and an operator grants, and nothing else.

mod canary;
mod facts;
mod files;
mod grants;
mod health;
mod refusals;
mod supplied;

use std::path::PathBuf;

use wasmhost::jumpscript::{Digest, embed_manifest};

use crate::support::guests;
use crate::support::program::{Ended, Host, Invocation};
use crate::support::redis::{RedisServer, random_prefix};

/// Every kind that is decided before an attempt starts: its line in a manifest, and the flag that grants it.
const KINDS: [(&str, &str); 7] = [
    ("state = ['orders']", "--state orders"),
    ("enqueue = ['mail-*']", "--enqueue 'mail-*'"),
    ("env = ['ASKED_FOR']", "--env ASKED_FOR"),
    ("files = ['/etc']", "--files /etc"),
    ("config = ['limit.*']", "--config-key 'limit.*'"),
    ("secrets = ['db-password']", "--secrets db-password"),
    ("facts = ['disks']", "--facts disks"),
];

/// A prefix of its own, and a folder for files.
struct World {
    redis: &'static RedisServer,
    prefix: String,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { redis: RedisServer::shared(), prefix: random_prefix(), folder: tempfile::tempdir().unwrap() }
    }

    fn cli(&self, arguments: &[&str]) -> Invocation {
        Invocation::new(arguments.iter().copied()).on(self.redis.url(), &self.prefix)
    }

    /// The words of a command as a person would paste them, run here.
    fn paste(&self, command: &str) -> Ended {
        let words: Vec<&str> =
            command.strip_prefix("wasmhost ").unwrap().split(' ').map(|word| word.trim_matches('\'')).collect();
        self.cli(&words).run()
    }

    /// Writes the guest `ask` with this table `[permissions]` to a file of this name.
    fn file(&self, name: &str, permissions: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.wasm"));
        let manifest = format!("name = '{name}'\n[permissions]\n{permissions}\n");
        std::fs::write(&path, embed_manifest(&guests::wasm("ask"), &manifest)).unwrap();
        path
    }

    fn publish(&self, name: &str, permissions: &str) -> Ended {
        let file = self.file(name, permissions);
        self.cli(&["publish", file.to_str().unwrap()]).run()
    }

    /// The digest of the file that was written last under this name.
    fn digest(&self, name: &str) -> Digest {
        Digest::of(&std::fs::read(self.folder.path().join(format!("{name}.wasm"))).unwrap())
    }

    /// A configuration file.
    fn config(&self, text: &str) -> String {
        let path = self.folder.path().join("wasmhost.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn host(&self, arguments: &[&str]) -> Host {
        Host::start(self.redis.url(), &self.prefix, arguments)
    }

    /// Runs a job and waits for it.
    fn ask(&self, name: &str, payload: &str) -> Ended {
        self.cli(&["submit", "--type", name, "--payload", payload, "--wait"]).run()
    }
}

/// The command of the hint in an error, between back quotes or to the semicolon.
fn command(said: &str) -> &str {
    let start = said.find("wasmhost grants allow").unwrap_or_else(|| panic!("no command in {said}"));
    said[start..].split([';', '`', '\n']).next().unwrap()
}
