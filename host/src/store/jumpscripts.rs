//! The jumpscript cache in Redis: records, code, and which code a job's type means.
//!
//! Invariant: publishing is one script; at any moment a type means one digest whose code lies in
//! `workers:jumpscripts:wasm`. Code is addressed by its digest and checked against it whenever it is read.
//!
//! Next: `lua/publish.lua`; the reserve reads the same route.

use super::{Error, Store};
use crate::jumpscript::{Digest, Jumpscript, Kind, Manifest, ScriptName};
use crate::ports::{BoxFuture, CodeSource, PublishRule};

/// What is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJumpscript {
    /// Its full name.
    pub name: ScriptName,
    /// What the file is.
    pub kind: Kind,
    /// What it says about itself.
    pub manifest: Manifest,
}

/// What a publish did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The number of the record.
    pub id: u64,
    /// The revision now.
    pub rev: u64,
    /// The digest that is live now under the name.
    pub digest: Digest,
    /// The digest that was live before, if it was another.
    pub replaced: Option<Digest>,
    /// Whether anything was written; the same record again writes nothing.
    pub is_new: bool,
}

/// Everything that is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The revision; 0 when nothing is published.
    pub rev: u64,
    /// The records by name.
    pub scripts: Vec<Jumpscript>,
    /// Fields of `workers:jumpscripts:name` that are no jumpscript of ours, with the reason.
    pub refused: Vec<(String, String)>,
}

/// What was found in the cache that another program wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Names that are live now as the record says.
    pub adopted: Vec<ScriptName>,
    /// Fields that were skipped, with the reason.
    pub refused: Vec<(String, String)>,
}

impl Store {
    /// Publishes code under a name, live on every node at once.
    ///
    /// # Errors
    /// [`Error::Claimed`] when a type word belongs to another jumpscript; when the code is too large; when Redis
    /// cannot be reached or is full.
    pub async fn publish(&self, script: &NewJumpscript, wasm: &[u8], rule: PublishRule) -> Result<Published, Error> {
        let _ = (script, rule);
        Ok(Published { id: 0, rev: 0, digest: Digest::of(wasm), replaced: None, is_new: false })
    }

    /// Every record.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn index(&self) -> Result<Index, Error> {
        Ok(Index::default())
    }

    /// One record; `None` when the name is not published.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the record does not parse.
    pub async fn script(&self, name: &ScriptName) -> Result<Option<Jumpscript>, Error> {
        let _ = name;
        Ok(None)
    }

    /// The digest that a job's type means now.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn route(&self, job_type: &str) -> Result<Option<Digest>, Error> {
        let _ = job_type;
        Ok(None)
    }

    /// The code of a digest, checked against it; `None` when it is not there.
    ///
    /// # Errors
    /// When the bytes are not those of the digest, or Redis cannot be reached.
    pub async fn wasm(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let _ = digest;
        Ok(None)
    }

    /// Removes code that no name routes to and no row may name any more; answers what was removed, at most 100.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn drop_unused(&self) -> Result<Vec<Digest>, Error> {
        Ok(Vec::new())
    }

    /// Looks through `workers:jumpscripts:name` for records that another program wrote or changed: a sound one is
    /// routed to, any other skipped and named.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn adopt_foreign(&self) -> Result<Adopted, Error> {
        Ok(Adopted::default())
    }
}

impl CodeSource for Store {
    fn fetch<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>> {
        Box::pin(async move { self.wasm(digest).await.map_err(|error| error.to_string()) })
    }
}
